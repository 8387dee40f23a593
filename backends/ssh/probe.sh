# What this server is, has and lacks, and whose it is. Changes nothing but the owner's own last tick. No sudo.
# $1 our folder, $2 project, $3 disk floor in MiB, $4 1 where GPUs are declared, $5 1 to ask the container runtime itself,
# $6 who asks. Stdout: one fact a line, `.` last. A check is `check NAME ok|bad|none CENTISECONDS WORDS`.
# shellcheck shell=sh
umask 077
PATH=$PATH:/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin
folder=$1 project=$2 floor=$3 gpus=$4 thorough=$5 who=$6

now() { # up: centiseconds since boot
    read -r up _ < /proc/uptime
    up=${up%.*}${up#*.}
}

check() { # $1 name, $2 ok|bad|none, $3… words; the time is what passed since the last one
    was=$up
    now
    name=$1 how=$2
    shift 2
    echo "check $name $how $((up - was)) $*"
}

fact() { [ -z "$2" ] || echo "fact $1 $2"; }

within() { # $1 seconds, $2… a program: what hangs is killed
    if command -v timeout > /dev/null 2>&1; then timeout "$@"; else shift && "$@"; fi
}

now
echo "dstack-probe 1"
{ read -r machine < /etc/machine-id; } 2>/dev/null || machine=
{ read -r boot < /proc/sys/kernel/random/boot_id; } 2>/dev/null || boot=
fact machine "$machine"
fact boot "$boot"
fact kernel "$(uname -sr)"
fact arch "$(uname -m)"
fact clock "$(date +%s)"
fact login "$(id -un 2>/dev/null || id -u)"
if [ -z "$machine" ]; then check machine-id bad "/etc/machine-id is empty: a server is known by it"; else check machine-id ok; fi

missing=
for tool in setsid tar grep sed sort tr mkfifo ln; do
    command -v $tool > /dev/null 2>&1 || missing="$missing $tool"
done
if [ -n "$missing" ]; then check tools bad "not installed:$missing"; else check tools ok; fi

home=${HOME:-}
if [ ! -d "$home" ] || [ ! -w "$home" ]; then check home bad "${home:-HOME} is no folder that this login may write to"
else check home ok; fi

cpus=$(nproc 2>/dev/null || grep -c '^processor' /proc/cpuinfo)
fact cpus "$cpus"
check cpus ok "$cpus"
memory=$(sed -n 's/^MemTotal: *\([0-9]*\) kB$/\1/p' /proc/meminfo)
memory=$((${memory:-0} / 1024))
fact memory $memory
check memory ok "$memory MB"
disk=$(df -Pk "$home" 2>/dev/null | sed -n '2s/^.* \([0-9][0-9]*\)  *[0-9]*%.*$/\1/p')
if [ -z "$disk" ]; then check disk bad "df does not tell the free disk of $home"
else
    disk=$((disk / 1024))
    fact disk $disk
    if [ "$disk" -lt "$floor" ]; then check disk bad "$disk MB free in $home, the floor is $floor MB"
    else check disk ok "$disk MB free"; fi
fi

runtime=
for one in docker podman; do
    command -v $one > /dev/null 2>&1 || continue
    if [ "$thorough" = 1 ]; then
        within 10 $one info > /dev/null 2>&1 || continue
    elif [ $one = docker ] && [ ! -w "${DOCKER_HOST:-/var/run/docker.sock}" ] && [ ! -S "${XDG_RUNTIME_DIR:-/nowhere}/docker.sock" ]; then
        continue
    fi
    runtime=$one
    break
done
fact runtime "$runtime"
if [ -n "$runtime" ]; then check container-runtime ok $runtime
else check container-runtime none "neither docker nor podman for this login: only runs without an image"; fi

if command -v nvidia-smi > /dev/null 2>&1; then
    head=$(within 20 nvidia-smi 2>&1 | grep -m 1 'CUDA Version')
    cuda=${head##*CUDA Version: } driver=${head##*Driver Version: }
    cuda=${cuda%%[!0-9.]*} driver=${driver%%[!0-9.]*}
    major=${cuda%%.*} minor=${cuda#*.}
    if [ -z "$cuda" ]; then check nvidia-driver bad "nvidia-smi does not answer"
    elif [ "${major:-0}" -gt 12 ] || { [ "${major:-0}" -eq 12 ] && [ "${minor:-0}" -ge 1 ]; }; then
        check nvidia-driver ok "$driver, CUDA $cuda"
    else check nvidia-driver bad "driver $driver has CUDA $cuda, 12.1 is the least"; fi
    listed=$(within 20 nvidia-smi --query-gpu=uuid,name,memory.total,compute_cap --format=csv,noheader,nounits 2>/dev/null)
    case $listed in
        GPU-* | MIG-*) echo "$listed" | sed 's/^/gpu /' && check gpus ok "$(echo "$listed" | wc -l | tr -d ' ')" ;;
        *) if [ "$gpus" = 1 ]; then check gpus bad "nvidia-smi lists no GPU"; else check gpus none; fi ;;
    esac
    within 20 nvidia-smi --query-compute-apps=gpu_uuid,pid,used_memory --format=csv,noheader,nounits 2>/dev/null |
        while IFS=', ' read -r uuid pid used; do
            case $uuid in GPU-* | MIG-*) ;; *) continue ;; esac
            index=$(echo "$listed" | sed -n "/^$uuid/{=;q;}")
            case $used in '' | *[!0-9]*) used=- ;; esac
            case $pid in '' | *[!0-9]*) continue ;; esac
            echo "foreign $((${index:-1} - 1)) $pid $used"
        done
elif [ "$gpus" = 1 ]; then
    check nvidia-driver bad "no nvidia-smi on this login's PATH, and the pool asks for GPUs"
    check gpus bad none
else check gpus none; fi

fact addresses "$(ip -o addr show 2>/dev/null |
    sed -n '/ inet6 fe80:/d;s/^.* inet6\{0,1\} \([0-9A-Fa-f.:]*\).*$/\1/p' | tr '\n' ' ')"
if grep -qs '^KillUserProcesses=yes' /etc/systemd/logind.conf /etc/systemd/logind.conf.d/*.conf 2>/dev/null &&
    [ ! -e "/var/lib/systemd/linger/$(id -un)" ]; then
    check lingering bad "this server ends a login's processes with its session: \`loginctl enable-linger\`"
fi

if [ -f "$home/$folder/claim" ]; then
    sed 's/^/claim /' "$home/$folder/claim"
    if grep -qx "project $project" "$home/$folder/claim"; then
        echo "$(date +%s) $who" > "$home/$folder/tick.new" && mv -f "$home/$folder/tick.new" "$home/$folder/tick"
    fi 2>/dev/null
    { read -r at by < "$home/$folder/tick"; } 2>/dev/null && echo "tick $at $by"
    busy=0
    for job in "$home/$folder"/host/jobs/*; do
        [ ! -d "$job" ] || [ -f "$job/end" ] || busy=$((busy + 1))
    done
    fact jobs $busy
fi
for ended in "$home/$folder"/ended-*; do
    if ! grep -qsx "$project" "$ended"; then continue; fi
    echo "ended ${ended##*/ended-}" # again and again, until ssh_heard.sh: an answer may be lost on its way
done
echo .
