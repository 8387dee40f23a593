"""What one machine lacks stays its own: it is told there, stored nowhere, and keeps nobody else from anything."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from backends.errors import BackendError, LackingHere
from backends.fake.backend import Fault
from reconciler.engine.tick import tick
from schemas.plan import Plan
from schemas.pool import Pool
from schemas.state import State
from tests.worlds.world import OFFERS, MemoryStore, Site, apply, apply_ask, cron, desired, task

NO_KEY = "no key for machines: set DSTACK_PROJECT_KEY"


def said(plan: Plan) -> str:
    return " ".join(one.why for one in plan.unmet)


def a_site(scratch: Path, *faults: Fault) -> Site:
    site = Site(scratch=scratch)
    site.world.offers = OFFERS
    site.world.faults += faults
    return site


def test_a_run_is_pending_in_words_and_nothing_is_remembered(tmp_path: Path) -> None:
    site = a_site(tmp_path, Fault(call="prepare", error=LackingHere(NO_KEY), times=100))
    result = apply(site, desired(runs=[task("train")]))
    assert NO_KEY in said(result.plan)
    assert site.state.capacity == ()
    assert site.world.calls["launch"] == 0


@pytest.mark.parametrize("call", ["prepare", "launch"])
def test_whoever_has_it_goes_on_at_once(tmp_path: Path, call: str) -> None:
    site = a_site(tmp_path, Fault(call=call, error=LackingHere(NO_KEY), times=100))
    apply(site, desired(runs=[task("train")], pools=[Pool(name="default-pool", default=True, nodes_min=1)]))
    site.world.faults.clear()
    site.clock.at += 1
    cron(site)
    assert [one.request.instance_type for one in site.world.living()] == ["small"]
    assert site.state.capacity == ()


def test_a_place_that_refuses_for_good_is_still_left_alone(tmp_path: Path) -> None:
    site = a_site(tmp_path, Fault(call="prepare", error=BackendError("not authorized"), times=1))
    apply(site, desired(runs=[task("train")]))
    assert [one.why for one in site.state.capacity] == ["not authorized"]


class Late(MemoryStore):
    """A store in which the first reader finds nothing: another first apply writes just after."""

    def __init__(self, real: MemoryStore, blind: int = 1) -> None:
        super().__init__()
        self.real, self.blind = real, blind

    def read(self) -> tuple[State | None, str]:
        self.blind -= 1
        return (None, "") if self.blind >= 0 else self.real.read()

    def write(self, state: State, token: str) -> str:
        return self.real.write(state, token)


def test_the_second_of_two_first_applies_goes_on_with_the_state_of_the_first(tmp_path: Path) -> None:
    site = a_site(tmp_path)
    documents = desired(runs=[task("train")])
    apply(site, documents)
    ports = dataclasses.replace(site.ports(), store=Late(site.store))
    result = tick(ports, apply_ask(site.shaped(documents)))
    assert result.state is not None
    assert result.state.lineage == site.state.lineage
    assert len(site.world.living()) == 1


def test_a_state_that_stays_missing_is_still_refused(tmp_path: Path) -> None:
    site = a_site(tmp_path)
    documents = desired(runs=[task("train")])
    apply(site, documents)
    ports = dataclasses.replace(site.ports(), store=Late(site.store, blind=100))
    assert "the state is missing, not empty" in tick(ports, apply_ask(site.shaped(documents))).refused
