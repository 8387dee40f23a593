"""Follow a run over all its attempts until it ends, is detached or is stopped."""

from __future__ import annotations

import time
from dataclasses import dataclass, field, replace

from reconciler.app.site import Site
from reconciler.cli.commands.plan.refusals import raise_refusals
from reconciler.cli.commands.plan.scoped_tick import Wished
from reconciler.cli.commands.run.leave import detached, hand_over, leave, run_in
from reconciler.cli.commands.run.logs import LogLost, live_log, print_log, write
from reconciler.cli.exits import Fail
from reconciler.cli.project import ports_of
from reconciler.cli.terminal.progress import Progress
from reconciler.cli.terminal.streams import say
from reconciler.cli.terminal.times import seconds
from reconciler.engine.ports import Ports
from reconciler.engine.request import TickAsk
from reconciler.engine.until import Settled, settle
from reconciler.hosts.follow_log import follow
from reconciler.report.blocked import Blocked, Waiting
from schemas.instance import Instance
from schemas.plan import Permissions
from schemas.run import LIVE_JOB, RUN_ENDED, Attempt, Job, Run
from schemas.state import State

# Seconds for which a host does not answer its follower, before it is asked whether the run still exists …
SILENCE = 20.0
# … and for which it is unreachable, before the run is followed no longer.
UNREACHABLE = 600


def start_run(site: Site, wished: Wished, *, run: Run, detach: bool, deadline: str) -> int:
    """Hand the run over with `detach`, else follow it; `deadline` is as typed, "" for none.

    0 where it was done, 1 where it ended otherwise, 3 where it goes on without us, 130 where one left it.
    """
    limit = seconds(deadline, flag="--deadline") if deadline else None
    if detach:
        return hand_over(site, replace(wished, within=limit), run=run)
    asked = TickAsk(
        wish=wished.wish,
        carried=wished.carried,
        permissions=Permissions(scope=wished.scope),
        confirm=wished.confirm,
        prompted=wished.prompted,
        goes_on="runs",
    )
    progress = Progress(waits=f"run {run.spec.name} to start or end")
    ports = ports_of(site, asking=progress.asking)
    ends = None if limit is None else ports.clock() + limit
    course = _Course(site=site, ports=ports, run=run, progress=progress, ends=ends)
    try:
        return course.follow(asked)
    except KeyboardInterrupt:
        if not course.written:
            raise
        return leave(site, run)


@dataclass(kw_only=True)
class _Course:
    site: Site
    ports: Ports
    run: Run
    progress: Progress
    ends: float | None = None
    """By the boot-time clock: when it is followed no longer."""
    seen: set[str] = field(default_factory=set)
    """Attempts whose log was shown to its end."""
    shown: dict[str, int] = field(default_factory=dict)
    """Attempt -> bytes of its log that were shown."""
    written: bool = False
    """The request is in the state."""
    waits: str = ""
    """Why it waits, as last said."""
    troubled: str = ""
    """What keeps it from ending, as last said."""

    def follow(self, asked: TickAsk) -> int:
        done = self._settle(asked)
        again = TickAsk(permissions=Permissions(scope=(self.run.id,)), retry_hosts=False, goes_on="runs")
        while not self._ended(done):
            if why := self._given_up(done):
                return detached(run_in(done.last.state, self.run), why)
            self._show(self._state(done))
            if not self._late():
                done = self._settle(again)
        state = self._state(done)
        for attempt in _attempts(state, self.run):
            self._show_stored(state, attempt)
        ended = run_in(state, self.run)
        said = f"run {ended.spec.name} is {ended.status}"
        said += f" (exit {ended.exit_code})" if ended.exit_code else ""
        say(said + (f": {ended.reason}" if ended.reason else ""))
        return 0 if ended.status == "done" else 1

    def _ended(self, done: Settled) -> bool:
        return run_in(self._state(done), self.run).status in RUN_ENDED

    def _given_up(self, done: Settled) -> str:
        return done.blocked or ("Still under way at the deadline." if self._late() else "")

    def _late(self) -> bool:
        return self.ends is not None and self.ports.clock() >= self.ends

    def _settle(self, asked: TickAsk) -> Settled:
        """Ticks until a log can be read that was not shown, or the run has ended."""
        with self.progress:

            def tell(state: State) -> None:
                self.written = self.written or any(one.id == self.run.id for one in state.runs)
                self.progress(state)
                self._say_waiting(state)

            done = settle(
                self.ports,
                asked,
                until=lambda state, plan: self._ready(state),
                progress=tell,
                trouble=self.progress.trouble,
                blocked=self._blocked(),
                deadline=None if self.ends is None else max(0.0, self.ends - self.ports.clock()),
            )
        raise_refusals(done.first)
        self.written = True
        return done

    def _state(self, done: Settled) -> State:
        """With the run in it: one that is gone has no end that could be waited for."""
        state = done.last.state
        if state is None:
            raise Fail(done.last.refused or "the state is gone; `dstack state rebuild`")
        if not any(one.id == self.run.id for one in state.runs):
            name = self.run.spec.name
            raise Fail(
                f"run {name} ({self.run.id}) is not in the state any more: nothing is left to follow: dstack ps -a"
            )
        return state

    def _say_waiting(self, state: State) -> None:
        """Why it does not run yet, or not again, whenever that changes."""
        now = run_in(state, self.run)
        why = now.reason if now.status == "submitted" else ""
        if why and why != self.waits:
            say(f"run {now.spec.name} waits: {why}")
        self.waits = why

    def _blocked(self) -> Blocked:
        waiting = Waiting(clock=self.ports.now, runs=(self.run.id,)).why_blocked
        return lambda state, plan, outcomes: self._weighed(state, waiting(state, plan, outcomes))

    def _weighed(self, state: State, why: str) -> str:
        """A host that does not answer is waited for longer than a stop, or a result that cannot be stored."""
        if why and why != self.troubled:
            say(why)
        self.troubled = why
        attempt = _newest(state, self.run)
        dark = [host for host in _hosts(state, attempt) if host.unreachable_since is not None]
        longer = attempt is not None and not attempt.stopping and dark
        since = min((host.unreachable_since or 0 for host in dark), default=0)
        return "" if longer and self.ports.now() < since + UNREACHABLE else why

    def _ready(self, state: State) -> bool:
        mine = [one for one in state.runs if one.id == self.run.id]
        if not mine or mine[0].status in RUN_ENDED:
            return True
        newest = _newest(state, self.run)
        if newest is None or newest.id in self.seen:
            return False
        job = _first(newest)
        if newest.id in self.shown and job.status == "running":  # its host fell silent: once it answers
            return all(host.unreachable_since is None for host in _hosts(state, newest))
        return job.status in ("running", "ended")

    def _show(self, state: State) -> None:
        """The first node's log of the newest attempt, until that job ends or its host falls silent."""
        attempt = _newest(state, self.run)
        if attempt is None or attempt.id in self.seen:
            return
        job = _first(attempt)
        host = next((one for one in state.instances if one.id == job.instance), None)
        if job.status not in LIVE_JOB or host is None:
            self.seen.add(attempt.id)
            print_log(
                self.site,
                state=state,
                run=self.run,
                attempt=attempt,
                rank=job.rank,
                until_end=False,
                offset=self.shown.get(attempt.id, 0),
            )
            return
        if attempt.id not in self.shown:
            self._say_running(attempt, host)
        try:
            self._follow(attempt, job, host)
        except LogLost as lost:
            say(str(lost))
            return
        if not self._late():
            self.seen.add(attempt.id)

    def _say_running(self, attempt: Attempt, host: Instance) -> None:
        name, again = self.run.spec.name, attempt.number > 1
        say(f"attempt {attempt.number} on {host.name}" if again else f"run {name} is running on {host.name}")
        if self.run.spec.ide:
            say(f"`dstack attach {name}` opens it in {self.run.spec.ide}")

    def _follow(self, attempt: Attempt, job: Job, host: Instance) -> None:
        self.shown.setdefault(attempt.id, 0)

        def shown(data: bytes) -> None:
            write(data)
            self.shown[attempt.id] += len(data)

        log = live_log(self.ports, self.site, host=host, job=job, lasting=True, silence=SILENCE)
        follow(log, write=shown, sleep=time.sleep, offset=self.shown[attempt.id], stop=self._late)

    def _show_stored(self, state: State, attempt: Attempt) -> None:
        """One that began and ended between two looks, and what is left of one whose host fell silent."""
        if attempt.id not in self.seen and _first(attempt).log:
            self.seen.add(attempt.id)
            offset = self.shown.get(attempt.id, 0)
            print_log(self.site, state=state, run=self.run, attempt=attempt, rank=0, until_end=False, offset=offset)


def _attempts(state: State, run: Run) -> list[Attempt]:
    mine = [one for one in state.attempts if one.run == run.id and one.replica == 0]
    return sorted(mine, key=lambda one: one.number)


def _newest(state: State, run: Run) -> Attempt | None:
    return next(reversed(_attempts(state, run)), None)


def _hosts(state: State, attempt: Attempt | None) -> list[Instance]:
    ids = {job.instance for job in attempt.jobs} if attempt else set()
    return [one for one in state.instances if one.id in ids]


def _first(attempt: Attempt) -> Job:
    return min(attempt.jobs, key=lambda one: one.rank)
