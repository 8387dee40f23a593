# $1: seconds of uptime after which a claim whose supervisor never began is lost; $2 the folder of its dead-man, `-` where
# it has none; $3 the lease that this tick leaves, `-` for none; $4 the time by the clock of whoever ticks; then the
# UUIDs of the GPUs that must be there. Stdout: one fact a line, `.` last.
# shellcheck shell=sh
# shellcheck disable=SC2154,SC2034
umask 077
read_uptime
read_boot
read_fence
patience=$1 deadman=$2 lease=$3 told=$4 this_boot=$boot engine_patience=8
shift 4
machine=
{ read -r machine < /etc/machine-id; } 2>/dev/null
echo "dstack-host 1"
echo "host $boot $up $(date +%s) $highest ${machine:--}"
echo "fences$marks"
recall_engine
echo "runtime $runtime"

tell_foreign() { # $1… our GPUs: the processes on them that are none of our jobs'
    busy=$(timeout 20 nvidia-smi --query-compute-apps=gpu_uuid,pid,used_memory --format=csv,noheader,nounits 2>/dev/null)
    case $busy in GPU-* | MIG-*) ;; *) return 0 ;; esac
    ours=' '
    for folder in jobs/*; do
        [ -d "$folder" ] || continue
        token='' session='' leader='' group=''
        find_processes "$folder"
        ours="$ours$folder $pids"
    done
    echo "$busy" | while IFS=', ' read -r uuid one used; do
        case $one in '' | *[!0-9]*) continue ;; esac
        case " $* " in *" $uuid "*) ;; *) continue ;; esac
        case "$ours " in *" $one "*) continue ;; esac
        # What we cannot see (it ended, or we are in a container) may be our own job's, where there is one.
        [ -d "/proc/$one" ] || [ "$ours" = ' ' ] || continue
        case $used in '' | *[!0-9]*) used=- ;; esac
        at=$(echo "$there" | sed -n "/$uuid/{=;q;}")
        echo "foreign $((${at:-1} - 1)) $one $used"
    done
}

if [ $# -gt 0 ]; then
    there=$(timeout 20 nvidia-smi --query-gpu=uuid --format=csv,noheader 2>/dev/null)
    for uuid; do
        case $there in *"$uuid"*) ;; *) echo "missing $uuid" ;; esac
    done
    tell_foreign "$@"
fi

doubted() { # $1 claim: true from the second look on, `patience` later, or at once after a reboot
    if [ -f "$1/doubt" ] && { read -r was at < "$1/doubt"; } 2>/dev/null; then
        digits "$at" 0 && at=$value
        [ "$was" != "$this_boot" ] || [ $((up - at)) -ge "$patience" ]
    else
        printf '%s %s\n' "$this_boot" "$up" > "$1/doubt"
        return 1
    fi
}

lose() { # $1 job folder: its end is written once nothing of it lives; false where something still does
    was='' token='' session='' leader='' group=''
    [ ! -f "$1/pid" ] || { read -r _ _ was < "$1/pid"; } 2>/dev/null
    if [ "$was" = "$this_boot" ]; then kill_processes "$1" 7 || return 1; fi
    if recall_container "$1"; then # after a reboot none runs, whatever the engine says
        remove_container "$1" || [ "$was" != "$this_boot" ] || return 1
        own_files "$1"
    fi
    [ ! -f "$1/end" ] || return 0
    drop_cgroup "$1"
    forget_secrets "$1"
    began=-
    [ ! -f "$1/started" ] || { read -r began _ < "$1/started"; } 2>/dev/null
    digits "$began" -
    write_end "$1" "lost - lost $value - 0"
}

tell_state() { # $1 job folder -> ready began restarts, as numbers or `-`
    ready=- restarts=0 began=-
    if [ -f "$1/ready" ]; then { read -r ready < "$1/ready"; } 2>/dev/null; elif [ -f "$1/probe" ]; then ready=0; fi
    [ ! -f "$1/restarts" ] || { read -r restarts < "$1/restarts"; } 2>/dev/null
    [ ! -f "$1/started" ] || { read -r began _ < "$1/started"; } 2>/dev/null
    case $ready in 0 | 1) ;; *) ready=- ;; esac
    digits "$restarts" 0 && restarts=$value
    digits "$began" - && began=$value
}

tell_pulling() { # $1 job, $2 its folder
    [ -f "$2/pulling" ] && { read -r whole layers < "$2/pulling"; } 2>/dev/null || return 0
    digits "$whole" - && whole=$value
    digits "$layers" - && layers=$value
    echo "pulling $1 $whole $layers"
}

tell_failing() { # $1 job, $2 its folder: how the commands of a service ended when they were last begun again
    [ -f "$2/failing" ] && { read -r code cause times < "$2/failing"; } 2>/dev/null || return 0
    digits "$code" - && code=$value
    digits "$times" 0 && times=$value
    case $cause in '' | *[!a-z0-9:-]* | ?????????????????????????????????*) cause='exit' ;; esac
    echo "failing $1 $code $cause $times"
}

tell_held() { # $1 job, $2 its folder
    port=-
    [ ! -f "$2/staged" ] || { read -r port < "$2/staged"; } 2>/dev/null
    { true > "$2/looked"; } 2>/dev/null
    digits "$port" -
    echo "held $1 $value"
}

written_end() { # $1… the words of an end: true where a supervisor wrote it. A job may write what it likes
    [ $# -eq 6 ] && [ ${#3} -le 33 ] || return 1
    case $1:$6 in ended:[01] | lost:[01]) ;; *) return 1 ;; esac
    case $2 in - | [0-9] | [0-9][0-9] | [0-9][0-9][0-9]) ;; *) return 1 ;; esac
    case ${3%%:*} in '' | *[!a-z-]* | ?????????????????????*) return 1 ;; esac
    for number in "$4" "$5" "${3#"${3%%:*}"}"; do
        digits "${number#:}" - && case $number in - | '') ;; *) [ "$value" != - ] || return 1 ;; esac
    done
}

tell() { # $1 job, $2 its folder
    name=-
    [ ! -f "$2/name" ] || { read -r name < "$2/name"; } 2>/dev/null
    case $name in [!a-z]* | *[!a-z0-9-]*) name=- ;; esac
    [ -n "$name" ] && [ ${#name} -le 61 ] || name=-
    if [ ! -f "$2/end" ]; then
        tell_pulling "$1" "$2"
        tell_failing "$1" "$2"
        tell_state "$2"
        if supervised "$2"; then
            if [ -f "$2/hold" ] && [ ! -f "$2/go" ]; then tell_held "$1" "$2"; fi
            echo "job $1 running $ready $began $restarts $name"
            return
        elif [ ! -d "$2/begun" ] && ! { doubted "claims/$1" && mkdir -p "$2" && mkdir "$2/begun" 2>/dev/null; }; then
            echo "job $1 running - - 0 $name"
            return
        elif supervised "$2" || ! lose "$2"; then # it may have begun since we asked: who it is stands there before that
            echo "job $1 running $ready $began $restarts $name"
            return
        fi
    fi
    end=
    [ ! -f "$2/end" ] || { read -r end < "$2/end"; } 2>/dev/null
    set -f # nothing of it lives any more: where no end can be read, it left none
    # shellcheck disable=SC2086
    written_end $end || end="lost - lost - - 0"
    set +f
    echo "job $1 $end $name"
    if [ -f "$2/why" ] && { read -r why < "$2/why"; } 2>/dev/null; then echo "why $1 $why"; fi
}

for claim in claims/*; do
    job=${claim#claims/}
    case $job in '' | -* | *[!a-z0-9-]*) continue ;; esac # none of ours
    [ -d "$claim" ] && [ ${#job} -le 101 ] && [ ! -d "spent/$job" ] || continue
    tell "$job" "jobs/$job"
done

renew() { # $1 rule, $2 span, $3 how long it has been idle by the clock of whoever ticks, $4 hold, $5 lifetime
    idle_for=$3 ahead=$((told - $(date +%s)))
    # By a clock that is ahead everything has been idle for too long. By one that is behind it only lives for longer.
    [ "$ahead" -le 60 ] || idle_for=$((idle_for > ahead ? idle_for - ahead : 0))
    # Last of all, and over what is there: a full disk does not stop it. Who cannot be looked at is not kept.
    [ -f lease ] && [ ! -L lease ] || rm -rf lease # a job may have put anything there
    printf '%-255s\n' "$this_boot $up $1 $2 $idle_for $4 $5" 1<> lease
}

tell_timer() { # whether the dead-man still asks each minute, and is what it was: root's jobs can stop and change it
    last='' since=- whole=ok LoadState=- ActiveState=- UnitFileState=-
    if [ -f "$deadman/memory" ]; then
        read -r _ at last _ << END
$(dd if="$deadman/memory" bs=511 count=1 2> /dev/null | tr -d '\000' | sed -n '/^now /{p;q;}')
END
        case $last in '' | *[!0-9]* | ???????????*) ;; *) [ "$at" != "$this_boot" ] || since=$((up - last)) ;; esac
    fi
    for file in sums deadman.sh poweroff; do [ -f "$deadman/$file" ] || whole=missing; done
    if [ $whole = ok ]; then
        timeout 10 sha256sum -c --status "$deadman/sums" 2> /dev/null
        [ $? -ne 1 ] || whole=changed # what took too long has told nothing
    fi
    while IFS='=' read -r key value; do
        case $key:$value in
            *:*[!a-z-]*) ;;
            LoadState:?*) LoadState=$value ;;
            ActiveState:?*) ActiveState=$value ;;
            UnitFileState:?*) UnitFileState=$value ;;
        esac
    done << END
$(timeout 5 systemctl show --property=LoadState,ActiveState,UnitFileState dstack-deadman.timer 2> /dev/null | head -c 400)
END
    echo "timer $since $whole $LoadState $ActiveState $UnitFileState"
}

if [ "$deadman" != - ]; then
    # shellcheck disable=SC2086
    [ "$lease" = - ] || renew $lease
    until=$(timeout 10 sh "$deadman/deadman.sh" tell "$deadman" 2> /dev/null | head -c 40 | sed q)
    case $until in '' | *[!0-9-]*) ;; *) echo "until $until" ;; esac
    tell_timer
    keys=$(sed -n '/^# dstack: begin$/,/^# dstack: end$/{/^# dstack: /!p;}' "$HOME/.ssh/authorized_keys" 2> /dev/null)
    [ -z "$keys" ] || keys=$(printf '%s\n' "$keys" | sha256sum)
    keys=${keys%% *}
    echo "authorized ${keys:--}"
fi
for left in stage/*; do # whoever staged it is long dead
    [ -e "$left" ] && find stage -mindepth 1 -maxdepth 1 -mmin +15 -exec rm -rf {} + 2>/dev/null
    break
done
echo .
