# Containers of jobs, by docker or podman. Read after rules.sh; functions answer in variables.
# A container is found by its label, `dstack.claim`: whatever else was killed, it can be ended and proven gone.
# shellcheck shell=sh
# shellcheck disable=SC2034,SC2094,SC2154

engine_patience=60 # seconds for one answer of the engine; who must answer soon himself has less

find_engine() { # $1 seconds of patience -> engine: docker where its daemon is on this machine, else podman, else ""
    engine=docker
    case ${DOCKER_HOST-} in
        '' | unix://*)
            # A `docker` that is podman's shim would not know docker's own flags.
            case $(timeout "$1" docker --version 2>/dev/null) in
                '' | *podman*) ;;
                *)
                    timeout "$1" docker ps -q > /dev/null 2>&1
                    case $? in 0 | 124 | 143) return 0 ;; esac # a daemon that takes longer is there
                    ;;
            esac
            ;;
    esac
    engine=podman
    timeout "$1" podman --version > /dev/null 2>&1 || engine=
}

recall_engine() { # runtime: what find_engine gives, asked again after 10 minutes, after one where there was none
    runtime=none read_at=0 where=
    [ ! -f runtime ] || { read -r where read_at runtime < runtime; } 2>/dev/null
    digits "$read_at" 0 && read_at=$value
    case $runtime in docker | podman) ;; *) runtime=none ;; esac
    life=600
    [ "$runtime" != none ] || life=60
    [ "$where" != "$boot" ] || [ $((up - read_at)) -ge "$life" ] || return 0
    find_engine 5 # a daemon that hangs must not make its host unreachable
    runtime=${engine:-none}
    printf '%s %s %s\n' "$boot" "$up" "$runtime" > runtime.new && mv -f runtime.new runtime
}

recall_container() { # $1 job folder -> engine: "" where it has no container
    engine=
    [ ! -f "$1/engine" ] || { read -r engine < "$1/engine"; } 2>/dev/null
    [ -n "$engine" ]
}

find_container() { # $1 job folder, $2 more flags -> boxes: its running containers; false where the engine does not say
    recall "$1"
    # shellcheck disable=SC2086
    boxes=$(timeout "$engine_patience" "$engine" ps -q $2 --filter "label=dstack.claim=$token" 2>/dev/null)
}

term_container() { # $1 job folder: once to each of its processes, also where we may not see them; false: not yet
    true > "$1/box/stop" 2> /dev/null # its first process then waits for all others
    find_container "$1" '' && [ -n "$boxes" ] || return 1
    for box in $boxes; do
        # Nothing to tell yet where its shell is about to begin; without a shell, its first process is told alone.
        timeout 20 "$engine" exec --user 0 "$box" sh -c 'kill -TERM -1' > /dev/null 2>&1 || [ ! -f "$1/box.shell" ] || return 1
        timeout 20 "$engine" kill --signal TERM "$box" > /dev/null 2>&1
    done
}

kill_container() { # $1 job folder; false where one of its containers may still run
    find_container "$1" '' || return 1
    for box in $boxes; do
        timeout "$engine_patience" "$engine" kill --signal KILL "$box" > /dev/null 2>&1
    done
    find_container "$1" '' && [ -z "$boxes" ]
}

remove_container() { # $1 job folder; false where one of its containers may still be there
    find_container "$1" -a || return 1
    for box in $boxes; do
        timeout "$engine_patience" "$engine" rm -f "$box" > /dev/null 2>&1
    done
    find_container "$1" -a && [ -z "$boxes" ]
}

own_files() { # $1 job folder: what a container left there becomes ours again
    mine=$(id -u):$(id -g)
    [ "${mine%:*}" != 0 ] && [ -d "$1/work" ] || return 0
    if [ "$engine" = podman ]; then
        podman unshare chown -R 0:0 "$1/work" 2>/dev/null
        return 0
    fi
    [ -n "$(find "$1/work" ! -user "${mine%:*}" -print 2>/dev/null | head -n 1)" ] || return 0
    [ -f "$1/image" ] && { read -r used < "$1/image"; } 2>/dev/null || return 0
    folder=$(cd "$1/work" && pwd) || return 0
    timeout $((engine_patience * 10)) "$engine" run --rm --pull never --network none --log-driver none --security-opt label=disable \
        --label "dstack.claim=$token" --user 0 --entrypoint chown --volume "$folder:/workflow" \
        "$used" -R "$mine" /workflow > /dev/null 2>&1
}

read_free() { # free: MiB of the folder with the least, of ours and the engine's
    free=
    for place in . "$(
        case $engine in
            docker) timeout 20 docker info --format '{{.DockerRootDir}}' 2>/dev/null ;;
            podman) timeout 20 podman info --format '{{.Store.GraphRoot}}' 2>/dev/null ;;
        esac
    )"; do
        [ -n "$place" ] || continue
        left=$(df -Pk "$place" 2>/dev/null | { read -r _ && read -r _ _ _ left _ && echo "$left"; })
        case $left in '' | *[!0-9]*) continue ;; esac
        left=$((left / 1024))
        [ -n "$free" ] && [ "$free" -le "$left" ] || free=$left
    done
}

make_room() { # $1 MiB that should be free: images that we pulled and no job here uses go, the oldest first
    [ "$1" -gt 0 ] && [ -n "$engine" ] || return 0
    # shellcheck disable=SC2045  # names of digits, and only ls sorts by time
    for file in $(ls -tr images 2>/dev/null); do
        read_free
        [ -n "$free" ] && [ "$free" -lt "$1" ] || return 0
        [ -f "images/$file" ] || continue
        { read -r with used < "images/$file"; } 2>/dev/null || continue
        if [ "$with" != "$engine" ] || wanted "$used"; then continue; fi
        # Never by force: what any container uses, the engine keeps.
        if timeout 120 "$engine" rmi "$used" > /dev/null 2>&1; then
            rm -f "images/$file"
            echo "$used"
        elif ! timeout 20 "$engine" image inspect "$used" > /dev/null 2>&1; then
            rm -f "images/$file"
        fi
    done
}

wanted() { # $1 image: a job here that has not ended names it
    for one in jobs/*/image; do
        [ -f "$one" ] && [ ! -f "${one%/image}/end" ] || continue
        named=
        { read -r named < "$one"; } 2>/dev/null
        [ "$named" != "$1" ] || return 0
    done
    return 1
}
