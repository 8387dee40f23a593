"""Drains: the times that people give, and what is kept off by one that is still to come."""

from __future__ import annotations

import os
import subprocess
import sys
from datetime import datetime
from zoneinfo import ZoneInfo

import pytest

from reconciler.cli.exits import Fail
from reconciler.cli.terminal.times import when
from reconciler.report.instance_rows import explain_instances
from reconciler.state.drains import crosses, of_instances, stop_at, to_come, told
from reconciler.state.settle import conclude
from reconciler.text.dates import localized, moment
from schemas.instance import Instance
from schemas.resources import Resources
from schemas.state import Override, State

BERLIN = ZoneInfo("Europe/Berlin")


def here(at: datetime) -> datetime:
    return at.replace(tzinfo=BERLIN) if at.tzinfo is None else at.astimezone(BERLIN)


def at(text: str) -> int:
    return int(datetime.fromisoformat(text).timestamp())


NOW = at("2026-11-03T20:30:00+01:00")


@pytest.mark.parametrize(
    ("said", "meant"),
    [
        ("2h", "2026-11-03T22:30:00+01:00"),
        ("90", "2026-11-03T20:31:30+01:00"),
        ("1h30m", "2026-11-03T22:00:00+01:00"),
        ("22:00", "2026-11-03T22:00:00+01:00"),
        ("06:00", "2026-11-04T06:00:00+01:00"),
        ("20:30", "2026-11-04T20:30:00+01:00"),
        ("today 06:00", "2026-11-03T06:00:00+01:00"),
        ("tomorrow  6:00", "2026-11-04T06:00:00+01:00"),
        ("2026-11-05T07:15", "2026-11-05T07:15:00+01:00"),
        ("2026-11-05 07:15", "2026-11-05T07:15:00+01:00"),
        ("2026-11-05T07:15:20Z", "2026-11-05T07:15:20+00:00"),
        ("2026-11-05T07:15-08:00", "2026-11-05T07:15:00-08:00"),
    ],
)
def test_a_moment_as_people_give_it(said: str, meant: str) -> None:
    assert when(said, flag="--at", now=NOW, here=here) == at(meant)


def test_tomorrow_is_a_day_of_the_calendar() -> None:
    """The clocks go back in that night: it has 25 hours."""
    before = at("2026-10-24T22:00:00+02:00")
    assert when("tomorrow 22:00", flag="--at", now=before, here=here) == before + 25 * 3600


@pytest.mark.parametrize(
    "said", ["", "soon", "25:00", "12:60", "tomorrow", "2026-13-01T00:00", "2026-11-03", "5 pm", "off", "-2h", "1e9"]
)
def test_what_is_no_moment_is_refused(said: str) -> None:
    with pytest.raises((Fail, ValueError), match="--at"):
        when(said, flag="--at", now=NOW, here=here)


def test_moments_are_shown_in_the_zone_of_the_reader() -> None:
    summer = at("2026-07-01T12:00:00+00:00")
    text = f"from {moment(summer)} until {moment(NOW)}, not 2026-99-99 12:00Z"
    assert localized(text, here) == "from 2026-07-01 14:00 CEST until 2026-11-03 20:30 CET, not 2026-99-99 12:00Z"
    assert localized(text, None) == text


def a_drain(subject: str = "gpu", **fields: object) -> Override:
    return Override(**{"kind": "drain", "subject": subject, "by": "ann", "at": NOW, **fields})  # type: ignore[arg-type]


@pytest.mark.parametrize(("lasts", "kept_off"), [(3599, False), (3600, False), (3601, True), (None, True)])
def test_what_may_still_run_when_it_begins_is_kept_off(lasts: int | None, kept_off: bool) -> None:
    assert crosses(a_drain(begins=NOW + 3600), now=NOW, lasts=lasts) == kept_off


def test_the_next_one_is_told_and_the_one_in_force_comes_first() -> None:
    later, sooner = a_drain(begins=NOW + 900), a_drain(begins=NOW + 300)
    assert to_come([later, sooner, a_drain("cpu")], now=NOW) == {"gpu": sooner}
    own, over = a_drain("instance i1", begins=NOW - 5), a_drain("instance i1", until=NOW)
    assert of_instances([a_drain("instance i1", begins=NOW + 9), own, over, later], now=NOW) == {"i1": own}


def test_a_drain_is_told_with_its_author_times_and_reason() -> None:
    one = a_drain(begins=NOW + 3600, until=NOW + 7200, stop_after=600, reason="new disks")
    assert stop_at(one) == NOW + 4200
    assert told(one) == "drained by ann from 2026-11-03 20:30Z until 2026-11-03 21:30Z (new disks)"
    assert "what still runs at 2026-11-03 20:40Z is stopped" in told(one, whole=True)


def a_state(*overrides: Override, phase: str = "ready") -> State:
    known = {"pool": "gpu", "backend": "ssh", "place": "ssh", "resources": Resources(cpus=1, memory=1), "ready_at": 1}
    one = Instance(id="i1", name="gpu-0", phase=phase, **known)  # type: ignore[arg-type]
    return State(version=1, project="p", lineage="l", instances=(one,), overrides=overrides)


@pytest.mark.parametrize("subject", ["gpu", "instance i1"])
def test_pool_ps_tells_a_drain_that_is_to_come(subject: str) -> None:
    (row,) = explain_instances(a_state(a_drain(subject, begins=NOW + 60, reason="new disks")), now=NOW)
    assert "drained by ann from 2026-11-03 19:31Z until it is resumed (new disks)" in row.reason


def test_the_drain_of_an_instance_goes_with_it() -> None:
    """Another one may get its name."""
    drain = a_drain("instance i1")
    assert conclude(a_state(drain), now=NOW).overrides == (drain,)
    assert conclude(a_state(drain, phase="terminated"), now=NOW).overrides == ()


# ---------------------------------------------------------------- days on which the clocks change


def utc(text: str) -> int:
    return int(datetime.fromisoformat(f"{text}+00:00").timestamp())


@pytest.mark.parametrize("said", ["2027-03-28T02:30", "2027-03-28 02:00", "tomorrow 02:59", "02:30"])
def test_a_time_that_the_clocks_skip_is_refused_with_its_hours(said: str) -> None:
    now = utc("2027-03-27T12:00") if said.startswith("tomorrow") else utc("2027-03-28T00:10")
    with pytest.raises(Fail, match=r"no such local time: the clocks go from 02:00 to 03:00 on 2027-03-28. Give"):
        when(said, flag="--at", now=now, here=here)


@pytest.mark.parametrize(
    ("said", "meant"),
    [
        ("2027-03-28T01:59", "2027-03-28T00:59"),
        ("2027-03-28T03:00", "2027-03-28T01:00"),
        ("2027-03-28T02:30+01:00", "2027-03-28T01:30"),
        ("2027-10-31T02:30", "2027-10-31T00:30"),
        ("2027-10-31T02:30+01:00", "2027-10-31T01:30"),
    ],
)
def test_a_time_that_there_is_on_such_a_day(said: str, meant: str) -> None:
    """One that there is twice is the first."""
    assert when(said, flag="--at", now=utc("2027-03-27T12:00"), here=here) == utc(meant)


def test_the_next_time_of_a_name_may_be_the_second_of_that_day() -> None:
    for now, meant in (
        ("2027-10-31T00:10", "2027-10-31T00:30"),
        ("2027-10-31T00:40", "2027-10-31T01:30"),
        ("2027-10-31T01:40", "2027-11-01T01:30"),
    ):
        assert when("02:30", flag="--at", now=utc(now), here=here) == utc(meant)


def test_the_zone_of_this_machine_is_read_likewise() -> None:
    """As the command has it: without a zone that is passed in."""
    program = (
        "from reconciler.cli.terminal.times import when\n"
        "from reconciler.cli.exits import Fail\n"
        "try:\n    print(when('2027-03-28T02:30', flag='--at', now=0))\nexcept Fail as error:\n    print(error)"
    )
    environ = {**os.environ, "TZ": "Europe/Berlin"}
    told = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, env=environ)
    assert "the clocks go from 02:00 to 03:00 on 2027-03-28" in told.stdout
