"""Make a plan: run the rules in order over a world. The same world gives the same plan. Pure."""

from __future__ import annotations

from reconciler.planner.draft import Draft, draft_of
from reconciler.planner.forecast import assumed, costs, foresee, next_actor
from reconciler.planner.rules.attach_hosts import attach
from reconciler.planner.rules.declared_runs import enrol
from reconciler.planner.rules.launch_wanted import launch_wanted
from reconciler.planner.rules.mass_termination_guard import brake
from reconciler.planner.rules.removed_pools import pools_left
from reconciler.planner.rules.resume_launches import resume
from reconciler.planner.rules.retire import retire
from reconciler.planner.rules.scale_down import reap
from reconciler.planner.rules.stop_attempts import halt
from reconciler.planner.world import World
from schemas.plan import Plan

VERSION = 1


def plan(world: World) -> Plan:
    """What would be done now, what it costs, what will not happen and why.

    Executing it decides nothing more. It depends on `world` alone; on the state that it leaves,
    once every effect is seen, the next plan is empty.
    """
    draft = draft_of(world)
    enrol(draft)
    resume(draft)
    retire(draft)
    # Every inferred end stems from `retire`: braked here, so that nothing is bought in place of what stays.
    brake(draft)
    pools_left(draft)
    halt(draft)
    attach(draft)
    launch_wanted(draft)
    reap(draft)
    foresee(draft)
    return _finished(draft)


def _finished(draft: Draft) -> Plan:
    state = draft.world.state
    before, after, not_in_sums = costs(draft)
    lacking_here, assumptions = assumed(draft)
    return Plan(
        version=VERSION,
        project=state.project or draft.world.desired.project,
        generation=state.generation,
        lineage=state.lineage,
        made_at=draft.now,
        basis=state.applied.revision.digest if state.applied else "",
        observed=tuple((place.name, place.observed_at, place.error) for place in state.places),
        actions=tuple(draft.actions),
        unmet=tuple(dict.fromkeys(draft.unmet)),
        waits=tuple(dict.fromkeys(draft.waits)),
        warnings=(*draft.warnings, *assumptions),
        lacking_here=lacking_here,
        uncounted=not_in_sums,
        notes=tuple(draft.notes),
        idle=tuple(draft.idle),
        next_actor=next_actor(state.ticks, now=draft.now),
        hourly_before=before,
        hourly_after=after,
    )
