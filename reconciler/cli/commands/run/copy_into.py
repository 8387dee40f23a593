"""`dstack cp SRC RUN:PATH`: copy files into a running job."""

from __future__ import annotations

import os
import tarfile
import threading
from pathlib import Path

from reconciler.cli.commands.run.door import door_to
from reconciler.cli.commands.run.enter import living_job
from reconciler.cli.commands.run.find import find_run
from reconciler.cli.exits import Fail
from reconciler.cli.project import site, state_of
from reconciler.cli.terminal.bounded_wait import BoundedWait
from reconciler.cli.terminal.streams import out
from reconciler.hosts.pack import unpack_files
from reconciler.hosts.runner import HostError
from reconciler.hosts.session.base import Session
from reconciler.text.format import counted


def copy_into(source: Path, *, target: str, job: int, replica: int, deadline: str = "") -> int:
    """Copy a file or the content of a folder, without owners. Raises `Fail` where not all of it arrived."""
    name, _, path = target.partition(":")
    if not os.path.lexists(source):
        raise Fail(f"{source}: no such file or folder here")
    where = site()
    state = state_of(where)
    run = find_run(state, name)
    found, host = living_job(state, run, rank=job, replica=replica)
    door = door_to(host, where=where)
    folder, spec = source.is_dir(), run.spec
    left = f"; not all of it arrived in {target}. The run goes on"
    try:
        with BoundedWait(f"{host.name} to take the files", deadline=deadline, left=left) as wait:
            session = unpack_files(
                door,
                found.id,
                path,
                name=source.resolve().name,
                folder=folder,
                working_dir=spec.working_dir,
                boxed=spec.container is not None,
            )
            number, said, code = _send(session, source, folder=folder, wait=wait)
    except HostError as error:
        raise Fail(f"{host.name}: {error}") from error
    if code:
        raise Fail(f"run {spec.name}: {said or f'tar there ended with {code}'}; not all of it arrived")
    out(f"{counted(number, 'file')} copied to {target}\n")
    return 0


def _send(session: Session, source: Path, *, folder: bool, wait: BoundedWait) -> tuple[int, str, int]:
    """(how many files, the last line of its errors, its exit code)."""
    errors: list[bytes] = []
    heard = threading.Thread(target=lambda: errors.extend(iter(lambda: session.read_errors(4096), b"")), daemon=True)
    heard.start()
    files = _Files()
    with tarfile.open(  # type: ignore[call-overload]
        fileobj=_Input(session, wait), mode="w|", format=tarfile.GNU_FORMAT, dereference=not folder
    ) as tar:
        tar.add(source, arcname="." if folder else "file", filter=files.plain)
    session.end_input()
    while session.read(4096):
        pass
    code = session.wait()
    heard.join(5)
    lines = b"".join(errors).decode("utf-8", "replace").strip().splitlines()
    return files.number, lines[-1][:300] if lines else "", code


class _Files:
    """Counts what is sent."""

    number = 0

    def plain(self, entry: tarfile.TarInfo) -> tarfile.TarInfo:
        """Without an owner of this machine."""
        self.number += entry.isfile() or entry.islnk()
        entry.uid = entry.gid = 0
        entry.uname = entry.gname = ""
        return entry


class _Input:
    """A session's input as a file to write to."""

    def __init__(self, session: Session, wait: BoundedWait) -> None:
        self._session, self._wait = session, wait

    def write(self, data: bytes) -> int:
        self._session.write(data)
        self._wait.moved()
        return len(data)
