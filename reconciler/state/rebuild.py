"""Rebuild a lost state from listings and host reports; make a copied one independent of its original. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from msgspec.structs import replace

from reconciler.state.access_modes import with_ways
from reconciler.state.drains import INSTANCE
from reconciler.state.host_place import as_server
from reconciler.state.observe.adopt_jobs import found_on
from reconciler.state.observe.clocks import SKEW
from reconciler.state.observe.job_times import in_our_time
from reconciler.state.observe.sightings import machines
from reconciler.state.observe.type_facts import with_type_facts
from reconciler.state.status import bought
from schemas.access import way_of
from schemas.desired import BackendConfig, Desired
from schemas.instance import HostReport, Instance, Listing, Phase, Seen
from schemas.offer import Offer
from schemas.pool import Pool
from schemas.resources import Resources
from schemas.run import RUN_ENDED, Run
from schemas.state import VERSION, Applied, Place, Revision, State

NOT_OURS = "checks failed: "  # as a declared server says it that has no claim of ours
# A writer of the lost state may have got further than any tag or fence shows.
MARGIN = 100
# No counter gets there: somebody wrote it on a server. Hosts read up to 15 digits, what comes after a rebuild too.
BELIEVED = 10**14


class RebuildRefused(Exception):
    """It would forget or seize something. The message says what, and what to do."""


def rebuild(
    *,
    project: str,
    listings: Sequence[Listing],
    reports: Sequence[HostReport],
    places: Sequence[Place],
    desired: Desired,
    revision: Revision,
    by: str,
    now: int,
    nonce: str,
    lineage: str = "",
    done: frozenset[tuple[str, str]] = frozenset(),
    above: int = 0,
    offers: Iterable[Offer] = (),
) -> State:
    """A state of the lineage that the instances carry, its generation above every tag, fence and `above`.

    Jobs on hosts become attempts again, so that nothing busy looks idle and every result is
    collected; a run that the documents know by its name gets its spec back. Declared tasks
    without a record and a done-marker are held until `--first-run`. No idle clock starts
    before `now`, which must be the time at the places too. `offers` tell
    what the types of instances have. `lineage` chooses where instances of several were found.
    """
    _refuse_silence(places, listings)
    _refuse_another_time(listings, reports)
    chosen = _lineage(listings, lineage, new=nonce)
    hosts = {report.instance: in_our_time(report) for report in reports if not report.error}
    instances = _instances(listings, chosen, hosts=hosts, desired=desired, places=places, now=now)
    runs, attempts = found_on(instances, hosts, desired=desired, now=now)
    held = _held(desired, known={run.spec.name for run in runs}, done=done, nonce=nonce, now=now)
    tags = [seen.generation for listing in listings for seen in listing.instances if seen.lineage in ("", chosen)]
    # What a machine that we bought claims without our seal is a job's word: it is not believed, and forgotten there.
    sealed = {one.id for one in instances if bought(one)}
    fences = [one.generation if one.instance in sealed else max(one.generation, one.claimed) for one in reports]
    found = State(
        version=VERSION,
        project=project,
        lineage=chosen,
        generation=max([above, *(one for one in (*tags, *fences) if one < BELIEVED)]) + MARGIN,
        applied=Applied(revision=revision, by=by, at=now, desired=desired),
        history=(revision,),
        places=tuple(_place(place, listings) for place in places),
        instances=instances,
        runs=(*runs, *held),
        attempts=attempts,
    )
    return with_type_facts(with_ways(found), offers)


def _refuse_silence(places: Sequence[Place], listings: Sequence[Listing]) -> None:
    answered = {listing.place: listing for listing in listings}
    for place in places:
        listing = answered.get(place.name)
        if listing is not None and listing.error.startswith(NOT_OURS):
            continue  # it answered, and has nothing of ours
        if listing is None or listing.error or listing.partial:
            where = "its pool's `hosts`" if place.config.is_server else "`backends`"
            why = listing.error if listing and listing.error else "no answer"
            raise RebuildRefused(
                f"{place.name}: {why}; its instances would be forgotten. Mend that, or take it out of {where} first"
            )


def _refuse_another_time(listings: Sequence[Listing], reports: Sequence[HostReport]) -> None:
    """Idle clocks begin now: by a wrong one whatever is found would be idle too long, or never."""
    told = [(one.at - one.clock, one.place) for one in listings if one.clock is not None]
    hosts = [(one.at - one.clock, "the hosts") for one in reports if one.clock is not None and not one.error]
    # One host may be wrong by itself: the one that agrees most with us tells.
    told += sorted(hosts, key=lambda each: abs(each[0]))[:1]
    off, whose = max(told, key=lambda each: abs(each[0]), default=(0, ""))
    if abs(off) > SKEW:
        raise RebuildRefused(f"our clock and that of {whose} are {abs(off)} s apart: set the wrong one, then try again")


def _lineage(listings: Sequence[Listing], wanted: str, *, new: str) -> str:
    living = (seen for listing in listings for seen in listing.instances if seen.phase != "ended")
    found = sorted({seen.lineage for seen in living if seen.lineage})
    if wanted and found and wanted not in found:
        raise RebuildRefused(f"no instance carries the lineage {wanted}; there are {', '.join(found)}")
    if not wanted and len(found) > 1:
        raise RebuildRefused(f"instances of several states answer ({', '.join(found)}): choose with --lineage")
    return wanted or (found[0] if found else new)


def _place(place: Place, listings: Sequence[Listing]) -> Place:
    listing = next(each for each in listings if each.place == place.name)
    return replace(place, identity=listing.identity, observed_at=listing.at, error="", failing_since=None)


# ---------------------------------------------------------------- instances


def _instances(
    listings: Sequence[Listing],
    lineage: str,
    *,
    hosts: Mapping[str, HostReport],
    desired: Desired,
    places: Sequence[Place],
    now: int,
) -> tuple[Instance, ...]:
    pools = {pool.name: pool for pool in desired.pools}
    backends = {place.name: place.config.name for place in places}
    configs = {place.name: place.config for place in places}
    regions = {place.name: place.region for place in places}
    counts: dict[str, int] = {}
    made: dict[str, Instance] = {}
    for place, seen in machines(listings, places=places, lineage=lineage):
        pool = seen.pool or "default-pool"
        counts[pool] = counts.get(pool, 0) + 1
        instance = _instance(
            seen, name=f"{pool}-{counts[pool]}", place=place, pool=pools.get(pool, Pool(name=pool)), now=now
        )
        if instance.id in made:  # without an id of ours, and another account has a machine of that external id
            instance = replace(instance, id=f"{place.replace('/', '-')}-{seen.external_id}")
        region = instance.region or regions.get(place, "")
        instance = replace(instance, backend=backends.get(place, place.split("/")[0]), region=region)
        if place in configs:
            instance = as_server(_with_runtime(instance, configs[place]), configs[place])
            if instance.host is None:  # of a pool that is no more: nobody else says how it is reached
                instance = replace(instance, way=way_of(configs[place].options))
        made[instance.id] = _looked_at(instance, hosts.get(instance.id), now=now)
    return tuple(made.values())


def _with_runtime(instance: Instance, config: BackendConfig) -> Instance:
    fixed = config.traits.fixed_runtime
    return replace(instance, resources=replace(instance.resources, runtime=fixed)) if fixed else instance


_PHASES: dict[str, Phase] = {"starting": "provisioning", "ending": "terminating"}


def _instance(seen: Seen, *, name: str, place: str, pool: Pool, now: int) -> Instance:
    wanted = (pool.nodes_target if pool.nodes_target is not None else pool.nodes_min) > 0
    return Instance(
        id=seen.id or seen.external_id,
        name=name,
        pool=pool.name,
        backend="",
        place=place,
        region=seen.region,
        zone=seen.zone,
        instance_type=seen.instance_type,
        resources=seen.resources or Resources(cpus=0, memory=0),
        spot=seen.spot,
        price=seen.price,
        external_id=seen.external_id,
        image=seen.image,
        launch=seen.launch,
        origin="declared" if wanted else "run",
        phase=_PHASES.get(seen.phase, "ready"),
        address=seen.address,
        machine_id=seen.machine_id,
        created_at=seen.created_at or now,
        seen_at=now,
        idle_duration=pool.idle_duration,
        idle_source="the pool, after a rebuild",
        max_lifetime=pool.max_lifetime,
        hold=pool.hold,
        unattended=pool.unattended,
        prevent_destroy=pool.prevent_destroy,
        blocks=pool.blocks,
        orphan="" if seen.id else "tagged with the project, but with no id of ours",
    )


def _looked_at(instance: Instance, report: HostReport | None, *, now: int) -> Instance:
    if instance.phase != "ready":
        return instance
    if report is None:
        # It may work for somebody: until it answers, no idle clock of it runs, and its silence ends it no more than
        # that of a busy one. Its own timer does, where it is never reached any more.
        return replace(
            instance, ready_at=None, unreachable_since=now, failed_looks=1, unreachable_why="silent at the rebuild"
        )
    return replace(
        instance,
        ready_at=now,
        boot_id=report.boot_id,
        machine_id=report.machine_id or instance.machine_id,
        resources=instance.resources if instance.resources.runtime_fixed else report.resources or instance.resources,
        degraded=report.degraded,
        foreign=report.foreign,
    )


# ---------------------------------------------------------------- runs


def _held(
    desired: Desired, *, known: set[str], done: frozenset[tuple[str, str]], nonce: str, now: int
) -> tuple[Run, ...]:
    waiting = [
        spec
        for spec in desired.runs
        if spec.type == "task" and spec.name not in known and (spec.name, spec.hash) not in done
    ]
    return tuple(
        Run(id=f"{nonce}r{index}", spec=spec, submitted_at=now, held=True, reason="held after a rebuild: --first-run")
        for index, spec in enumerate(waiting)
    )


# ---------------------------------------------------------------- a copy


def with_new_lineage(state: State, *, lineage: str, now: int) -> State:
    """`state` without instances, open launches and active runs, under `lineage`.

    The applied configuration and its history stay, and so do ended runs with their results. A declared task that was
    active is held until `dstack apply --first-run`: the original still runs it. A declared service starts anew; other
    active runs end here.
    """
    runs = tuple(kept for run in state.runs if (kept := _kept(run, now=now)) is not None)
    ended = {run.id for run in runs if run.status in RUN_ENDED}
    was = {run.id for run in state.runs if run.status in RUN_ENDED}
    return replace(
        state,
        lineage=lineage,
        generation=state.generation + 1,
        places=tuple(replace(one, identity="") if _per_lineage(one) else one for one in state.places),
        instances=(),
        runs=runs,
        attempts=tuple(one for one in state.attempts if one.run in ended & was),
        intents=(),
        wishes=(),
        overrides=tuple(one for one in state.overrides if not one.subject.startswith(INSTANCE)),
        tombstones=tuple(one for one in state.tombstones if one.kind == "place"),
        ticks=(),
        unowned=(),
    )


def _per_lineage(place: Place) -> bool:
    """This machine is another place for each lineage; accounts stay pinned."""
    return place.config.traits.kind == "machine" and place.config.traits.scope == "host"


def _kept(run: Run, *, now: int) -> Run | None:
    if run.status in RUN_ENDED:
        return run
    if run.origin == "declared" and run.spec.type == "service":
        return None
    if run.origin == "declared" and run.spec.type == "task":
        why = "held: it is active in the state that this one was copied from"
        return Run(id=run.id, spec=run.spec, submitted_at=now, held=True, reason=why)
    return replace(
        run,
        status="terminated",
        reason="it belongs to the state that this one was copied from",
        finished_at=now,
        not_before=None,
        wait_until=None,
    )
