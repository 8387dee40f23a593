"""`dstack destroy`: terminate everything of the project, after its name was typed."""

from __future__ import annotations

from reconciler.cli.commands.plan.forgotten import destroyed_words, nothing_lives, recall, say_unproven
from reconciler.cli.commands.plan.refusals import raise_refusals
from reconciler.cli.commands.plan.waiting import destroy_passes, unreached
from reconciler.cli.exits import Fail, Finished
from reconciler.cli.project import ports_of, site, state_of
from reconciler.cli.terminal.interrupts import Interrupts
from reconciler.cli.terminal.progress import Progress
from reconciler.cli.terminal.streams import ask_typed, interactive, out, page
from reconciler.cli.terminal.times import seconds
from reconciler.engine.request import TickAsk
from reconciler.engine.tick import tick
from reconciler.report.plan import render_plan
from reconciler.report.plan_rows import explain
from reconciler.system.process import now
from schemas.plan import Permissions, Plan
from schemas.state import State


def run_destroy(*, deadline: str, confirmed: str) -> int:
    """0 once nothing lives; the state, logs and artifacts stay."""
    where = site()
    state = state_of(where)
    word = (state.applied.desired.project_name if state.applied else "") or where.project
    limit = seconds(deadline, flag="--deadline") if deadline else None
    if confirmed and confirmed not in (word, where.project):
        raise Fail(f"--confirm {confirmed}: this project is {word}")
    with Progress(waits=f"project {word} to end") as progress, Interrupts(told=progress.told) as interrupts:

        def confirm(plan: Plan, before: State) -> Plan | None:
            out(render_plan(plan, before, now=now(), page=page()))
            if explain(plan, before) and not confirmed and not _typed(word):
                return None
            interrupts.arm()
            return plan

        ask = TickAsk(
            permissions=Permissions(destroy_all=True, mass_destroy=True),
            confirm=confirm,
            prompted=not confirmed,
            stop=interrupts.asked,
        )
        ports = ports_of(where, asking=progress.asking)
        silent = recall(ports, state)
        raise_refusals(tick(ports, ask))
        done = destroy_passes(ports, ask, until=nothing_lives, progress=progress, limit=limit)
    raise_refusals(done.last)
    if interrupts.count:
        raise Finished(130)
    if not done.reached:
        raise unreached(done, again="dstack destroy", refused=3)
    if say_unproven(done.last.state or state, silent):
        return 1
    out(destroyed_words(state, done.last.state))
    return 0


def _typed(word: str) -> bool:
    if not interactive():
        raise Fail(f"there is no terminal to type the project's name at; --confirm {word} stands for it")
    return ask_typed("Everything above will be ended.", word=word)
