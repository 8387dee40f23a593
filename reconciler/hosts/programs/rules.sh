# What every program on a host knows. POSIX sh on Linux; functions answer in variables, so that a look forks nothing.
# shellcheck shell=sh
# shellcheck disable=SC2034

read_uptime() { # up: whole seconds since boot, suspended time included: no one can set this clock
    read -r up _ < /proc/uptime
    up=${up%%.*}
}

read_boot() { # boot: what no other start of this machine had. Containers share their kernel's boot id: the program that
    # begins one writes an id of its own there, at each start, as root
    boot=
    [ ! -f /run/dstack/incarnation ] || read -r boot < /run/dstack/incarnation
    case $boot in ????????-????-????-????-????????????) ;; *) read -r boot < /proc/sys/kernel/random/boot_id ;; esac
}

read_start() { # $1 pid -> born: its start in clock ticks since boot, "" where there is none: tells a reused pid; parent
    born='' parent=''
    { read -r stat < "/proc/$1/stat"; } 2>/dev/null || return 0
    stat=${stat##*") "}
    # shellcheck disable=SC2086
    set -- $stat
    case $1 in Z | X) return 0 ;; esac
    parent=$2
    shift 19
    born=$1
}

digits() { # $1 text -> value: $2 where that is no number. A job may have put anything there
    case $1 in '' | *[!0-9]* | ?????????????*) value=$2 ;; *) value=$1 ;; esac
}

supervised() { # $1 job folder: true while its supervisor lives
    [ -f "$1/pid" ] && { read -r pid since where < "$1/pid"; } 2>/dev/null || return 1 # a pipe would be waited for
    read_boot
    [ "$where" = "$boot" ] || return 1
    read_start "$pid"
    [ -n "$born" ] && [ "$born" = "$since" ]
}

recall() { # $1 job folder -> token session leader group: what cannot be read (any more) keeps its value
    if [ -f "$1/token" ] && { read -r found < "$1/token"; } 2>/dev/null; then token=$found; fi
    if [ -f "$1/cgroup" ] && { read -r found < "$1/cgroup"; } 2>/dev/null; then group=$found; fi
    if [ -f "$1/session" ] && { read -r found other < "$1/session"; } 2>/dev/null; then session=$found leader=$other; fi
}

find_processes() { # $1 job folder -> pids: every process of the job, by its claim, its session and its cgroup
    pids=
    recall "$1"
    [ -n "$token" ] || return 0
    if [ -n "$session" ]; then
        read_start "$session"
        [ -z "$born" ] || [ "$born" = "$leader" ] || session='' # the number was given out again
    fi
    pids=$({
        grep -lszF "DSTACK_CLAIM=$token" /proc/[0-9]*/environ
        [ -z "$session" ] || grep -lsE "^[0-9]+ \(.*\) [^ZX] [0-9]+ [0-9]+ $session " /proc/[0-9]*/stat
        [ -z "$group" ] || sed 's|.*|/proc/&/|' "$group/cgroup.procs" 2>/dev/null
    } | sed -n 's|^/proc/\([0-9]*\)/.*|\1|p' | sort -un | tr '\n' ' ')
}

rest() { # $1 the round, from 1: short at first; not every sleep takes fractions
    case $1 in 1) pause=0.02 ;; 2) pause=0.1 ;; 3 | 4 | 5) pause=0.3 ;; *) pause=1 ;; esac
    sleep $pause 2>/dev/null || sleep 1
}

kill_processes() { # $1 job folder, $2 rounds or 0: SIGKILL until none is left; false where some still are
    rounds=0
    find_processes "$1"
    while [ -n "$pids" ]; do
        rounds=$((rounds + 1))
        [ "$2" -eq 0 ] || [ "$rounds" -le "$2" ] || return 1
        # shellcheck disable=SC2086
        kill -KILL $pids 2>/dev/null
        rest $rounds
        find_processes "$1"
    done
}

end_left() { # $1 our folder: ends the jobs whose folder was removed under them, by the paths that they were given
    rounds=0
    while left=$(grep -lszF "DSTACK_MPI_HOSTFILE=$1/host/jobs/" /proc/[0-9]*/environ | sed 's|^/proc/\([0-9]*\)/.*|\1|'); do
        kept=
        for one in $left; do
            job=$(tr '\0' '\n' < "/proc/$one/environ" 2>/dev/null | sed -n "s|^DSTACK_MPI_HOSTFILE=\(.*\)/hostfile\$|\1|p")
            [ -n "$job" ] && [ ! -d "$job" ] && kept="$kept $one"
        done
        [ -n "$kept" ] || break
        rounds=$((rounds + 1))
        [ "$rounds" -le 10 ] || return 1
        # shellcheck disable=SC2086
        kill -KILL $kept 2>/dev/null
        rest $rounds
    done
    for one in docker podman; do
        command -v $one > /dev/null 2>&1 || continue
        # A first look of podman's would make folders in a home that has never had a container.
        [ $one = docker ] || [ -d "${HOME:-}/.local/share/containers" ] || [ "$(id -u)" = 0 ] || continue
        for box in $(timeout 20 $one ps -q --filter label=dstack.claim 2>/dev/null); do
            job=$(timeout 20 $one inspect --format '{{range .Mounts}}{{.Source}} {{end}}' "$box" 2>/dev/null |
                tr ' ' '\n' | sed -n "s|^\($1/host/jobs/[^/]*\)/work\$|\1|p")
            [ -z "$job" ] || [ -d "$job" ] || timeout 60 $one rm -f "$box" > /dev/null 2>&1 || return 1
        done
    done
}

drop_cgroup() { # $1 job folder
    recall "$1"
    [ -z "$group" ] || rmdir "$group" 2>/dev/null
    return 0
}

forget_secrets() { # $1 job folder: whatever the user gave, but for the files and the log
    rm -rf "$1/env" "$1/env.reserved" "$1/script" "$1/probe" "$1/order" "$1/bundle.tar.gz" "$1/restore.tar.gz" "$1/pipe" "$1/auth"
    rm -rf "$1/told" "$1/box" "$1/box.flags" "$1/box.args" "$1/box.first" "$1/words" "$1/volumes"
}

write_end() { # $1 job folder, $2 the line, once; over space reserved at the start: a full disk loses no exit code
    [ ! -f "$1/end" ] || return 0
    [ -f "$1/reserve" ] || true > "$1/reserve"
    printf '%s\n' "$2" 1<> "$1/reserve" && mv -f "$1/reserve" "$1/end"
}

pass_fence() { # $1 generation, or generation.seal: 75 where a higher one has been here, 74 where nothing can be written
    read_fence
    [ "$highest" -le "${1%%.*}" ] || { fenced; return 75; }
    mkdir -p fence && true > "fence/$1" || return 74
    read_fence
    [ "$highest" -le "${1%%.*}" ] || { fenced; return 75; }
    for mark in $marks; do # the highest is kept for ever
        [ "${mark%%.*}" -ge "${1%%.*}" ] || rm -rf "fence/$mark"
    done
}

read_fence() { # highest; marks: the names of all
    highest=0 marks=''
    for mark in fence/*; do
        mark=${mark#fence/}
        case $mark in *[!0-9a-f.]*) continue ;; esac
        case ${mark%%.*} in '' | *[!0-9]* | ????????????????*) continue ;; esac # what no counter reaches is not ours
        [ ${#marks} -gt 4000 ] || marks="$marks $mark"
        [ "${mark%%.*}" -le "$highest" ] || highest=${mark%%.*}
    done
}

fenced() { echo "fenced $highest$marks"; } # by which: whoever asked can tell those that jobs made
