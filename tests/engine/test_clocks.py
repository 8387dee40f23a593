"""Where our clock and the store's disagree, nothing ends for reasons of time; whoever asks for an end has it."""

from __future__ import annotations

import itertools
from dataclasses import replace as replaced
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from reconciler.engine.expire_blobs import tidying
from reconciler.engine.request import TickAsk
from reconciler.engine.tick import tick
from reconciler.state.requests import add_run, remove_instance, set_override
from schemas.base import Value
from schemas.desired import BackendConfig
from schemas.instance import HostReport, Instance
from schemas.lease import Lease
from schemas.plan import Permissions, Terminate
from schemas.pool import Pool
from schemas.profile import Retry
from schemas.resources import Where
from schemas.run import Run
from tests.worlds.world import START, FakeRunner, Site, apply, cron, desired, offer, task, ticks

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


# ---------------------------------------------------------------- one clock, whichever is wrong


YEAR = 365 * DAY
WRONG = [40 * DAY, -40 * DAY, 40 * YEAR, -START]
"""Seconds by which a clock is ahead: a month and more either way, 40 years, and 1970."""
WITNESS = ["place", "uptime", "bucket"]


def a_site(folder: Path, witness: str) -> Site:
    """A project where a place, this machine's uptime, or the store of the state tells whether our clock is right."""
    site = Site(scratch=folder)
    site.dated, site.boot_id = witness == "place", "boot-1" if witness == "uptime" else ""
    if witness == "bucket":
        site.store.clock = site.clock.now
    return site


def all_times(site: Site) -> dict[str, int]:
    """Every moment of the state, by where it stands."""
    found = {}

    def walk(value: Any, path: str) -> None:
        if isinstance(value, Value):
            for name in value.__struct_fields__:
                walk(getattr(value, name), f"{path}.{name}")
        elif isinstance(value, tuple):
            for index, one in enumerate(value):
                walk(one, f"{path}[{index}]")
        elif isinstance(value, int) and not isinstance(value, bool) and path.endswith(MOMENTS):
            found[path] = value

    walk(site.state, "")
    return found


MOMENTS = ("_at", ".at", "_since", ".since", "_end", "until", "not_before", "not_after")


def in_one_clock(site: Site) -> None:
    """Nothing is dated before the project, and nothing that is to come is further away than anything ever is."""
    odd = {path: at - site.clock.now() for path, at in all_times(site).items() if at}
    assert not {path: off for path, off in odd.items() if not START - 120 - site.clock.now() <= off <= 2 * DAY}


def done(site: Site) -> list[str]:
    return [f"{run.spec.name} {run.status}" for run in site.state.runs]


@pytest.mark.parametrize("off", WRONG)
def test_a_host_whose_clock_is_wrong_loses_no_run(tmp_path: Path, off: int) -> None:
    """Its times are translated, and bounded: a job ends after its start and before now."""
    site = Site(scratch=tmp_path)
    apply(site, desired(pools=[POOL], runs=[task("train", idle_duration=600)]))
    site.clock.at += 10
    for machine in site.world.living():
        machine.ahead = off
    ticks(site, 20)
    assert done(site) == ["train done"]
    in_one_clock(site)
    (run,) = site.state.runs
    assert START <= (run.started_at or 0) <= (run.finished_at or 0) <= site.clock.now()
    assert (run.finished_at or 0) - (run.started_at or 0) in range(50, 75)
    apply(site, desired(pools=[POOL]), permissions=Permissions(destroy_pools=("*",)))  # it may be forgotten now
    site.clock.at += 29 * DAY
    cron(site)
    assert done(site) == ["train done"]
    assert site.state.attempts[0].jobs[0].log in site.blobs.data


@pytest.mark.parametrize("told", [(0, 2), (2, 0), (0, 0), (10**11, 10**11), (10**11, 5)])
def test_a_job_that_writes_its_own_end_is_remembered_as_long_as_any_other(site: Site, told: tuple[int, int]) -> None:
    """A job can write `ended 0 exit 1 2 0` where its supervisor does."""
    apply(site, desired(pools=[POOL], runs=[task("train", idle_duration=600), task("liar", idle_duration=600)]))
    site.clock.at += 10
    cron(site)
    began, ended = told

    class Lies(FakeRunner):
        def look(self, instance: Instance, *, now: int, lease: Lease | None = None) -> HostReport:
            report = super().look(instance, now=now, lease=lease)
            jobs = tuple(
                replace(one, phase="ended", exit_code=0, started_at=began, ended_at=ended) if one.run == "liar" else one
                for one in report.jobs
            )
            return replace(report, jobs=jobs)

    ports = replaced(site.ports(), runner=Lies(site.world, site.scratch))
    for _ in range(3):
        site.clock.at += 10
        tick(ports, TickAsk())
    in_one_clock(site)
    apply(site, desired(pools=[POOL]))
    site.clock.at += 29 * DAY
    cron(site)
    assert "liar done" in done(site)


@pytest.mark.parametrize("witness", WITNESS)
@pytest.mark.parametrize("off", WRONG)
def test_a_tick_by_a_wrong_clock_of_ours_loses_nothing(tmp_path: Path, off: int, witness: str) -> None:
    site = a_site(tmp_path, witness)
    run = task("train", idle_duration=72 * 3600)
    pool = replace(POOL, idle_duration=72 * 3600)
    apply(site, desired(pools=[pool], runs=[run]))
    ticks(site, 30)
    apply(site, desired(pools=[pool]))
    assert done(site) == ["train done"]
    (machine,) = site.world.living()
    site.wrong = off
    for _ in range(3):
        site.clock.at += 400
        result = cron(site)
        assert result.plan.warnings or witness == "bucket"
    in_one_clock(site)
    assert done(site) == ["train done"]
    site.wrong = 0
    ticks(site, 3, apart=400)
    assert done(site) == ["train done"]
    assert site.world.living() == [machine]
    in_one_clock(site)
    site.clock.at += 72 * 3600 + 600
    cron(site)
    cron(site)
    assert site.world.living() == []


@pytest.mark.parametrize("witness", ["place", "uptime"])
@pytest.mark.parametrize("off", WRONG)
def test_a_run_that_ends_while_our_clock_is_wrong_is_kept(tmp_path: Path, off: int, witness: str) -> None:
    """It is begun by a right clock, it ends in the time of a wrong one."""
    site = a_site(tmp_path, witness)
    apply(site, desired(pools=[POOL], runs=[task("train", idle_duration=600, max_duration=7200)]))
    ticks(site, 3)
    site.wrong = off
    ticks(site, 12)
    assert done(site) == ["train done"]
    in_one_clock(site)
    site.wrong = 0
    ticks(site, 3)
    assert done(site) == ["train done"]
    (run,) = site.state.runs
    assert 0 <= (run.finished_at or 0) - START <= 200


@pytest.mark.parametrize("off", WRONG)
def test_where_hosts_alone_contradict_us_nothing_is_forgotten(tmp_path: Path, off: int) -> None:
    """Who is wrong is not known: nothing is deleted, and what was dated in a time to come is corrected later."""
    site = Site(scratch=tmp_path)
    pool = replace(POOL, idle_duration=72 * 3600)
    apply(site, desired(pools=[pool], runs=[task("train", idle_duration=72 * 3600)]))
    ticks(site, 30)
    apply(site, desired(pools=[pool]))
    site.wrong = off
    ticks(site, 3, apart=400)
    assert done(site) == ["train done"]
    site.wrong = 0
    ticks(site, 3, apart=400)
    assert done(site) == ["train done"]
    assert alive(site) == 1
    in_one_clock(site)


def test_ends_that_a_wrong_clock_withholds_are_told_with_their_price(tmp_path: Path) -> None:
    site = a_site(tmp_path, "uptime")
    idle_for(site, 0)
    site.wrong = 3600
    site.clock.at += 10
    result = cron(site)
    (warning,) = result.plan.warnings
    assert "3600 s ahead of that of the last apply: nothing ends until they agree" in warning
    assert "costs $1.00/h" in warning
    assert "--trust-clock" in warning
    assert result.plan.hourly_after == result.plan.hourly_before
    assert alive(site) == 1
    site.clock.at += 600
    again = cron(site)
    assert "nothing ends" in "".join(again.plan.warnings)
    assert alive(site) == 1
    trusted = cron(site, trust_clock=True)
    assert "the last apply" not in "".join(trusted.plan.warnings), "its hosts still disagree"


def test_what_a_place_agrees_with_outvotes_uptime(tmp_path: Path) -> None:
    """The machine was suspended as a whole, say: its uptime stood still, its clock is right again."""
    site = a_site(tmp_path, "uptime")
    idle_for(site, 0)
    site.boot_id, site.dated = "boot-1", True
    slept = replaced(site.ports(), boot_time=lambda: ("boot-1", 400))
    site.clock.at += 3600
    result = tick(slept, TickAsk())
    assert not result.plan.warnings
    assert any(isinstance(one, Terminate) for one in result.plan.actions)


@pytest.mark.parametrize("off", [3600, -3600, 40 * DAY, -START])
def test_a_clock_that_steps_in_the_middle_of_an_apply_moves_nothing(tmp_path: Path, off: int) -> None:
    site = a_site(tmp_path, "uptime")
    apply(site, desired(pools=[POOL], runs=[task("train", idle_duration=600)]))
    for at in range(1, 30):
        asked = itertools.count()

        def now(at: int = at, asked: itertools.count[int] = asked) -> int:
            return site.clock.now() + (off if next(asked) >= at else 0)

        site.clock.at += 10
        tick(replaced(site.ports(), now=now), TickAsk())
        in_one_clock(site)
    assert done(site) == ["train done"]
    assert alive(site) == 1


def test_the_clock_of_one_host_says_nothing_of_other_places(tmp_path: Path) -> None:
    """A host 40 days ahead, alone to answer: an idle instance elsewhere is idle since now, and ends in its time."""
    site = Site(scratch=tmp_path, offers=(offer("small", "1.00"), offer("large", "1.40", region="r2")))
    one, two = Pool(name="one", default=True, nodes_min=1), replace(POOL, name="two", default=False)
    papers = replace(
        desired(pools=[one, two]), backends=(BackendConfig(name="fake", type="fake", regions=("r1", "r2")),)
    )
    apply(site, papers)
    ticks(site, 2)
    (ahead,) = site.world.living()
    ahead.ahead, site.world.boot = 40 * DAY, 60
    run = task("train", pool="two", idle_duration=600, where=Where(regions=("r2",)))
    apply(site, replace(papers, runs=(run,)))
    ticks(site, 3)
    assert [each.phase for each in site.state.instances] == ["ready", "provisioning"]
    in_one_clock(site)
    ticks(site, 15)
    elsewhere = [each for each in site.state.instances if each.pool == "two"]
    assert [each.last_job_end is not None and each.last_job_end <= site.clock.now() for each in elsewhere] == [True]
    in_one_clock(site)
    site.clock.at += 700
    cron(site)
    cron(site)
    assert [each.phase for each in site.state.instances if each.pool == "two"] == ["terminated"]


@pytest.mark.parametrize("off", [40 * DAY, 40 * YEAR])
def test_what_a_wrong_clock_wrote_is_corrected_once_another_one_agrees(tmp_path: Path, off: int) -> None:
    """Nobody told the time when it was written."""
    site = Site(scratch=tmp_path)
    site.wrong = off
    apply(site, desired(pools=[POOL], runs=[task("train", idle_duration=600)]))
    site.wrong, site.dated = 0, True
    ticks(site, 12)
    in_one_clock(site)
    assert done(site) == ["train done"]
    site.clock.at += 700
    cron(site)
    assert alive(site) == 0


@pytest.mark.parametrize("witness", ["bucket", "uptime"])
def test_a_project_that_began_by_a_clock_that_is_behind_loses_nothing(tmp_path: Path, witness: str) -> None:
    """A bucket is asked before anything is dated; where nobody is, what ended is kept from when our clock is right."""
    site = a_site(tmp_path, witness)
    site.wrong = -40 * DAY
    for machine in apply(site, desired(pools=[POOL], runs=[task("train", idle_duration=None)])) and site.world.living():
        machine.ahead = -40 * DAY if witness == "uptime" else 0
    ticks(site, 30)
    apply(site, desired(pools=[POOL]))
    assert done(site) == ["train done"]
    if witness == "bucket":
        in_one_clock(site)
    site.wrong = 0
    for machine in site.world.living():
        machine.ahead = 0
    ticks(site, 3, apart=100)
    assert done(site) == ["train done"]
    assert alive(site) == 1
    ticks(site, 1, apart=29 * DAY)
    assert done(site) == ["train done"]
    ticks(site, 1, apart=2 * DAY)
    assert done(site) == []


@pytest.mark.parametrize("witness", ["", *WITNESS])
def test_a_tick_by_a_wrong_clock_gives_nobody_a_rhythm(tmp_path: Path, witness: str) -> None:
    """`ticks every 3652d18h, next about 17:00Z` after one tick at +40 years."""
    site = a_site(tmp_path, witness)
    apply(site, desired())
    for wrong in (0, 40 * YEAR, 0, 0, 40 * DAY, 0, 0):
        site.wrong = wrong
        site.clock.at += 700
        cron(site)
    (mine,) = [one for one in site.state.ticks if one.by == "ann@laptop"]
    assert (mine.every or 0) < 3600
    assert mine.at <= site.clock.now() or not witness


def test_what_a_person_paused_stays_so_while_clocks_disagree(tmp_path: Path) -> None:
    site = a_site(tmp_path, "bucket")
    apply(site, desired(pools=[POOL]))
    at = site.clock.now()
    paused = partial(
        set_override, kind="pause", subject="default-pool", by="ann", now=at, until=at + 7200, reason="disk"
    )
    cron(site, permissions=Permissions(scope=()), wish=paused)
    site.wrong = 40 * DAY
    apply(site, desired(pools=[POOL], runs=[task("train")]))
    assert [one.kind for one in site.state.overrides] == ["pause"]
    assert site.world.living() == []
    site.wrong = 0
    site.clock.at += 7300
    ticks(site, 3)
    assert site.state.overrides == ()
    assert len(site.world.living()) == 1


@pytest.mark.parametrize("off", WRONG)
def test_what_a_person_asks_for_by_a_wrong_clock_is_dated_by_the_right_one(tmp_path: Path, off: int) -> None:
    """`dstack run --retry-duration 2h` by a clock that is 40 days behind would wait until 40 days ago."""
    site = a_site(tmp_path, "place")
    apply(site, desired(pools=[POOL]))
    site.world.sold_out = {"small", "large", "huge"}
    site.wrong = off
    ours = site.clock.now() + off
    spec = task("train", retry=Retry(no_capacity=True, duration=7200))
    run = Run(id="abc", spec=spec, origin="run", submitted_at=ours, wait_until=ours + 7200)
    wish = partial(add_run, run=run)
    cron(site, permissions=Permissions(scope=(run.id,)), wish=wish)
    (mine,) = site.state.runs
    assert (mine.submitted_at, mine.wait_until) == (site.clock.now(), site.clock.now() + 7200)
    in_one_clock(site)
    paused = partial(set_override, kind="pause", subject="default-pool", by="ann", now=ours, until=ours + 60, reason="")
    refused = cron(site, permissions=Permissions(scope=()), wish=paused)
    assert "Set the clock first" in refused.refused
    assert site.state.overrides == ()
