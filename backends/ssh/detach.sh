# $1 our folder, $2 project or *, $3 instance id or *. Ends every job of the claim that it names, removes our folder and the
# images that we pulled, and leaves a word of it until its project has heard it. $4 generation, or nothing.
# Exits: 0 gone, or never there; 75 a newer generation was here; 81 processes that do not end.
# The rules of a host's jobs come before this text.
# shellcheck shell=sh
# shellcheck disable=SC2154,SC2034
umask 077
base=${HOME:?}/$1 project=$2 id=$3
[ -f "$base/claim" ] || exit 0
[ "$project" = '*' ] || grep -qx "project $project" "$base/claim" || exit 0
[ "$id" = '*' ] || grep -qx "id $id" "$base/claim" || exit 0
owner=$(sed -n 's/^project //p' "$base/claim") was=$(sed -n 's/^id //p' "$base/claim")
if cd "$base/host" 2>/dev/null; then
    read_fence
    [ -z "${4:-}" ] || [ "$highest" -le "$4" ] || { fenced; exit 75; }
    true > ending # from now on nothing starts, and each supervisor ends its job when it wakes up
    read_uptime
    until=$((up + 20)) left=1
    while [ -n "$left" ]; do
        left='' patient=
        read_uptime
        [ "$up" -lt "$until" ] && patient=1
        for job in jobs/*; do
            [ -d "$job" ] || continue
            token='' session='' leader='' group=''
            if supervised "$job"; then
                left=1
                if [ -n "$patient" ]; then kill -TERM "$pid" 2>/dev/null; else kill -KILL "$pid" 2>/dev/null; fi
            elif ! kill_processes "$job" 3; then
                left=1
            else
                drop_cgroup "$job"
            fi
        done
        [ -z "$left" ] || sleep 0.2 2>/dev/null || sleep 1
        [ "$up" -lt $((until + 10)) ] || exit 81
    done
    pulled=$(cat images/* 2>/dev/null)
    cd "$base" || exit 1
    chmod -R u+rwX host 2>/dev/null
    rm -rf host || exit 1
fi
end_left "$base" || exit 81
# The images that we pulled go, too, but for those that a container uses; nobody waits for that.
# shellcheck disable=SC2016 # the shell that it starts expands them
[ -z "${pulled:-}" ] || printf '%s\n' "$pulled" | setsid sh -c 'while read -r engine image; do
    case $engine in docker | podman) timeout 600 "$engine" rmi "$image" < /dev/null ;; esac
done' > /dev/null 2>&1 &
rm -f "$base/tick" "$base"/.claim.*
[ "$id" = '*' ] || printf '%s\n' "$owner" > "$base/ended-$was"
rm -f "$base/claim"
rmdir "$base" "${base%/*}" 2>/dev/null
exit 0
