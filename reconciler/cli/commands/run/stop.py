"""`dstack stop`: stop a run and wait until it has ended."""

from __future__ import annotations

from reconciler.cli.commands.plan.scoped_tick import Wished, fulfil
from reconciler.cli.commands.run.find import find_run
from reconciler.cli.exits import Fail
from reconciler.cli.project import forget_aliases, site, state_of
from reconciler.cli.terminal.streams import must_agree, out
from reconciler.cli.terminal.times import seconds
from reconciler.report.blocked import Waiting
from reconciler.state.requests import stop_run
from reconciler.system.process import now, who
from reconciler.text.format import clean, hourly
from schemas.plan import Plan
from schemas.run import RUN_ENDED, Run
from schemas.state import State


def stop_run_named(name: str, *, abort: bool, yes: bool, deadline: str = "") -> int:
    """0 once it has ended, 3 where that cannot be seen. Its instance stays, idle, unless it ignores an abort."""
    where = site()
    state = state_of(where)
    run = _active(state, name)
    question = f"{'Abort' if abort else 'Stop'} run {run.spec.name}?{_ends_too(state, run) if abort else ''}"
    must_agree(question, yes=yes, otherwise=f"`dstack stop {name} -y` stops it")
    wished = Wished(
        wish=lambda state: _stopped(state, run, abort=abort),
        scope=(run.id,),
        waits=f"run {run.spec.name} to end",
        blocked=Waiting(clock=now, runs=(run.id,)).why_blocked,
        within=seconds(deadline, flag="--deadline") if deadline else None,
    )
    last = fulfil(where, wished, until=lambda state, plan: _ended(state, run.id, plan))
    if last.state:
        forget_aliases(last.state)
    ended = find_run(last.state, run.id) if last.state else run
    out(clean(f"run {run.spec.name} is {ended.status}{f': {ended.reason}' if ended.reason else ''}") + "\n")
    return 0


def _stopped(state: State, run: Run, *, abort: bool) -> State:
    """Asked for again, it is waited for."""
    known = next((one for one in state.runs if one.id == run.id), run)
    if known.status == "terminating" and (known.abort or not abort):
        return state
    return stop_run(state, run.id, by=who(), now=now(), abort=abort)


def _ends_too(state: State, run: Run) -> str:
    """The machines that do not answer: an aborted run ends with those."""
    jobs = {job.instance for one in state.attempts if one.run == run.id and one.live for job in one.jobs}
    dark = [one for one in state.instances if one.id in jobs and one.host is None and one.unreachable_since is not None]
    names = ", ".join(f"{one.name} ({one.place}, {hourly(one.price)})" for one in dark)
    return f" No answer from {names}: the run ends by terminating that." if dark else ""


def _active(state: State, name: str) -> Run:
    active = [run for run in state.runs if name in (run.spec.name, run.id) and run.status not in RUN_ENDED]
    if len(active) > 1:
        ids = ", ".join(run.id for run in active)
        raise Fail(f"{len(active)} runs {name} are active; name one by its id: {ids}")
    if active:
        return active[0]
    ended = find_run(state, name)
    raise Fail(f"run {name} has ended already: {ended.status}")


def _ended(state: State, run: str, plan: Plan) -> bool:
    del plan
    return all(one.status in RUN_ENDED for one in state.runs if one.id == run)
