#!/bin/sh
# The main job, as a new user would type it, on a copy of examples/hello that is gone at the end.
# Nothing outside that copy is written; the processes that it starts are ended by `dstack destroy`.
set -eu

here=$(cd "$(dirname "$0")" && pwd)
work=$(mktemp -d)
export XDG_STATE_HOME="$work/state"

say() { printf '\n\033[1m$ %s\033[0m\n' "$*"; }
try() { say "$@"; "$@"; }

leave() {
    status=$?
    trap - EXIT INT TERM
    (cd "$work/hello" && dstack destroy --yes-destroy hello >/dev/null 2>&1) || true
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
try dstack logs hello
try dstack logs pair
try dstack ps -a
try dstack pool ps
try dstack apply -y

printf '\nIdle instances are ended after 20 s (idle_duration in .dstack/pools.yml). Waiting.\n'
sleep 21
try dstack plan
try dstack apply -y
try dstack pool ps
printf '\nDone. The service is ended, and this copy removed.\n'
