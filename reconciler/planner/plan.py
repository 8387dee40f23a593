"""Make a plan: run the rules in order over a world. The same world gives the same plan. Pure."""

from __future__ import annotations

from reconciler.planner.draft import draft_of
from reconciler.planner.finish import finished
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
    return finished(draft)
