"""The crash matrix over 500 machines, bought as at EC2: batches of one token, gangs, spot and on-demand, two regions.

Killed around each `prepare`, `launch` and `terminate`, into a world that changed meanwhile: what was to be had moves
from region to region, listings lag, answers are lost, the documents and the credentials are others. `make test` takes
each changed world once, `make chaos` each with every kill (`DSTACK_TEST_CRASHES=all`).
"""

from __future__ import annotations

import contextlib
import tempfile
from collections import Counter
from collections.abc import Callable
from decimal import Decimal
from functools import cache
from itertools import product
from pathlib import Path

import pytest
from msgspec.structs import replace

from backends.errors import TryLater
from backends.fake.backend import FakeMachine, Fault
from reconciler.engine.ports import Ports
from reconciler.engine.request import TickAsk
from reconciler.engine.tick import tick
from schemas.desired import BackendConfig, Desired
from schemas.plan import Permissions
from schemas.pool import Pool
from schemas.profile import Retry
from schemas.resources import Where
from schemas.run import RUN_ENDED
from tests.chaos.killer import Killed, Killer
from tests.engine.test_crash import ALL
from tests.worlds.world import PROJECT, Site, apply, apply_ask, cron, offer, task

REGIONS = ("r1", "r2")
OFFERS = tuple(
    offer(kind, price, spot=spot, region=region)
    for kind, spot, price, region in (
        ("small", False, "1.00", "r1"),
        ("small", False, "1.10", "r2"),
        ("large", False, "1.40", "r1"),
        ("large", False, "1.45", "r2"),
        ("small", True, "0.40", "r1"),
        ("small", True, "0.45", "r2"),
        ("large", True, "0.60", "r2"),
    )
)
SPOT = Where(spot="spot")
BASE = Pool(name="base", default=True, nodes_min=280, nodes_max=420, idle_duration=60)
CHEAP = Pool(name="cheap", nodes_min=120, nodes_max=140, idle_duration=60, where=SPOT)
AGAIN = Retry(interruption=True)
RUNS = (
    task("first", nodes=50, pool="gangs", idle_duration=60, retry=AGAIN),
    task("second", nodes=50, pool="gangs", idle_duration=60, retry=AGAIN),
)
GANGS = Pool(name="gangs", nodes_min=0, nodes_max=100, idle_duration=60)


def papers(*pools: Pool) -> Desired:
    return Desired(
        project=PROJECT,
        project_name="demo",
        backends=(BackendConfig(name="fake", type="fake", regions=REGIONS),),
        pools=pools,
        runs=RUNS,
    )


BEFORE = papers(BASE, CHEAP, GANGS)
LOWERED = papers(replace(BASE, nodes_min=130), replace(CHEAP, nodes_min=90), GANGS)
RAISED = papers(replace(BASE, nodes_min=330), CHEAP, GANGS)


def new_site(scratch: Path, *, lag: int = 0) -> Site:
    """What is cheapest suffices for a part alone: the rest goes elsewhere in the same tick."""
    site = Site(scratch=scratch, offers=OFFERS)
    site.world.lag = lag
    site.world.room |= {"fake/r1 small on-demand": 230, "fake/r1 small spot": 60, "fake/r2 small spot": 50}
    return site


def story(site: Site, ports: Ports) -> None:
    """500 are bought, the gangs' end, some spot ones are taken away, and then fewer are wanted."""
    tick(ports, apply_ask(BEFORE))
    for _ in range(3):
        site.clock.at += 45
        tick(ports, TickAsk())
    for machine in [one for one in site.world.living() if one.request.spot][:30]:
        site.world.interrupt(machine.external_id)
    tick(ports, TickAsk())
    site.clock.at += 45
    tick(ports, apply_ask(LOWERED, permissions=Permissions(destroy_pools=("*",))))
    site.clock.at += 45
    tick(ports, TickAsk())


# ---------------------------------------------------------------- the world changes while nobody looks


def same(site: Site) -> None:
    pass


def lagging(site: Site) -> None:
    site.world.lag, site.world.ending, site.world.boot = 2, 50, 30


def sold_out(site: Site) -> None:
    site.world.sold_out |= {"fake/r1 small", "fake/r2 small spot"}


def other_offers(site: Site) -> None:
    """r1 has no more of what it had, and r2 is dearer."""
    kept = [one for one in OFFERS if (one.region, one.instance_type) != ("r1", "small")]
    site.world.offers = [replace(one, price=(one.price or Decimal(0)) + Decimal("0.05")) for one in kept]


def throttled(site: Site) -> None:
    site.world.faults += [
        Fault(call=call, error=TryLater("RequestLimitExceeded"), times=times, after=after)
        for call, times, after in (
            ("instances", 12, False), ("prepare", 3, False), ("launch", 3, False), ("terminate", 3, True),
        )
    ]  # fmt: skip


def answers_lost(site: Site) -> None:
    cut = TryLater("cut")
    site.world.faults += [Fault(call=call, error=cut, times=4, after=True) for call in ("launch", "terminate")]


def much_later(site: Site) -> None:
    """Past the life of every open launch."""
    site.clock.at += 3000


def other_account(site: Site) -> None:
    """Another's keys for a while: they make nothing and end nothing. Before anything is written, they would be ours."""
    if not site.store.data:
        return
    before = outside(site)
    site.world.identity = "account-2"
    for _ in range(3):
        site.clock.at += 400
        apply(site, BEFORE)
        cron(site)
    assert outside(site) == before
    site.world.identity = "account-1"


def outside(site: Site) -> tuple[Counter[str], list[int | None]]:
    return Counter(site.world.launched), [machine.ends_at for machine in site.world.machines.values()]


WORLDS: dict[str, tuple[Callable[[Site], None], Desired]] = {
    "same": (same, BEFORE),
    "lagging": (lagging, BEFORE),
    "lagging-lowered": (lagging, LOWERED),
    "sold-out": (sold_out, BEFORE),
    "other-offers-raised": (other_offers, RAISED),
    "throttled-lowered": (throttled, LOWERED),
    "answers-lost": (answers_lost, BEFORE),
    "much-later": (much_later, BEFORE),
    "other-account": (other_account, BEFORE),
}
ABOUT = ("prepare", "launch", "terminate")


def lag_of(world: str) -> int:
    return 1 if world.startswith("lagging") else 0


@cache
def told(lag: int) -> tuple[str, ...]:
    """The story's effects, by name."""
    site, killer = new_site(Path(tempfile.mkdtemp()), lag=lag), Killer()
    story(site, killer.wrap(site.ports()))
    return tuple(killer.told)


def kills(world: str) -> list[int]:
    return [number for number, name in enumerate(told(lag_of(world)), 1) if name in ABOUT]


def converge(site: Site, documents: Desired) -> None:
    for _ in range(12):  # a place that cannot say what it has is a reason to wait
        if not apply(site, documents, permissions=Permissions(destroy_pools=("*",))).refused:
            break
        site.clock.at += 100
    for _ in range(60):
        site.clock.at += 100
        result = cron(site)
        assert result.refused == ""
        if not result.plan.actions and not result.outcomes and not under_way(site, documents):
            return
    raise AssertionError(f"still under way: {result.plan.unmet} {result.plan.actions[:3]}")


def under_way(site: Site, documents: Desired) -> bool:
    state = site.state
    ready = Counter(one.pool for one in state.instances if one.phase == "ready")
    return bool(
        state.intents
        or any(ready[pool.name] != pool.nodes_min for pool in documents.pools)
        or any(one.phase not in ("ready", "terminated") for one in state.instances)
        or any(run.status not in RUN_ENDED for run in state.runs)
    )


def check(site: Site, documents: Desired) -> None:
    """No second machine, none without an owner, none that was ended while somebody needed it."""
    state, world = site.state, site.world
    owned = {one.external_id for one in state.instances if one.phase == "ready" and not one.orphan}
    assert {machine.external_id for machine in world.living()} == owned, "a machine without an owner"
    assert max(world.launched.values()) == 1, "launched twice"
    assert max(world.started.values()) == 1, "a job started twice"
    assert len(world.machines) >= sum(pool.nodes_min for pool in documents.pools) + 50, "too small a world"
    known = {one.external_id for one in state.instances}
    assert known >= world.machines.keys(), "a machine that nobody remembers"
    assert {run.status for run in state.runs} == {"done"}
    assert not [one for one in world.machines.values() if cut_off(one)], "ended while it worked"
    for launch, made in batches(site).items():
        assert len(made) == len(next(iter(made)).request.ids), f"{launch}: a part of a batch"
        assert sorted(one.index for one in made) == list(range(len(made)))
    again = apply(site, documents)
    assert (again.plan.actions, again.outcomes) == ((), ())


def cut_off(machine: FakeMachine) -> bool:
    """By us, while a job of it had not ended yet."""
    ends = machine.ends_at
    return (
        ends is not None
        and not machine.interrupted
        and any(
            job.started_at is not None and job.ends_at is not None and job.started_at <= ends < job.ends_at
            for job in machine.jobs.values()
        )
    )


def batches(site: Site) -> dict[str, list[FakeMachine]]:
    found: dict[str, list[FakeMachine]] = {}
    for machine in site.world.machines.values():
        found.setdefault(machine.request.launch, []).append(machine)
    return found


def some() -> list[tuple[int, bool, str]]:
    """Each world with two kinds of effects, one killed before and one after; of each kind early and late ones."""
    found = []
    for number, world in enumerate(WORLDS):
        for after in (False, True):
            about = ABOUT[(number + after) % len(ABOUT)]
            there = [at for at in kills(world) if told(lag_of(world))[at - 1] == about]
            found.append((there[(number * 5 + after * 3) % len(there)], after, world))
    return found


CASES = [(at, after, world) for world in WORLDS for at in kills(world) for after in (False, True)] if ALL else some()


@pytest.mark.parametrize(("at", "after", "world"), CASES)
def test_killed(at: int, after: bool, world: str, tmp_path: Path) -> None:
    happens, documents = WORLDS[world]
    site = new_site(tmp_path, lag=lag_of(world))
    with contextlib.suppress(Killed):
        story(site, Killer(at, after=after).wrap(site.ports()))
    happens(site)
    site.clock.at += 30
    converge(site, documents)
    check(site, documents)


def test_undisturbed_it_is_500_in_batches_over_regions_and_purchases(tmp_path: Path) -> None:
    site = new_site(tmp_path)
    apply(site, BEFORE)
    assert len(site.world.living()) == 500
    kinds = Counter((one.region, one.request.instance_type, one.request.spot) for one in site.world.living())
    assert kinds == {
        ("r1", "small", False): 230, ("r2", "small", False): 150, ("r1", "small", True): 50, ("r2", "small", True): 50,
        ("r2", "large", True): 20,
    }  # fmt: skip
    assert {len(made) for made in batches(site).values()} <= {20, 30, 50}
    memory = {(one.place, one.spot, one.until - site.clock.now()) for one in site.state.capacity}
    assert memory >= {("fake/r1", False, 180), ("fake/r1", True, 45)}


def test_every_kind_of_effect_is_among_the_kills_before_and_after() -> None:
    killed = {(told(lag_of(world))[at - 1], after) for at, after, world in CASES}
    assert killed == set(product(ABOUT, (False, True)))
    assert {world for _, _, world in CASES} == set(WORLDS)
