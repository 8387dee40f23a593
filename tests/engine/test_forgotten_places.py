"""A forgotten place is asked when a project ends: what lives there is ended or named, and never called nothing."""

from __future__ import annotations

from pathlib import Path

from backends.errors import LackingHere
from backends.fake.backend import Fault
from reconciler.engine.ask_forgotten import ask_forgotten
from reconciler.engine.write_state import land
from reconciler.state.forget import billing, concerned, forget, left_at, remember, unanswered
from schemas.plan import Permissions
from schemas.pool import Pool
from tests.worlds.world import Site, apply, cron, desired, ticks

PLACE = "fake/r1"
TWO = desired(pools=[Pool(name="a", default=True, nodes_min=2)])


def forgotten(scratch: Path) -> Site:
    site = Site(scratch=scratch)
    apply(site, TWO)
    ticks(site, 2)
    assert billing(concerned(site.state, PLACE)) == "2 instances, $2.00/h: a-0, a-1"
    land(site.ports(), lambda state: forget(state, PLACE, site.clock.now(), by="ann"))
    return site


def destroyed(site: Site) -> None:
    for _ in range(3):
        site.clock.at += 10
        cron(site, permissions=Permissions(destroy_all=True, mass_destroy=True))


def test_no_apply_asks_it_and_what_lived_there_stays_known(tmp_path: Path) -> None:
    site = forgotten(tmp_path)
    before = site.world.calls["instances"]
    ticks(site, 2)
    assert site.world.calls["instances"] == before
    assert billing(left_at(site.state, PLACE)) == "2 instances, $2.00/h: a-0, a-1"
    assert len(site.world.living()) == 2


def test_one_that_answers_again_comes_back_and_its_instances_are_ended(tmp_path: Path) -> None:
    site = forgotten(tmp_path)
    assert ask_forgotten(site.ports(), site.state) == {PLACE: ""}
    land(site.ports(), lambda state: remember(state, {PLACE}))
    assert not any(place.forgotten for place in site.state.places)
    destroyed(site)
    assert site.world.living() == []


def test_one_that_does_not_answer_is_named_with_why(tmp_path: Path) -> None:
    site = forgotten(tmp_path)
    site.world.faults.append(Fault(call="identity", error=LackingHere("no such profile: old")))
    assert ask_forgotten(site.ports(), site.state) == {PLACE: "no such profile: old"}


def test_another_account_under_its_name_proves_nothing(tmp_path: Path) -> None:
    site = forgotten(tmp_path)
    site.world.identity = "account-2"
    (why,) = ask_forgotten(site.ports(), site.state).values()
    assert "account-2" in why
    assert "account-1" in why


def test_a_place_that_failed_to_answer_is_not_called_empty(tmp_path: Path) -> None:
    site = Site(scratch=tmp_path)
    apply(site, desired())
    site.world.faults.append(Fault(call="instances", error=LackingHere("no credentials here"), times=9))
    destroyed(site)
    assert unanswered(site.state) == {PLACE: "no credentials here"}
