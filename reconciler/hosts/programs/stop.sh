# $1 job, $2 generation, $3 stop | abort; stdin: why, for the log. Exits: 0 asked for, or over already, 74 cannot write, 75 fenced.
# shellcheck shell=sh
# shellcheck disable=SC2154
umask 077
mkdir -p claims spent jobs || exit 1
pass_fence "$2" || exit
[ ! -d "spent/$1" ] || exit 0
folder=jobs/$1
if mkdir "claims/$1" 2>/dev/null; then # it never came here: now it never will
    mkdir -p "$folder/begun" && write_end "$folder" "ended 143 never - $(date +%s) 0"
    exit
fi
[ ! -f "$folder/end" ] || exit 0
[ -d "$folder" ] || exit 1
if [ ! -f "$folder/$3" ]; then # an empty file: even a full disk has room for it
    true > "$folder/$3" || exit 1
    { printf '\n[dstack] %s: ' "$3"; head -c 500; echo; } >> "$folder/log"
fi
if supervised "$folder"; then kill -TERM "$pid" 2>/dev/null; fi
exit 0
