"""A forgotten place is asked when a project ends: what lives there is ended or named, and never called nothing."""

from __future__ import annotations

from pathlib import Path

from msgspec.structs import replace

from backends.errors import LackingHere
from backends.fake.backend import Fault
from reconciler.engine.ask_forgotten import ask_forgotten
from reconciler.engine.garbage import ask_everywhere
from reconciler.engine.ports import Connections
from reconciler.engine.write_state import land
from reconciler.report.plan import summary
from reconciler.state.forget import billing, concerned, forget, left_at, remember, unanswered
from reconciler.state.unowned import unowned
from schemas.desired import BackendConfig
from schemas.plan import Permissions
from schemas.pool import Pool
from schemas.state import VERSION, Place, State
from tests.worlds.world import Site, apply, cron, desired, ticks

PLACE = "fake/r1"
FORMER = "fake/r1 of account-1"
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
    ticks(site, 2)
    assert billing(left_at(site.state, FORMER)) == "2 instances, $2.00/h: a-0, a-1"
    assert len(site.world.living()) == 2
    assert not [one for one in site.state.instances if one.phase != "terminated"]
    plan = cron(site).plan
    told = f"{FORMER} was forgotten with 2 instances, $2.00/h: a-0, a-1: it may bill still. `dstack destroy` asks it"
    assert plan.uncounted[0] == told
    assert "≥$0.00/h now" in summary(plan, ())
    (place,) = (one for one in site.state.places if one.name == PLACE)
    assert place.error.startswith("account-1 answers, which a person forgot here: no apply counts what it has")


def test_its_name_is_for_another_account_to_use(tmp_path: Path) -> None:
    site = forgotten(tmp_path)
    ticks(site, 2)
    site.world.identity = "account-2"
    site.world.machines, kept = {}, site.world.machines
    site.clock.at += 400
    apply(site, TWO)
    ticks(site, 2)
    assert len(site.world.living()) == 2
    here, there = ({one.name for one in site.state.places if one.identity == f"account-{n}"} for n in (2, 1))
    assert (here, there) == ({PLACE}, {FORMER})
    assert billing(left_at(site.state, FORMER)) == "2 instances, $2.00/h: a-0, a-1"
    (why,) = ask_forgotten(site.ports(), site.state).values()
    assert "account-2" in why
    # The old account answers again, while the new one is in use: what lives there is ended under its own name.
    site.world.identity, site.world.machines = "account-1", kept
    assert ask_forgotten(site.ports(), site.state) == {FORMER: ""}
    land(site.ports(), lambda state: remember(state, {FORMER}))
    assert {one.name for one in site.state.places} == {PLACE, FORMER}


def test_regions_bound_to_its_account_and_never_asked_are_loosened() -> None:
    config = BackendConfig(name="aws", type="aws")
    places = tuple(
        Place(name=f"aws/{region}", region=region, config=config, identity="one", observed_at=at)
        for region, at in (("a", 5), ("b", None), ("c", 7))
    )
    state = forget(State(version=VERSION, project="p", lineage="l", places=places), "aws/a", 9)
    named = [(one.name, one.identity) for one in state.places]
    assert named == [("aws/a of one", "one"), ("aws/b", ""), ("aws/c", "one")]


def test_one_that_answers_again_comes_back_and_its_instances_are_ended(tmp_path: Path) -> None:
    site = forgotten(tmp_path)
    assert ask_forgotten(site.ports(), site.state) == {FORMER: ""}
    land(site.ports(), lambda state: remember(state, {FORMER}))
    assert [one.name for one in site.state.places] == [PLACE]
    assert not any(place.forgotten for place in site.state.places)
    destroyed(site)
    assert site.world.living() == []


def test_one_that_does_not_answer_is_named_with_why(tmp_path: Path) -> None:
    site = forgotten(tmp_path)
    site.world.faults.append(Fault(call="identity", error=LackingHere("no such profile: old")))
    assert ask_forgotten(site.ports(), site.state) == {FORMER: "no such profile: old"}


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


def test_garbage_is_asked_for_in_the_forgotten_account_too(tmp_path: Path) -> None:
    """With the credentials of another account it is not proven empty; with its own, what lives there is nobody's."""
    site = forgotten(tmp_path)
    site.world.identity = "account-2"
    site.world.machines, kept = {}, site.world.machines
    apply(site, desired())
    for places in (site.state.places, tuple(reversed(site.state.places))):
        state = replace(site.state, places=places)
        asked = ask_everywhere(site.ports(), state, Connections(site.ports(), state.lineage))
        assert list(asked.silent) == [FORMER]
        assert "another account answers" in asked.silent[FORMER]
    site.world.identity, site.world.machines = "account-1", kept
    asked = ask_everywhere(site.ports(), site.state, Connections(site.ports(), site.state.lineage))
    assert {one.id for one in unowned(site.state, asked.found) if one.place == FORMER} == set(kept)
