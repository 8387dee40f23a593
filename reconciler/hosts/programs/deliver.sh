# Puts a job's end, the end of its log and its artifacts where a request for each lets us, once. The requests go with it.
# A request is a curl configuration: its address never stands in the list of processes.
# shellcheck shell=sh
cd "${1:-.}" || exit 1

send() { # $1 request, $2 file
    if command -v curl > /dev/null; then
        curl --config "$1" --upload-file "$2" --silent --show-error --fail --retry 3 --max-time 900 -o /dev/null
    elif wget --help 2>&1 | grep -q -e --method; then
        sed -n 's/^url = "\(.*\)"$/\1/p' "$1" > "$1-url"
        sed -n 's/^header = "\(.*\)"$/header = \1/p' "$1" > "$1-rc"
        wget --config="$1-rc" --quiet --tries=3 --method=PUT --body-file="$2" -O /dev/null -i "$1-url"
    else
        echo "neither curl nor wget: not sent"
        return 1
    fi
}

pack() { # the files that a pattern names; odd names are left to whoever asks the host itself
    (cd work && find . \( -type f -o -type l \) | grep -E -f ../put-patterns | tar -cf - -T -) | gzip > put-files
}

{
    send put-end end
    tail -c 16777216 log > put-tail && send put-log put-tail
    [ ! -s put-patterns ] || [ ! -d work ] || { pack && send put-artifacts put-files; }
} > put-said 2>&1
rm -f put-*
