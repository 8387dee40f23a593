"""The autoscale rules at work on a fake world: a command's word at once, documents by draining, over all pools."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from dataclasses import replace as change
from decimal import Decimal
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from backends.base import Backend
from reconciler.cli.commands.offers.check_rule import not_offered
from reconciler.engine.request import TickAsk
from reconciler.engine.tick import tick
from reconciler.planner.autoscale_ends import ended_at_once, rules_in_force
from reconciler.report.autoscale_rows import explain_rules
from reconciler.state.autoscale_overrides import say_cleared, say_enabled, say_rule
from reconciler.state.autoscale_rules import rules_of
from schemas.desired import BackendConfig, Cap, Desired
from schemas.instance import HostReport, Instance
from schemas.lease import Lease
from schemas.offer import Offer
from schemas.plan import Permissions
from schemas.pool import Pool
from schemas.resources import Resources, Where
from schemas.state import Capacity, Override, State
from tests.worlds.world import START, Site, apply, cron, desired, offer, task, ticks

SPOT = Where(spot="spot")
POOLS = (
    Pool(name="a", default=True, nodes_min=2, nodes_target=2, where=SPOT),
    Pool(name="b", nodes_min=2, nodes_target=2, where=SPOT),
)
OFFERS = (offer("small", "0.30", spot=True), offer("small", "1.00"), offer("large", "0.50", spot=True))
SMALL = Cap(instance_type="small", max=3)


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(scratch=tmp_path, offers=OFFERS)


def ruled(*caps: Cap, **fields: Any) -> Desired:
    return desired(pools=POOLS, ruled=True, caps=caps, **fields)


def living(state: State) -> list[str]:
    return sorted(one.name for one in state.instances if one.phase in ("pending", "provisioning", "ready"))


def said(site: Site, cap: Cap) -> State:
    """`autoscale allow`, as the command does it: the word, and what it ends in its own scope."""
    return spoken(site, lambda state: say_rule(state, cap, by="ann", now=site.clock.now()))


def spoken(site: Site, wish: Callable[[State], State]) -> State:
    permissions = Permissions(scope=ended_at_once(wish(site.state), now=site.clock.now(), nonce="scope000"))
    tick(site.ports(), TickAsk(wish=wish, permissions=permissions, hasty=True))
    for _ in range(4):
        site.clock.at += 10
        tick(site.ports(), TickAsk(permissions=permissions, hasty=True))
    return site.state


# ---------------------------------------------------------------- in a world


def test_two_pools_share_a_rule_whatever_is_open(site: Site) -> None:
    site.world.boot = 60
    apply(site, ruled(SMALL))
    apply(site, ruled(SMALL))
    ticks(site, 10)
    assert len(living(site.state)) == 3
    assert sum(site.world.launched.values()) == 3


def test_a_lowered_rule_ends_the_extra_ones_at_once_and_nothing_comes_back(site: Site) -> None:
    apply(site, ruled(SMALL))
    ticks(site, 5)
    assert len(living(site.state)) == 3
    state = said(site, replace(SMALL, max=1))
    assert len(living(state)) == 1
    ticks(site, 5)
    assert len(living(site.state)) == 1, "the floors of both pools stay below the rule that a command lowered"


def test_a_busy_one_is_stopped_with_its_result_and_the_run_is_in_the_scope(site: Site) -> None:
    apply(site, ruled(SMALL, runs=[task("train", pool="a", where=SPOT)]))
    ticks(site, 5)
    (run,) = site.state.runs
    assert run.status == "running"
    wished = say_cleared(site.state, by="ann", now=site.clock.now())
    scope = ended_at_once(wished, now=site.clock.now(), nonce="n0000000")
    assert run.id in scope
    unasked = replace(wished, places=tuple(replace(one, error="slow down") for one in wished.places))
    assert ended_at_once(unasked, now=site.clock.now(), nonce="n0000000") == scope
    state = spoken(site, lambda state: say_cleared(state, by="ann", now=site.clock.now()))
    assert living(state) == []
    assert [(run.status, "autoscale" in run.reason) for run in state.runs] == [("failed", True)]
    assert [job.log != "" for attempt in state.attempts for job in attempt.jobs] == [True], "its log was collected"


def test_disabled_ends_spot_alone_and_enabled_makes_it_again(site: Site) -> None:
    pools = (*POOLS, Pool(name="od", nodes_min=1, nodes_target=1))
    documents = replace(ruled(SMALL), pools=pools)
    apply(site, documents)
    ticks(site, 5)
    state = spoken(site, lambda state: say_enabled(state, enabled=False, by="ann", now=site.clock.now()))
    assert living(state) == ["od-0"]
    state = spoken(site, lambda state: say_enabled(state, enabled=True, by="ann", now=site.clock.now()))
    ticks(site, 5)
    assert len(living(site.state)) == 4


@pytest.mark.parametrize("where", [SPOT, Where(spot="on-demand")], ids=["spot", "on-demand"])
def test_disabled_stops_a_run_on_spot_with_its_log_and_leaves_one_on_demand_alone(site: Site, where: Where) -> None:
    site.world.script = lambda job: (600, 0)
    pools = (*POOLS, Pool(name="od", nodes_min=1, nodes_target=1))
    pool = "a" if where is SPOT else "od"
    apply(site, replace(ruled(SMALL, runs=[task("train", pool=pool, where=where)]), pools=pools))
    ticks(site, 5)
    assert [(run.status, len(living(site.state))) for run in site.state.runs] == [("running", 4)]
    state = spoken(site, lambda state: say_enabled(state, enabled=False, by="ann", now=site.clock.now()))
    ticks(site, 3)
    assert living(site.state) == ["od-0"]
    ((run,), (attempt,)) = (site.state.runs, state.attempts)
    if where is SPOT:
        assert (run.status, "autoscale" in run.reason) == ("failed", True)
        assert [job.log != "" for job in attempt.jobs] == [True]
    else:
        assert (run.status, run.reason) == ("running", "")


@dataclass
class Silent:
    """Hosts that never answer while their places do. Time passes as it is read, once they are asked."""

    over: threading.Event = field(default_factory=threading.Event)
    asked: threading.Event = field(default_factory=threading.Event)
    seconds: float = 0.0
    passes: Iterator[float] = field(default_factory=lambda: iter((1.0, 2.0, 4.0, 50.0)))

    def look(self, instance: Instance, *, now: int, lease: Lease | None = None) -> HostReport:
        self.asked.set()
        self.over.wait(60)
        return HostReport(instance=instance.id, at=now, error="too late")

    def clock(self) -> float:
        if self.asked.is_set():
            self.seconds += next(self.passes, 0.0)
        return self.seconds

    def spawn(self, work: Callable[[], None]) -> None:
        """Whoever waits for hosts begins once the first of them is asked, so after every place."""
        self.asked.clear()
        thread = threading.Thread(target=lambda: (work(), self.asked.set()), daemon=True)
        thread.start()
        assert self.asked.wait(60)


def test_a_word_waits_for_no_silent_host_and_it_counts_against_none(site: Site) -> None:
    apply(site, ruled(SMALL))
    ticks(site, 5)
    before = {one.id: one for one in site.state.instances}
    scope = ended_at_once(say_rule(site.state, replace(SMALL, max=1), by="ann", now=0), now=0, nonce="scope000")
    silent = Silent()
    ports = site.ports()
    ports.runner.look = silent.look  # type: ignore[method-assign]
    ports = change(ports, clock=silent.clock, spawn=silent.spawn)
    asked = TickAsk(
        wish=lambda state: say_rule(state, replace(SMALL, max=1), by="ann", now=site.clock.now()),
        permissions=Permissions(scope=scope),
        hasty=True,
    )
    try:
        tick(ports, asked)
    finally:
        silent.over.set()
    assert len(living(site.state)) == 1
    assert [one for one in site.state.instances if one.failed_looks or one.unreachable_since] == []
    assert {one.id for one in site.state.instances} == set(before)


def test_in_haste_no_place_is_asked_that_the_word_ends_nothing_in(site: Site) -> None:
    apply(site, ruled(SMALL))
    ticks(site, 5)
    site.world.blind = True
    asked = list[str]()

    def connected(config: BackendConfig, region: str, lineage: str) -> Backend:
        asked.append(config.name)
        return site.connect(config, region, lineage)

    wish = partial(say_enabled, enabled=True, by="ann", now=site.clock.now())
    tick(change(site.ports(), connect=connected), TickAsk(wish=wish, permissions=Permissions(scope=()), hasty=True))
    assert asked == []
    assert [word for word in site.state.overrides if word.kind == "autoscale"] != []


def test_a_word_holds_over_ticks_and_ends_with_other_documents(site: Site) -> None:
    """An unrelated change on main, applied without the edit, undoes it: the command said so."""
    apply(site, ruled(SMALL))
    ticks(site, 5)
    said(site, replace(SMALL, max=1))
    cron(site)
    apply(site, ruled(SMALL))
    assert rules_in_force(site.state).caps == (replace(SMALL, max=1),)
    apply(site, ruled(SMALL, budget=Decimal(99)))
    assert site.state.overrides == ()
    assert rules_in_force(site.state).caps == (SMALL,)


def test_the_same_by_documents_drains(site: Site) -> None:
    site.world.script = lambda job: (600, 0)
    apply(site, ruled(SMALL, runs=[task("train", pool="a", where=SPOT)]))
    ticks(site, 5)
    apply(site, ruled(runs=[task("train", pool="a", where=SPOT)]))
    ticks(site, 3)
    (run,) = site.state.runs
    assert run.status == "running", "it finishes what it does"
    assert [bool(one.draining) for one in site.state.instances if one.phase == "ready"] == [True]


def test_killed_between_the_word_and_its_effects_the_next_tick_of_anybody_goes_on(site: Site) -> None:
    apply(site, ruled(SMALL))
    ticks(site, 5)
    site.store.data = _with_word(site.state)
    ticks(site, 4)
    assert living(site.state) == []


def _with_word(state: State) -> bytes:
    from reconciler.store.statefile import dumps

    return dumps(say_cleared(state, by="ann", now=START))


# ---------------------------------------------------------------- by values


WORDS = (
    Override(kind="autoscale", subject="every rule", by="ann", at=1),
    Override(kind="autoscale", subject="spot m5", cap=Cap(instance_type="m5", max=2), by="ann", at=2),
    Override(kind="autoscale", subject="spot m6", cap=Cap(instance_type="m6", max=0), by="bob", at=3),
    Override(kind="autoscale", subject="spot instances", enabled=True, by="bob", at=3),
)
OF_OLD = Desired(caps=(Cap(instance_type="m6", max=9), Cap(instance_type="m5", max=9)), autoscale_enabled=False)


def test_words_hold_in_whatever_order_they_are_read() -> None:
    found = {rules_of(OF_OLD, words) for words in itertools.permutations(WORDS)}
    assert [(rules.caps, rules.exist, rules.enabled) for rules in found] == [
        ((Cap(instance_type="m5", max=2),), True, True)
    ]


def test_an_empty_list_allows_nothing_and_no_list_everything() -> None:
    spot = offer("m5", "1.00", spot=True)
    assert rules_of(Desired(ruled=True), ()).forbids(spot) == "autoscale allows no spot m5 in fake/r1"
    assert rules_of(Desired(), ()).forbids(spot) == ""
    assert rules_of(Desired(ruled=True), ()).forbids(offer("m5", "1.00")) == ""


def test_a_rule_that_a_command_removed_is_no_allowance(site: Site) -> None:
    """Nothing of rules stands in the applied documents: `allow` makes the first one, `--max 0` takes it away again."""
    apply(site, desired(pools=POOLS))
    ticks(site, 5)
    assert len(living(site.state)) == 4
    said(site, replace(SMALL, max=1))
    assert len(living(site.state)) == 1
    state = said(site, replace(SMALL, max=0))
    assert living(state) == [], "what it covered ends at once"
    ticks(site, 5)
    assert (living(site.state), rules_in_force(site.state).exist) == ([], True)


@pytest.mark.parametrize("removed", [("small",), ("small", "large"), ("large", "small")])
def test_of_two_rules_that_commands_made_each_may_go(removed: tuple[str, ...]) -> None:
    state = State(version=2, project="p", lineage="l")
    for name in ("small", "large"):
        state = say_rule(state, Cap(instance_type=name, max=1), by="ann", now=1)
    for name in removed:
        state = say_rule(state, Cap(instance_type=name, max=0), by="ann", now=2)
    rules = rules_of(Desired(), state.overrides)
    allowed = [name for name in ("small", "large", "huge") if not rules.forbids(offer(name, "1.00", spot=True))]
    assert allowed == [name for name in ("small", "large") if name not in removed]


def test_disabled_and_enabled_again_without_any_rule_allows_what_it_did() -> None:
    state = State(version=2, project="p", lineage="l")
    for enabled in (False, True):
        state = say_enabled(state, enabled=enabled, by="ann", now=1)
    assert rules_of(Desired(), state.overrides).forbids(offer("small", "1.00", spot=True)) == ""


def test_a_word_takes_the_place_of_the_one_like_it_and_clear_of_all() -> None:
    state = State(version=2, project="p", lineage="l")
    for cap in (SMALL, replace(SMALL, region="r1"), replace(SMALL, max=5)):
        state = say_rule(state, cap, by="ann", now=1)
    assert [one.subject for one in state.overrides] == ["spot small in r1", "spot small"]
    state = say_enabled(say_cleared(state, by="bob", now=2), enabled=False, by="bob", now=3)
    assert [one.subject for one in state.overrides] == ["every rule", "spot instances"]


def machine(kind: str, *, region: str = "eu", spot: bool = True, zone: str = "") -> Offer:
    return Offer(
        backend="aws",
        region=region,
        zone=zone,
        instance_type=kind,
        resources=Resources(cpus=4, memory=16384),
        price=Decimal(1),
        spot=spot,
    )


CATALOG = (machine("g5.xlarge"), machine("g5.2xlarge"), machine("p4d.24xlarge", region="us", spot=False))


@pytest.mark.parametrize(
    ("cap", "why"),
    [
        (Cap(instance_type="g5.xlarge", max=1, region="eu"), ""),
        (Cap(instance_type="g5.xlarg", max=1), "g5.xlarg is not offered; did you mean g5.xlarge or g5.2xlarge?"),
        (Cap(instance_type="g5.xlarge", max=1, region="us"), "g5.xlarge is not offered in us; it is in aws/eu"),
        (Cap(instance_type="p4d.24xlarge", max=1), "p4d.24xlarge is not offered as spot there, only as on-demand"),
        (Cap(instance_type="tpu", max=1), "tpu is not offered; offered are g5.2xlarge, g5.xlarge, p4d.24xlarge"),
        (Cap(instance_type="x", max=1, backend="gcp"), "nothing is offered by gcp: no rule can be about x"),
    ],
)
def test_what_is_not_offered_is_refused_with_what_is_near(cap: Cap, why: str) -> None:
    assert not_offered(cap, CATALOG) == why


def test_no_capacity_is_said_only_where_none_of_what_a_rule_covers_can_be_had() -> None:
    offers = (machine("g5.xlarge", zone="a"), machine("g5.xlarge", zone="b"), machine("g5.xlarge", region="us"))
    rules = rules_of(Desired(ruled=True, caps=(Cap(instance_type="g5.xlarge", max=2, region="eu"),)), ())
    empty = State(version=2, project="p", lineage="l")

    def lacking(*zones: str, quota: str = "") -> tuple[str, int | None]:
        memory = tuple(
            Capacity(
                place="aws/eu", instance_type="g5.xlarge", zone=zone, spot=True, until=99, since=5 + number, quota=quota
            )
            for number, zone in enumerate(zones)
        )
        (row,) = explain_rules(rules, replace(empty, capacity=memory), offers=offers, now=50)
        return row.status, row.since

    assert lacking() == ("OK", None)
    assert lacking("a") == ("OK", None)
    assert lacking("a", "b") == ("no capacity", 5)
    assert lacking("") == ("no capacity", 5)
    assert lacking("", quota="VcpuLimitExceeded") == ("no quota (VcpuLimitExceeded)", 5)


def test_a_place_that_refuses_all_of_it_is_said_of_each_of_its_rules() -> None:
    rules = rules_of(Desired(ruled=True, caps=(Cap(instance_type="g5.xlarge", max=2),)), ())
    refused = Capacity(place="aws/eu", instance_type="", until=99, why="UnauthorizedOperation")
    state = State(version=2, project="p", lineage="l", capacity=(refused,))
    (row,) = explain_rules(rules, state, offers=(machine("g5.xlarge", zone="a"),), now=50)
    assert (row.status, row.why) == ("refused", "UnauthorizedOperation")
    elsewhere = (machine("g5.xlarge"), machine("g5.xlarge", region="us"))
    assert explain_rules(rules, state, offers=elsewhere, now=50)[0].status == "OK"
