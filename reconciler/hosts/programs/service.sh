# The supervisor's half for services: their probe, whose answer counts, and whether they keep ending.
# shellcheck shell=sh
# shellcheck disable=SC2154,SC2034

listeners() { # $1 port -> inodes of the sockets that listen on it, one a line
    sed -nE "s/^ *[0-9]+: [0-9A-F]+:$(printf %04X "$1") [0-9A-F]+:0000 0A( +[^ ]+){5} +([0-9]+) .*/\2/p" \
        /proc/net/tcp /proc/net/tcp6 2> /dev/null
}

holds() { # $1 pid, $2 pattern of sockets: true where it has one of them open
    # shellcheck disable=SC2010
    ls -l "/proc/$1/fd" 2> /dev/null | grep -qE "socket:\[($2)\]"
}

answered_by_another() { # $1 port: true only where a process that is none of this job's is seen to listen there
    sockets=$(listeners "$1" | tr '\n' '|')
    sockets=${sockets%|}
    [ -n "$sockets" ] || return 1
    find_processes .
    for one in $pids; do
        ! holds "$one" "$sockets" || return 1
    done
    inside=$(container_space)
    [ "$inside" != - ] || return 1
    for one in /proc/[0-9]*; do
        one=${one#/proc/}
        holds "$one" "$sockets" || continue
        { read -r name < "/proc/$one/comm"; } 2> /dev/null || name=''
        case $name in docker-proxy | rootlessport*) continue ;; esac # on behalf of a container that may be the job's
        case " $pids " in *" $one "*) continue ;; esac
        [ -z "$inside" ] || [ "$(readlink "/proc/$one/ns/pid" 2> /dev/null)" != "$inside" ] || continue
        return 0
    done
    return 1
}

container_space() { # the process namespace of the job's container; `-` where it has one that cannot be told
    [ -n "$image" ] || return 0
    first=
    recall_container . && find_container . '' &&
        first=$(timeout 10 "$engine" inspect --format '{{.State.Pid}}' "${boxes%% *}" 2> /dev/null)
    [ -n "$first" ] && readlink "/proc/$first/ns/pid" 2> /dev/null || echo -
}

tell_failing() { # after an end of the commands that nobody asked for
    printf '%s %s %s\n' "${code:--}" "${cause:-exit}" "$restarts" > failing.new && mv -f failing.new failing
}

watch_failing() { # over once its probe succeeds, or, without one, after a good minute
    [ -f failing ] || return 0
    if [ -f ready ] || { [ ! -f probe ] && [ $((up - began_go)) -ge 60 ]; }; then rm -f failing; fi
}
