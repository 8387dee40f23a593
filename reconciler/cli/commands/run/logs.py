"""`dstack logs`: read a log from the host while the job runs, from the store afterwards."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable

from reconciler.app.site import Site
from reconciler.cli.commands.run.find import find_attempt, find_job, find_run
from reconciler.cli.exits import Fail
from reconciler.cli.project import ports_of, site, state_of
from reconciler.cli.terminal.bounded_wait import BoundedWait
from reconciler.cli.terminal.state_age import say_age
from reconciler.cli.terminal.streams import say
from reconciler.cli.terminal.times import seconds
from reconciler.engine.ports import Ports
from reconciler.hosts.follow_log import Log, follow
from reconciler.hosts.runner import HostError, Unreachable, Untrusted
from reconciler.store.blobs.folder import Blobs
from schemas.instance import Instance
from schemas.run import RUN_ENDED, Attempt, Job, Run
from schemas.state import State

ABSENT = 3  # looks in a row in which the host does not have the job
SETTLED = frozenset({"done", "failed", "terminated", "aborted", "lost"})


OUTAGE = 600.0  # seconds without an answer after which a host's log is followed no longer


class LogLost(Exception):
    """No more of a log comes from its host for now; the message says why."""


def show_logs(
    name: str, *, follow: bool, job: int, replica: int, attempt: int, tail: int | None = None, deadline: str = ""
) -> int:
    """0, also for a run that failed: the log was shown. 3 at the deadline. `tail`: how many of its lines, None: all."""
    where = site()
    late = until_late(deadline)
    state = state_of(where)
    run = find_run(state, name)
    if run.status not in RUN_ENDED:
        say_age(state)
    chosen = find_attempt(state, run, replica=replica, number=attempt)
    waits = ""
    while chosen is None and follow and run.status not in RUN_ENDED and not late():
        waits = say_pending(run, said=waits)
        time.sleep(0.5)
        state = state_of(where)
        run = find_run(state, run.id)
        chosen = find_attempt(state, run, replica=replica, number=attempt)
    if chosen is None:
        why = f"run {name} has not started: {run.status}{f' ({run.reason})' if run.reason else ''}"
        raise Fail(why, code=3 if late() else 1)
    print_log(where, state=state, run=run, attempt=chosen, rank=job, until_end=follow, tail=tail, late=late)
    if follow and late():
        say("Still running at the deadline.")
        return 3
    return 0


def until_late(deadline: str) -> Callable[[], bool]:
    """Whether that long has passed since now; never where it is ""."""
    if not deadline:
        return lambda: False
    ends = time.monotonic() + seconds(deadline, flag="--deadline")
    return lambda: time.monotonic() >= ends


def say_pending(run: Run, *, said: str) -> str:
    """Say why a run has no job yet, whenever that changes; `said` is what was said last. Nothing is started for it."""
    why = f"run {run.spec.name} waits: {run.reason or run.status}"
    if why != said:
        say(f"{why}; the next `dstack apply` goes on with it. Ctrl-C leaves it waiting")
    return why


def print_log(
    where: Site,
    *,
    state: State,
    run: Run,
    attempt: Attempt,
    rank: int,
    until_end: bool,
    offset: int = 0,
    tail: int | None = None,
    late: Callable[[], bool] = lambda: False,
) -> None:
    """One job's log to stdout, byte for byte, from `offset` on; with `tail` only so many lines of what is there."""
    ports = ports_of(where)
    job = find_job(attempt, rank=rank, run=run)
    if job.log or job.status in SETTLED:
        _stored(ports.blobs, job, run=run, offset=offset, tail=tail)
        return
    host = next((one for one in state.instances if one.id == job.instance), None)
    if host is None:
        raise Fail(f"run {run.spec.name}: its instance {job.instance} is not known any more")
    log = live_log(ports, where, host=host, job=job, lasting=until_end)
    if until_end and tail is None:
        _follow(log, run=run, offset=offset, late=late)
        return
    with BoundedWait(f"{host.name} to send the log") as wait:
        shown = None if tail is None else LastLines(tail)
        while data := log.read(offset):
            wait.moved()
            write(data) if shown is None else shown.add(data)
            offset += len(data)
    if shown is not None:
        write(shown.text)
    if until_end:
        _follow(log, run=run, offset=offset, late=late)


def _follow(log: Log, *, run: Run, offset: int, late: Callable[[], bool]) -> None:
    try:
        follow(log, write=write, sleep=time.sleep, offset=offset, stop=late)
    except LogLost as lost:
        raise Fail(f"{lost}; dstack logs -f {run.spec.name}") from lost


def live_log(ports: Ports, where: Site, *, host: Instance, job: Job, lasting: bool, silence: float = OUTAGE) -> Log:
    """From the host; once it was collected and cleaned there, from the store.

    `lasting`: a connection that breaks after the first answer is made again, for as long as `silence` (seconds). Then,
    and where the host has no such job any more, reading raises `LogLost`.
    """
    outage = _Outage(host.name, patience=silence) if lasting else None
    absent: list[str] = []

    def read(offset: int) -> bytes:
        try:
            data = ports.runner.read_log(host, job.id, offset=offset, to_the_end=not lasting)
        except HostError as error:
            stored = _collected(where, job)
            if stored is not None:
                return ports.blobs.get(stored.log)[offset:] if stored.log else b""
            if outage is not None and outage.lasts(error):
                return b""
            raise Fail(f"{host.name} does not answer: {error}; the log is stored when the run has ended") from error
        if outage is not None:
            outage.is_over()
        if data:
            return data
        stored = _collected(where, job)
        return ports.blobs.get(stored.log)[offset:] if stored is not None and stored.log else b""

    def ended() -> bool:
        if _collected(where, job) is not None:
            return True
        report = ports.runner.look(host, now=ports.now())
        known = next((one.phase for one in report.jobs if one.id == job.id), "absent")
        absent[:] = [*absent, host.name] if known == "absent" and not report.error else []
        if len(absent) >= ABSENT:
            raise LogLost(f"{host.name} does not have job {job.id} any more; `dstack apply` settles what became of it")
        return known in ("ended", "lost")

    return Log(read=read, ended=ended)


class _Outage:
    """A host that answered once and does not now: told once, asked again after 1, 2, 4 … 30 s, and told when over.

    `patience` is in seconds.
    """

    def __init__(self, name: str, *, patience: float) -> None:
        self._name, self._answered, self._wait = name, False, 0
        self._patience, self._since = patience, 0.0

    def lasts(self, error: HostError) -> bool:
        """Whether to ask again, after a pause. A host that never answered, or is another now, is an error."""
        if not self._answered or not isinstance(error, Unreachable) or isinstance(error, Untrusted):
            return False
        if not self._wait:
            self._since = time.monotonic()
            say(f"{self._name}: {error}; the run goes on, trying again")
        silent = time.monotonic() - self._since
        if silent >= self._patience:
            why = f"{self._name} did not answer for {silent:.0f}s: {error}"
            raise LogLost(f"{why}. `dstack apply` tells whether it is still there")
        self._wait = min(30, self._wait * 2 or 1)
        time.sleep(self._wait)
        return True

    def is_over(self) -> None:
        if self._wait:
            say(f"{self._name} answers again")
        self._answered, self._wait = True, 0


class LastLines:
    """The last so many lines of what is added; one that is not finished yet counts."""

    def __init__(self, number: int) -> None:
        self._number = number
        self.text = b""

    def add(self, data: bytes) -> None:
        """A carriage return ends no line: what draws over itself is one."""
        parts = (self.text + data).split(b"\n")
        most = self._number + (not parts[-1])
        self.text = b"\n".join(parts[-most:]) if self._number else b""


def write(data: bytes) -> None:
    sys.stdout.flush()
    sys.stdout.buffer.write(data)
    sys.stdout.buffer.flush()


def _stored(blobs: Blobs, job: Job, *, run: Run, offset: int, tail: int | None) -> None:
    if not job.log:
        say(f"run {run.spec.name}: no log was kept: {job.reason or job.status}")
        return
    text = blobs.get(job.log)[offset:]
    if tail is not None:
        shown = LastLines(tail)
        shown.add(text)
        text = shown.text
    write(text)


def _collected(where: Site, job: Job) -> Job | None:
    """The job as stored, once its result is in."""
    for attempt in state_of(where).attempts:
        for one in attempt.jobs:
            if one.id == job.id:
                return one if one.log or one.status in SETTLED else None
    raise LogLost(f"job {job.id} is not in the state any more: nothing is left to follow")
