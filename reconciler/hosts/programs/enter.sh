# Enters the job of the folder that it lies in: `sh JOB/enter.sh [COMMAND…]`, by default a shell. Its container, where
# it has one; else its environment and working folder. While it runs, the job has somebody attached.
# shellcheck shell=sh
# shellcheck disable=SC1091,SC2034,SC2154
set -u
cd "$(dirname "$0")" || exit 1
. ./rules.sh
. ./containers.sh
. ./session.sh
here=$PWD token='' session='' leader='' group='' engine=''
if [ -f end ] || ! supervised .; then
    echo "this job has ended" >&2
    exit 1
fi
if [ -f pulling ] || [ ! -f started ] || [ ! -d work ]; then
    echo "this job has not begun yet: its image or its files are on their way" >&2
    exit 1
fi
. ./order
recall .
terminal=$(tty) || terminal=-
mkdir -p attached
read_start $$
printf '%s %s\n' "$born" "$terminal" > "attached/$$"
trap 'rm -f "$here/attached/$$"' EXIT
trap 'exit 129' HUP
trap 'exit 143' TERM

enter_container() {
    if ! find_container . '' || [ -z "$boxes" ]; then
        echo "its container does not run (any more)" >&2
        exit 1
    fi
    flags=-i
    [ "$terminal" = - ] || flags=-it
    [ $# -gt 0 ] || set -- sh -c 'command -v bash > /dev/null 2>&1 && exec bash -l; exec sh -l'
    "$engine" exec $flags --workdir "$folder" "${boxes%%[!0-9a-f]*}" "$@"
}

enter_process() (
    [ $# -gt 0 ] || set -- "$(command -v bash || command -v sh)" -i
    set -- "$token" "$here/work/$working_dir" "$here/hostfile" "${python:+$here/venv}" "$@"
    take_environment "$@"
    cd "$2" || exit 1
    shift 4
    exec "$@"
)

if recall_container .; then enter_container "$@"; else enter_process "$@"; fi
