# $1 job, $2 generation. Exits: 0 gone for ever, 75 fenced, 79 still running.
# shellcheck shell=sh
# shellcheck disable=SC2034,SC2154
umask 077
read_fence # and writes nothing yet: it is how a full disk gets room
[ "$highest" -le "${2%%.*}" ] || { fenced; exit 75; }
mkdir -p spent jobs claims || exit 1
if [ -d "claims/$1" ] && [ ! -f "jobs/$1/end" ] && [ ! -d "spent/$1" ]; then exit 79; fi
token='' session='' leader='' group=''
if [ -d "jobs/$1" ] && recall_container "jobs/$1"; then
    remove_container "jobs/$1" || { echo "its container cannot be removed: $engine does not answer" >&2; exit 1; }
    own_files "jobs/$1"
fi
chmod -R u+rwx "jobs/$1" 2>/dev/null
if ! mkdir -p "spent/$1" 2>/dev/null; then # a full disk: first make room
    rm -rf "jobs/$1/work" "jobs/$1/log"
    mkdir -p "spent/$1" || exit 1
fi
rm -rf "jobs/$1" "claims/$1" || exit 1
if [ -f cleaned ]; then # its machine's dead-man counts from here
    read_uptime && read_boot
    printf '%-255s\n' "$boot $up" 1<> cleaned
fi
for other in jobs/*; do
    [ -d "$other" ] || rm -f bundles/*
    break
done
