"""A clock of ours that is off from AWS's: nothing ends for reasons of time, nothing is lost, and it is said."""

from __future__ import annotations

import re
import time
from pathlib import Path

import pytest
from msgspec.structs import replace

from backends.errors import BackendError
from schemas.plan import Terminate
from schemas.pool import Pool
from tests.backends.aws.test_attacks import group
from tests.backends.aws.test_backend import account, rules  # noqa: F401 - a fixture
from tests.doubles.aws.aws_double import REGION, Account
from tests.doubles.aws.aws_world import AwsPlaces, AwsSite, papers
from tests.worlds.world import apply, cron, task

HOUR = 3600
POOL = Pool(name="default-pool", default=True, nodes_max=4, idle_duration=7200)
RUN = task("train", idle_duration=7200)


@pytest.fixture
def site(account: Account, tmp_path: Path) -> AwsSite:  # noqa: F811
    """A run is done; its machine has been idle for a minute or two of its two hours."""
    site = AwsSite(scratch=tmp_path, account=account)
    apply(site, papers(pools=[POOL], runs=[RUN]))
    for _ in range(4):
        site.clock.at += 30
        cron(site)
    assert [run.status for run in site.state.runs] == ["done"]
    return site


def off_by(site: AwsSite, seconds: int) -> None:
    """From now on we are wrong by so much; the world goes on as it was."""
    site.clock.at += seconds
    site.ahead += seconds


@pytest.mark.parametrize("off", [HOUR, -HOUR, 2 * HOUR, 40 * 24 * HOUR, -40 * 24 * HOUR])
def test_a_tick_whose_clock_is_off_ends_nothing_that_would_live(site: AwsSite, off: int) -> None:
    (before,) = site.account.living()
    off_by(site, off)
    for _ in range(4):
        site.clock.at += 400
        result = cron(site)
        assert not [one for one in result.plan.actions if isinstance(one, Terminate)]
    assert [one["id"] for one in site.account.living()] == [before["id"]]
    assert site.account.calls()[REGION, "TerminateInstances"] == 0
    (place,) = site.state.places
    assert abs(place.skew - off) <= 2
    off_by(site, -off)
    site.clock.at += 400
    cron(site)
    assert site.state.places[0].skew == 0
    assert [one["id"] for one in site.account.living()] == [before["id"]]
    site.clock.at += 2 * HOUR
    cron(site)
    assert site.account.living() == []


def test_what_would_end_by_that_clock_is_withheld_and_said(site: AwsSite) -> None:
    off_by(site, 2 * HOUR)
    result = cron(site)
    said = "\n".join(result.plan.warnings)
    assert re.search(r"7(199|20\d) s ahead of that of aws/eu-west-1: nothing ends", said)
    assert any(one.why.startswith("not ended: our clock") for one in result.plan.unmet)


@pytest.mark.parametrize("off", [HOUR, -HOUR])
def test_a_launch_by_a_clock_that_is_off_is_made_once_and_kept(
    off: int,
    account: Account,  # noqa: F811
    tmp_path: Path,
) -> None:
    """Its answer is lost, listings lag, and the next tick is somebody's whose clock is right."""
    site = AwsSite(scratch=tmp_path, account=account)
    floor = papers(pools=[replace(POOL, nodes_min=1)])
    off_by(site, off)
    account.set(lag=2)
    account.fault("RunInstances", after=True, cut=True)
    apply(site, floor)
    off_by(site, -off)
    for _ in range(8):
        site.clock.at += 60
        apply(site, floor)
    assert len(account.living()) == len(account.requests()) == 1
    assert [(one.phase, one.orphan) for one in site.state.instances] == [("ready", "")]


def test_the_date_costs_no_request_and_a_slow_answer_is_no_skew(site: AwsSite) -> None:
    backend = site.connect(replace(papers(pools=[POOL]).backends[0]), REGION, "lineage1")
    assert backend.clock() is None
    before = site.account.calls()
    backend.instances()
    assert set(site.account.calls() - before) <= {(REGION, "DescribeInstances"), (REGION, "DescribeInstanceStatus")}
    assert abs(backend.clock() or 0) <= 1
    site.ahead = -45
    site.connect(papers(pools=[POOL]).backends[0], REGION, "lineage1")
    backend.instances()
    assert -46 <= (backend.clock() or 0) <= -44


@pytest.mark.parametrize("code", ["RequestExpired", "AuthFailure", "SignatureDoesNotMatch"])
def test_where_aws_refuses_for_the_time_the_clock_is_named(account: Account, code: str) -> None:  # noqa: F811
    """It does beyond five minutes, with words that send people to their credentials."""
    backend = AwsPlaces(account=account).place()
    account.fault("DescribeInstances", code, status=400, message="Request has expired.", times=2)
    account.set(ahead=-HOUR)
    with pytest.raises(BackendError, match=rf"{code}.*this machine's clock is 3(599|60\d) s ahead of AWS's: set it"):
        backend.instances()
    account.set(ahead=0)
    with pytest.raises(BackendError) as caught:
        backend.instances()
    assert "clock" not in str(caught.value)


def test_who_is_let_in_stays_so_by_ec2s_clock(account: Account, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: F811
    """By a clock of ours that is 40 days ahead, the rule of a colleague's address would be over."""
    monkeypatch.setenv("DSTACK_ADDRESS", "203.0.113.7")
    places = AwsPlaces(account=account)
    until = time.strftime("dstack until %Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() + HOUR))
    tags = {"dstack-project": places.around.project}
    group(account, f"dstack-{places.around.project}", tags=tags, rule=("198.51.100.9/32", until))
    places.around.now = lambda: time.time() + 40 * 24 * HOUR
    backend = places.place()
    backend.instances()
    assert backend.allow_our_address()
    assert (22, "198.51.100.9/32") in rules(account)
    assert not backend.allow_our_address(), "its own rule lasts as long"
