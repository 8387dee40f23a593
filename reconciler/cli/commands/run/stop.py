"""`dstack stop`: stop a run and wait until it has ended."""

from __future__ import annotations

from reconciler.cli.commands.plan.scoped_tick import Wished, fulfil
from reconciler.cli.commands.run.find import find_run
from reconciler.cli.exits import Fail
from reconciler.cli.project import forget_aliases, site, state_of
from reconciler.cli.terminal.streams import must_agree, out
from reconciler.state.requests import stop_run
from reconciler.system.process import now, who
from reconciler.text.format import clean
from schemas.plan import Plan
from schemas.run import RUN_ENDED, Run
from schemas.state import State


def stop_run_named(name: str, *, abort: bool, yes: bool) -> int:
    """0 once it has ended. Its instance stays, idle."""
    where = site()
    run = _active(state_of(where), name)
    question = f"{'Abort' if abort else 'Stop'} run {run.spec.name}?"
    must_agree(question, yes=yes, otherwise=f"`dstack stop {name} -y` stops it")
    wished = Wished(wish=lambda state: stop_run(state, run.id, by=who(), now=now(), abort=abort), scope=(run.id,))
    last = fulfil(where, wished, until=lambda state, plan: _ended(state, run.id, plan))
    if last.state:
        forget_aliases(last.state)
    ended = find_run(last.state, run.id) if last.state else run
    out(clean(f"run {run.spec.name} is {ended.status}{f': {ended.reason}' if ended.reason else ''}") + "\n")
    return 0


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
