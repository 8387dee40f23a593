"""What one apply tries where places refuse: no offer again and again, and no more than is written down here."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from msgspec.structs import replace

from backends.base import Backend
from backends.errors import NoCapacity
from backends.fake.backend import FakeBackend
from reconciler.planner.launch_tries import OFFERS, SENDS, TRIED, requests, within
from schemas.desired import BackendConfig
from schemas.launch import LaunchAnswer, Request
from schemas.offer import Offer
from schemas.plan import Launch, Plan
from schemas.profile import Retry
from schemas.run import RunSpec
from tests.worlds.world import PROJECT, Site, apply, cron, desired, offer, task

MANY = tuple(offer(f"type-{number:02}", f"1.{number:02}") for number in range(40))


class Stubborn(FakeBackend):
    """It picks the zone `z` for whatever names none, also where that is to be avoided."""

    asked: Counter[str]

    def prepare(self, request: Request, offer: Offer) -> Request:
        prepared = super().prepare(request, offer)
        return replace(prepared, zone=prepared.zone or "z")

    def launch(self, request: Request) -> Mapping[str, LaunchAnswer]:
        self.asked[f"{request.instance_type} {request.zone}"] += 1
        return super().launch(request)


class Unpreparable(FakeBackend):
    """No zone of it has room for any type, as far as a look-up tells."""

    def prepare(self, request: Request, offer: Offer) -> Request:
        raise NoCapacity(f"no zone has room for {request.instance_type}")


@dataclass
class OneKind(Site):
    """A site whose places are of one class."""

    making: Callable[..., FakeBackend] = FakeBackend
    asked: Counter[str] = field(default_factory=Counter)

    def connect(self, config: BackendConfig, region: str, lineage: str) -> Backend:
        made = self.making(self.world, f"{config.name}/{region}", region=region, project=PROJECT, lineage=lineage)
        made.asked = self.asked  # type: ignore[attr-defined]
        return made


def waiting(number: int) -> list[RunSpec]:
    """Runs of so many shapes, which no launch serves together."""
    retry = Retry(no_capacity=True, duration=None)
    return [task(f"run-{one}", retry=retry, max_duration=one + 60, idle_duration=one + 60) for one in range(number)]


@pytest.mark.parametrize("runs", [1, 3])
def test_a_zone_that_was_refused_is_not_asked_again_where_the_place_picks_it_anew(tmp_path: Path, runs: int) -> None:
    site = OneKind(scratch=tmp_path, making=Stubborn, offers=(offer("small", "1.00"), offer("large", "1.40")))
    site.world.sold_out.add("small")
    result = apply(site, desired(runs=waiting(runs)))
    assert site.asked == {"small z": runs, "large z": runs}
    assert {one.request.instance_type for one in site.world.living()} == {"large"}
    assert not any(TRIED in one for one in result.warnings)


def test_what_the_zone_said_holds_for_as_long_as_it_does(tmp_path: Path) -> None:
    site = OneKind(scratch=tmp_path, making=Stubborn, offers=(offer("small", "1.00"),))
    site.world.sold_out.add("small")
    apply(site, desired(runs=waiting(1)))
    zone, none = sorted(site.state.capacity, key=lambda one: one.zone, reverse=True)
    assert (zone.zone, none.zone, none.until, none.why) == ("z", "", zone.until, zone.why)
    for _ in range(3):
        site.clock.at += 20
        cron(site)
    assert site.asked == {"small z": 1}
    site.world.sold_out.clear()
    site.clock.at = zone.until
    cron(site)
    assert site.asked == {"small z": 2}
    assert len(site.world.living()) == 1


def test_offers_that_name_their_zone_are_not_kept_back_by_another_zone(tmp_path: Path) -> None:
    offers = tuple(replace(offer("small", price), zone=zone) for zone, price in (("z", "1.00"), ("y", "1.10")))
    site = OneKind(scratch=tmp_path, making=Stubborn, offers=offers)
    site.world.sold_out.add("small")
    apply(site, desired(runs=waiting(1)))
    assert site.asked == {"small z": 1, "small y": 1}


def test_a_run_tries_so_many_offers_in_one_apply_and_is_told(tmp_path: Path) -> None:
    site = OneKind(scratch=tmp_path, offers=MANY)
    site.world.sold_out |= {one.instance_type for one in MANY}
    result = apply(site, desired(runs=waiting(1)))
    assert site.world.calls["launch"] == OFFERS
    assert TRIED in result.warnings
    site.clock.at += 1
    cron(site)
    assert site.world.calls["launch"] == len(MANY)


def test_so_many_that_cannot_be_prepared_keep_nothing_else_back(tmp_path: Path) -> None:
    """Nobody is told that the state moved."""
    site = OneKind(scratch=tmp_path, making=Unpreparable, offers=MANY)
    result = apply(site, desired(runs=waiting(1)))
    assert (result.refused, site.world.calls["launch"]) == ("", 0)
    assert TRIED in result.warnings
    assert not any(isinstance(one, Launch) for one in result.plan.actions)
    assert len(site.state.capacity) == OFFERS
    assert [run.spec.name for run in site.state.runs] == ["run-0"]


def test_one_apply_sends_so_many_requests_and_leaves_the_rest_to_the_next(tmp_path: Path) -> None:
    runs = 70
    site = OneKind(scratch=tmp_path, offers=MANY)
    site.world.sold_out |= {one.instance_type for one in MANY}
    result = apply(site, desired(runs=waiting(runs)))
    assert site.world.calls["launch"] == SENDS
    assert f"{runs} launch requests left to the next `dstack apply`: one apply sends at most 500" in result.warnings
    assert not site.state.intents


def test_attached_servers_and_other_actions_are_no_requests() -> None:
    launch = Launch(launch="l", pool="p", ids=("l-0",), names=("n",), offer=MANY[0], why="x")
    free = replace(launch, offer=replace(MANY[0], cloud=False))
    plan = Plan(version=1, project="p", generation=1, actions=(free, launch, launch, free))
    assert requests(plan) == 2
    assert within(plan, sent=SENDS - 2) == (plan, ())
    less, notes = within(plan, sent=SENDS - 1)
    assert less.actions == (free, launch, free)
    assert notes == ("1 launch request left to the next `dstack apply`: one apply sends at most 500",)
