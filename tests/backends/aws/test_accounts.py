"""Whose account it is: every region of a backend is one account's, also one that nobody has been to before."""

from __future__ import annotations

import contextlib
from pathlib import Path

import pytest

from reconciler.engine.tick import TickResult, tick
from schemas.desired import Desired
from schemas.pool import Pool
from schemas.resources import Where
from tests.backends.aws.test_backend import account, use  # noqa: F401 - a fixture
from tests.chaos.killer import Killed, Killer
from tests.doubles.aws.aws_double import REGION, Account, AwsServer
from tests.doubles.aws.aws_world import AwsSite, papers
from tests.worlds.world import apply, apply_ask, cron

FAR = "us-east-1"
HERE = Pool(name="here", default=True, nodes_min=1, nodes_max=1, where=Where(regions=(REGION,)))
THERE = Pool(name="there", nodes_min=1, nodes_max=1, where=Where(regions=(FAR,)))


@pytest.fixture
def site(account: Account, tmp_path: Path) -> AwsSite:  # noqa: F811
    return AwsSite(scratch=tmp_path, account=account, regions=(REGION, FAR))


@pytest.fixture
def other(aws_server: AwsServer) -> Account:
    return aws_server.account()


def everywhere(one: Account) -> list[str]:
    return [each["type"] for region in (REGION, FAR) for each in one.living(region)]


def said(result: TickResult, site: AwsSite) -> str:
    unmet = " ".join(one.why for one in result.plan.unmet)
    return " ".join((unmet, *(place.error for place in site.state.places)))


@pytest.mark.parametrize("declared", [True, False], ids=["declared", "for-sale"])
def test_a_new_region_belongs_to_the_account_of_the_others(
    declared: bool, site: AwsSite, other: Account, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The regions that we know cannot be asked just now, so that nothing else tells whose credentials these are."""
    apply(site, papers(pools=[HERE], regions=(REGION,) if declared else ()))
    use(other, monkeypatch)
    other.fault("DescribeInstances", region=REGION, times=9)
    documents = papers(pools=[HERE, THERE], regions=(REGION, FAR) if declared else ())
    result = apply(site, documents)
    assert everywhere(other) == []
    words = said(result, site)
    assert f"aws:{other.number}" in words
    assert f"aws:{site.account.number}" in words
    assert "a backend with a `name` of its own" in words
    use(site.account, monkeypatch)
    site.clock.at += 700
    apply(site, documents)
    assert len(everywhere(site.account)) == 2
    assert everywhere(other) == []


def first(site: AwsSite, documents: Desired, *, at: int) -> None:
    with contextlib.suppress(Killed):
        tick(Killer(at, after=True).wrap(site.ports()), apply_ask(documents))


@pytest.mark.parametrize("at", [3, 4], ids=["before-the-launch", "after-it"])
def test_who_prepared_the_first_launch_is_who_the_region_belongs_to(
    at: int, site: AwsSite, other: Account, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed before anybody has seen what was launched there, with a region that no document names."""
    documents = papers(pools=[THERE], regions=())
    first(site, documents, at=at)
    use(other, monkeypatch)
    for _ in range(6):
        site.clock.at += 400
        assert cron(site).refused == ""
    assert everywhere(other) == []
    made = everywhere(site.account)
    assert len(made) == at - 3
    assert [one.phase for one in site.state.instances] == ["pending"]
    use(site.account, monkeypatch)
    for _ in range(6):
        site.clock.at += 400
        cron(site)
    assert len(everywhere(site.account)) == 1
