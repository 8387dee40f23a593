"""Where our clock and the store's disagree, nothing ends for reasons of time; whoever asks for an end has it."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pytest

from reconciler.engine.expire_blobs import tidying
from reconciler.state.requests import remove_instance
from schemas.plan import Permissions, Terminate
from schemas.pool import Pool
from tests.worlds.world import Site, apply, cron, desired, task, ticks

POOL = Pool(name="default-pool", default=True, nodes_max=2, idle_duration=600)
DAY = 86400


def idle_for(site: Site, seconds: int) -> None:
    """A run was done, and its instance has been idle since."""
    apply(site, desired(pools=[POOL], runs=[task("train", idle_duration=600)]))
    ticks(site, 30)
    site.clock.at += seconds


@pytest.fixture
def site(tmp_path: Path) -> Site:
    made = Site(scratch=tmp_path)
    idle_for(made, 0)
    assert [one.phase for one in made.state.instances] == ["ready"]
    return made


def alive(site: Site) -> int:
    return sum(one.phase == "ready" for one in site.state.instances)


@pytest.mark.parametrize(("ahead", "words"), [(300, "300 s ahead of that of memory"), (-300, "300 s behind")])
def test_nothing_ends_while_the_clocks_are_apart(site: Site, ahead: int, words: str) -> None:
    site.store.clock = lambda: site.clock.now() - ahead
    site.clock.at += 601
    result = cron(site)
    assert alive(site) == 1
    assert any(words in one and "nothing ends until they agree" in one for one in result.plan.warnings)
    assert any(one.why.startswith("not ended: our clock") for one in result.plan.unmet)
    site.store.clock = site.clock.now
    assert any(isinstance(one, Terminate) for one in cron(site).plan.actions)
    assert alive(site) == 0


@pytest.mark.parametrize("clock", [None, 0, 45, -45])
def test_where_they_agree_or_there_is_one_clock_it_ends(site: Site, clock: int | None) -> None:
    if clock is not None:
        site.store.clock = lambda: site.clock.now() - clock
    site.clock.at += 601
    result = cron(site)
    assert alive(site) == 0
    assert not result.plan.warnings


def test_the_store_is_asked_only_where_something_would_end(site: Site) -> None:
    before = site.store.dated
    site.store.clock = lambda: site.clock.now() - 3600
    assert not cron(site).plan.warnings
    assert site.store.dated == before
    site.clock.at += 601
    cron(site)
    assert site.store.dated == before + 1


@pytest.mark.parametrize("how", ["destroy", "pool remove"])
def test_what_a_person_asks_for_ends(site: Site, how: str) -> None:
    site.store.clock = lambda: site.clock.now() - 3600
    (one,) = site.state.instances
    if how == "destroy":
        cron(site, permissions=Permissions(destroy_all=True))
    else:
        gone = partial(remove_instance, name=one.id, by="ann", now=site.clock.now())
        cron(site, permissions=Permissions(scope=(one.id,)), wish=gone)
    assert alive(site) == 0


@pytest.mark.parametrize("ahead", [0, 40 * DAY, -40 * DAY])
def test_nothing_old_goes_by_a_clock_that_is_off(site: Site, ahead: int) -> None:
    """By a clock that is a month ahead, what was put a moment ago would be old."""
    site.store.clock = lambda: site.clock.now() - ahead
    asked: list[str] = []

    class Blobs:
        def stored(self) -> list[object]:
            asked.append("stored")
            return []

    class Ledger:
        def merge(self) -> int:
            asked.append("merge")
            return 0

    tidy = tidying([Blobs()], deliveries=None, store=site.store, ledger=Ledger(), now=site.clock.now)  # type: ignore[arg-type, list-item]
    told = tidy(site.state)
    assert asked == (["merge"] if ahead else ["stored", "merge"])
    assert ("our clock" in "".join(told)) == bool(ahead)
