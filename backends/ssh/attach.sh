# $1 our folder, $2 instance id, $3 generation; stdin: the claim. The rules of a host's jobs come before this text.
# Exits: 0 it is ours, 74 cannot write, 75 a newer generation was here, 80 somebody's (whose, on stdout), 81 processes that
# do not end, 1 cannot.
# The claim is a hard link: it appears whole, once, whoever else tries.
# shellcheck shell=sh
umask 077
home=${HOME:?}
[ -f "$home/$1/claim" ] || end_left "$home/$1" || exit 81
mkdir -p "$home/$1/host" || exit 1
staged=$home/$1/.claim.$$.$2
if ! cat > "$staged" || ! grep -qx "id $2" "$staged"; then # a full disk, a cut line
    rm -f "$staged"
    exit 1
fi
(cd "$home/$1/host" && pass_fence "$3") || { fence=$? && rm -f "$staged" && exit $fence; }
if ! ln "$staged" "$home/$1/claim" 2>/dev/null && ! grep -qx "id $2" "$home/$1/claim"; then
    rm -f "$staged"
    [ -f "$home/$1/claim" ] || exit 1
    cat "$home/$1/claim"
    exit 80
fi
rm -f "$staged"
mkdir -p "$home/$1/host" || exit 1 # again: whoever let go just now removed it under us
date +%s | sed "s/\$/ $2/" > "$home/$1/tick"
