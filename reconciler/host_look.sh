# $1: seconds of uptime after which a claim whose supervisor never began is lost; $2 the lease that this tick leaves, `-`
# for none; $3 the time by the clock of whoever ticks; then the UUIDs of the GPUs that must be there. Stdout: one fact a
# line, `.` last.
# shellcheck shell=sh
# shellcheck disable=SC2154,SC2034
umask 077
read_uptime
read_boot
read_fence
patience=$1 lease=$2 told=$3 this_boot=$boot engine_patience=8
shift 3

leave_lease() { # $1 rule, $2 span, $3 how long it has been idle by the clock of whoever ticks, $4 hold, $5 lifetime
    idle_for=$3 ahead=$((told - $(date +%s)))
    # By a clock that is ahead everything has been idle for too long. By one that is behind it only lives for longer.
    [ "$ahead" -le 60 ] || idle_for=$((idle_for > ahead ? idle_for - ahead : 0))
    # Over what is there: a full disk does not stop it.
    printf '%-255s\n' "$boot $up $1 $2 $idle_for $4 $5" 1<> lease
}
# Where there is no such file there is no dead-man.
# shellcheck disable=SC2086
[ ! -f lease ] || [ "$lease" = - ] || leave_lease $lease
machine=
{ read -r machine < /etc/machine-id; } 2>/dev/null
echo "dstack-host 1"
echo "host $boot $up $(date +%s) $highest ${machine:--}"
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
    if { read -r was at < "$1/doubt"; } 2>/dev/null; then
        [ "$was" != "$this_boot" ] || [ $((up - at)) -ge "$patience" ]
    else
        printf '%s %s\n' "$this_boot" "$up" > "$1/doubt"
        return 1
    fi
}

lose() { # $1 job folder: its end is written once nothing of it lives; false where something still does
    was='' token='' session='' leader='' group=''
    { read -r _ _ was < "$1/pid"; } 2>/dev/null
    if [ "$was" = "$this_boot" ]; then kill_processes "$1" 7 || return 1; fi
    if recall_container "$1"; then # after a reboot none runs, whatever the engine says
        remove_container "$1" || [ "$was" != "$this_boot" ] || return 1
        own_files "$1"
    fi
    [ ! -f "$1/end" ] || return 0
    drop_cgroup "$1"
    forget_secrets "$1"
    began=-
    { read -r began _ < "$1/started"; } 2>/dev/null
    write_end "$1" "lost - lost ${began:--} - 0"
}

tell() { # $1 job, $2 its folder
    name=-
    { read -r name < "$2/name"; } 2>/dev/null
    if [ ! -f "$2/end" ]; then
        whole=- layers=-
        if { read -r whole layers < "$2/pulling"; } 2>/dev/null; then echo "pulling $1 $whole $layers"; fi
        ready=- restarts=0 began=-
        { read -r ready < "$2/ready"; } 2>/dev/null || [ ! -f "$2/probe" ] || ready=0
        { read -r restarts < "$2/restarts"; } 2>/dev/null
        { read -r began _ < "$2/started"; } 2>/dev/null
        if supervised "$2"; then
            if [ -f "$2/hold" ] && [ ! -f "$2/go" ]; then
                port=-
                { read -r port < "$2/staged"; } 2>/dev/null
                { true > "$2/looked"; } 2>/dev/null
                echo "held $1 $port"
            fi
            echo "job $1 running $ready ${began:--} ${restarts:-0} $name"
            return
        elif [ ! -d "$2/begun" ] && ! { doubted "claims/$1" && mkdir -p "$2" && mkdir "$2/begun" 2>/dev/null; }; then
            echo "job $1 running - - 0 $name"
            return
        elif ! lose "$2"; then
            echo "job $1 running ${ready:--} ${began:--} ${restarts:-0} $name"
            return
        fi
    fi
    end=
    { read -r end < "$2/end"; } 2>/dev/null
    [ -n "$end" ] || return 0
    echo "job $1 $end $name"
    if { read -r why < "$2/why"; } 2>/dev/null; then echo "why $1 $why"; fi
}

for claim in claims/*; do
    job=${claim#claims/}
    [ -d "$claim" ] && [ ! -d "spent/$job" ] || continue
    tell "$job" "jobs/$job"
done
if [ -f lease ]; then
    until=$(sh deadman/deadman.sh tell deadman 2> /dev/null) && echo "until $until"
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
