"""Laws of the planner, over worlds that nobody thought of."""

from __future__ import annotations

from collections import Counter
from decimal import Decimal

from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from reconciler.planner.placement.fit import fits
from reconciler.planner.plan import plan
from reconciler.planner.world import World
from reconciler.state.blocks import left_of, share_of, shared
from reconciler.state.status import alive, jobs_by_instance, lost_gpus
from schemas.base import place_of
from schemas.desired import Cap, Desired
from schemas.instance import Instance
from schemas.offer import Offer
from schemas.plan import Assign, Launch, Permissions, Plan, Stop, Terminate, Update
from schemas.resources import Need
from schemas.run import RUN_ENDED
from schemas.state import State
from tests.worlds.planning import MACHINES, NOW, changed, intended, lived, rounds_of
from tests.worlds.worlds import REGIONS, worlds


@given(worlds())
def test_the_same_world_gives_the_same_plan(world: World) -> None:
    assert plan(world) == plan(world)


@given(worlds())
def test_what_a_plan_leaves_needs_no_plan(world: World) -> None:
    rounds_of(world, most=12)


@given(worlds())
def test_nothing_is_raised_above_a_maximum_a_cap_or_a_budget(world: World) -> None:
    before, after = world.state, intended(world, plan(world))
    for pool in world.desired.pools:
        limit, ours = pool.nodes_max, living(after, pool=pool.name)
        if limit is not None:
            assert len(ours) <= max(limit, len(living(before, pool=pool.name)))
        if pool.max_hourly is not None:
            assert hourly(ours) <= max(pool.max_hourly, hourly(living(before, pool=pool.name)))
    if world.desired.budget is not None:
        assert hourly(living(after)) <= max(world.desired.budget, hourly(living(before)))
    for cap in world.desired.caps:
        assert capped(after, cap) <= max(cap.max, capped(before, cap))


def living(state: State, *, pool: str = "") -> list[Instance]:
    return [one for one in state.instances if alive(one) and pool in ("", one.pool)]


def hourly(instances: list[Instance]) -> Decimal:
    return sum((one.price or Decimal(0) for one in instances), Decimal(0))


def capped(state: State, cap: Cap) -> int:
    return sum(one.spot == cap.spot and one.instance_type == cap.instance_type for one in living(state))


@given(worlds())
def test_nothing_unpriced_is_launched_within_a_budget(world: World) -> None:
    budgeted = {pool.name for pool in world.desired.pools if pool.max_hourly is not None or world.desired.budget}
    for action in plan(world).actions:
        if isinstance(action, Launch) and action.pool in budgeted:
            assert action.offer.price is not None


@given(worlds())
def test_a_minimum_that_can_be_met_is_met(world: World) -> None:
    plenty = Offer(backend="aws", region="us", instance_type="a100", resources=MACHINES["a100"], price=Decimal("0.10"))
    open_pools = tuple(replace(pool, paused=False, max_hourly=None, need=Need()) for pool in world.desired.pools)
    state = replace(
        world.state, overrides=(), capacity=(), places=tuple(replace(each, error="") for each in world.state.places)
    )
    world = changed(
        world,
        desired=replace(world.desired, pools=open_pools, budget=None, caps=()),
        state=state,
        offers=[plenty],
        permissions=replace(world.permissions, scope=None, only_pool=""),
    )
    _, world = lived(world, most=12)
    for pool in world.desired.pools:
        put_off = pool.name in {one.pool for one in world.state.backoffs}  # a machine of it was never ready
        assert len(living(world.state, pool=pool.name)) >= pool.nodes_min or put_off


@given(worlds())
def test_nothing_is_placed_that_might_run_into_a_drain(world: World) -> None:
    made = plan(world)
    specs = {run.id: run.spec for run in world.state.runs}
    specs |= {update.enrol.id: update.enrol.spec for update in updates(made) if update.enrol is not None}
    for drain in (each for each in world.state.overrides if each.kind == "drain"):
        begins = drain.begins or drain.at
        for action in made.actions:
            named = {f"instance {id}" for id in action.instances} if isinstance(action, Assign) else set()
            if isinstance(action, Assign) and (drain.subject in named or drain.subject == action.pool):
                lasts = specs[action.run].max_duration
                assert lasts is not None
                assert begins > NOW
                assert NOW + lasts <= begins


@given(worlds())
def test_idle_ends_leave_the_floor(world: World) -> None:
    made = plan(world)
    idle = Counter(action.pool for action in made.actions if isinstance(action, Terminate) and "idle for" in action.why)
    after = intended(world, made)
    for pool in world.desired.pools:
        staying = [one for one in living(after, pool=pool.name) if one.phase not in ("terminating", "pending")]
        if idle[pool.name]:
            assert len(staying) >= max(pool.nodes_min, pool.nodes_target or 0)


@given(worlds())
def test_nothing_busy_is_ended(world: World) -> None:
    busy = jobs_by_instance(world.state.attempts)
    for action in plan(world).actions:
        if isinstance(action, Terminate):
            assert action.instance not in busy


@given(worlds())
def test_an_instance_is_given_to_one_run_that_it_fits(world: World) -> None:
    made = plan(world)
    instances = {one.id: one for one in world.state.instances}
    specs = {run.id: run.spec for run in world.state.runs}
    specs |= {update.enrol.id: update.enrol.spec for update in updates(made) if update.enrol is not None}
    for update in updates(made):
        if "spec" in update.changes:
            specs[update.subject.removeprefix("run ")] = update.changes["spec"]
    ended = {action.instance for action in made.actions if isinstance(action, Terminate)}
    busy = jobs_by_instance(world.state.attempts)
    given_away = [id for action in made.actions if isinstance(action, Assign) for id in action.instances]
    assert not [id for id, count in Counter(given_away).items() if count > 1 and shared(instances[id]) == 1]
    jobs = {job.id: job for attempt in intended(world, made).attempts for job in attempt.jobs}
    for action in made.actions:
        for rank, id in enumerate(action.instances if isinstance(action, Assign) else ()):
            one, spec = instances[id], specs[action.run]  # type: ignore[union-attr]
            assert one.phase == "ready"
            assert id not in busy or shared(one) > 1
            assert id not in ended
            assert (one.orphan, one.quarantined, one.unreachable_since) == ("", "", None)
            assert not one.degraded or lost_gpus(one)
            job = jobs[f"{action.attempt}-{rank}"]  # type: ignore[union-attr]
            own = share_of(one, job) if shared(one) > 1 else left_of(one)
            assert lost_gpus(one).isdisjoint(action.gpus[rank])  # type: ignore[union-attr]
            assert fits(spec.need, spec.where, own, cloud=False)


@given(worlds())
def test_no_gpu_is_handed_out_twice_and_no_share_exceeded(world: World) -> None:
    """Over everything that runs and is begun, on shared instances and others."""
    _, world = lived(world, most=12)
    instances = {one.id: one for one in world.state.instances}
    for id, jobs in jobs_by_instance(world.state.attempts).items():
        one = instances[id]
        gpus = [gpu for job in jobs for gpu in job.gpus]
        has = one.resources.gpu
        assert len(gpus) == len(set(gpus))
        assert set(gpus) <= set(has.uuids if has else ())
        assert sum(job.blocks for job in jobs) <= shared(one)
        shares = [share_of(one, job).resources for job in jobs]
        for kind in ("cpus", "memory", "disk"):
            assert sum(getattr(share, kind) for share in shares) <= getattr(one.resources, kind)


def updates(made: Plan) -> list[Update]:
    return [action for action in made.actions if isinstance(action, Update)]


@given(worlds())
def test_all_nodes_of_a_run_or_none_in_one_region(world: World) -> None:
    instances = {one.id: one for one in world.state.instances}
    after = intended(world, plan(world))
    runs = {run.id: run for run in after.runs}
    for attempt in after.attempts:
        if attempt.assigned_at == NOW:
            assert len(attempt.jobs) == runs[attempt.run].spec.nodes
            assert len({instances[job.instance].place for job in attempt.jobs}) == 1


@given(worlds())
def test_a_replica_has_one_live_attempt(world: World) -> None:
    after = intended(world, plan(world))
    live = Counter((attempt.run, attempt.replica) for attempt in after.attempts if attempt.live)
    assert not [each for each, count in live.items() if count > 1]


@given(worlds())
def test_a_run_has_one_living_record(world: World) -> None:
    after = intended(world, plan(world))
    living_names = Counter(
        run.spec.name for run in after.runs if run.origin == "declared" and run.status not in RUN_ENDED
    )
    assert not [name for name, count in living_names.items() if count > 1]


@given(worlds(), st.sampled_from(REGIONS))
def test_nothing_ends_because_of_an_unknown(world: World, region: str) -> None:
    """A place that stops answering, hosts and all, ends nothing but what documents or a person end anyway."""
    lost = place_of("aws", region)
    dark = tuple(
        replace(one, unreachable_since=NOW - 9999, failed_looks=99) if one.place == lost else one
        for one in world.state.instances
    )
    world = changed(world, state=replace(world.state, instances=dark))
    places = tuple(replace(each, error="timed out") if each.name == lost else each for each in world.state.places)
    blind = changed(world, state=replace(world.state, places=places))
    there = {one.id for one in world.state.instances if one.place == lost}
    wanted = {action.instance for action in plan(world).actions if isinstance(action, Terminate)}
    for action in plan(blind).actions:
        if isinstance(action, Terminate) and action.instance in there:
            assert not action.inferred
            assert action.instance in wanted
        if isinstance(action, Launch):
            assert action.offer.place != lost


@given(worlds())
def test_an_unreachable_host_ends_no_run(world: World) -> None:
    """Whatever stops answering: no attempt that may have begun is stopped, and no run repeated, for that."""
    dark = tuple(replace(one, unreachable_since=NOW - 9999, failed_looks=99) for one in world.state.instances)
    blind = plan(changed(world, state=replace(world.state, instances=dark)))
    stops = {action.attempt for action in plan(world).actions if isinstance(action, Stop)}
    not_begun = {attempt.id for attempt in world.state.attempts if attempt.held_back}
    assert {action.attempt for action in blind.actions if isinstance(action, Stop)} <= stops | not_begun
    assert not [action for action in blind.actions if isinstance(action, Assign)]


@given(worlds())
def test_a_wish_touches_nothing_but_its_subject(world: World) -> None:
    scope = ("r0", "w")
    made = plan(changed(world, permissions=Permissions(scope=scope)))
    for action in made.actions:
        if isinstance(action, Assign | Stop):
            assert action.run in scope
        if isinstance(action, Terminate):
            raise AssertionError(action)
        if isinstance(action, Update) and not action.quiet:
            assert action.enrol is None
            assert action.subject.split()[1] in scope or "reserved" in action.why


@given(worlds())
def test_documents_that_may_not_end_end_nothing(world: World) -> None:
    """Without the permission, an emptied YAML ends what ends anyway and nothing else."""
    forbidden = replace(world.permissions, may_end=False, destroy_pools=())
    whole = plan(changed(world, permissions=forbidden))
    bare = plan(changed(world, permissions=forbidden, desired=Desired(project="testproject")))
    ended = {action.instance for action in bare.actions if isinstance(action, Terminate)}
    anyway = {action.instance for action in whole.actions if isinstance(action, Terminate)}
    persons = {override.kind for override in world.state.overrides}
    facts = {one.id for one in world.state.instances if "drain" in persons or is_a_fact(one)}
    assert ended - anyway <= facts
    assert not [
        action
        for action in bare.actions
        if isinstance(action, Stop) and "was removed from the configuration" in action.why
    ]


def is_a_fact(one: Instance) -> bool:
    """It may end for what it is, not for what the YAML says."""
    ill = one.quarantined or one.unreachable_since is not None or one.orphan or one.draining
    return bool(ill) or one.idle_duration is not None or one.max_lifetime is not None or one.phase == "provisioning"
