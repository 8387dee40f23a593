"""A backend whose listing covers its account is asked once, and its answer is split over its regions."""

from __future__ import annotations

from pathlib import Path

import pytest
from msgspec.structs import replace

from backends.errors import TryLater
from backends.fake.backend import Fault
from reconciler.engine.account_listings import grouped, split
from reconciler.engine.begin import begin
from reconciler.engine.observe import observe
from reconciler.engine.ports import Connections
from schemas.backend_types import TYPES
from schemas.desired import BackendConfig, Desired
from schemas.instance import Instance, Listing, Seen
from schemas.resources import Resources
from schemas.state import VERSION, Place, State
from tests.worlds.world import PROJECT, Site

WIDE = BackendConfig(name="wide", type="fake-account", regions=("r1", "r2"))
REGIONAL = BackendConfig(name="regional", type="fake", regions=("r1", "r2"))


def place(config: BackendConfig, region: str) -> Place:
    return Place(name=f"{config.name}/{region}", config=config, region=region)


R1, R2 = place(WIDE, "r1"), place(WIDE, "r2")
EMPTY = State(version=VERSION, project=PROJECT, lineage="l1", places=(R1, R2))


def seen(external_id: str, region: str) -> Seen:
    return Seen(external_id=external_id, phase="running", region=region)


def instance(external_id: str, where: Place) -> Instance:
    return Instance(
        id=external_id,
        name=external_id,
        pool="p",
        backend=where.config.name,
        place=where.name,
        resources=Resources(cpus=1, memory=1),
        external_id=external_id,
        phase="ready",
        created_at=1,
    )


def test_places_of_an_account_are_asked_as_one() -> None:
    regional = [place(REGIONAL, "r1"), place(REGIONAL, "r2")]
    found = grouped([R1, regional[0], R2, regional[1]])
    assert found == {
        "wide/r1": (R1, R2),
        "regional/r1": (regional[0],),
        "regional/r2": (regional[1],),
    }


@pytest.mark.parametrize(
    ("region", "known", "answers"),
    [
        ("r1", None, "wide/r1"),
        ("r2", None, "wide/r2"),
        ("r9", None, "wide/r1"),
        ("", None, "wide/r1"),
        ("r1", R2, "wide/r2"),
        ("r9", R2, "wide/r2"),
    ],
)
def test_each_machine_is_answered_by_one_place(region: str, known: Place | None, answers: str) -> None:
    state = replace(EMPTY, instances=(instance("i-1", known),)) if known else EMPTY
    found = split(Listing(place="wide/r1", at=5, instances=(seen("i-1", region),)), (R1, R2), state)
    assert [one.place for one in found] == ["wide/r1", "wide/r2"]
    assert [one.place for one in found if one.instances] == [answers]


def test_an_error_and_an_absence_count_for_every_place() -> None:
    failed = split(Listing(place="wide/r1", at=5, error="throttled"), (R1, R2), EMPTY)
    assert [(one.place, one.error) for one in failed] == [("wide/r1", "throttled"), ("wide/r2", "throttled")]
    good = split(Listing(place="wide/r1", at=5, identity="a"), (R1, R2), EMPTY)
    assert [(one.place, one.at, one.identity, one.error) for one in good] == [
        ("wide/r1", 5, "a", ""),
        ("wide/r2", 5, "a", ""),
    ]


@pytest.mark.parametrize(("config", "calls"), [(WIDE, 1), (REGIONAL, 2)])
def test_one_pass_lists_an_account_once(tmp_path: Path, config: BackendConfig, calls: int) -> None:
    site = Site(scratch=tmp_path, kind=TYPES[config.type])
    state = replace(EMPTY, places=(place(config, "r1"), place(config, "r2")))
    ports = site.ports()
    observed = observe(ports, state, Connections(ports, "l1"))
    assert site.world.calls["instances"] == calls
    assert {(one.place, one.error) for one in observed.listings} == {
        (f"{config.name}/r1", ""),
        (f"{config.name}/r2", ""),
    }


def test_a_place_that_does_not_answer_is_unknown_in_each_region(tmp_path: Path) -> None:
    site = Site(scratch=tmp_path, kind=TYPES["fake-account"])
    site.world.faults.append(Fault(call="instances", error=TryLater("throttled")))
    ports = site.ports()
    observed = observe(ports, EMPTY, Connections(ports, "l1"))
    assert [(one.place, one.error) for one in observed.listings] == [("wide/r1", "throttled"), ("wide/r2", "throttled")]


@pytest.mark.parametrize(("config", "calls"), [(WIDE, 1), (REGIONAL, 2)])
def test_a_first_apply_asks_an_account_once_for_what_lives(tmp_path: Path, config: BackendConfig, calls: int) -> None:
    site = Site(scratch=tmp_path, kind=TYPES[config.type])
    begin(site.ports(), desired=Desired(project=PROJECT, backends=(config,)))
    assert site.world.calls["instances"] == calls


def test_missing_machines_of_two_regions_are_looked_up_at_once(tmp_path: Path) -> None:
    site = Site(scratch=tmp_path, kind=TYPES["fake-account"])
    ports = site.ports()
    state = replace(EMPTY, instances=(instance("i-8", R1), instance("i-9", R2)))
    observed = observe(ports, state, Connections(ports, "l1"))
    assert site.world.calls["instances_by_id"] == 1
    assert [one.place for one in observed.listings if one.partial] == ["wide/r1", "wide/r2"]
