# $1 job, $2 generation, $3 port. Exits: 0 released, or was already, 74 cannot write, 75 fenced, 80 it is not there or waits no more.
# shellcheck shell=sh
# shellcheck disable=SC2154
umask 077
pass_fence "$2" || exit
folder=jobs/$1
[ -f "$folder/hold" ] && [ ! -d "spent/$1" ] || exit 80
if [ ! -f "$folder/go" ]; then
    for over in end stop abort; do [ ! -f "$folder/$over" ] || exit 80; done
    # A link is made once: by us, or by its supervisor, which closes the door when it has waited for long enough.
    echo "$3" > "$folder/go.$$" || exit 1
    ln "$folder/go.$$" "$folder/go" 2>/dev/null
    rm -f "$folder/go.$$"
fi
[ -f "$folder/go" ] && { read -r port < "$folder/go"; } 2>/dev/null && [ "$port" != - ] || exit 80
if supervised "$folder"; then kill -USR1 "$pid" 2>/dev/null; fi
exit 0
