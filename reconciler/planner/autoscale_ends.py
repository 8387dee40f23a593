"""List the instances and runs that a `dstack autoscale` command ends at once. Pure."""

from __future__ import annotations

from collections.abc import Iterator

from msgspec.structs import replace

from reconciler.planner.plan import plan
from reconciler.planner.world import World
from reconciler.state.autoscale_rules import Rules, rules_of
from reconciler.state.status import alive
from schemas.instance import Instance
from schemas.plan import Permissions, Plan, Terminate, Update
from schemas.state import State


def rules_in_force(state: State) -> Rules:
    """By the applied documents and the words said since; before the first apply there are none."""
    if state.applied is None:
        return Rules()
    digest = state.applied.revision.digest
    words = (one for one in state.overrides if one.kind == "autoscale" and one.digest == digest)
    return rules_of(state.applied.desired, words)


def ended_at_once(wished: State, *, now: int, nonce: str) -> tuple[str, ...]:
    """Ids of instances and of the runs on them, as a scope: by the state with the word in it, as it is remembered.

    A place that could not be asked last time is asked again before anything ends there: its instances are in the scope.
    """
    if wished.applied is None:
        return ()
    spot = tuple(one.id for one in wished.instances if one.spot and alive(one))
    permissions = Permissions(scope=spot)
    state = replace(wished, places=tuple(replace(one, error="") for one in wished.places))
    made = plan(World(desired=wished.applied.desired, state=state, now=now, nonce=nonce, permissions=permissions))
    going = {id for id, why in ends_of(made) if why.startswith("autoscale")}
    going |= {one.id for one in wished.instances if one.id in spot and _under_way(one)}
    live = [attempt for attempt in wished.attempts if attempt.live]
    runs = {attempt.run for attempt in live if going & {job.instance for job in attempt.jobs}}
    return (*sorted(going), *sorted(runs))


def ends_of(made: Plan) -> Iterator[tuple[str, str]]:
    """Instances that end, or drain to end, and why."""
    for action in made.actions:
        if isinstance(action, Terminate):
            yield action.instance, action.why
        elif isinstance(action, Update) and action.changes.get("draining"):
            yield action.subject.removeprefix("instance "), str(action.changes["draining"])


def _under_way(one: Instance) -> bool:
    """A word said before began it."""
    if one.phase == "terminating":
        return one.reason.startswith("autoscale")
    return one.draining.startswith("autoscale") and one.drain_until is not None
