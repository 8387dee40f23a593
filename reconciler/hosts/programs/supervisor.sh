#!/bin/sh
# Supervises one job from its folder, alone: nobody else enforces what a job may use once we have left.
# The folder was staged whole; `mkdir begun` decides between us and whoever declares the job lost.
# shellcheck disable=SC2154,SC1091,SC2034
set -u
umask 077
. ./rules.sh
. ./containers.sh
. ./run_container.sh
. ./session.sh
. ./share.sh
. ./keep_log.sh
. ./service.sh
. ./order
here=$PWD job=${PWD##*/} token='' session='' leader='' group='' engine='' confined=''
recall .

launch() { # becomes the job's shell, in a session of its own
    read_start $$
    echo "$$ $born" > session
    [ -z "$group" ] || { echo "$$" > "$group/cgroup.procs"; } 2>/dev/null
    umask 022
    if [ ! -d work ]; then
        rm -rf work.new && mkdir work.new || exit 1
        if [ -f bundle.tar.gz ]; then
            tar -xzf bundle.tar.gz -C work.new || { echo "[dstack] the files could not be unpacked"; exit 1; }
        fi
        [ "$keep_changes" = 0 ] || begin_changes work.new
        [ ! -f restored ] || restore_artifacts work.new || exit 1
        mv work.new work
        rm -f restore.tar.gz
    fi
    [ "$inside" = 0 ] || mkdir -p "work/$working_dir" || exit 1
    [ -z "$python" ] || make_python || { echo "python:$python" > failed && exit 1; }
    choose_port
    [ "$hold_back" -eq 0 ] || await_release
    [ -z "$image" ] || become_container
    set -- "$(command -v bash || command -v sh)" "$here/$1"
    ! env --default-signal=INT,QUIT true 2>/dev/null || set -- "$(command -v env)" --default-signal=INT,QUIT "$@"
    set -- "$token" "$here/work/$working_dir" "$here/hostfile" "${python:+$here/venv}" "$@"
    take_environment "$@"
    cd "$2" || exit 1
    shift 4
    exec "$@"
}

choose_port() { # port: the first from the proposed one on that nobody listens on
    if { read -r port < port.chosen; } 2>/dev/null; then return; fi
    port=$master_port
    while grep -qsE "^ *[0-9]+: [0-9A-F]+:$(printf %04X "$port") [0-9A-F]+:0000 0A " /proc/net/tcp /proc/net/tcp6; do
        port=$((20000 + (port - 19963) % 10000))
    done
    keep_port
}

keep_port() { # also where the environment is taken from, by whatever takes it
    echo "$port" > port.chosen
    echo "command export DSTACK_MASTER_PORT=$port" >> ./env
}

await_release() { # everything is there; `go` comes from whoever releases us, or is closed by our supervisor
    echo "$port" > staged.new && mv staged.new staged
    until read -r port < go; do sleep 0.2 || sleep 1; done 2> /dev/null
    [ "$port" != - ] || exit 143
    keep_port
}

has_room() { # false, and noted in an empty file, where the disk of the job's files is full
    room=$(df -Pk . 2>/dev/null | { read -r _ && read -r _ _ _ room _ && echo "$room"; })
    case $room in '' | *[!0-9]*) return 0 ;; esac
    [ "$room" -lt 64 ] || return 0
    { true > no-room; } 2>/dev/null
    return 1
}

go() { # one go of the commands; `main` is over as soon as they are
    rm -f code pipe box/stop box.shell && mkfifo pipe || return 1
    keep_log < pipe &
    reader=$!
    ( # its own words ("Terminated") are not the job's
        # shellcheck disable=SC2086
        setsid $confined sh ./supervisor.sh launch script < /dev/null > pipe 2>&1 &
        wait $! # dash keeps the redirections of what it waits for in the foreground: those words would be in the log
        code=$?
        echo "$code" > code.new && mv code.new code
        exit "$code" # where the disk is full
    ) 2> /dev/null &
    main=$!
}

tick() { # wakes us up; `wait` alone has no time limit
    trap 'kill $sleeper; exit' TERM
    while :; do
        sleep "$nap" &
        sleeper=$!
        wait $sleeper
        kill -USR1 $$ 2>/dev/null || exit
    done
}

begin_now() { # released: whatever it may use counts from here
    hold_back=0 began=$up active_at=$up started=$(date +%s)
    echo "$started $up" > started
}

begin_late() { # it ran and was over before we looked: whoever left `-` there let nobody in
    [ "$hold_back" -gt 0 ] && [ -f staged ] && { read -r released < go; } 2>/dev/null && [ "$released" != - ] || return 0
    read_uptime
    begin_now
}

close_door() { # nobody released it in time; whoever does it just now comes first
    echo - > go.no && ln go.no go 2>/dev/null && cause=barrier
}

check() { # cause: why the job must end now, "" while it may go on
    read_uptime
    recall . # the folder may be gone before its job is
    if [ "$hold_back" -gt 0 ] && [ -f go ]; then begin_now; fi
    if [ ! -f token ] || [ -e ../../ending ]; then
        cause=retired
    elif [ -f abort ]; then
        cause=abort
    elif [ -f stop ]; then
        cause=stop
    elif [ "$hold_back" -gt 0 ]; then
        if [ -f looked ]; then rm -f looked && began=$up; fi # whoever looks decides; we do where nobody does
        [ $((up - began)) -lt "$hold_back" ] || close_door
    elif [ "$max_duration" -gt 0 ] && [ $((up - began)) -gt "$max_duration" ]; then
        cause=max-duration:$max_duration
    elif [ -f full ]; then
        cause=disk:$disk
    else
        watch_activity
        watch_disk
        watch_probe
        watch_failing
    fi
}

watch_disk() { # measured beside us: it may take long
    [ "$disk" -gt 0 ] && [ "$up" -ge "$disk_at" ] && [ ! -f disk.busy ] || return 0
    disk_at=$((up + 3 * nap))
    true > disk.busy
    (
        used=$(du -sk work 2>/dev/null)
        used=${used%%[!0-9]*}
        [ "${used:-0}" -le $((disk * 1024)) ] || true > full
        rm -f disk.busy
    ) &
}

watch_probe() { # cause is `probe` where a service that was ready has failed its probe too often
    [ -f probe ] && [ "$going" = 1 ] && [ "$up" -ge "$probe_at" ] || return 0
    probe_at=$((up + probe_interval))
    if [ -f probe.code ]; then
        read -r answer < probe.code
        rm -f probe.code
        if [ "$answer" = 97 ] && [ ! -f stranger ]; then
            true > stranger
            note "another process answers at port $listens: the probe fails until one of this job listens there"
        fi
        if [ "$answer" = 0 ]; then good=$((good + 1)) bad=0; else bad=$((bad + 1)) good=0; fi
        [ "$good" -lt "$ready_after" ] || echo 1 > ready
        if [ "$bad" -ge "$fail_after" ] && [ -f ready ]; then
            bad=0
            rm -f ready
            cause=probe
        fi
    fi
    [ -n "$cause" ] || [ -f probe.busy ] || ask_probe &
}

ask_probe() {
    true > probe.busy
    setsid sh ./supervisor.sh probe < /dev/null > /dev/null 2>&1 &
    asked=$!
    (sleep "$probe_timeout" && kill -KILL -"$asked" 2>/dev/null; :) &
    wait $asked
    answer=$?
    kill $! 2>/dev/null
    echo "$answer" > probe.code
    rm -f probe.busy
}

probe() { # becomes the probe's shell, in the job's environment; 97 where the answer would be another's
    [ "$listens" = 0 ] || ! answered_by_another "$listens" || exit 97
    [ "$probe_inside" = 0 ] || { recall_container . && probe_container; }
    set -- "$token" "$here/work/$working_dir" "$here/hostfile" "${python:+$here/venv}" \
        "$(command -v bash || command -v sh)" "$here/probe"
    take_environment "$@"
    cd "$2" && exec "$5" "$6"
}

left() { # true while anything of this go lives: also what was launched and cannot be told by its claim yet
    find_processes .
    [ -z "$pids" ] || return 0
    if [ -n "$engine" ] && { ! find_container . '' || [ -n "$boxes" ]; }; then return 0; fi
    [ ! -f code ] && read_start "$main" && [ -n "$born" ]
}

patient() { # $1 when the grace ends: an abort cuts it short
    read_uptime
    [ "$up" -lt "$1" ] && [ ! -e ../../ending ] && [ ! -f abort ]
}

read_ticks() { # told: now, in clock ticks since boot, of which Linux shows a hundred a second
    read -r told _ < /proc/uptime
    told=${told%%.*}${told#*.}
}

answers() { # $1 pid: it was begun because of the TERM, by who was sent it and lives, or later: it may save something
    read_start "$1"
    [ -n "$born" ] || return 0
    case " $termed " in *" $parent "*) return 0 ;; esac
    [ "$born" -gt "$told" ]
}

finish_processes() { # $1 seconds between TERM, once to each, and KILL, until none is left
    read_uptime
    until=$((up + $1)) termed='' tries=0 told=''
    while left; do
        if [ -n "$engine" ] && patient "$until"; then
            [ -n "$termed" ] || { term_container . && termed=1; }
        elif patient "$until"; then
            for pid in $pids; do
                case " $termed " in *" $pid "*) continue ;; esac
                if [ -z "$told" ] || ! answers "$pid"; then termed="$termed $pid" && kill -TERM "$pid" 2>/dev/null; fi
            done
            [ -n "$told" ] || read_ticks
        else
            [ -z "$engine" ] || kill_container .
            kill_processes . 0
        fi
        tries=$((tries + 1))
        rest $tries
    done
}

await() { # $1 pid, $2 seconds -> status; `wait` returns at each tick; who is still there after the time is killed
    read_uptime
    until=$((up + $2))
    while kill -0 "$1" 2>/dev/null; do
        wait "$1"
        waited=$?
        [ $waited -ne 127 ] || break
        status=$waited
        read_uptime
        [ "$up" -lt "$until" ] || kill "$1" 2>/dev/null
    done
}

run_once() {
    code=143 status=137 cause=
    check
    began_go=$up good=0 bad=0 going=1
    rm -f probe.code stranger
    [ -z "$cause" ] || return
    if ! go; then code=1 && note "no pipe could be made for the log"; return; fi
    while [ ! -f code ]; do
        check
        [ -z "$cause" ] || break
        wait "$main"
        status=$?
        read_start "$main"
        [ -n "$born" ] || break # killed, or unable to write the code
    done
    begin_late
    case $cause in
        '') finish_processes 2 ;;
        abort | retired) finish_processes 0 ;;
        *) finish_processes "$grace" ;;
    esac
    [ "$cause" != stop ] || [ ! -f abort ] || cause=abort
    going=0
    await "$main" 30
    { read -r code < ./code; } 2>/dev/null || code=$status
    await "$reader" 30
    rm -f pipe
    [ -z "$engine" ] || settle_container
    if [ -z "$cause" ] && [ "$code" = 137 ] && told_out_of_memory; then cause=oom:$limit_memory; fi
    [ -n "$cause" ] || ! shut_down || cause=shutdown
    { read -r cause < failed; } 2>/dev/null
}

shut_down() { # whether the machine told everything on it to end, us too, shortly before the job ended. A stop of ours leaves a file
    [ -n "$termed_at" ] && [ ! -f stop ] && [ ! -f abort ] || return 1
    read_uptime
    [ $((up - termed_at)) -le 120 ]
}

get_ready() { # what the job needs before its commands; false with a cause where it is not to be had
    [ -n "$image" ] || return 0
    code=143 why=''
    if choose_engine && get_image; then
        [ -z "$cause" ]
    else
        code=1 cause=image
        note "$why"
        printf '%.400s\n' "$why" > why
        return 1
    fi
}

pause_before_restart() { # 1, 2, 4 … 60 s, from 1 again after a good minute
    rm -f ready
    read_uptime
    [ $((up - began_go)) -lt 60 ] || delay=1
    restarts=$((restarts + 1))
    echo "$restarts" > restarts
    tell_failing
    note "${cause:-exit $code}: begun again in $delay s"
    until=$((up + delay)) cause=
    delay=$((delay * 2 > 60 ? 60 : delay * 2))
    while [ "$up" -lt "$until" ] && [ -z "$cause" ]; do
        sleep $((until - up)) &
        wait $!
        check
    done
}

make_cgroup() { # where this system lets us: nothing can leave it, whatever it does to its environment
    while read -r _ point type _; do
        [ "$type" != cgroup2 ] || break
    done < /proc/self/mounts
    [ "$type" = cgroup2 ] || return 0
    while IFS=: read -r number _ path; do
        [ "$number" != 0 ] || break
    done < /proc/self/cgroup
    group=$point${path%/}/dstack-$token
    if mkdir "$group" 2>/dev/null; then printf '%s\n' "$group" > cgroup; else group=''; fi
}

go_on() { # again and again, where it is a service
    read_uptime
    began=$up active_at=$up disk_at=$up probe_at=$up
    [ "$hold_back" -gt 0 ] || begin_now
    while :; do
        run_once
        case $cause in '' | probe | oom:*) [ "$restart" = 1 ] && [ ! -e "$notice" ] || break ;; *) break ;; esac
        pause_before_restart
        [ -z "$cause" ] || break
    done
}

supervise() {
    termed_at=
    trap : USR1
    trap 'read_uptime; termed_at=$up' TERM
    read_start $$ && read_boot
    printf '%s %s %s\n' "$$" "$born" "$boot" > pid.new && mv pid.new pid
    mkdir begun 2>/dev/null || exit 0
    read_uptime
    began=$up started=-
    printf '%0512d\n' 0 > reserve
    make_cgroup
    hold_to_share
    active='' active_at=$up disk_at=$up probe_at=$up good=0 bad=0 going=0 restarts=0 delay=1 cause=''
    tick &
    ticker=$!
    if get_ready; then go_on; fi
    kill $ticker 2>/dev/null
    case $cause in max-duration:* | inactivity:* | disk:*) note "ended: $cause" ;; esac
    finish_log
    noticed=0
    has_room
    [ ! -e "$notice" ] || noticed=1
    drop_cgroup .
    [ "$keep_changes" = 0 ] || [ ! -d work ] || end_changes
    [ -z "$engine" ] || (cd ../.. && make_room "$floor") > /dev/null
    forget_secrets .
    write_end . "ended $code ${cause:-exit} $started $(date +%s) $noticed"
    [ ! -f put-end ] || sh ./deliver.sh . # into the bucket: this host may be gone before anybody comes
}

case ${1-} in
    launch) launch "$2" ;;
    probe) probe ;;
    pull) pull ;;
    *) supervise ;;
esac
