"""Pack a job's folder as its host will have it, as one tar. Pure but for reading the packaged programs."""

from __future__ import annotations

import io
import re
import shlex
import tarfile
from functools import cache
from importlib.resources import files
from pathlib import PurePosixPath

from reconciler.hosts.artifacts import pattern_of
from reconciler.hosts.container_files import begins_with, box_files, split_environment
from reconciler.hosts.environment import environment, environment_file, hostfile, script
from reconciler.hosts.runner import HostError, JobOrder
from reconciler.state.master_port import master_port
from schemas.base import NAME
from schemas.delivery import Delivery
from schemas.run import Probe


def stage(order: JobOrder) -> bytes:
    """Every file of the folder, private to its owner; `complete` is the last, so that a cut stream is noticed."""
    probe, commands = _probe(order), script(order)
    peers = hostfile(order.peers, slots=order.peer_slots or [len(order.gpus)] * len(order.peers))
    contents = {
        "supervisor.sh": _packaged("supervisor.sh"),
        **{f"{name}.sh": _packaged(f"{name}.sh") for name in _PROGRAMS},
        **_environment(order, script=commands, hostfile=peers, probe=probe),
        "script": commands,
        "order": _settings(order),
        "name": _name(order.name),
        **({"restored": f"{order.restored_from}\n".encode()} if order.restored_from else {}),
        "kept_for": f"{order.hold}\n".encode(),
        "hostfile": peers,
        **({} if probe is None else {"probe": probe}),
        **({"hold": b""} if order.hold_back else {}),
    }
    contents |= _deliveries(order)
    contents["complete"] = b""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w", format=tarfile.GNU_FORMAT) as tar:
        for name, content in contents.items():
            entry = tarfile.TarInfo(name)
            entry.size, entry.mode = len(content), 0o600
            tar.addfile(entry, io.BytesIO(content))
    return packed.getvalue()


_PROGRAMS = ("rules", "containers", "run_container", "session", "share", "keep_log", "service", "enter")


def _environment(order: JobOrder, *, script: bytes, hostfile: bytes, probe: bytes | None) -> dict[str, bytes]:
    every = environment(order)
    if order.box is None:
        return {"env": environment_file(every)}
    passed, reserved = split_environment(every)
    files = box_files(order, variables=passed, script=script, hostfile=hostfile, probe=probe)
    return {"env": environment_file(passed), "env.reserved": reserved, **files}


def _deliveries(order: JobOrder) -> dict[str, bytes]:
    """How the host puts the result into the bucket: a request a file, for curl, and which files are artifacts."""
    if not order.deliveries:
        return {}
    patterns = "".join(f"{pattern_of(glob)}\n" for glob in order.artifacts)
    return {
        "deliver.sh": _packaged("deliver.sh"),
        "put-patterns": patterns.encode("utf-8", "surrogateescape"),
        **{f"put-{one.part}": _request(one) for one in order.deliveries},
    }


def _request(one: Delivery) -> bytes:
    headers = "".join(f'header = "{name}: {value}"\n' for name, value in one.headers)
    return f'url = "{one.url}"\n{headers}'.encode()


@cache
def _packaged(name: str) -> bytes:
    return files("reconciler.hosts.programs").joinpath(name).read_bytes()


def _settings(order: JobOrder) -> bytes:
    """What the supervisor enforces, as assignments that a POSIX sh reads."""
    probe = order.probe or Probe()
    settings: dict[str, int | str] = {
        "max_duration": order.max_duration or 0,
        "grace": order.grace,
        "nap": _nap(order),
        "restart": int(order.restart),
        "inactivity": order.inactivity,
        "disk": order.disk,
        "limit_cpus": 0 if order.box else order.limit_cpus,
        "limit_memory": 0 if order.box else order.limit_memory,
        "log_half": max(1, order.log_limit // 2),
        "log_reads": max(1, min(256, order.log_limit // 2 // (4 * 4096))),
        **_place(order),
        "notice": order.notice or "../../notice",
        "listens": (order.port or 0) if probe.path else 0,
        "probe_interval": probe.interval,
        "probe_timeout": probe.timeout,
        "ready_after": probe.ready_after,
        "fail_after": probe.fail_after,
        "probe_inside": int(order.box is not None and bool(probe.command)),
        "python": order.python.replace(".", ""),
        "warning": min(1800, order.inactivity // 2),
        "keep_changes": int(order.keep_changes),
        "changes_limit": _CHANGES_LIMIT,
        "floor": order.disk_floor,
        "hold_back": order.hold_back,
        "master_port": order.master_port or master_port(order.attempt),
    }
    lines = (f"{name}={shlex.quote(str(value))}\n" for name, value in settings.items())
    return "".join(lines).encode("utf-8", "surrogateescape")


_CHANGES_LIMIT = 256 * 1024  # KiB


def _place(order: JobOrder) -> dict[str, int | str]:
    """Where it runs: `folder` is its working folder in the container, `inside` that it lies in the job's files."""
    box, absolute = order.box, order.box is not None and order.working_dir.startswith("/")
    below = "" if absolute else _inside(order.working_dir)
    return {
        "working_dir": below,
        "inside": int(not absolute),
        "folder": order.working_dir if absolute else f"/workflow/{below}".rstrip("/"),
        "image": box.image if box else "",
        "user": box.user if box else "",
        "begins": begins_with(order),
        "memory": box.memory if box else 0,
        "gpus": ",".join(order.gpus),
    }


def _nap(order: JobOrder) -> int:
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


def _probe(order: JobOrder) -> bytes | None:
    """The probe as a script: a command, or a request by whatever the host has."""
    if order.probe is None:
        return None
    if order.probe.command:
        return order.probe.command.encode("utf-8", "surrogateescape") + b"\n"
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
    return text.encode()
