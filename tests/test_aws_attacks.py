"""What others, accidents and hands in the console do to our things in AWS: nothing is lost, doubled or ended wrongly."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from aws_double import REGION, Account
from aws_world import Around, AwsPlaces, AwsSite, papers
from backend_contract import living
from msgspec.structs import replace
from test_aws import ON_DEMAND, account, launched, request  # noqa: F401 - a fixture
from world import PROJECT, apply, cron, task

from backends.base import BackendError, TryLater
from reconciler.collect_garbage import ask_everywhere
from reconciler.ports import Connections
from reconciler.store import StateRefused
from reconciler.unowned import Found, unowned
from schemas.leftover import Leftover
from schemas.pool import Pool

POOL = Pool(name="default-pool", default=True, nodes_min=1, nodes_max=4, idle_duration=60)
PAGES = {
    "broken": "<html><body><p>Sign in to the hotel</body></html>",
    "whole": "<html><body>Sign in to the hotel</body></html>",
    "empty": "",
    "bomb": '<!DOCTYPE x [<!ENTITY a "' + "a" * 4096 + '">'
    + "".join(f'<!ENTITY {n} "{f"&{chr(ord(n) - 1)};" * 64}">' for n in "bcdefg")
    + "]><x>&g;</x>",
}  # fmt: skip


@pytest.fixture
def places(account: Account) -> AwsPlaces:  # noqa: F811
    return AwsPlaces(account=account)


@pytest.fixture
def site(account: Account, tmp_path: Path) -> AwsSite:  # noqa: F811
    site = AwsSite(scratch=tmp_path, account=account)
    apply(site, papers(pools=[POOL]))
    goes_on(site, 2)
    return site


def goes_on(site: AwsSite, count: int = 1, *, apart: int = 20) -> None:
    for _ in range(count):
        site.clock.at += apart
        assert cron(site).refused == ""


# ---------------------------------------------------------------- who answers is not EC2


@pytest.mark.parametrize("page", [name for name in PAGES if PAGES[name]])
def test_a_page_of_somebody_elses_is_no_answer(places: AwsPlaces, page: str) -> None:
    backend = places.place()
    prepared = backend.prepare(request(), ON_DEMAND)
    backend.launch(prepared)
    for action in ("DescribeInstances", "RunInstances", "TerminateInstances"):
        places.account.fault(action, page=PAGES[page])
    (one,) = places.account.living()
    for call in (backend.instances, lambda: backend.launch(prepared), lambda: backend.terminate([one["id"]])):
        with pytest.raises(TryLater) as caught:
            call()
        assert len(str(caught.value)) <= 600
    assert [seen.external_id for seen in backend.instances()] == [one["id"]]
