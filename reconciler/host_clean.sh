# $1 job. Exits: 0 gone for ever, 79 still running.
# shellcheck shell=sh
umask 077
mkdir -p spent jobs claims || exit 1
if [ -d "claims/$1" ] && [ ! -f "jobs/$1/end" ] && [ ! -d "spent/$1" ]; then exit 79; fi
chmod -R u+rwx "jobs/$1" 2>/dev/null
if ! mkdir -p "spent/$1" 2>/dev/null; then # a full disk: first make room
    rm -rf "jobs/$1/work" "jobs/$1/log"
    mkdir -p "spent/$1" || exit 1
fi
rm -rf "jobs/$1" "claims/$1" || exit 1
for other in jobs/*; do
    [ -d "$other" ] || rm -f bundles/*
    break
done
