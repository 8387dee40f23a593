"""Two copies of one state in use: neither takes the other's new machines for nobody's; what is lost still goes."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest
from msgspec.structs import replace

from reconciler.state.errors import StateRefused
from schemas.plan import Permissions, Terminate
from schemas.pool import Pool
from tests.backends.aws.test_backend import account  # noqa: F401 - a fixture
from tests.cli.test_gc import found
from tests.doubles.aws.aws_double import REGION, Account
from tests.doubles.aws.aws_world import AwsSite, papers
from tests.worlds.world import apply, cron, task

POOL = Pool(name="default-pool", default=True, nodes_min=1, nodes_max=1, idle_duration=7200)
TWO = replace(POOL, nodes_min=2, nodes_max=2)


@pytest.fixture
def site(account: Account, tmp_path: Path) -> AwsSite:  # noqa: F811
    site = AwsSite(scratch=tmp_path, account=account)
    apply(site, papers(pools=[POOL]))
    site.clock.at += 20
    cron(site)
    return site


@pytest.fixture
def copy(site: AwsSite, tmp_path: Path) -> AwsSite:
    """The folder on another laptop: the same state, clock and world, and ids of its own."""
    other = AwsSite(scratch=tmp_path, account=site.account, clock=site.clock)
    other.store.data, other.world = site.store.data, site.world
    other._nonces = itertools.count(5000)
    return other


def living(site: AwsSite) -> set[str]:
    return {str(one["id"]) for one in site.account.living()}


def ahead_of(site: AwsSite, copy: AwsSite) -> None:
    """Writes that launch nothing."""
    number = 0
    while site.state.generation <= copy.state.generation + 5:
        number += 1
        apply(site, papers(pools=[replace(POOL, tags=(("n", str(number)),))]))


def test_the_newer_one_leaves_what_the_older_one_launched(site: AwsSite, copy: AwsSite) -> None:
    ahead_of(site, copy)
    apply(copy, papers(pools=[TWO]))
    (new,) = living(site) - {one.external_id for one in site.state.instances}
    for _ in range(6):
        site.clock.at += 400
        result = cron(site)
        assert not [one for one in result.plan.actions if isinstance(one, Terminate)]
        cron(copy)
    assert len(living(site)) == 2
    assert any(new in one and "never heard of" in one and "another copy of this state" in one
               for one in result.plan.warnings + result.warnings)  # fmt: skip
    (theirs,) = [one for one in site.state.instances if one.external_id == new]
    assert theirs.orphan.startswith("another copy of this state may own it")
    (mine,) = [one for one in copy.state.instances if one.external_id == new]
    assert (mine.phase, mine.orphan) == ("ready", "")


RULES = {
    "lowered": (papers(pools=[replace(POOL, nodes_min=0, nodes_max=0)]), Permissions(destroy_pools=("*",))),
    "left": (papers(pools=[Pool(name="other", default=True)]), Permissions(destroy_pools=("*",))),
    "as-it-was": (papers(pools=[POOL]), Permissions(mass_destroy=True)),
}


@pytest.mark.parametrize("rule", RULES)
def test_no_rule_of_ours_ends_the_others(rule: str, site: AwsSite, copy: AwsSite) -> None:
    ahead_of(site, copy)
    apply(copy, papers(pools=[TWO]))
    (new,) = living(site) - {one.external_id for one in site.state.instances}
    documents, permissions = RULES[rule]
    for _ in range(6):
        site.clock.at += 400
        apply(site, documents, permissions=permissions)
    assert new in living(site)
    assert len(living(site)) == (2 if rule == "as-it-was" else 1)


def test_the_older_one_is_refused_where_the_newer_one_launched(site: AwsSite, copy: AwsSite) -> None:
    ahead_of(copy, site)
    apply(copy, papers(pools=[TWO]))
    before = living(site)
    for _ in range(3):
        site.clock.at += 400
        with pytest.raises(StateRefused, match="or another copy of it is in use"):
            cron(site)
    assert living(site) == before


def test_the_others_are_counted_against_what_we_may_buy(site: AwsSite, copy: AwsSite) -> None:
    ahead_of(site, copy)
    apply(copy, papers(pools=[replace(TWO, nodes_max=3)]))
    site.clock.at += 30
    result = apply(site, papers(pools=[replace(POOL, nodes_max=2)], runs=[task("pair", nodes=2)]))
    assert len(living(site)) == 2
    assert result.plan.unmet


def test_gc_lists_it_and_a_person_ends_it(site: AwsSite, copy: AwsSite) -> None:
    ahead_of(site, copy)
    apply(copy, papers(pools=[TWO]))
    (new,) = living(site) - {one.external_id for one in site.state.instances}
    cron(site)
    assert [one.id for one in found(site)[1] if one.kind == "instance"] == [new]


def test_what_was_given_up_and_comes_late_still_goes(site: AwsSite) -> None:
    """Its launch is ours, and lost: it has an owner no more."""
    site.account.set(lag=40)
    site.account.fault("RunInstances", after=True, cut=True)
    apply(site, papers(pools=[TWO]))
    for _ in range(4):
        site.clock.at += 400
        cron(site)
    assert site.state.tombstones
    site.account.set(lag=0)
    for _ in range(6):
        site.clock.at += 400
        apply(site, papers(pools=[TWO]))
    assert len(living(site)) == 2
    owned = {one.external_id for one in site.state.instances if one.phase == "ready" and not one.orphan}
    assert living(site) == owned
    assert site.account.calls()[REGION, "TerminateInstances"] >= 1
