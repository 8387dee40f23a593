"""Follow a run over all its attempts until it ends, is detached or is stopped."""

from __future__ import annotations

import time
from dataclasses import dataclass

from reconciler.app.site import Site
from reconciler.cli.commands.plan.refusals import raise_refusals
from reconciler.cli.commands.plan.scoped_tick import Wished, fulfil
from reconciler.cli.commands.run.logs import live_log, print_log, write
from reconciler.cli.exits import Fail
from reconciler.cli.project import ports_of, state_of
from reconciler.cli.terminal.progress import Progress
from reconciler.cli.terminal.streams import NoTerminal, ask, out, say
from reconciler.engine.ports import Ports
from reconciler.engine.request import TickAsk
from reconciler.engine.until import settle, settled
from reconciler.hosts.follow_log import follow
from reconciler.state.requests import WishRefused, stop_run
from reconciler.system.process import now, who
from reconciler.text.format import clean
from schemas.plan import Permissions, Plan
from schemas.run import LIVE_JOB, RUN_ENDED, Attempt, Job, Run
from schemas.state import State


def hand_over(site: Site, wished: Wished, *, run: Run) -> int:
    """`-d`: returns once the run's jobs are at their hosts, or says who will start it, if anybody."""
    last = fulfil(site, wished, until=settled)
    found = _run(last.state, run)
    if found.status != "submitted":
        out(f"run {found.spec.name} is {found.status}; `dstack logs -f {found.spec.name}` follows it\n")
        return 1 if found.status == "failed" else 0
    out(clean(f"run {found.spec.name} waits: {found.reason or 'nothing is free for it'}") + "\n")
    say(f"next: {last.plan.next_actor or 'nobody; `dstack apply` starts it when it can'}")
    return 0


def follow_run(site: Site, wished: Wished, *, run: Run) -> int:
    """0 where it was done, 1 where it ended otherwise, 130 where one left it."""
    asked = TickAsk(
        wish=wished.wish,
        carried=wished.carried,
        permissions=Permissions(scope=wished.scope),
        confirm=wished.confirm,
        prompted=wished.prompted,
        goes_on="runs",
    )
    progress = Progress()
    course = _Course(site=site, ports=ports_of(site, asking=progress.asking), run=run, progress=progress)
    try:
        return course.follow(asked)
    except KeyboardInterrupt:
        if not course.written:
            raise
        return course.leave()


@dataclass(kw_only=True)
class _Course:
    """`seen` are attempts whose log was shown; `written`: the wish is in the state; `waits`: why, as last said."""

    site: Site
    ports: Ports
    run: Run
    progress: Progress
    seen: frozenset[str] = frozenset()
    written: bool = False
    waits: str = ""

    def follow(self, asked: TickAsk) -> int:
        state = self._settle(asked)
        again = TickAsk(permissions=Permissions(scope=(self.run.id,)), retry_hosts=False, goes_on="runs")
        while _run(state, self.run).status not in RUN_ENDED:
            state = self._show(state)
            state = self._settle(again)
        for attempt in _attempts(state, self.run):
            self._show_stored(state, attempt)
        ended = _run(state, self.run)
        said = f"run {ended.spec.name} is {ended.status}"
        said += f" (exit {ended.exit_code})" if ended.exit_code else ""
        say(said + (f": {ended.reason}" if ended.reason else ""))
        return 0 if ended.status == "done" else 1

    def leave(self) -> int:
        """Ctrl-C: the run is stopped or goes on by itself; nobody to ask means that it goes on."""
        name = self.run.spec.name
        try:
            stop = ask("\nStop the run before leaving?")
        except (NoTerminal, KeyboardInterrupt):
            stop = False
        if not stop:
            say(f"left run {name}: it goes on; `dstack logs -f {name}`, `dstack stop {name}`")
            return 130
        wished = Wished(wish=lambda state: stop_run(state, self.run.id, by=who(), now=now()), scope=(self.run.id,))
        try:
            last = fulfil(self.site, wished, until=lambda state, plan: _over(state, self.run, plan))
        except Fail as error:
            if not isinstance(error.__cause__, WishRefused):
                raise
            say(str(error))
            return 130
        ended = _run(last.state, self.run)
        say(f"run {name} is {ended.status}{f': {ended.reason}' if ended.reason else ''}")
        return 130

    def _settle(self, asked: TickAsk) -> State:
        """Ticks until a log can be read that was not shown, or the run has ended."""
        with self.progress:

            def tell(state: State) -> None:
                self.written = self.written or any(one.id == self.run.id for one in state.runs)
                self.progress(state)
                self._say_waiting(state)

            done = settle(self.ports, asked, until=lambda state, plan: self._ready(state, plan), progress=tell)
        raise_refusals(done.first)
        if done.last.state is None:
            raise Fail("the state is gone; `dstack state rebuild`")
        self.written = True
        return done.last.state

    def _say_waiting(self, state: State) -> None:
        """Why it does not run yet, or not again, whenever that changes."""
        now = _run(state, self.run)
        why = now.reason if now.status == "submitted" else ""
        if why and why != self.waits:
            say(f"run {now.spec.name} waits: {why}")
        self.waits = why

    def _ready(self, state: State, plan: Plan) -> bool:
        if _over(state, self.run, plan):
            return True
        newest = _newest(state, self.run)
        return newest is not None and newest.id not in self.seen and _first(newest).status in ("running", "ended")

    def _show(self, state: State) -> State:
        """The first node's log of the newest attempt, until that job ends."""
        attempt = _newest(state, self.run)
        if attempt is None or attempt.id in self.seen:
            return state
        job = _first(attempt)
        host = next((one for one in state.instances if one.id == job.instance), None)
        self.seen |= {attempt.id}
        if job.status not in LIVE_JOB or host is None:
            print_log(self.site, state=state, run=self.run, attempt=attempt, rank=job.rank, until_end=False)
            return state
        if attempt.number > 1:
            say(f"attempt {attempt.number} on {host.name}")
        else:
            say(f"run {self.run.spec.name} is running on {host.name}")
        if self.run.spec.ide:
            say(f"`dstack attach {self.run.spec.name}` opens it in {self.run.spec.ide}")
        follow(live_log(self.ports, self.site, host=host, job=job, lasting=True), write=write, sleep=time.sleep)
        return state_of(self.site)

    def _show_stored(self, state: State, attempt: Attempt) -> None:
        """One that began and ended between two looks."""
        if attempt.id not in self.seen and _first(attempt).log:
            self.seen |= {attempt.id}
            print_log(self.site, state=state, run=self.run, attempt=attempt, rank=0, until_end=False)


def _run(state: State | None, run: Run) -> Run:
    return next((one for one in state.runs if one.id == run.id), run) if state else run


def _attempts(state: State, run: Run) -> list[Attempt]:
    mine = [one for one in state.attempts if one.run == run.id and one.replica == 0]
    return sorted(mine, key=lambda one: one.number)


def _newest(state: State, run: Run) -> Attempt | None:
    return next(reversed(_attempts(state, run)), None)


def _first(attempt: Attempt) -> Job:
    return min(attempt.jobs, key=lambda one: one.rank)


def _over(state: State, run: Run, plan: Plan) -> bool:
    del plan
    found = [one for one in state.runs if one.id == run.id]
    return bool(found) and found[0].status in RUN_ENDED
