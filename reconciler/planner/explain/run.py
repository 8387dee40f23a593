"""Explain where a run could be: each instance, the offers in groups, and the smallest relaxation. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from reconciler.planner.draft import Draft, draft_of
from reconciler.planner.explain.conditions import RESOURCES, failed_of
from reconciler.planner.placement.blocks import fewest
from reconciler.planner.placement.browse import browse
from reconciler.planner.placement.fit import excluded
from reconciler.planner.placement.host_ports import clash, ports_of
from reconciler.planner.placement.idle_pool import unusable
from reconciler.planner.world import World
from reconciler.state.blocks import blocks_of, shared, used
from reconciler.text.format import by_number
from schemas.base import Price
from schemas.explanation import FailedCondition, InstanceVerdict, OfferGroup, Relaxation, RunExplained
from schemas.instance import Instance
from schemas.offer import Offer
from schemas.pool import Pool
from schemas.run import Job, Run, RunSpec

MOST_GROUPS = 8
MOST_RELAXED = 3


def explain_run(world: World, run: Run | RunSpec) -> RunExplained:
    """`run`: a record, or a run that is configured and not known yet. Its pool must be configured."""
    spec = run.spec if isinstance(run, Run) else run
    draft = draft_of(world)
    pool = draft.pools[draft.pool_name(spec.pool)]
    fitting = browse(world, pool, need=spec.need, where=spec.where).found
    sells = () if pool.hosts else world.offers
    groups = tuple(sorted(_groups(pool, spec, sells), key=lambda one: (len(one.conditions), _price(one.cheapest))))
    return RunExplained(
        run=spec.name,
        status=run.status if isinstance(run, Run) else "not applied yet",
        reason=run.reason if isinstance(run, Run) else "",
        pool=pool.name,
        refused=draft.closed.get(pool.name, "") or excluded(pool, spec.need),
        instances=tuple(_verdicts(draft, pool, spec)),
        offers=len(sells),
        fitting=tuple((one.offer, one.why) for one in fitting[:MOST_GROUPS]),
        groups=groups[:MOST_GROUPS],
        relaxations=tuple(_relaxations(groups))[:MOST_RELAXED],
    )


def _price(offer: Offer) -> tuple[bool, Price]:
    return offer.price is None, offer.price or Price(0)


def _verdicts(draft: Draft, pool: Pool, spec: RunSpec) -> Iterator[InstanceVerdict]:
    mine = (one for one in draft.living.values() if draft.pool_of(one) == pool.name)
    for one in sorted(mine, key=lambda each: by_number(each.name)):
        yield InstanceVerdict(name=one.name, why=tuple(_against(draft, pool, spec, one)))


def _against(draft: Draft, pool: Pool, spec: RunSpec, one: Instance) -> Iterator[str]:
    if spec.instance_name not in ("", one.name):
        yield f"the run asks for instance {spec.instance_name}"
    of = shared(one)
    for condition in _conditions(pool, spec, one, of=of, cloud=False):
        yield condition.words
    if why := clash(draft, one, ports_of(spec)):
        yield why
    if why := unusable(draft, one):
        yield why
    elif one.phase != "ready":
        yield "it is not ready yet"
    jobs = draft.jobs.get(one.id, [])
    if jobs and of == 1:
        yield f"busy with {', '.join(sorted({_run_of(draft, job) for job in jobs}))}"
    elif jobs and (needed := fewest(spec.need, one.resources, of=of)) > (free := of - used(jobs, of=of)):
        yield f"{needed} of its {of} blocks needed, {free} free"
    if one.reserved_for:
        held = draft.runs.get(one.reserved_for)
        yield f"held for run {held.spec.name if held else one.reserved_for}"


def _run_of(draft: Draft, job: Job) -> str:
    """The name of its run."""
    for id, attempts in draft.live.items():
        if id in draft.runs and any(job.id == each.id for attempt in attempts for each in attempt.jobs):
            return draft.runs[id].spec.name
    return "another run"


def _conditions(
    pool: Pool, spec: RunSpec, machine: Instance | Offer, *, of: int, cloud: bool
) -> tuple[FailedCondition, ...]:
    """Of a machine that is shared, its resources count as far as some of its blocks suffice."""
    found = failed_of(pool, spec.need, spec.where, machine, cloud=cloud)
    if of > 1 and fewest(spec.need, machine.resources, of=of):
        return tuple(one for one in found if one.of or one.kind not in RESOURCES)
    return found


def _groups(pool: Pool, spec: RunSpec, offers: Iterable[Offer]) -> Iterator[OfferGroup]:
    found: dict[tuple[tuple[str, str], ...], tuple[int, tuple[FailedCondition, ...], Offer]] = {}
    for offer in offers:
        of = 1 if pool.blocks == 1 else blocks_of(pool.blocks, offer.resources)
        conditions = _conditions(pool, spec, offer, of=of, cloud=offer.cloud)
        if not conditions:
            continue
        key = tuple((one.kind, one.of) for one in conditions)
        count, first, cheapest = found.get(key, (0, conditions, offer))
        if _price(offer) < _price(cheapest):
            first, cheapest = conditions, offer
        found[key] = (count + 1, first, cheapest)
    for count, conditions, cheapest in found.values():
        yield OfferGroup(count=count, conditions=conditions, cheapest=cheapest)


def _relaxations(groups: Iterable[OfferGroup]) -> Iterator[Relaxation]:
    """By price, one of each kind of condition."""
    alone = sorted((one for one in groups if len(one.conditions) == 1), key=lambda one: _price(one.cheapest))
    seen: set[str] = set()
    for group in alone:
        kind = group.conditions[0].kind
        if kind not in seen:
            seen.add(kind)
            yield Relaxation(condition=group.conditions[0], offer=group.cheapest)
