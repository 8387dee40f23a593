"""Worlds to measure the planner on.

A world of n instances has n/10 waiting runs of up to 500 shapes (some gangs), n offers, half
of the instances busy; each pool has a dozen kinds of machine in four places. The same seed makes the same world.
"""

from __future__ import annotations

import random
from decimal import Decimal

from reconciler.planner.world import World
from schemas.desired import BackendConfig, Desired
from schemas.instance import Instance
from schemas.offer import Offer
from schemas.pool import Pool
from schemas.resources import Gpu, GpuNeed, Need, Resources, Span, SpotPolicy, Where
from schemas.run import Attempt, Job, Run, RunSpec
from schemas.state import VERSION, Place, State

NOW = 1_800_000_000
GPUS = (
    ("", 0),
    ("T4", 16),
    ("L4", 24),
    ("A10G", 24),
    ("V100", 32),
    ("A100", 40),
    ("A100", 80),
    ("H100", 80),
    ("H200", 141),
    ("L40S", 48),
)
BACKENDS = ("aws", "gcp", "azure", "lambda")
REGIONS = tuple(f"region-{number}" for number in range(20))
SHAPES = 500


def world(size: int, *, seed: int = 7, pools: int = 20, shapes: int = SHAPES, offers: int | None = None) -> World:
    dice = random.Random(seed)  # noqa: S311 - a world to measure on, not a secret
    kinds = [_kind(dice) for _ in range(600)]
    made = tuple(Pool(name=f"pool-{number}", nodes_min=size // 200) for number in range(pools))
    stock = {pool.name: dice.sample(kinds, 12) for pool in made}
    instances = tuple(_instance(dice, index, stock=stock) for index in range(size))
    runs, attempts = _runs(dice, size, pools=made, instances=instances, shapes=min(shapes, max(1, size // 20)))
    places = tuple(
        Place(name=f"{backend}/{region}", config=BackendConfig(name=backend, type=backend), observed_at=NOW)
        for backend in BACKENDS
        for region in REGIONS
    )
    return World(
        desired=Desired(project="benchmark", pools=made, budget=Decimal(10**9)),
        state=State(
            version=VERSION,
            project="benchmark",
            lineage="l",
            places=places,
            instances=instances,
            runs=runs,
            attempts=attempts,
        ),
        offers=tuple(_offer(dice, kinds=kinds) for _ in range(size if offers is None else offers)),
        now=NOW,
        nonce="bench000",
    )


def _kind(dice: random.Random) -> tuple[str, Resources, Decimal]:
    name, memory = dice.choice(GPUS)
    count, cpus = dice.choice((1, 2, 4, 8)), dice.choice((2, 4, 8, 16, 32, 64, 96))
    gpu = Gpu(name=name, memory=memory * 1024, count=count) if name else None
    resources = Resources(cpus=cpus, memory=cpus * dice.choice((2, 4, 8)) * 1024, disk=500 * 1024, gpu=gpu)
    price = Decimal(cpus * 5 + (memory * count * 3 if name else 0)) / 100
    return f"{name or 'c'}{count}-{cpus}-{dice.randrange(1000)}", resources, price


def _offer(dice: random.Random, *, kinds: list[tuple[str, Resources, Decimal]]) -> Offer:
    instance_type, resources, price = dice.choice(kinds)
    spot = dice.random() < 0.5
    return Offer(
        backend=dice.choice(BACKENDS),
        region=dice.choice(REGIONS),
        zone=dice.choice("abc"),
        instance_type=instance_type,
        resources=resources,
        price=price * (Decimal(dice.randrange(25, 45)) / 100 if spot else Decimal(dice.randrange(95, 130)) / 100),
        spot=spot,
    )


def _instance(dice: random.Random, index: int, *, stock: dict[str, list[tuple[str, Resources, Decimal]]]) -> Instance:
    pool = dice.choice(list(stock))
    instance_type, resources, price = dice.choice(stock[pool])
    backend, region = dice.choice(BACKENDS[:2]), dice.choice(REGIONS[:2])
    return Instance(
        id=f"i{index}",
        name=f"{pool}-{index}",
        pool=pool,
        backend=backend,
        place=f"{backend}/{region}",
        region=region,
        instance_type=instance_type,
        resources=resources,
        price=price,
        external_id=f"x{index}",
        phase="ready",
        created_at=NOW - 90_000,
        ready_at=NOW - dice.randrange(600),
    )


def _runs(
    dice: random.Random, size: int, *, pools: tuple[Pool, ...], instances: tuple[Instance, ...], shapes: int
) -> tuple[tuple[Run, ...], tuple[Attempt, ...]]:
    """Half of the instances are busy; a tenth as many runs wait."""
    runs, attempts = [], []
    for index in range(0, size, 2):
        spec = RunSpec(name=f"b{index}", pool=instances[index].pool)
        runs.append(Run(id=f"b{index}", spec=spec, origin="run", status="running"))
        job = Job(id=f"b{index}-0-1-0", instance=f"i{index}", status="running", started_at=NOW - 60)
        attempts.append(Attempt(id=f"b{index}-0-1", run=f"b{index}", number=1, jobs=(job,)))
    asked = [_shape(dice, pools=pools) for _ in range(shapes)]
    for index in range(size // 10):
        pool, need, where = dice.choice(asked)
        spec = RunSpec(
            name=f"w{index}",
            pool=pool,
            need=need,
            where=where,
            nodes=4 if index % 50 == 0 else 1,
            priority=dice.randrange(100),
        )
        runs.append(Run(id=f"w{index}", spec=spec, origin="run", submitted_at=NOW - index))
    return tuple(runs), tuple(attempts)


def _shape(dice: random.Random, *, pools: tuple[Pool, ...]) -> tuple[str, Need, Where]:
    name, memory = dice.choice(GPUS)
    gpu = GpuNeed(names=(name.lower(),), memory=Span(min=memory * 1024)) if name else None
    need = Need(cpu=Span(min=dice.choice((2, 4, 16))), memory=Span(min=dice.choice((4, 8, 64)) * 1024), gpu=gpu)
    policies: tuple[SpotPolicy, ...] = ("auto", "on-demand", "spot")
    where = Where(
        regions=tuple(dice.sample(REGIONS, 3)) if dice.random() < 0.3 else (),
        spot=dice.choice(policies),
        max_price=Decimal(dice.randrange(1, 40)) if dice.random() < 0.5 else None,
    )
    return dice.choice(pools).name, need, where
