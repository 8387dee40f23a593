"""How a machine is reached decides who is let in: each pool's own way, of what is launched and of what lives."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from reconciler.engine.tick import tick
from schemas.access import Way
from schemas.desired import Desired
from schemas.host import Jump
from schemas.plan import Permissions
from schemas.pool import Pool
from tests.backends.aws.test_backend import account, rules  # noqa: F401 - a fixture
from tests.chaos.killer import Killed, Killer
from tests.doubles.aws.aws_double import Account
from tests.doubles.aws.aws_world import AwsSite, papers
from tests.worlds.world import PROJECT, apply, apply_ask, cron

US = (22, "203.0.113.7/32")
SSM, DIRECT = Way(mode="program", name="ssm"), Way()
GROUP = f"dstack-{PROJECT}"


@pytest.fixture
def site(account: Account, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AwsSite:  # noqa: F811
    monkeypatch.setenv("DSTACK_ADDRESS", "203.0.113.7")
    return AwsSite(scratch=tmp_path, account=account)


def wanted(*ways: Way | None, backend: str = "direct", **options: Any) -> Desired:
    """A pool of one machine for each way, on a backend that says `backend`."""
    pools = [
        Pool(name=f"pool-{number}", default=number == 0, nodes_min=1, nodes_max=1, connect=way)
        for number, way in enumerate(ways)
    ]
    desired = papers(pools=pools)
    config = replace(desired.backends[0], options={"connect": {"mode": backend}, **options})
    return replace(desired, backends=(config,))


def goes_on(site: AwsSite, count: int = 1, *, apart: int = 20) -> None:
    for _ in range(count):
        site.clock.at += apart
        assert cron(site).refused == ""


def modes(site: AwsSite) -> list[str]:
    return [one.way.label for one in site.state.instances if one.phase != "terminated"]


CASES = {  # ways of the pools, the backend's -> whether port 22 is open to us
    "ssm-on-direct": ((SSM,), "direct", False),
    "direct-on-ssm": ((DIRECT,), "ssm", True),
    "none-on-ssm": ((None,), "ssm", False),
    "none-on-direct": ((None,), "direct", True),
    "jump-on-direct": ((Way(mode="jump", jump=Jump(hostname="bastion", user="ann")),), "direct", False),
    "one-of-two": ((SSM, DIRECT), "instance-connect", True),
    "neither-of-two": ((SSM, None), "instance-connect", False),
}


@pytest.mark.parametrize("case", CASES)
def test_we_are_let_in_exactly_where_a_machine_is_reached_by_its_address(site: AwsSite, case: str) -> None:
    ways, backend, let_in = CASES[case]
    apply(site, wanted(*ways, backend=backend))
    goes_on(site)
    assert modes(site) == [way.label if way else backend for way in ways]
    assert rules(site.account, GROUP) == ([US] if let_in else [])


def silenced(site: AwsSite, mode: str) -> None:
    """As a closed port 22 does it."""
    ids = {one.external_id for one in site.state.instances if one.way.label == mode}
    for id, machine in site.world.machines.items():
        machine.silent = id in ids


def test_those_that_answer_over_a_tunnel_say_nothing_of_a_shut_door(
    site: AwsSite, monkeypatch: pytest.MonkeyPatch
) -> None:
    apply(site, wanted(SSM, DIRECT))
    goes_on(site)
    monkeypatch.setenv("DSTACK_ADDRESS", "203.0.113.8")
    silenced(site, "direct")
    goes_on(site)
    assert rules(site.account, GROUP) == [US, (22, "203.0.113.8/32")]


def test_no_door_is_opened_to_machines_that_are_silent_over_a_tunnel(
    site: AwsSite, monkeypatch: pytest.MonkeyPatch
) -> None:
    apply(site, wanted(SSM, None))
    goes_on(site)
    monkeypatch.setenv("DSTACK_ADDRESS", "203.0.113.8")
    silenced(site, "ssm")
    before = site.account.calls()
    goes_on(site, 3)
    assert {action for _, action in site.account.calls() - before} == {
        "DescribeInstances", "DescribeInstanceStatus",
    }  # fmt: skip
    assert rules(site.account, GROUP) == [US]


def test_a_changed_way_leads_to_machines_that_live_already(site: AwsSite) -> None:
    apply(site, wanted(SSM))
    goes_on(site)
    assert rules(site.account, GROUP) == []
    apply(site, wanted(DIRECT))
    silenced(site, "direct")
    goes_on(site, 2)
    assert modes(site) == ["direct"]
    assert rules(site.account, GROUP) == [US]


def test_an_expired_rule_goes_with_the_next_launch_whatever_its_way(site: AwsSite) -> None:
    apply(site, wanted(DIRECT))
    goes_on(site)
    site.clock.at += 25 * 3600
    apply(site, wanted(SSM, SSM))
    assert rules(site.account, GROUP) == []


def test_a_pool_that_left_keeps_the_way_of_what_still_lives_there(site: AwsSite) -> None:
    """Busy or kept, it must be reached until its end."""
    apply(site, wanted(DIRECT, SSM))
    goes_on(site)
    apply(site, replace(wanted(DIRECT), pools=wanted(DIRECT).pools), permissions=Permissions(may_end=False))
    goes_on(site, 2)
    assert modes(site) == ["direct", "ssm"]


def test_a_launch_that_is_sent_again_is_what_it_was(site: AwsSite) -> None:
    """Written, then killed, then the documents say otherwise: the same parameters, and the door of before."""
    killer = Killer(4)  # prepare, write, record, launch
    with contextlib.suppress(Killed):
        tick(killer.wrap(site.ports()), apply_ask(wanted(DIRECT, backend="ssm")))
    assert killer.told[-1] == "launch"
    (intent,) = site.state.intents
    assert intent.request.way == DIRECT
    site.account.fault("RunInstances", after=True, cut=True)
    site.clock.at += 20
    apply(site, wanted(SSM, backend="ssm"))
    goes_on(site, 2)
    assert len(site.account.living()) == len(site.account.requests()) == 1
    assert modes(site) == ["ssm"]
