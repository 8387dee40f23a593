# The supervisor's half for a job's log: its beginning and its end are kept, what lies between is left out.
# shellcheck shell=sh
# shellcheck disable=SC2154

# `log` takes the first half of the limit; then `tail.new` and `tail.old` take turns, and at the end of the job as much
# of both as the limit leaves comes behind `log`. `log_half` is in bytes, `log_reads` how many reads of 4096 bytes
# at most lie between two looks at the size of a file.

note() { # our own words, where the job's are written now
    if [ -f capped ]; then printf '\n[dstack] %s\n' "$1" >> tail.new; else printf '\n[dstack] %s\n' "$1" >> log; fi
}

log_size() { # $1 file -> size
    size=0
    [ ! -f "$1" ] || size=$(wc -c < "$1")
    size=$((size))
}

copy_until() { # $1 file, $2 size: any bytes from stdin, as they come; false where no more come or none can be written
    log_size "$1"
    while [ "$size" -lt "$2" ]; do
        before=$size
        dd bs=4096 count="$log_reads" 2> /dev/null >> "$1" || return 1
        log_size "$1"
        [ "$size" -gt "$before" ] || return 1
    done
}

keep_log() { # what cannot be written is drained, or the job would hang
    full=$((log_half > log_reads * 4096 ? log_half - log_reads * 4096 : 1))
    if [ -f capped ] || { copy_until log "$full" && begin_tail; }; then
        while copy_until tail.new "$full"; do
            log_size tail.old
            echo $(($(sed q left.out 2> /dev/null || echo 0) + size)) > left.out
            mv -f tail.new tail.old
        done
    fi
    cat > /dev/null
}

begin_tail() { # `capped` says how much of the limit is left for the end
    log_size log
    printf '\n[dstack] log limit (log_limit) of %s bytes: from here on only the end is kept, %s bytes of it; %s\n' \
        $((log_half * 2)) "$((log_half * 2 - size))" "it follows when the job has ended" >> log
    echo "$((log_half * 2 - size))" > capped
}

finish_log() { # once, when nothing writes any more
    [ -f capped ] || return 0
    most=$(sed q capped)
    left=$(sed q left.out 2> /dev/null || echo 0)
    log_size tail.old && had=$size
    log_size tail.new && had=$((had + size))
    [ "$had" -le "$most" ] || left=$((left + had - most))
    {
        if [ "$left" -gt 0 ]; then
            printf '\n[dstack] %s bytes are left out here: the log limit (log_limit) is %s bytes\n' "$left" $((log_half * 2))
        fi
        for part in tail.old tail.new; do
            [ ! -f $part ] || cat $part
        done | tail -c "$most"
    } >> log
    rm -f tail.old tail.new left.out capped
}
