#!/bin/sh
# The main job, as a new user would type it, on a copy of examples/hello that is gone at the end.
# Nothing outside that copy is written; the processes that it starts are ended by `dstack destroy`.
set -eu
exec 2>&1

here=$(cd "$(dirname "$0")" && pwd)
work=$(mktemp -d)
export XDG_STATE_HOME="$work/state"

try() {
    printf '\n%s$ %s%s\n' "$bold" "$*" "$plain"
    "$@"
}
bold='' plain=''
if [ -t 1 ]; then bold=$(printf '\033[1m') plain=$(printf '\033[0m'); fi

leave() {
    status=$?
    trap - EXIT INT TERM
    if [ "$status" != 0 ] && ! (cd "$work/hello" && dstack destroy --confirm hello); then
        echo "not everything could be ended; it lies in $work"
        exit "$status"
    fi
    rm -rf "$work"
    exit "$status"
}
trap leave EXIT
trap 'exit 130' INT TERM

cp -R "$here/hello" "$work/hello"
rm -rf "$work/hello/.dstack/state" "$work/hello/.dstack/keys"
cd "$work/hello"

try dstack plan
try dstack apply -y
try dstack logs -f hello
try dstack logs pair
try dstack apply -y
try dstack ps -a
try dstack pool ps
try dstack artifacts hello
try head -3 hello-artifacts/squares.csv

printf '\nIdle instances are ended after 20 s (idle_duration in .dstack/pools.yml). Waiting.\n'
sleep 21
try dstack apply -y
try dstack stop beat -y
try dstack destroy --confirm hello
try dstack pool ps

printf '\nDone. This copy is removed.\n'
