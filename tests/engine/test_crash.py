"""Killed before and after every effect, into a world that changed meanwhile, and started again.

Alone, one effect after the other; and beside a second reconciler, with several effects under way in permuted
order: the other one makes a whole tick while the first one dies, and another in the midst of each tick
after. `make test` takes for each kill some of the changed worlds, lags and orders, `make chaos` all of them
(`DSTACK_TEST_CRASHES=all`).

Whatever happened: every live machine has an owner, none was launched twice, no job was started
twice, it converges, and then there is nothing left to do.
"""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Callable
from functools import cache
from itertools import product
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from backends.errors import TryLater
from backends.fake.backend import Fault
from reconciler.engine.ports import Ports
from reconciler.engine.request import TickAsk
from reconciler.engine.tick import tick
from reconciler.report.cost_model import cost
from reconciler.state.ledger.entries import billed_until
from reconciler.state.requests import stop_run
from schemas.backend_types import TYPES
from schemas.desired import Desired
from schemas.ledger import Entry
from schemas.plan import Permissions
from schemas.pool import Pool
from schemas.profile import Retry
from schemas.run import LIVE_JOB, RUN_ENDED
from schemas.state import State
from tests.chaos.killer import COUNTED, Crowd, Killed, Killer, Sleeper
from tests.worlds.world import Site, apply, apply_ask, cron, desired, offer, task

# ---------------------------------------------------------------- the world changes while nobody looks


POOL = Pool(name="default-pool", default=True, nodes_min=1, nodes_max=4, idle_duration=60)
RUNS = (task("train", idle_duration=60, retry=Retry(interruption=True)), task("pair", nodes=2, idle_duration=60))
BEFORE = desired(pools=[POOL], runs=RUNS)
LOWERED = desired(pools=[replace(POOL, nodes_min=0, nodes_max=3)], runs=RUNS)
RAISED = desired(pools=[replace(POOL, nodes_min=2)], runs=(*RUNS, task("late", idle_duration=60)))
CHANGED = desired(pools=[POOL], runs=(task("train", hash="other", idle_duration=60), RUNS[1]))
DELETED = desired(pools=[POOL], runs=RUNS[:1])


def nothing(site: Site) -> None:
    pass


def sold_out(site: Site) -> None:
    site.world.sold_out.add("small")


def other_offers(site: Site) -> None:
    site.world.offers = (offer("small", "1.30"), offer("large", "1.10"), offer("tiny", "0.90"))


def dear(site: Site) -> None:
    site.world.offers = (offer("large", "1.40"),)


def throttled(site: Site) -> None:
    site.world.faults += [
        Fault(call="launch", error=TryLater("slow down"), times=2),
        Fault(call="instances", error=TryLater("slow down"), times=1),
        Fault(call="terminate", error=TryLater("slow down"), times=1, after=True),
    ]


def answers_lost(site: Site) -> None:
    site.world.faults.append(Fault(call="launch", error=TryLater("timed out"), times=1, after=True))


def much_later(site: Site) -> None:
    """Past the life of every open launch."""
    site.clock.at += 3000


CHANGES: dict[str, tuple[int, Callable[[Site], None], Desired]] = {
    "same": (0, nothing, BEFORE),
    "lagging": (1, nothing, BEFORE),
    "lagging-more-sold-out": (2, sold_out, BEFORE),
    "other-offers": (1, other_offers, BEFORE),
    "dear-lowered": (2, dear, LOWERED),
    "raised-throttled": (1, throttled, RAISED),
    "changed": (0, answers_lost, CHANGED),
    "deleted": (2, nothing, DELETED),
    "much-later": (1, much_later, BEFORE),
}


def first_runs(site: Site, ports: Ports) -> None:
    """An apply and the cron ticks after it, until both runs are done and the idle ones are gone."""
    tick(ports, apply_ask(site.shaped(BEFORE)))
    for _ in range(9):
        site.clock.at += 20
        tick(ports, TickAsk())


def ends(site: Site, ports: Ports) -> None:
    """A run is stopped, a machine is interrupted under another, a floor is lowered, a launch is refused."""
    site.world.script = lambda job: (200, 3)
    site.world.sold_out.add("small")
    tick(ports, apply_ask(site.shaped(BEFORE)))
    for _ in range(2):
        site.clock.at += 20
        tick(ports, TickAsk())
    site.world.script = lambda job: (60, 0)
    tick(ports, TickAsk(wish=lambda state: stop_run(state, "pair", by="ann", now=site.clock.now())))
    site.clock.at += 20
    site.world.interrupt("i-1")
    tick(ports, TickAsk())
    site.clock.at += 20
    tick(ports, apply_ask(site.shaped(LOWERED), permissions=Permissions(destroy_pools=("default-pool",))))
    for _ in range(6):
        site.clock.at += 20
        tick(ports, TickAsk())


def slow_gang(site: Site, ports: Ports) -> None:
    """A node takes its time to be ready; then one of another attempt reboots while it is held back."""
    site.world.staging = 15
    documents = desired(pools=[POOL], runs=RUNS[1:])
    tick(ports, apply_ask(site.shaped(documents)))
    for _ in range(5):
        site.clock.at += 10
        tick(ports, TickAsk())
    changed = desired(pools=[POOL], runs=(replace(RUNS[1], hash="other", rerun=1),))
    site.clock.at += 60
    tick(ports, apply_ask(site.shaped(changed)))
    site.clock.at += 10
    tick(ports, TickAsk())
    for machine in site.world.living():
        machine.boot += 1
    for _ in range(3):
        site.clock.at += 10
        tick(ports, TickAsk())


STORIES: dict[str, Callable[[Site, Ports], None]] = {"first-runs": first_runs, "ends": ends, "slow-gang": slow_gang}


def effects_of(story: str) -> tuple[str, ...]:
    """By name, as they come."""
    site, killer = Site(scratch=Path(tempfile.mkdtemp())), Killer()
    STORIES[story](site, killer.wrap(site.ports()))
    return tuple(killer.told)


EFFECTS = {(story, at): name for story in STORIES for at, name in enumerate(effects_of(story), 1)}
KILLS = list(EFFECTS)


def converge(site: Site, documents: Desired, *, most: int = 90) -> None:
    """Ticks until there is nothing to do and nothing under way."""
    for _ in range(3):  # where the state is missing, a place that cannot say is a reason to refuse
        if not apply(site, documents).refused:
            break
        site.clock.at += 20
    for _ in range(most):
        site.clock.at += 20
        result = cron(site)
        assert result.refused == ""
        if not result.plan.actions and not result.outcomes and not under_way(site.state, documents):
            return
    raise AssertionError(f"still under way: {under_way(site.state, documents)}")


def under_way(state: State, documents: Desired) -> list[str]:
    spare = [one.name for one in state.instances if one.phase == "ready"][documents.pools[0].nodes_min :]
    return [
        *(f"launch {intent.id}" for intent in state.intents),
        *(f"{one.name} {one.phase}" for one in state.instances if one.phase not in ("ready", "terminated")),
        *(f"{run.spec.name} {run.status}" for run in state.runs if run.status not in RUN_ENDED),
        *(f"{name} is idle" for name in spare),
    ]


def check(site: Site, documents: Desired) -> None:
    state = site.state
    owned = {one.external_id for one in state.instances if one.phase == "ready" and not one.orphan}
    assert {machine.external_id for machine in site.world.living()} == owned, "a machine without an owner"
    assert max(site.world.launched.values()) == 1, "launched twice"
    assert max(site.world.started.values()) == 1, "a job started twice"
    for run in state.runs:
        proven = [attempt for attempt in state.attempts if attempt.run == run.id]
        unbegun = [attempt for attempt in proven if attempt.held_back]
        assert not any(job.id in site.world.started for attempt in unbegun for job in attempt.jobs), "half a gang began"
        begun = {job for job in site.world.started if job.startswith(run.id)}
        assert begun <= {job.id for attempt in proven for job in attempt.jobs}, "a job that nobody remembers"
        assert len(proven) - len(unbegun) <= 1 or run.spec.retry.interruption, f"{run.spec.name} was repeated"
    done = {(run.spec.name, run.spec.hash) for run in state.runs if run.status == "done"}
    assert site.markers.known == done
    check_ledger(site, state)
    assert len(owned) == documents.pools[0].nodes_min
    again = apply(site, documents)
    assert again.plan.actions == ()
    assert again.outcomes == ()


def check_ledger(site: Site, state: State) -> None:
    """Nothing is lost, nothing counts twice, and nothing was told that did not come true."""
    told = {entry.id: entry for entry in (*site.ledger, *state.untold)}
    assert all(told[entry.id] == entry for entry in site.ledger), "told in two ways"
    owned = {one.id: one for one in state.instances if one.external_id}
    over = {key for key, one in owned.items() if one.phase == "terminated"}
    kinds: dict[str, list[Entry]] = {}
    for entry in told.values():
        kinds.setdefault(entry.kind, []).append(entry)
    assert {entry.instance for entry in kinds.get("ended", ())} == over
    assert {entry.instance for entry in kinds.get("billed", ())} >= over  # others had another price once
    assert {entry.instance for entry in kinds["seen"]} == set(owned)
    assert {entry.instance for entry in kinds["launched"]} == {one.id for one in state.instances}
    assert {entry.run for entry in kinds["submitted"]} == {run.id for run in state.runs}
    assert {entry.run for entry in kinds["finished"]} == {run.id for run in state.runs if run.status in RUN_ENDED}
    jobs = [job for attempt in state.attempts for job in attempt.jobs]
    begun = {f"used:{job.id}" for job in jobs if job.started_at is not None and job.status not in LIVE_JOB}
    assert {entry.id for entry in kinds.get("used", ())} == begun
    now = site.clock.now()
    found = cost(told.values(), state, since=0, until=now, by="run")
    assert found.total.seconds == sum(billed_until(one, now=now) - one.created_at for one in owned.values())
    assert sum(row.cost for row in found.rows) == found.total.cost


LAGS = (0, 1, 2)
ALL = os.environ.get("DSTACK_TEST_CRASHES") == "all"
MOMENTS = ("before", "after")
PART = 5


def taken(story: str, at: int, moment: str, change: int) -> bool:
    """One in `PART` of each kind of effect, other ones before and after and in each changed world; at least one."""
    kind = [each for each in KILLS if EFFECTS[each] == EFFECTS[story, at]]
    return kind.index((story, at)) % PART == (change + 2 * MOMENTS.index(moment)) % min(PART, len(kind))


ALONE = [
    (story, at, moment, change, lag)
    for story, at in KILLS
    for moment, (number, change) in product(MOMENTS, enumerate(CHANGES))
    for lag in (LAGS if ALL else CHANGES[change][:1])
    if ALL or taken(story, at, moment, number)
]


@pytest.mark.parametrize(("story", "at", "moment", "change", "lag"), ALONE)
def test_killed(story: str, at: int, moment: str, change: str, lag: int, tmp_path: Path) -> None:
    _, happens, documents = CHANGES[change]
    site = Site(scratch=tmp_path)
    site.world.lag = lag
    with contextlib.suppress(Killed):
        STORIES[story](site, Killer(at, after=moment == "after").wrap(site.ports()))
    happens(site)
    site.clock.at += 30
    converge(site, documents)
    check(site, documents)


# ---------------------------------------------------------------- in every shape


def hidden(site: Site) -> None:
    """A new machine is in no listing for ten minutes."""
    site.world.delay = 600


def late(site: Site) -> None:
    site.world.late.add("small")


SHAPES: dict[str, tuple[str, Callable[[Site], None]]] = {
    "once": ("fake-once", nothing),
    "once-hidden": ("fake-once", hidden),
    "once-late": ("fake-once", late),
    "account": ("fake-account", nothing),
    "single-late": ("fake-single", late),
    "paced": ("fake-paced", nothing),
    "token-late": ("fake", late),
}
# Each effect meets the shapes in turn, and each shape with both moments.
SHAPED = [
    (story, at, moment, shape)
    for story, at in KILLS
    for (number, shape), (half, moment) in product(enumerate(SHAPES), enumerate(MOMENTS))
    if ALL or (at + number + half) % len(SHAPES) == 0
]


@pytest.mark.parametrize(("story", "at", "moment", "shape"), SHAPED)
def test_killed_in_every_shape(story: str, at: int, moment: str, shape: str, tmp_path: Path) -> None:
    kind, happens = SHAPES[shape]
    documents = LOWERED if story == "ends" else BEFORE
    site = Site(scratch=tmp_path, kind=TYPES[kind])
    happens(site)
    with contextlib.suppress(Killed):
        STORIES[story](site, Killer(at, after=moment == "after").wrap(site.ports()))
    site.clock.at += 30
    converge(site, documents, most=400)
    check(site, documents)


# ---------------------------------------------------------------- beside another


def bob(site: Site, documents: Desired | None = None) -> None:
    """The other one: an apply, or a tick on what is applied."""
    ask = apply_ask(site.shaped(documents)) if documents is not None else TickAsk()
    tick(site.ports(who="bob@ci"), ask)


def crowded(site: Site, at: int, *, seed: int, **named: Any) -> Crowd:
    """Time passes while several are under way: results are written before all of them have ended."""
    return Crowd(at, seed=seed, pass_time=lambda: site.clock.sleep(0.3), **named)


@cache
def crowded_effects(story: str, seed: int) -> tuple[tuple[str, ...], int]:
    site = Site(scratch=Path(tempfile.mkdtemp()))
    crowd = crowded(site, 0, seed=seed)
    STORIES[story](site, crowd.wrap(site.ports()))
    crowd.leave()
    return tuple(crowd.told), crowd.most


SEEDS = (1, 2)
BESIDE = [
    (story, seed, at, moment, change, lag)
    for story, seed in product(STORIES, SEEDS)
    for at, moment, change, lag in product(range(1, len(crowded_effects(story, seed)[0]) + 1), MOMENTS, CHANGES, LAGS)
]
# A number without a common divisor with those of the moments, changes and lags: each of them comes with each kill.
SOME = BESIDE if ALL else BESIDE[::61]


@pytest.mark.parametrize(("story", "seed", "at", "moment", "change", "lag"), SOME)
def test_killed_beside_another(
    story: str, seed: int, at: int, moment: str, change: str, lag: int, tmp_path: Path
) -> None:
    _, happens, documents = CHANGES[change]
    site = Site(scratch=tmp_path)
    site.world.lag = lag
    crowd = crowded(site, at, seed=seed, after=moment == "after", meanwhile=lambda: bob(site, documents))
    with contextlib.suppress(Killed):
        STORIES[story](site, crowd.wrap(site.ports()))
    crowd.leave()
    happens(site)
    site.clock.at += 30
    for number in range(1, 6):
        site.clock.at += 15
        ann = Sleeper(number, meanwhile=lambda: bob(site))
        tick(ann.wrap(site.ports()), apply_ask(site.shaped(documents)) if number == 1 else TickAsk())
    converge(site, documents)
    check(site, documents)


def test_every_effect_is_killed_before_and_after_into_every_changed_world() -> None:
    met = {(EFFECTS[story, at], moment, change) for story, at, moment, change, _ in ALONE}
    assert met == set(product(EFFECTS.values(), MOMENTS, CHANGES))
    assert {(story, change) for story, *_, change, _ in ALONE} == set(product(STORIES, CHANGES))


def test_every_effect_is_among_those_killed_at() -> None:
    """And several were under way at once, in an order that the seed chose."""
    told = {name for story in STORIES for name in crowded_effects(story, SEEDS[0])[0]}
    assert told == {name for names in COUNTED.values() for name in names} | {"record"}
    assert max(crowded_effects(story, seed)[1] for story in STORIES for seed in SEEDS) >= 3
    first, second = (crowded_effects("first-runs", seed)[0] for seed in SEEDS)
    assert first != second


def test_undisturbed_every_run_is_done(tmp_path: Path) -> None:
    site = Site(scratch=tmp_path)
    first_runs(site, site.ports())
    assert {run.status for run in site.state.runs} == {"done"}
    assert sorted(site.world.started.values()) == [1, 1, 1]
