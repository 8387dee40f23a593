# $1 job, $2 token, $3 generation, $4 bundle digest or "", $5 `restore` where artifacts are put back, else "";
# stdin: the job's folder as a tar.
# Exits: 0 started, or was already, 74 cannot write, 75 fenced, 76 the host ends, 77 the bundle is not here, 78 a tool is
# missing, 81 those artifacts are not here.
# shellcheck shell=sh
job=$1 token=$2 bundle=$4
staged=stage/$job.$token sent=stage/$job.$token.files restore=stage/$job.$token.restore.files
for tool in setsid tar grep sed sort tr mkfifo; do
    command -v "$tool" > /dev/null || { echo "this host has no $tool" >&2; exit 78; }
done
umask 077
mkdir -p claims spent jobs stage bundles || exit 1
[ ! -e ending ] || exit 76
pass_fence "$3" || exit
tell_held() { # $1 job folder: how far one that is held back is; not for long, where an image is pulled
    [ -f "$1/hold" ] || return 0
    tries=0
    while [ $tries -lt 20 ] && [ ! -f "$1/staged" ] && [ ! -f "$1/end" ]; do
        tries=$((tries + 1))
        sleep 0.1 2>/dev/null || sleep 1
    done
    if { read -r port < "$1/staged"; } 2>/dev/null; then echo "staged $port"; fi
}
if [ -d "claims/$job" ] || [ -d "spent/$job" ]; then
    tell_held "jobs/$job"
    exit 0
fi
[ -z "$bundle" ] || [ -f "$sent" ] || [ -f "bundles/$bundle" ] || exit 77
[ -z "${5-}" ] || [ -f "$restore" ] || exit 81
give_up() { rm -rf "$staged" "$sent" "$restore"; exit "$1"; }
mkdir "$staged" && tar -xf - -C "$staged" && [ -f "$staged/complete" ] || give_up 1
printf '%s\n' "$token" > "$staged/token" || give_up 1
keep() { ln "$1" "$staged/bundle.tar.gz" 2>/dev/null || cp "$1" "$staged/bundle.tar.gz"; }
if [ -n "$bundle" ] && [ -f "$sent" ]; then
    { keep "$sent" && mv -f "$sent" "bundles/$bundle"; } || give_up 1
elif [ -n "$bundle" ] && ! keep "bundles/$bundle"; then
    [ -f "bundles/$bundle" ] || give_up 77 # removed meanwhile with the last job that had it
    give_up 1
fi
[ -z "${5-}" ] || mv -f "$restore" "$staged/restore.tar.gz" || give_up 1
# The claim: whoever makes this folder starts the job, once for ever.
if ! mkdir "claims/$job" 2>/dev/null; then
    [ -d "claims/$job" ] && give_up 0
    mkdir "claims/$job" || give_up 1
fi
if [ -d "spent/$job" ]; then
    rmdir "claims/$job"
    give_up 0
fi
mv "$staged" "jobs/$job" && cd "jobs/$job" || exit 1
setsid sh ./supervisor.sh "$job" < /dev/null > /dev/null 2>&1 &
tell_held .
exit 0
