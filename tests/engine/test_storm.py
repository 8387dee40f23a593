"""Everything at once: a world that misbehaves by a seed, killed reconcilers, edited documents; then calm.

In the storm and after it: nothing is launched or started twice, and no machine is without an owner at the end.
"""

from __future__ import annotations

import contextlib
import random
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from backends.errors import TryLater
from backends.fake.backend import Fault
from reconciler.engine.request import TickAsk
from reconciler.engine.tick import tick
from schemas.desired import Desired
from schemas.plan import Permissions
from schemas.pool import Pool
from schemas.profile import Retry
from tests.chaos.killer import Killed, Killer
from tests.engine.test_crash import under_way
from tests.worlds.world import Site, apply, apply_ask, cron, desired, task

POOL = Pool(name="default-pool", default=True, nodes_min=1, nodes_max=5, idle_duration=60)
AGAIN = Retry(interruption=True, error=True, duration=None)
NAMES = ("train", "pair", "fails", "long")


def documents(dice: random.Random) -> Desired:
    runs = (
        task("train", retry=AGAIN, idle_duration=60),
        task("pair", nodes=2, idle_duration=60, retry=AGAIN),
        task("fails", idle_duration=60),
        task("long", idle_duration=60),
    )
    kept = tuple(run for run in runs if dice.random() < 0.8)
    return desired(pools=[replace(POOL, nodes_min=dice.choice([0, 1, 2]))], runs=kept)


def script(job: str) -> tuple[int, int]:
    return (200, 0) if job.endswith("7") else (60, 0)


def misbehave(site: Site, dice: random.Random) -> None:
    world = site.world
    machines = world.living()
    calls: list[Any] = ["launch", "instances", "terminate", "identity", "prepare", "instances_by_id"]
    match dice.randrange(9):
        case 0:
            call = dice.choice(calls)
            world.faults.append(Fault(call=call, error=TryLater("slow down"), after=dice.random() < 0.5))
        case 1:
            world.sold_out ^= {dice.choice(["small", "large"])}
        case 2 if machines:
            world.interrupt(dice.choice(machines).external_id)
        case 3 if machines:
            world.reboot(dice.choice(machines).external_id)
        case 4 if machines:
            machine = dice.choice(machines)
            machine.silent = not machine.silent
        case 5:
            world.lag = dice.randrange(3)
        case 6:
            world.blind = not world.blind
        case 7:
            world.identity = dice.choice(["account-1", "account-1", "somebody"])
        case _:
            pass


def storm(site: Site, dice: random.Random) -> None:
    for number in range(40):
        site.clock.at += dice.choice([5, 20, 20, 60, 400])
        misbehave(site, dice)
        killer = Killer(dice.choice([0, 0, 1, 2, 3, 5]), after=dice.random() < 0.5)
        ask = TickAsk()
        if number == 0 or dice.random() < 0.1:
            ask = apply_ask(documents(dice), permissions=Permissions(destroy_pools=("default-pool",)))
        with contextlib.suppress(Killed):
            tick(killer.wrap(site.ports(who=dice.choice(["ann", "bob"]))), ask)


def calm(site: Site) -> None:
    world = site.world
    world.faults.clear()
    world.sold_out.clear()
    world.lag, world.blind = 0, False
    world.identity = site.state.places[0].identity if site.store.data else "account-1"
    for machine in world.machines.values():
        machine.silent = False


@pytest.mark.parametrize("seed", range(60))
def test_storm(seed: int, tmp_path: Path) -> None:
    dice = random.Random(seed)  # noqa: S311 - a seed, not a secret
    site = Site(scratch=tmp_path)
    storm(site, dice)
    calm(site)
    final = desired(pools=[POOL], runs=[task("train", retry=AGAIN, idle_duration=60)])
    for _ in range(3):
        site.clock.at += 20
        result = apply(site, final, permissions=Permissions(destroy_pools=("default-pool",), mass_destroy=True))
        assert result.refused == ""
    for _ in range(150):
        site.clock.at += 30
        result = cron(site, permissions=Permissions(mass_destroy=True))
        if not (result.plan.actions or result.outcomes or under_way(site.state, final)):
            break
    assert under_way(site.state, final) == []
    owned = {one.external_id for one in site.state.instances if one.phase == "ready" and not one.orphan}
    assert {machine.external_id for machine in site.world.living()} == owned
    assert max(site.world.launched.values(), default=1) == 1
    assert max(site.world.started.values(), default=1) == 1
    assert apply(site, final).plan.actions == ()
