#!/bin/sh
# Ends this machine once nobody needs it any more, whoever has forgotten it. A timer asks it to `check` every minute.
# $1 check | tell, $2 our folder, $3 the folder that tells of uptime, boot and processes (/proc where not given).
# check: counts the time, and powers off when the lease is over. tell: the seconds that are left, or `-` for never; it
# changes nothing, and anybody may ask. Time is uptime, summed over all boots: no clock moves it, no reboot renews it.
# Of a container, `incarnation` in our folder tells which start of it this is, and its machine's uptime then: it shares
# the kernel's boot and uptime with its machine.
# What it writes lies over what is there already: a full disk stops nothing.
set -u
verb=$1 base=$2 proc=${3:-/proc}
first=600 grace=900 host=/nowhere

line_of() { # $1 a file that any job may have put there -> its first line: nothing is waited for, and no end is sought
    [ ! -f "$1" ] || dd if="$1" bs=255 count=1 2> /dev/null | tr -d '\000' | sed q
}

number() { # $1 text, $2 what it is where that is no number that sh reckons with -> number
    case $1 in '' | *[!0-9]* | 0?* | ???????????*) number=$2 ;; *) number=$1 ;; esac
}

recall() { # of our own memory: boots, each with the age at its begin; busy, when a job was last seen alive; tries
    boots='' busy=0 tries=0 last='' last_up=0 tick_at=0 tick=''
    [ ! -f "$base/memory" ] || {
        while read -r word one two three _; do
            case $word:$one:$two in # its numbers are numbers
                boot:*:*[!0-9]* | now:*:*[!0-9]* | busy:*[!0-9]*:* | tries:*[!0-9]*:* | tick:*[!0-9]*:*) ;;
                boot:*:?*)
                    case $three in *[!0-9]*) ;; *) boots="$boots$one $two ${three:-0}|" ;; esac
                    ;;
                now:*:?*) last=$one last_up=$two ;;
                busy:?*) busy=$one ;;
                tries:?*) tries=$one ;;
                tick:?*) tick_at=$one tick="$two $three" ;;
            esac
        done < "$base/memory"
    } 2> /dev/null
    [ ! -f "$base/conf" ] || while read -r word one _; do
        case $word in first) number "$one" 600 && first=$number ;; grace) number "$one" 900 && grace=$number ;; host) host=$one ;; esac
    done < "$base/conf"
}

begin_of() { # $1 boot -> begin: the age at which it began, "" of one that is forgotten; start: the uptime then
    begin='' start=0 rest=$boots
    while [ -n "$rest" ] && [ -z "$begin" ]; do
        one=${rest%%|*} rest=${rest#*|}
        [ "${one%% *}" != "$1" ] || { start=${one##* } one=${one% *} && begin=${one##* }; }
    done
}

read_age() { # age: seconds that this machine has run, of which `up` are of this boot
    read -r up _ < "$proc/uptime"
    up=${up%%.*}
    boot='' since=0
    [ ! -f "$base/incarnation" ] || { read -r boot since < "$base/incarnation"; } 2> /dev/null
    case $boot:$since in ?*:*[!0-9]* | ?*: | :* | *' '*) read -r boot < "$proc/sys/kernel/random/boot_id" && since=0 ;; esac
    [ "$since" -le "$up" ] || since=$up
    case "|$boots" in
        *"|$boot "*) ;;
        *)
            begin_of "$last"
            [ -n "$begin" ] || begin=0 start=0
            boots="$boot $((begin + last_up - start)) $since|$boots"
            ;;
    esac
    begin_of "$boot"
    age=$((begin + up - start))
}

age_of() { # $1 boot, $2 its uptime -> at: the age then, never later than now; 0 where that is forgotten
    at=0
    number "$2" -
    [ "$number" != - ] || return
    begin_of "$1"
    [ -n "$begin" ] || return
    at=$((begin + number - start))
    [ "$at" -ge 0 ] || at=0
    [ "$at" -le "$age" ] || at=$age
}

keep() { # our memory of four boots, in one sector
    lines="now $boot $up
busy $busy
tries $tries
tick $ticked $where_ticked" count=0 rest=$boots
    while [ -n "$rest" ] && [ $count -lt 4 ]; do
        lines="$lines
boot ${rest%%|*}" rest=${rest#*|} count=$((count + 1))
    done
    [ -f "$base/memory" ] || rm -rf "$base/memory" # a pipe keeps nothing
    printf '%-511s\n' "$lines" 1<> "$base/memory"
}

later() { # $1 an age: the machine is needed until then at least
    [ "$until" = never ] || [ "$1" -le "$until" ] || until=$1
}

read_lease() { # what the last tick left: which rule (`-` for none yet), its span, and how long it had been idle
    rule=- span=- idle_for=0 hold=86400 lifetime=- ticked=0 where='' up_then=''
    read -r where up_then rule span idle_for hold lifetime _ << END
$(line_of "$host/lease")
END
    where_ticked="$where $up_then"
    case $rule in idle | unattended) ;; *) rule=- ;; esac
    [ ${#where_ticked} -le 60 ] || rule=- # none of ours
    [ "$rule" != - ] || { where_ticked='' && return; }
    [ "$span" = - ] || { number "$span" 259200 && span=$number; }
    number "$lifetime" - && lifetime=$number
    number "$idle_for" 0 && idle_for=$number
    number "$hold" 86400 && hold=$number
    age_of "$where" "$up_then"
    ticked=$at
    [ "$tick" != "$where_ticked" ] || ticked=$tick_at # as it was noted then: its boot may be long forgotten
}

alive() { # $1 job folder: true while its supervisor lives; from: the age at which that began, 0 where it never did
    from=0 pid='' born='' where=''
    read -r pid born where _ << END
$(line_of "$1/pid")
END
    case $pid:$born in *[!0-9]*:* | *:*[!0-9]* | :* | *: | *:0?* | *:????????????????*) return 1 ;; esac
    age_of "$where" $((born / hz))
    from=$at
    [ ! -f "$1/end" ] && [ "$where" = "$boot" ] && { read -r stat < "$proc/$pid/stat"; } 2> /dev/null || return 1
    # shellcheck disable=SC2086
    set -- ${stat##*") "}
    case $1 in Z | X) return 1 ;; esac
    [ "${20}" = "$born" ]
}

limit_of() { # $1 job folder, $2 name -> limit: a number of its order, 0 is none
    limit=''
    [ ! -f "$1/order" ] || limit=$(sed -n "/^$2='\{0,1\}\([0-9]\{1,9\}\)'\{0,1\}\$/{s//\1/p;q;}" "$1/order" 2> /dev/null)
    number "$limit" 0 && limit=$number
}

need_of_running() { # $1 job folder: for as long as it may run; it is not counted while its image is pulled, for an hour
    running=1 without_limit=''
    limit_of "$1" hold_back
    latest=$((from + 3600 + limit))
    begun=''
    read -r _ begun _ << END
$(line_of "$1/started")
END
    if [ -n "$begun" ]; then age_of "$where" "$begun" && from=$at
    elif [ "$age" -lt "$latest" ]; then from=$age
    else from=$latest; fi
    limit_of "$1" grace # what a stop gives it; without a limit it may go on as if nothing ended it
    [ "$limit" -lt 999999999 ] || without_limit=1
    saves=$limit
    limit_of "$1" max_duration
    [ -z "$without_limit" ] || limit=0
    ends=$((from + limit + saves + grace))
    [ "$limit" -gt 0 ] && [ "$ends" -le "$age" ] || busy=$age # one that ought to be over counts no more
    if [ "$limit" -gt 0 ]; then later "$ends"
    elif [ "$lifetime" != - ]; then later $((lifetime + grace))
    else until=never; fi
}

need() { # until: the age until which this machine is needed, or `never`
    until=0 results='' running=''
    read_lease
    for job in "$host"/jobs/*; do
        [ -d "$job" ] || continue
        if alive "$job"; then
            need_of_running "$job"
        else
            kept_for='' # as its own run has it
            { read -r kept_for < "$job/kept_for"; } 2> /dev/null
            case $kept_for in '' | *[!0-9]* | ??????????*) kept_for=$hold ;; esac
            results="$results $from:$kept_for"
        fi
    done
    for one in $results; do # it ended between the last look at it and now: there is no telling by the clock
        from=${one%:*}
        [ "$from" -ge "$busy" ] || from=$busy
        [ "$from" -ge "$ticked" ] || [ "$from" -gt 0 ] || from=$ticked
        later $((from + ${one#*:}))
    done
    if [ "$rule" = - ]; then
        later $((first + grace))
        return
    fi
    later $((ticked + grace))
    if [ "$span" = - ]; then
        if [ "$lifetime" != - ]; then later $((lifetime + grace)); else until=never; fi
    elif [ "$rule" = unattended ]; then
        later $((ticked + span))
    elif [ -z "$running" ]; then
        need_of_idle
    fi
}

need_of_idle() { # from the end of its last job: as the tick knew it, as we saw it, or as it was cleaned away since
    from=$((ticked - idle_for))
    [ "$from" -ge "$busy" ] || from=$busy
    where='' up_then=''
    read -r where up_then _ << END
$(line_of "$host/cleaned")
END
    age_of "$where" "$up_then"
    [ "$from" -ge "$at" ] || from=$at
    later $((from + span + grace))
}

hz=$(getconf CLK_TCK 2> /dev/null) || hz=100
recall
read_age
need
if [ "$verb" = tell ]; then
    if [ "$until" = never ]; then echo -; else echo $((until - age)); fi
    exit 0
fi
if [ "$until" = never ] || [ "$until" -gt "$age" ]; then
    tries=0
    keep
    exit 0
fi
tries=$((tries + 1))
keep
echo "dstack: nobody has needed this machine since its lease ended $((age - until)) s ago: it is powered off" >&2
exec sh "$base/poweroff" $tries
