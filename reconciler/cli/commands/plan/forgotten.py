"""At the end of a project, ask the places that a person forgot, and name those that are not proven empty."""

from __future__ import annotations

from collections.abc import Mapping

from reconciler.cli.terminal.streams import say
from reconciler.engine.ask_forgotten import ask_forgotten
from reconciler.engine.ports import Ports
from reconciler.engine.write_state import land
from reconciler.state.forget import billing, left_at, remember, unanswered
from reconciler.state.status import alive
from reconciler.text.format import counted
from schemas.plan import Plan
from schemas.run import RUN_ENDED
from schemas.state import State


def recall(ports: Ports, state: State) -> dict[str, str]:
    """Forgotten places that answer again are asked from now on; the others, and why they cannot be."""
    answers = ask_forgotten(ports, state)
    again = frozenset(place for place, why in answers.items() if not why)
    if again:
        land(ports, lambda moved: remember(moved, again))
    return {place: why for place, why in answers.items() if why}


def say_unproven(state: State, silent: Mapping[str, str]) -> int:
    """0 where every place has answered. `silent`: forgotten ones that have not, and why."""
    forgotten = {place.name for place in state.places if place.forgotten}
    found = {**silent, **unanswered(state)}
    for place, why in sorted(found.items()):
        known = billing(left_at(state, place)) or "no record"
        said = " was forgotten and" if place in forgotten else ""
        say(f"error: {place}{said} cannot say what lives there ({why}); last known: {known}")
    if found:
        say("all else is ended; mend the access and repeat `dstack destroy`, or end there what goes on billing")
    return int(bool(found))


def nothing_lives(state: State, plan: Plan) -> bool:
    """Whether every instance and run that the state knows has ended."""
    del plan
    return not any(alive(one) for one in state.instances) and all(run.status in RUN_ENDED for run in state.runs)


def destroyed_words(before: State, after: State | None) -> str:
    """`Destroyed: 4 instances terminated, 0 remain.`, once nothing remains."""
    living = {one.id for one in before.instances if alive(one)}
    still = {one.id for one in after.instances if alive(one)} if after else set()
    return f"Destroyed: {counted(len(living - still), 'instance')} terminated, 0 remain.\n"
