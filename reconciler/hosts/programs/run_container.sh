# The supervisor's half for jobs in containers: the image, the client in the foreground, what became of it.
# shellcheck shell=sh
# shellcheck disable=SC1091,SC2034,SC2094,SC2154

choose_engine() { # false, with `why`, where there is none
    find_engine 60
    if [ -z "$engine" ]; then
        why='this host has neither docker nor podman'
        return 1
    fi
    echo "$engine" > engine
    # docker's names: what has no registry is in docker.io, and what has no folder either is in its library.
    if [ "$engine" = podman ] && ! timeout 60 podman image exists "$image"; then
        case $image in
            localhost/* | *.*/* | *:*/*) ;;
            */*) image=docker.io/$image ;;
            *) image=docker.io/library/$image ;;
        esac
    fi
    echo "$image" > image
}

is_here() { timeout 60 "$engine" image inspect "$image" > /dev/null 2>&1; }

is_moving() { # a tag that may name another image by now: `latest`, or none
    case ${image##*/} in *@*) return 1 ;; *:latest) ;; *:*) return 1 ;; esac
}

get_image() { # false, with `why` in the engine's own words, where it cannot be had; or with a cause to end
    had=0
    ! is_here || had=1
    if [ $had = 1 ] && ! is_moving; then return; fi
    (cd ../.. && make_room "$floor") | while read -r gone; do note "the unused image $gone was removed: little free disk"; done
    note "pulling $image"
    printf '0 -\n' > pulling
    rm -f pull.code
    DSTACK_CLAIM=$token setsid sh ./supervisor.sh pull < /dev/null > /dev/null 2>&1 &
    main=$!
    while [ ! -f pull.code ]; do
        check
        [ -z "$cause" ] || break
        wait "$main"
        read_start "$main"
        [ -n "$born" ] || break
    done
    [ -z "$cause" ] || kill_processes . 0
    await "$main" 5
    rm -rf pulling auth
    [ -z "$cause" ] || return 0
    pulled=1
    { read -r pulled < pull.code; } 2>/dev/null
    if [ "$pulled" = 0 ]; then
        [ $had = 1 ] || remember_image
    elif [ $had = 1 ]; then
        note "$image could not be pulled: the one that is here is used"
    else
        why="image $image: $(last_words pulled)"
        return 1
    fi
}

last_words() { # $1 file: the engine's own words for what went wrong
    tail -n 8 "$1" 2>/dev/null | grep -i error | tail -n 1 | head -c 400 | grep . || tail -n 1 "$1" 2>/dev/null | head -c 400
}

remember_image() { # so that it may go again when room is needed
    mkdir -p ../../images && echo "$engine $image" > "../../images/$(printf %s "$image" | cksum | tr ' ' -)"
    return 0
}

pull() { # becomes the pull: its words go to the log, its progress to `pulling`
    recall_container . && read -r image < image
    set --
    if [ -d auth ] && [ "$engine" = docker ]; then # with another configuration docker forgets which daemon was chosen
        DOCKER_HOST=${DOCKER_HOST:-$(docker context inspect --format '{{.Endpoints.docker.Host}}' 2>/dev/null)}
        [ -z "$DOCKER_HOST" ] || export DOCKER_HOST
        set -- docker --config "$PWD/auth" pull "$image"
    elif [ -d auth ]; then
        set -- podman pull --authfile "$PWD/auth/config.json" "$image"
    else
        set -- "$engine" pull "$image"
    fi
    {
        "$@" 2>&1
        echo $? > pull.code.new
    } | {
        layers=0 whole=0
        while IFS= read -r line; do
            printf '[dstack] %.500s\n' "$line" >> log
            printf '%.500s\n' "$line" >> pulled
            case $line in
                *'Pulling fs layer'* | *'Already exists'* | 'Copying blob '*) layers=$((layers + 1)) ;;
            esac
            case $line in
                *'Pull complete'* | *'Already exists'* | 'Copying blob '*' done'* | 'Copying blob '*skipped*) whole=$((whole + 1)) ;;
            esac
            printf '%s %s\n' "$whole" "$layers" > pulling.new && mv -f pulling.new pulling
        done
    }
    mv -f pull.code.new pull.code
}

find_user() { # who runs in the container: "" for root
    who=${user:-$(timeout 20 "$engine" image inspect --format '{{.Config.User}}' "$image" 2>/dev/null)}
    case ${who%%:*} in 0 | root) who='' ;; esac
}

make_volumes() { # folders that are missing; they belong to whoever runs in the container, or anybody may write there
    while read -r source; do
        [ ! -d "$source" ] || continue
        mkdir -p "$source" || return 1
        [ -z "$who" ] || timeout 60 "$engine" run --rm --pull never --network none --log-driver none \
            --security-opt label=disable --label "dstack.claim=$token" --user 0 --entrypoint chown \
            --volume "$source:/workflow" "$image" "$who" /workflow < /dev/null > /dev/null 2>&1 || chmod 1777 "$source"
    done < volumes
}

open_files() { # ours are readable inside; the job's are open to a user of the container who is not root: nobody else of this host gets past the folder above
    rm -rf told && mkdir -m 777 told && chmod -R a+rX box
    [ -z "$who" ] || chmod -R a+rwX work
}

become_container() { # the engine's client, in the foreground; the container has the job's claim as its label
    recall_container . && read -r image < image
    find_user
    open_files
    make_volumes || exit 1
    set -- "$(command -v "$engine")" run --name "dstack-$job-${token%"${token#????????}"}" --pull never \
        --label "dstack.claim=$token" --label "dstack.job=$job" --log-driver none --network host \
        --security-opt label=disable --volume "$here/work:/workflow" --volume "$here/box:/dstack:ro" \
        --volume "$here/told:/dstack/told"
    . ./box.flags
    case $engine:$gpus in
        *:) ;; # `void` is among the flags: no GPU, also where the image asks for all
        docker:*) set -- "$@" --gpus "\"device=$gpus\"" ;;
        podman:*)
            for uuid in $(echo "$gpus" | tr , ' '); do set -- "$@" --device "nvidia.com/gpu=$uuid"; done
            ;;
    esac
    if [ "$begins" = script ]; then
        true > box.shell
        set -- "$@" "$image"
    elif begins_with_shell; then
        true > box.shell
        set -- "$@" --entrypoint sh "$image"
        . ./box.first
        while IFS= read -r word; do set -- "$@" "$word"; done < words
    else
        set -- "$@" "$image"
    fi
    . ./box.args
    set -- "$token" "$folder" /dstack/hostfile '' "$@"
    take_environment "$@"
    shift 4
    exec "$@"
}

begins_with_shell() { # true where the image has a shell to start its entrypoint: the end of the first process ends all
    true > words
    case $begins in words) ;; image) read_words || return 1 ;; *) return 1 ;; esac
    timeout 60 "$engine" run --rm --pull never --network none --log-driver none --label "dstack.claim=$token" \
        --entrypoint sh "$image" -c : > /dev/null 2>&1
}

read_words() { # words: what the image runs by itself, one a line; false where that cannot be told, or has to be the first
    counted=$(timeout 20 "$engine" image inspect --format '{{len .Config.Entrypoint}} {{len .Config.Cmd}}' "$image") || return 1
    timeout 20 "$engine" image inspect --format \
        '{{range .Config.Entrypoint}}{{println .}}{{end}}{{range .Config.Cmd}}{{println .}}{{end}}' "$image" > words.new || return 1
    sed '$d' words.new > words # println, and one more at the end of the answer
    [ "$(wc -l < words)" -eq $((${counted% *} + ${counted#* })) ] || return 1 # a word of several lines
    { read -r word < words; } 2> /dev/null || return 1
    case ${word##*/} in init | my_init | runit-init | systemd | s6-*) return 1 ;; esac
}

probe_container() { # in the container, where it ends in time whatever becomes of us
    find_container . '' || exit 1
    # shellcheck disable=SC2016  # for the shell inside
    exec "$engine" exec "${boxes%%[!0-9a-f]*}" sh -c \
        'sh /dstack/probe & asked=$!; (sleep "$0"; kill -KILL $asked) > /dev/null 2>&1 & wait $asked' "$probe_timeout"
}

settle_container() { # cause, where the engine knows better than the exit code; then it is removed
    find_container . -a
    box=${boxes%%[!0-9a-f]*} state=
    [ -z "$box" ] || state=$(timeout 60 "$engine" inspect --format '{{.State.OOMKilled}} {{.State.StartedAt}}' "$box" 2>/dev/null)
    [ ! -f told/oom ] || state="true $state"
    case $cause:$code:$state in
        :0:*) ;;
        :*:true\ *) cause=oom:$memory ;;
        :12[567]: | :12[567]:*\ 0001-*) # it never began: the last words of the log are the engine's
            cause=container
            last_words log > why
            ;;
    esac
    tries=0
    until remove_container . || [ $tries -ge 5 ]; do
        tries=$((tries + 1))
        rest $tries
    done
    own_files .
}
