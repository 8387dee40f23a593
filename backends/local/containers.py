"""Containers on this machine: find an engine, and end those of an instance's jobs.

A container is found by its label, which is the claim of its job; each job's folder names its engine.
"""

from __future__ import annotations

import shutil
import socket
import subprocess
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from backends.errors import TryLater

_TRIES = 5


def runtime(environ: Mapping[str, str]) -> str:
    """`docker` where its daemon answers on a socket of this machine, else `podman` where there is one, else `none`.

    Asked of the socket itself: a plan has no time for a client. What does not work in spite of that, its job tells.
    """
    path = environ.get("PATH")
    if shutil.which("docker", path=path) and any(map(_answers, _sockets(environ))):
        return "docker"
    return "podman" if shutil.which("podman", path=path) else "none"


def _sockets(environ: Mapping[str, str]) -> list[str]:
    given = environ.get("DOCKER_HOST", "")
    if given:
        return [given.removeprefix("unix://")] if given.startswith("unix://") else []
    own = environ.get("XDG_RUNTIME_DIR", "")
    return ["/var/run/docker.sock", *([f"{own}/docker.sock"] if own else [])]


def _answers(path: str) -> bool:
    with suppress(OSError), socket.socket(socket.AF_UNIX) as line:
        line.settimeout(2)
        line.connect(path)
        line.sendall(b"GET /_ping HTTP/1.0\r\nHost: docker\r\n\r\n")
        return b" 200 " in line.recv(64)
    return False


def remove_all(host: Path) -> None:
    """No container of its jobs is left, ended ones neither. Raises `TryLater` where an engine does not do it."""
    for folder in (host / "jobs").glob("*"):
        engine, claim = _word(folder / "engine"), _word(folder / "token")
        if engine in ("docker", "podman") and claim:
            _remove(engine, claim)


def _word(path: Path) -> str:
    try:
        return path.read_text("ascii", "replace").strip()
    except OSError:
        return ""


def _remove(engine: str, claim: str) -> None:
    for _ in range(_TRIES):
        found = _ask(engine, "ps", "-aq", "--filter", f"label=dstack.claim={claim}").split()
        if not found:
            return
        with suppress(TryLater):  # one that went by itself meanwhile
            _ask(engine, "rm", "-f", *found)
    raise TryLater(f"{engine} does not remove the container {found[0]}")


def _ask(engine: str, *args: str) -> str:
    program = shutil.which(engine)
    if program is None:
        raise TryLater(f"{engine}, which ran a job here, is not on this machine's PATH")
    try:
        answer = subprocess.run([program, *args], capture_output=True, text=True, timeout=120, check=False)  # noqa: S603
    except (OSError, subprocess.TimeoutExpired) as error:
        raise TryLater(f"{engine} does not answer: {error}") from error
    if answer.returncode:
        raise TryLater(f"{engine}: {answer.stderr.strip()[-200:]}")
    return answer.stdout
