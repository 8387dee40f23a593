# A process is held to its share of the machine where the host lets us: by the job's own cgroup, else by systemd.
# shellcheck shell=sh
# shellcheck disable=SC2034,SC2154

hold_to_share() { # limit_cpus, limit_memory (MiB; 0: none) -> confined: the words that a job's first command begins with
    confined=''
    if [ "$limit_cpus" -eq 0 ] && [ "$limit_memory" -eq 0 ]; then return 0; fi
    limit_group || find_scope || note "this host holds no process to its share, $(share_words): an image would be"
}

share_words() { echo "$limit_cpus CPUs and $limit_memory MB"; }

limit_group() { # false where the job has no cgroup (v2), or its parent hands it no controller for memory
    [ -n "$group" ] || return 1
    # Where whoever owns the parent has not done it, and we may.
    for controller in +memory +cpu; do { echo $controller > "${group%/*}/cgroup.subtree_control"; } 2>/dev/null; done
    [ -w "$group/memory.max" ] || return 1
    [ "$limit_memory" -eq 0 ] || { echo $((limit_memory * 1048576)) > "$group/memory.max"; } 2>/dev/null || return 1
    [ ! -w "$group/memory.swap.max" ] || { echo 0 > "$group/memory.swap.max"; } 2>/dev/null
    if [ "$limit_cpus" -gt 0 ] && ! { echo "$((limit_cpus * 100000)) 100000" > "$group/cpu.max"; } 2>/dev/null; then
        note "this host holds the job to $limit_memory MB of memory, and to no number of CPUs"
    fi
    return 0
}

find_scope() { # confined: as a scope of the login's own systemd (root's: of the system's); false where there is none
    command -v systemd-run > /dev/null 2>&1 || return 1
    confined='systemd-run --scope --quiet --collect'
    if [ "$(id -u)" != 0 ]; then
        confined="$confined --user"
        XDG_RUNTIME_DIR=${XDG_RUNTIME_DIR:-/run/user/$(id -u)} && export XDG_RUNTIME_DIR
    fi
    [ "$limit_memory" -eq 0 ] || confined="$confined -p MemoryMax=${limit_memory}M -p MemorySwapMax=0"
    [ "$limit_cpus" -eq 0 ] || confined="$confined -p CPUQuota=$((limit_cpus * 100))%"
    # shellcheck disable=SC2086
    if within_seconds 10 $confined true > /dev/null 2>&1; then return 0; fi
    confined=''
    return 1
}

within_seconds() { if command -v timeout > /dev/null 2>&1; then timeout "$@"; else shift && "$@"; fi; }

told_out_of_memory() { # true where the kernel killed something of the job's cgroup for want of memory
    [ -n "$group" ] && [ "$limit_memory" -gt 0 ] || return 1
    { while read -r event count; do
        [ "$event" != oom_kill ] || break
    done < "$group/memory.events"; } 2>/dev/null || return 1
    [ "$event" = oom_kill ] && [ "${count:-0}" -gt 0 ]
}
