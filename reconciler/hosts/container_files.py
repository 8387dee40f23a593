"""Render the files that start a job's container: flags for docker or podman, arguments, mounts. Pure.

`box.flags` and `box.args` are sh texts that append to the engine's arguments; `auth/config.json` is read by docker and
podman alike. No value of a variable is among the arguments: the client passes on its own environment by name, and
what would change the client itself (`env.reserved`) is read from a file.
"""

from __future__ import annotations

import base64
import json
import re
import shlex
from collections.abc import Iterable, Iterator, Mapping

from reconciler.hosts.environment import arguments
from reconciler.hosts.runner import ContainerSpec, HostError, JobOrder

# An engine's client, or the loader that starts it, would heed these.
_RESERVED = re.compile(
    r"(PATH|HOME|TMPDIR|LD_.*|XDG_.*|DOCKER_.*|CONTAINERS?_.*|_CONTAINERS_.*|STORAGE_.*|BUILDAH_.*|REGISTRY_AUTH_FILE|GO.*"
    r"|DBUS_.*|LISTEN_.*|NOTIFY_SOCKET)\Z"
)
# The first process of the container: small, so that it outlives who uses up the memory, and can tell of it. It waits in
# the foreground, so that the script heeds every signal. With its end the kernel kills all the others, so it waits for
# them: without limit once a stop was asked for (`/dstack/stop`: the supervisor has the limit), else for 2 seconds, as a
# job without a container has. Its arguments, where there are any, run instead of the script. A `sleep` in the
# foreground reaps the dead.
# The kernel counts kills in a file of the container's own cgroup (v2, v1).
_FIRST = """\
trap : TERM
code=143
if [ -e /dstack/stop ]; then :
elif [ $# -gt 0 ]; then
    "$@"
    code=$?
else
    shell=sh
    ! command -v bash > /dev/null 2>&1 || shell=bash
    $shell /dstack/script
    code=$?
fi
[ -e /dstack/stop ] || kill -TERM -1 2> /dev/null
rounds=0
while kill -0 -1 2> /dev/null; do
    [ -e /dstack/stop ] || [ $rounds -lt 20 ] || break
    rounds=$((rounds + 1))
    sleep 0.1 2> /dev/null || sleep 1 2> /dev/null || (:)
done
[ $code != 0 ] || exit 0
for file in /sys/fs/cgroup/memory.events /sys/fs/cgroup/memory/memory.oom_control; do
    while read -r name count; do
        case $name:$count in oom_kill:[1-9]*) echo "$count" > /dstack/told/oom ;; esac
    done 2> /dev/null < $file
done 2> /dev/null
exit $code
"""
_INITS = re.compile(r"(?:.*/)?(?:init|my_init|runit-init|systemd|s6-[a-z-]+)\Z")  # each has to be the first process
_OURS = ("DSTACK_CLAIM", "DSTACK_WORKING_DIR", "DSTACK_MPI_HOSTFILE")
_HUB = ("docker.io", "index.docker.io")


def split_environment(variables: Mapping[str, str]) -> tuple[dict[str, str], bytes]:
    """(those that the client's own environment may hold, the rest as an engine's env file). `HostError`."""
    reserved = {name: value for name, value in variables.items() if _RESERVED.match(name)}
    for name, value in reserved.items():
        if re.search(r"[\r\n]", value):
            raise HostError(f"the value of {name} has several lines: no engine takes that")
    lines = "".join(f"{name}={value}\n" for name, value in reserved.items())
    passed = {name: value for name, value in variables.items() if name not in reserved}
    return passed, lines.encode("utf-8", "surrogateescape")


def box_files(
    order: JobOrder, *, variables: Iterable[str], script: bytes, hostfile: bytes, probe: bytes | None
) -> dict[str, bytes]:
    """By name; none where the job has no container. `variables` are the names that the client passes on."""
    box = order.box
    if box is None:
        return {}
    folders = "".join(f"{source}\n" for source, _ in box.volumes)
    files = {
        "box.flags": _appended(_flags(order, box, variables=variables)),
        "box.args": _appended(_arguments(order, box)),
        "box.first": _appended(_first(box)),
        "box/script": script,
        "box/hostfile": hostfile,
        "box/told/.place": b"",
        "volumes": folders.encode("utf-8", "surrogateescape"),
    }
    if probe is not None:
        files["box/probe"] = probe
    if box.username:
        files["auth/config.json"] = _auth(box)
    return files


def _appended(words: Iterable[str]) -> bytes:
    return "".join(f'set -- "$@" {shlex.quote(word)}\n' for word in words).encode("utf-8", "surrogateescape")


def _flags(order: JobOrder, box: ContainerSpec, *, variables: Iterable[str]) -> Iterator[str]:
    for name in (*variables, *_OURS):
        yield from ("--env", name)
    yield from ("--env-file", "env.reserved")
    if _uses_shell(order, box):
        yield from ("--entrypoint", "sh")
    elif box.entrypoint:
        yield from ("--entrypoint", box.entrypoint[0])
    if order.working_dir or _uses_shell(order, box):
        yield from ("--workdir", order.working_dir if order.working_dir.startswith("/") else _below(order.working_dir))
    if box.user:
        yield from ("--user", box.user)
    if box.privileged:
        yield "--privileged"
    if box.shm:
        yield from ("--shm-size", f"{box.shm}m")
    if box.cpus:
        yield from ("--cpus", str(box.cpus))
    if box.memory:
        yield from ("--memory", f"{box.memory}m")
    for source, target in box.volumes:
        yield from ("--volume", f"{source}:{target}")


def _below(folder: str) -> str:
    return f"/workflow/{folder}".rstrip("/")


def _uses_shell(order: JobOrder, box: ContainerSpec) -> bool:
    return box.entrypoint is None and bool(order.commands or order.setup or order.stay)


def _arguments(order: JobOrder, box: ContainerSpec) -> tuple[str, ...]:
    if _uses_shell(order, box):
        return ("-c", _FIRST)
    return (*(box.entrypoint or ())[1:], *arguments(order))


def begins_with(order: JobOrder) -> str:
    """Tell what a shell of the image starts, so as to wait for the whole job: `script`, `words` or `image` (its own).

    "": nothing, as the entrypoint has to be the first process itself. For `words` and `image` the host checks whether
    the image has a shell.
    """
    box = order.box
    if box is None or (box.entrypoint and _INITS.fullmatch(box.entrypoint[0])):
        return ""
    return "script" if _uses_shell(order, box) else "words" if box.entrypoint else "image"


def _first(box: ContainerSpec) -> Iterator[str]:
    """What precedes the arguments where a shell of the image starts the entrypoint."""
    yield from ("-c", _FIRST, "dstack", *(box.entrypoint or ())[:1])


def _auth(box: ContainerSpec) -> bytes:
    registry = registry_of(box.image)
    told = base64.b64encode(f"{box.username}:{box.password}".encode("utf-8", "surrogateescape")).decode()
    names = ("docker.io", "https://index.docker.io/v1/") if registry in _HUB else (registry,)
    return json.dumps({"auths": {name: {"auth": told} for name in names}}).encode()


def registry_of(image: str) -> str:
    """The registry that an image's name begins with, as docker reads it; `docker.io` where it names none."""
    first, slash, _ = image.partition("/")
    return first if slash and (first == "localhost" or "." in first or ":" in first) else "docker.io"
