"""`dstack logs`: read a log from the host while the job runs, from the store afterwards."""

from __future__ import annotations

import sys
import time

from reconciler.app.site import Site
from reconciler.cli.commands.run.find import find_attempt, find_job, find_run
from reconciler.cli.exits import Fail
from reconciler.cli.project import ports_of, site, state_of
from reconciler.cli.terminal.state_age import say_age
from reconciler.cli.terminal.streams import say
from reconciler.engine.ports import Ports
from reconciler.hosts.follow_log import Log, follow
from reconciler.hosts.runner import HostError, Unreachable, Untrusted
from reconciler.store.blobs.folder import Blobs
from schemas.instance import Instance
from schemas.run import RUN_ENDED, Attempt, Job, Run
from schemas.state import State

SETTLED = frozenset({"done", "failed", "terminated", "aborted", "lost"})


def show_logs(name: str, *, follow: bool, job: int, replica: int, attempt: int) -> int:
    """0, also for a run that failed: the log was shown."""
    where = site()
    state = state_of(where)
    run = find_run(state, name)
    if run.status not in RUN_ENDED:
        say_age(state)
    chosen = find_attempt(state, run, replica=replica, number=attempt)
    while chosen is None and follow and run.status not in RUN_ENDED:
        time.sleep(0.5)
        state = state_of(where)
        run = find_run(state, run.id)
        chosen = find_attempt(state, run, replica=replica, number=attempt)
    if chosen is None:
        raise Fail(f"run {name} has not started: {run.status}{f' ({run.reason})' if run.reason else ''}")
    print_log(where, state=state, run=run, attempt=chosen, rank=job, until_end=follow)
    return 0


def print_log(where: Site, *, state: State, run: Run, attempt: Attempt, rank: int, until_end: bool) -> None:
    """One job's log to stdout, byte for byte."""
    ports = ports_of(where)
    job = find_job(attempt, rank=rank, run=run)
    if job.log or job.status in SETTLED:
        _stored(ports.blobs, job, run=run)
        return
    host = next((one for one in state.instances if one.id == job.instance), None)
    if host is None:
        raise Fail(f"run {run.spec.name}: its instance {job.instance} is not known any more")
    log = live_log(ports, where, host=host, job=job, lasting=until_end)
    if until_end:
        follow(log, write=write, sleep=time.sleep)
        return
    offset = 0
    while data := log.read(offset):
        write(data)
        offset += len(data)


def live_log(ports: Ports, where: Site, *, host: Instance, job: Job, lasting: bool) -> Log:
    """From the host; once it was collected and cleaned there, from the store.

    `lasting`: a connection that breaks after the first answer is made again, for as long as that takes.
    """
    outage = _Outage(host.name) if lasting else None

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
        return any(one.id == job.id and one.phase in ("ended", "lost") for one in report.jobs)

    return Log(read=read, ended=ended)


class _Outage:
    """A host that answered once and does not now: told once, asked again after 1, 2, 4 … 30 s, and told when over."""

    def __init__(self, name: str) -> None:
        self._name, self._answered, self._wait = name, False, 0

    def lasts(self, error: HostError) -> bool:
        """Whether to ask again, after a pause. A host that never answered, or is another now, is an error."""
        if not self._answered or not isinstance(error, Unreachable) or isinstance(error, Untrusted):
            return False
        if not self._wait:
            say(f"{self._name}: {error}; the run goes on, trying again")
        self._wait = min(30, self._wait * 2 or 1)
        time.sleep(self._wait)
        return True

    def is_over(self) -> None:
        if self._wait:
            say(f"{self._name} answers again")
        self._answered, self._wait = True, 0


def write(data: bytes) -> None:
    sys.stdout.flush()
    sys.stdout.buffer.write(data)
    sys.stdout.buffer.flush()


def _stored(blobs: Blobs, job: Job, *, run: Run) -> None:
    if not job.log:
        say(f"run {run.spec.name}: no log was kept: {job.reason or job.status}")
        return
    write(blobs.get(job.log))


def _collected(where: Site, job: Job) -> Job | None:
    """The job as stored, once its result is in."""
    for attempt in state_of(where).attempts:
        for one in attempt.jobs:
            if one.id == job.id:
                return one if one.log or one.status in SETTLED else None
    return None
