"""`dstack cp RUN:PATH DEST`: copy files out of a running job or out of a run's artifacts."""

from __future__ import annotations

import posixpath
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from rich.filesize import decimal

from reconciler.app.site import Site
from reconciler.app.stores import artifacts_of
from reconciler.cli.commands.run.door import door_to
from reconciler.cli.commands.run.enter import living_job
from reconciler.cli.commands.run.find import find_run
from reconciler.cli.exits import Fail
from reconciler.cli.project import site, state_of
from reconciler.cli.terminal.bounded_wait import BoundedWait
from reconciler.cli.terminal.streams import out, say
from reconciler.hosts.pack import FilesStream, pack_files
from reconciler.hosts.runner import HostError
from reconciler.hosts.unpack import TarSource, Unpacked, unpack
from reconciler.store.blobs.fetched import Fetched
from reconciler.text.format import counted
from schemas.run import RUN_ENDED, Job, Run
from schemas.state import State

QUIET = 2.0  # seconds before a copy is long enough to be told of


def copy_out(source: str, *, target: Path, job: int, replica: int, deadline: str = "") -> int:
    """0 where all of it arrived; 1 where something was left out or the connection broke; 3 at the deadline.

    Each is said.
    """
    name, colon, path = source.partition(":")
    if not colon or "/" in name:
        raise Fail(f"{source}: not RUN:PATH. Type `dstack cp RUN:PATH DEST` or `dstack cp SRC RUN:PATH`")
    where = site()
    state = state_of(where)
    run = find_run(state, name)
    left = f"; what arrived is in {target}, and it is not all. The run goes on"
    with (
        BoundedWait(f"files of run {run.spec.name}", deadline=deadline, left=left) as wait,
        _Progress(wait) as progress,
    ):
        copy = _Copy(where=where, state=state, run=run, path=path, target=target, progress=progress)
        done = copy.of_artifacts(job, replica) if run.status in RUN_ENDED else copy.of_job(job, replica)
    for note in done.notes[:20]:
        say(note)
    if len(done.notes) > 20:
        say(f"… and {len(done.notes) - 20} more left out")
    out(f"{counted(done.files, 'file')}, {decimal(done.size)}, in {target}\n")
    if done.cut:
        raise Fail(f"the copy is incomplete: {done.cut}")
    return 1 if done.notes else 0


@dataclass(frozen=True, kw_only=True)
class _Copy:
    """`path` is of the run, relative to its working folder or absolute; `target` is here."""

    where: Site
    state: State
    run: Run
    path: str
    target: Path
    progress: _Progress

    def of_job(self, rank: int, replica: int) -> Unpacked:
        job, host = living_job(self.state, self.run, rank=rank, replica=replica)
        door = door_to(host, where=self.where)
        try:
            spec = self.run.spec
            session = pack_files(
                door, job.id, self.path, working_dir=spec.working_dir, boxed=spec.container is not None
            )
            heard = FilesStream(session)
            kind = heard.line()
            done = Unpacked() if kind not in ("dir", "file") else self._take(heard, folder=kind == "dir")
            code, said = session.wait(), heard.errors()
        except HostError as error:
            raise Fail(f"{host.name}: {error}") from error
        if kind not in ("dir", "file"):
            raise Fail(f"run {self.run.spec.name}: {said or f'no {self.path} there'}")
        if code and not done.cut:
            done.cut = said or f"tar there ended with {code}"
        return done

    def _take(self, heard: FilesStream, *, folder: bool) -> Unpacked:
        place = self._place(folder=folder)
        if folder:
            place.mkdir(parents=True, exist_ok=True)
            return self._unpack(heard, place, choose=lambda name: name)
        return self._unpack(heard, place, choose=lambda name: "")

    def _unpack(self, source: TarSource, place: Path, *, choose: Callable[[str], str | None]) -> Unpacked:
        """What is new here is remembered: no run takes it along."""
        with Fetched(self.where.root) as fetched:

            def chosen(name: str) -> str | None:
                wanted = choose(name)
                if wanted is not None:
                    fetched.expect(place / wanted if wanted else place)
                return wanted

            return unpack(source, place, choose=chosen, moved=self.progress.add)

    def _place(self, *, folder: bool) -> Path:
        """As `cp -r` has it: into a folder that exists, else by that name. `RUN:` and `RUN:.` are the contents."""
        name = posixpath.basename(posixpath.normpath(self.path or "."))
        if name in ("", ".", ".."):
            return self.target
        given = str(self.target)
        if self.target.is_dir() or (given.endswith("/") and not folder):
            return self.target / name
        if folder and self.target.exists():
            raise Fail(f"{self.target} is a file, and {self.path} a folder")
        return self.target

    def of_artifacts(self, rank: int, replica: int) -> Unpacked:
        job = self._stored(rank, replica)
        wanted = posixpath.normpath(posixpath.join(self.run.spec.working_dir or ".", self.path or "."))
        if wanted.startswith(("/", "..")):
            raise Fail(f"run {self.run.spec.name} has ended, and {self.path} is not among its artifacts")
        blobs = artifacts_of(self.where)
        if not job.artifacts or blobs.path(job.artifacts) is None:
            raise Fail(
                f"run {self.run.spec.name} has ended: {self.run.status}, and left no artifacts; its config's "
                "`artifacts:` says what is kept"
            )
        packed = blobs.verified(job.artifacts)
        kind = _kind(packed, wanted)
        if kind is None:
            raise Fail(f"{wanted} is not among the artifacts of {self.run.spec.name}; `dstack artifacts` has them all")
        place = self._place(folder=kind == "dir")
        below = "" if wanted == "." else f"{wanted}/"
        with packed.open("rb") as file:
            if kind == "file":
                return self._unpack(file, place, choose=lambda name: "" if name == wanted else None)
            place.mkdir(parents=True, exist_ok=True)
            return self._unpack(
                file, place, choose=lambda name: name.removeprefix(below) if name.startswith(below) else None
            )

    def _stored(self, rank: int, replica: int) -> Job:
        """Of the last attempt that left any."""
        mine = [one for one in self.state.attempts if one.run == self.run.id and one.replica == replica]
        jobs = [job for one in sorted(mine, key=lambda one: one.number) for job in one.jobs if job.rank == rank]
        if not jobs:
            raise Fail(f"run {self.run.spec.name} has ended: {self.run.status}; there is no job {rank} of it")
        return next((job for job in reversed(jobs) if job.artifacts), jobs[-1])


def _kind(packed: Path, wanted: str) -> str | None:
    """Whether a name in the tar is a file or has some below it."""
    import tarfile

    with tarfile.open(packed, "r:*") as tar:
        for member in tar:
            name = posixpath.normpath(member.name)
            if wanted == "." or name.startswith(f"{wanted}/") or (name == wanted and member.isdir()):
                return "dir"
            if name == wanted:
                return "file"
    return None


class _Progress:
    """A line on a terminal that grows, once a copy takes longer than a moment."""

    def __init__(self, wait: BoundedWait, clock: Callable[[], float] = time.monotonic) -> None:
        self._wait = wait
        self._clock, self._began, self._told, self._size = clock, clock(), 0.0, 0

    def __enter__(self) -> _Progress:
        return self

    def __exit__(self, *error: object) -> None:
        if self._told:
            sys.stderr.write("\r\x1b[K")
            sys.stderr.flush()

    def add(self, size: int) -> None:
        self._wait.moved()
        self._size += size
        now = self._clock()
        if now - self._began < QUIET or now - self._told < 0.5 or not sys.stderr.isatty():
            return
        self._told = now
        speed = decimal(int(self._size / (now - self._began)))
        sys.stderr.write(f"\r\x1b[K{decimal(self._size)}, {speed}/s")
        sys.stderr.flush()
