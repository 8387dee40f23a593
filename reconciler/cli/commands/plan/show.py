"""`dstack show FILE`: print a saved plan again, as text, JSON or a review comment."""

from __future__ import annotations

import sys
from pathlib import Path

from reconciler.cli.commands.plan.saved import read_saved
from reconciler.cli.exits import Fail
from reconciler.cli.project import site, state_of
from reconciler.cli.terminal.streams import out, page, say
from reconciler.system.process import now
from reconciler.text.format import rough
from schemas.plan import Plan
from schemas.state import State


def show_saved(file: Path, *, as_json: bool, markdown: Path | None) -> int:
    """0. Times are of the moment when it was made. Instances are named from the state, where it is the plan's."""
    plan = read_saved(file).plan
    state = _state(plan)
    moment = plan.made_at or now()
    if markdown is not None:
        from reconciler.cli.commands.plan.review import write_whole
        from reconciler.report.markdown import render_markdown

        write_whole(markdown, render_markdown(plan, state, now=moment), flag="--markdown")
    if as_json:
        from reconciler.report.json import dump, plan_json

        out(dump(plan_json(plan, state)))
        return 0
    from reconciler.report.plan import render_plan

    out(render_plan(plan, state, now=moment, page=page(sys.stdout)))
    later = f"; the state is at {state.generation} now" if state and state.generation != plan.generation else ""
    say(f"note: saved {rough(max(0, now() - moment))} ago{later}. To apply it: dstack apply {file}")
    return 0


def _state(plan: Plan) -> State | None:
    """The state that the plan was made on, as it is now; None in another project, or where there is none here."""
    try:
        state = state_of(site())
    except Fail:
        return None
    return state if state.lineage == plan.lineage else None
