"""Any world at all: strategies for the laws of the planner. Small, and full of what goes wrong."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

from hypothesis import strategies as st
from msgspec.structs import replace

from reconciler.planner.placement.blocks import SharedBox
from reconciler.planner.world import World
from reconciler.state.blocks import shared
from schemas.base import place_of
from schemas.desired import BackendConfig, Cap, Desired
from schemas.instance import Instance
from schemas.offer import Offer
from schemas.plan import Permissions
from schemas.pool import Pool
from schemas.profile import Retry
from schemas.resources import GpuNeed, Need, Resources, Span, Where
from schemas.run import Attempt, Job, Run, RunSpec
from schemas.state import VERSION, Capacity, Override, Place, State, Wish
from tests.worlds.planning import MACHINES, NOW

POOLS = ("a", "a", "a", "b", "c")
REGIONS = ("us", "eu")
KINDS = ("small", "big", "a10", "a100", "a100x8")
PRICES = st.sampled_from([None, Decimal("0.10"), Decimal("0.50"), Decimal("1.20")])
AGES = st.sampled_from([0, 1, 59, 299, 300, 301, 700, 1300, 4000, 90_000])
NEEDS = st.sampled_from(
    [
        Need(),
        Need(),
        Need(),
        Need(cpu=Span(min=8)),
        Need(gpu=GpuNeed()),
        Need(cpu=Span(min=2, max=12)),
        Need(gpu=GpuNeed(count=Span(min=2, max=3))),
        Need(gpu=GpuNeed(names=("a100",))),
        Need(gpu=GpuNeed(names=("h100",))),
    ]
)
WHERES = st.builds(
    Where,
    regions=st.sampled_from([(), ("us",)]),
    spot=st.sampled_from(["auto", "auto", "on-demand", "spot"]),
    max_price=st.sampled_from([None, None, Decimal("0.40")]),
)
MAYBE = st.booleans
CAPS = (Cap(instance_type="small", max=2), Cap(instance_type="a10", max=1))


def rarely(strategy: st.SearchStrategy[Any], *, otherwise: Any) -> st.SearchStrategy[Any]:
    return st.integers(0, 9).flatmap(lambda roll: strategy if roll == 9 else st.just(otherwise))


def sometimes(strategy: st.SearchStrategy[Any], *, otherwise: Any) -> st.SearchStrategy[Any]:
    return st.one_of(st.just(otherwise), st.just(otherwise), strategy)


@st.composite
def pools(draw: st.DrawFn) -> tuple[Pool, ...]:
    names = ["a", *draw(st.lists(st.sampled_from(["b", "c"]), unique=True, max_size=2))]
    return tuple(draw(a_pool(name)) for name in names)


@st.composite
def a_pool(draw: st.DrawFn, name: str) -> Pool:
    least = draw(st.integers(0, 3))
    most = draw(st.sampled_from([None, least, least + 1, least + 3]))
    return Pool(
        name=name,
        nodes_min=least,
        nodes_target=draw(sometimes(st.just(most), otherwise=None)),
        nodes_max=most,
        need=draw(rarely(NEEDS, otherwise=Need())),
        where=Where(spot="auto"),
        max_hourly=draw(sometimes(st.sampled_from([Decimal("0.50"), Decimal("2.00")]), otherwise=None)),
        paused=draw(rarely(st.just(True), otherwise=False)),
        prevent_destroy=draw(rarely(st.just(True), otherwise=False)),
        max_lifetime=draw(rarely(st.just(1000), otherwise=None)),
        blocks=draw(sometimes(st.sampled_from([0, 2, 4]), otherwise=1)),
    )


@st.composite
def offers(draw: st.DrawFn) -> list[Offer]:
    return draw(
        st.lists(
            st.builds(
                lambda kind, region, price, spot, availability, free: Offer(
                    backend="aws",
                    region=region,
                    instance_type=kind,
                    resources=MACHINES[kind],
                    price=price,
                    spot=spot,
                    availability=availability,
                    free=free,
                ),
                st.sampled_from(KINDS),
                st.sampled_from(REGIONS),
                PRICES,
                MAYBE(),
                st.sampled_from(["available", "unknown", "unknown", "unknown", "no-capacity"]),
                st.sampled_from([None, None, 1, 3]),
            ),
            min_size=1,
            max_size=8,
            unique_by=lambda offer: (offer.instance_type, offer.region, offer.spot),
        )
    )


@st.composite
def an_instance(draw: st.DrawFn, index: int, *, calm: bool) -> Instance:
    kind, region = draw(st.sampled_from(KINDS)), draw(st.sampled_from(REGIONS))
    pool = "a" if calm else draw(st.sampled_from(POOLS))
    phase = "ready" if calm else draw(st.sampled_from([*["ready"] * 8, "pending", "provisioning", "terminating"]))
    made = draw(AGES)
    ready = min(made, draw(AGES)) if phase in ("ready", "terminating") else None
    trouble = draw(troubles()) if not calm and draw(st.integers(0, 9)) > 6 else {}
    blocks = draw(sometimes(st.sampled_from([0, 2, 3]), otherwise=1))
    return Instance(
        id=f"i{index}",
        name=f"{pool}-{index}",
        pool=pool,
        backend="aws",
        place=place_of("aws", region),
        region=region,
        instance_type=kind,
        resources=own_gpus(MACHINES[kind], index=index),
        blocks=blocks,
        spot=draw(MAYBE()),
        price=draw(PRICES),
        external_id="" if phase == "pending" else f"x{index}",
        origin=draw(st.sampled_from(["declared", "run", "added"])),
        phase=phase,
        created_at=NOW - made,
        ready_at=None if ready is None else NOW - ready,
        idle_duration=draw(st.sampled_from([None, 300, 300, 0])),
        reserved_for=draw(rarely(st.sampled_from(["r0", "r1", "gone"]), otherwise="")),
        reserved_until=NOW + draw(st.sampled_from([-1, 0, 500])),
        **trouble,
    )


def own_gpus(resources: Resources, *, index: int) -> Resources:
    gpu = resources.gpu
    if gpu is None:
        return resources
    return replace(resources, gpu=replace(gpu, uuids=tuple(f"GPU-{index}-{number}" for number in range(gpu.count))))


def troubles() -> st.SearchStrategy[dict[str, Any]]:
    return st.one_of(
        st.just({"max_lifetime": 1000}),
        st.just({"prevent_destroy": True}),
        st.just({"orphan": "no record"}),
        st.builds(lambda why: {"draining": why}, st.sampled_from(["removed by ann", "nodes lowered to 1"])),
        st.just({"quarantined": "ECC"}),
        st.just({"degraded": "a GPU is missing"}),
        st.builds(lambda index: {"degraded": f"missing GPU GPU-{index}-0"}, st.integers(0, 3)),
        st.just({"missing_since": NOW - 60, "absences": 1}),
        st.just({"stray_jobs": ("unknown-0-1-0",)}),
        st.builds(
            lambda age, looks: {"unreachable_since": NOW - age, "failed_looks": looks},
            st.sampled_from([3, 1199, 1200, 4000]),
            st.sampled_from([1, 3, 9]),
        ),
    )


@st.composite
def a_spec(draw: st.DrawFn, name: str, *, calm: bool) -> RunSpec:
    kind = draw(st.sampled_from(["task", "task", "task", "service"]))
    return RunSpec(
        name=name,
        type=kind,
        pool="a" if calm else draw(st.sampled_from(POOLS)),
        hash=draw(st.sampled_from(["h1", "h2"])),
        nodes=draw(st.sampled_from([1, 1, 1, 2, 3])) if kind == "task" else 1,
        replicas=draw(st.integers(1, 2)) if kind == "service" else 1,
        need=Need() if calm else draw(NEEDS),
        where=Where(spot="auto") if calm else draw(WHERES),
        priority=draw(st.sampled_from([10, 50, 90])),
        reuse_only=draw(rarely(st.just(True), otherwise=False)),
        max_duration=draw(st.sampled_from([None, 10, 3600])),
        retry=draw(st.sampled_from([Retry(), Retry(no_capacity=True, interruption=True, error=True)])),
    )


@st.composite
def worlds(draw: st.DrawFn) -> World:
    """Half of them are calm: every instance is well and in one pool, so that the runs meet."""
    calm = draw(st.booleans())
    instances = [draw(an_instance(index, calm=calm)) for index in range(draw(st.integers(1, 8)))]
    free = [one for one in instances if one.phase == "ready" and not one.orphan]
    runs, attempts, specs = [], [], []
    for index in range(draw(st.integers(1, 5))):
        spec = draw(a_spec(f"run{index}", calm=calm))
        fate = draw(st.sampled_from(["waits", "waits", "waits", "new", "runs", "ended"]))
        declared = draw(MAYBE())
        if fate == "new" or (declared and draw(MAYBE())):
            specs.append(replace(spec, hash=draw(st.sampled_from([spec.hash, "h3"]))))
        if fate == "new":
            continue
        run = Run(id=f"r{index}", spec=spec, origin="declared" if declared else "run", submitted_at=NOW - index)
        run = replace(run, wait_until=draw(sometimes(st.sampled_from([NOW - 1, NOW + 1]), otherwise=None)))
        if fate == "runs" and len(free) >= spec.nodes:
            hosts, free = free[: spec.nodes], free[spec.nodes :]
            status = draw(st.sampled_from(["assigned", "running", "running", "ended"]))
            attempts.append(an_attempt(run, hosts=hosts, status=status))
            stop = draw(sometimes(st.just("stopped by ann"), otherwise=""))
            run = replace(run, status="terminating" if stop else "running", stop_reason=stop, attempts=1)
        elif fate == "ended":
            run = replace(run, status="done", finished_at=NOW - 60)
        runs.append(run)
    desired = Desired(
        project="testproject",
        pools=draw(pools()),
        runs=tuple(specs),
        caps=draw(sometimes(st.just(CAPS), otherwise=())),
        budget=draw(sometimes(st.sampled_from([Decimal("1.00"), Decimal("5.00")]), otherwise=None)),
    )
    return World(
        desired=desired,
        state=State(
            version=VERSION,
            project="testproject",
            lineage="l",
            instances=tuple(instances),
            runs=tuple(runs),
            attempts=tuple(attempts),
            places=tuple(draw(a_place(region)) for region in REGIONS),
            wishes=draw(sometimes(st.just((Wish(id="w", pool="a", count=2, at=NOW - 60),)), otherwise=())),
            overrides=draw(sometimes(overrides(), otherwise=())),
            capacity=draw(rarely(capacities(), otherwise=())),
        ),
        offers=draw(offers()),
        now=NOW,
        nonce="n0000000",
        permissions=draw(permissions()),
        done=frozenset(draw(sometimes(st.just({("run0", "h1")}), otherwise=()))),
    )


def an_attempt(run: Run, *, hosts: list[Instance], status: Any) -> Attempt:
    id = f"{run.id}-0-1"
    ended = {"exit_code": 0, "ended_at": NOW - 30} if status == "ended" else {}
    started = None if status == "assigned" else NOW - 100
    jobs = tuple(
        Job(
            id=f"{id}-{rank}",
            rank=rank,
            instance=one.id,
            status=status,
            started_at=started,
            gpus=SharedBox(one, of=shared(one)).take(1),
            **ended,
        )
        for rank, one in enumerate(hosts)
    )
    return Attempt(id=id, run=run.id, number=1, jobs=jobs, assigned_at=NOW - 200)


@st.composite
def a_place(draw: st.DrawFn, region: str) -> Place:
    return Place(
        name=place_of("aws", region),
        config=BackendConfig(name="aws", type="aws"),
        region=region,
        observed_at=NOW - 10,
        error=draw(rarely(st.just("timed out"), otherwise="")),
    )


@st.composite
def overrides(draw: st.DrawFn) -> tuple[Override, ...]:
    kind = draw(st.sampled_from(["drain", "pause"]))
    until = draw(st.sampled_from([None, NOW + 60]))
    stop_after = draw(st.sampled_from([None, 0, 900]))
    begins = draw(st.sampled_from([None, NOW - 30, NOW + 30])) if kind == "drain" else None
    subject = "a" if kind == "pause" else draw(st.sampled_from(["a", "instance i0"]))
    word = Override(kind=kind, subject=subject, by="ann", at=NOW - 60, begins=begins, until=until)
    return (replace(word, stop_after=stop_after),)


@st.composite
def capacities(draw: st.DrawFn) -> tuple[Capacity, ...]:
    return (Capacity(place="aws/us", instance_type=draw(st.sampled_from(KINDS)), until=NOW + 60),)


def permissions() -> st.SearchStrategy[Permissions]:
    return st.builds(
        Permissions,
        destroy_pools=st.sampled_from([(), (), ("a", "b", "c")]),
        mass_destroy=MAYBE(),
        may_end=st.sampled_from([True, True, False]),
        replace=st.sampled_from([(), (), ("run0", "run1")]),
        scope=st.sampled_from([None, None, None, None, None, ("r0", "r1", "w", "i0")]),
        only_pool=st.sampled_from(["", "", "", "", "", "a"]),
    )
