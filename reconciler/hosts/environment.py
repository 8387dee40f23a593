"""Render a job's environment and script: the DSTACK_* variables, `${{ run.args }}`. Pure.

A `DSTACK_SERVICE_<NAME>_URL` comes with the order.
`DSTACK_WORKING_DIR` and `DSTACK_MPI_HOSTFILE` are paths on the host: the supervisor sets these two.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable, Sequence

from reconciler.hosts.runner import HostError, JobOrder
from reconciler.state.master_port import master_port
from schemas.environment import too_large

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*\Z")
_ARGS = re.compile(r"\$\{\{\s*run\.args\s*\}\}")
# After each command: stop at the first that fails, as `a && b` would, and yet let a command be any text.
_GUARD = "_dstack=$?; [ $_dstack = 0 ] || exit $_dstack"

# A dev environment: until it is stopped. As the first process of a container it would ignore the signal.
_STAY = """\
trap 'exit 0' TERM
echo '[dstack] ready'
while :; do sleep 3600 & wait; done
"""


def environment(order: JobOrder) -> dict[str, str]:
    """The user's variables, then ours, which win. GPUs are made visible by UUID, none where none was given."""
    found = {"PYTHONUNBUFFERED": "1", "CUDA_VISIBLE_DEVICES": "", **order.env}
    if order.box and not order.gpus:
        found["NVIDIA_VISIBLE_DEVICES"] = "void"  # an image that asks for all would have them from some engines
    if order.gpus:
        found["CUDA_VISIBLE_DEVICES"] = found["NVIDIA_VISIBLE_DEVICES"] = ",".join(order.gpus)
    found |= _ours(order)
    _check(found)
    return found


def _ours(order: JobOrder) -> dict[str, str]:
    return {
        "DSTACK_RUN_NAME": order.name,
        "DSTACK_RUN_ID": order.run,
        "DSTACK_JOB_ID": order.job,
        "DSTACK_REPO_ID": order.project,
        "DSTACK_ATTEMPT": str(order.number),
        "DSTACK_REPLICA": str(order.replica),
        "DSTACK_NODE_RANK": str(order.rank),
        "DSTACK_NODES_NUM": str(order.nodes),
        "DSTACK_NODES_IPS": "\n".join(order.peers),
        "DSTACK_MASTER_NODE_IP": order.peers[0] if order.peers else "127.0.0.1",
        "DSTACK_MASTER_PORT": str(order.master_port or master_port(order.attempt)),
        **({"DSTACK_SERVICE_PORT": str(order.port)} if order.port else {}),
        "DSTACK_GPUS_PER_NODE": str(len(order.gpus)),
        "DSTACK_GPUS_NUM": str(sum(order.peer_slots) if order.peer_slots else len(order.gpus) * order.nodes),
    }


def _check(variables: dict[str, str]) -> None:
    if (large := too_large(variables.items())) is not None:
        raise HostError(large[1])
    for name, value in variables.items():
        if not _NAME.match(name):
            raise HostError(f"not a name for an environment variable: {name!r}")
        if "\0" in value:
            raise HostError(f"the value of {name} holds a NUL character")


def environment_file(variables: dict[str, str]) -> bytes:
    """Lines for a POSIX sh to read; `command` keeps a read-only name (UID in bash) from ending that shell."""
    lines = (f"command export {name}={shlex.quote(value)}\n" for name, value in variables.items())
    return _bytes(lines)


def script(order: JobOrder) -> bytes:
    """Setup, then the commands, as one script for bash or sh; it ends at the first that fails."""
    arguments = shlex.join(order.args)
    commands = [_ARGS.sub(lambda _: arguments, command) for command in (*order.setup, *order.commands)]
    if any("\0" in command for command in commands):
        raise HostError("a command holds a NUL character")
    return _bytes([*(f"{command}\n{_GUARD}\n" for command in commands), _STAY if order.stay else ""])


def arguments(order: JobOrder) -> list[str]:
    """The commands as arguments of an entrypoint: `${{ run.args }}` alone stands for all of them."""
    found: list[str] = []
    for command in order.commands:
        found += order.args if _ARGS.fullmatch(command) else [_ARGS.sub(lambda _: shlex.join(order.args), command)]
    if any("\0" in argument for argument in found):
        raise HostError("a command holds a NUL character")
    return found


def hostfile(peers: Sequence[str], *, slots: Sequence[int]) -> bytes:
    """For mpirun: one node a line, with its GPUs; one without any has one slot."""
    return _bytes(f"{peer} slots={max(1, count)}\n" for peer, count in zip(peers, slots, strict=True))


def _bytes(lines: Iterable[str]) -> bytes:
    return "".join(lines).encode("utf-8", "surrogateescape")
