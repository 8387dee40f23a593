"""A job's folder as its host will have it, packed as one tar. Pure but for reading the packaged programs."""

from __future__ import annotations

import io
import re
import shlex
import tarfile
from functools import cache
from importlib.resources import files
from pathlib import PurePosixPath

from reconciler.environment import environment, environment_file, hostfile, script
from reconciler.runner import HostError, Order
from schemas.base import NAME
from schemas.run import Probe


def stage(order: Order) -> bytes:
    """Every file of the folder, private to its owner; `complete` is the last, so that a cut stream is noticed."""
    contents = {
        "supervisor.sh": _packaged("supervisor.sh"),
        "rules.sh": _packaged("host_rules.sh"),
        "env": environment_file(environment(order)),
        "script": script(order),
        "order": _settings(order),
        "name": _name(order.name),
        "hostfile": hostfile(order.peers, slots=len(order.gpus)),
        **_probe(order),
        "complete": b"",
    }
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w", format=tarfile.GNU_FORMAT) as tar:
        for name, content in contents.items():
            entry = tarfile.TarInfo(name)
            entry.size, entry.mode = len(content), 0o600
            tar.addfile(entry, io.BytesIO(content))
    return packed.getvalue()


@cache
def _packaged(name: str) -> bytes:
    return files("reconciler").joinpath(name).read_bytes()


def _settings(order: Order) -> bytes:
    """What the supervisor enforces, as assignments that a POSIX sh reads."""
    probe = order.probe or Probe()
    settings: dict[str, int | str] = {
        "max_duration": order.max_duration or 0,
        "grace": order.grace,
        "nap": _nap(order),
        "restart": int(order.restart),
        "inactivity": order.inactivity,
        "disk": order.disk,
        "log_blocks": max(1, order.log_limit // 512),
        "working_dir": _inside(order.working_dir),
        "notice": order.notice or "../../notice",
        "probe_interval": probe.interval,
        "probe_timeout": probe.timeout,
        "ready_after": probe.ready_after,
        "fail_after": probe.fail_after,
    }
    lines = (f"{name}={shlex.quote(str(value))}\n" for name, value in settings.items())
    return "".join(lines).encode("utf-8", "surrogateescape")


def _nap(order: Order) -> int:
    """How often the supervisor wakes up: 5 s, or more often where a limit is short."""
    limits = [order.max_duration, order.inactivity, order.probe.interval if order.probe else None]
    return max(1, min([5, *(limit // 10 for limit in limits if limit)]))


def _name(run: str) -> bytes:
    if not re.fullmatch(NAME, run, re.ASCII):
        raise HostError(f"not a run's name: {run!r}")
    return run.encode() + b"\n"


def _inside(folder: str) -> str:
    path = PurePosixPath(folder)
    if path.is_absolute() or ".." in path.parts or "\0" in folder:
        raise HostError(f"working_dir must lie inside the run's files: {folder!r}")
    return "" if str(path) == "." else str(path)


def _probe(order: Order) -> dict[str, bytes]:
    """The probe as a script: a command, or a request by whatever the host has."""
    if order.probe is None:
        return {}
    if order.probe.command:
        return {"probe": order.probe.command.encode("utf-8", "surrogateescape") + b"\n"}
    if order.port is None:
        raise HostError("a probe of a path needs the service's port")
    url = shlex.quote(f"http://127.0.0.1:{order.port}/{order.probe.path.lstrip('/')}")
    python = "import sys, urllib.request as r; r.urlopen(sys.argv[1])"
    text = (
        f"url={url}\n"
        "unset http_proxy HTTP_PROXY\n"
        'if command -v curl; then exec curl -fsS --noproxy "*" -o /dev/null "$url"; fi\n'
        'if command -v wget; then exec wget -q -O /dev/null "$url"; fi\n'
        f'exec python3 -c {shlex.quote(python)} "$url"\n'
    )
    return {"probe": text.encode()}
