"""`dstack stop`: stop runs and wait until they have ended."""

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


def stop_runs(names: tuple[str, ...], *, everything: bool, abort: bool, yes: bool, deadline: str = "") -> int:
    """0 once all have ended, 3 where that cannot be seen. Instances stay, idle, unless they ignore an abort."""
    if everything == bool(names):
        raise Fail("name the runs to stop, or give --all" if not names else "--all stops every run: name none with it")
    where = site()
    state = state_of(where)
    chosen = _chosen(state, names)
    if not chosen:
        out("no run is active\n")
        return 0
    said = ", ".join(run.spec.name for run in chosen)
    what = f"run {said}" if len(chosen) == 1 else f"{len(chosen)} runs: {said}"
    warned = "".join(_ends_too(state, run) for run in chosen) if abort else ""
    again = "dstack stop --all -y" if everything else f"dstack stop {' '.join(names)} -y"
    must_agree(f"{'Abort' if abort else 'Stop'} {what}?{warned}", yes=yes, otherwise=f"`{again}` stops it")
    ids = tuple(run.id for run in chosen)
    wished = Wished(
        wish=lambda state: _stopped(state, chosen, abort=abort),
        scope=ids,
        waits=f"{what} to end",
        blocked=Waiting(clock=now, runs=ids).why_blocked,
        within=seconds(deadline, flag="--deadline") if deadline else None,
    )
    last = fulfil(where, wished, until=lambda state, plan: _ended(state, ids, plan))
    if last.state:
        forget_aliases(last.state)
    for run in chosen:
        ended = find_run(last.state, run.id) if last.state else run
        out(clean(f"run {run.spec.name} is {ended.status}{f': {ended.reason}' if ended.reason else ''}") + "\n")
    return 0


def _chosen(state: State, names: tuple[str, ...]) -> tuple[Run, ...]:
    """Each once, in the order given; without names all that are active."""
    if not names:
        return tuple(run for run in state.runs if run.status not in RUN_ENDED)
    return tuple({run.id: run for run in (_active(state, name) for name in names)}.values())


def _stopped(state: State, chosen: tuple[Run, ...], *, abort: bool) -> State:
    """Asked for again, it is waited for."""
    for run in chosen:
        known = next((one for one in state.runs if one.id == run.id), run)
        if known.status != "terminating" or (abort and not known.abort):
            state = stop_run(state, run.id, by=who(), now=now(), abort=abort)
    return state


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


def _ended(state: State, runs: tuple[str, ...], plan: Plan) -> bool:
    del plan
    return all(one.status in RUN_ENDED for one in state.runs if one.id in runs)
