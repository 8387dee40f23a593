"""What ends a machine when no apply comes: what a pool requires of offers, and what the plan says of the others."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from reconciler.planner.draft import draft_of
from reconciler.planner.self_termination import NOTHING_ENDS_IT, ends_by_itself, unended
from reconciler.planner.world import World
from schemas.desired import BackendConfig, Desired
from schemas.endpoint import leads_here
from schemas.offer import Offer
from schemas.pool import Pool
from schemas.resources import Resources
from schemas.state import VERSION, State

POOL = Pool(name="gpu", self_termination="required")
CAPPED = replace(POOL, max_lifetime=3600)
DRAFT = draft_of(
    World(
        desired=Desired(backends=(BackendConfig(name="mine", type="aws"), BackendConfig(name="here", type="local"))),
        state=State(version=VERSION, project="p", lineage="l"),
        now=0,
        nonce="aaaaaaaa",
    )
)


def offer(backend: str, says: str = "") -> Offer:
    return Offer(
        backend=backend,
        region="r",
        instance_type="t",
        resources=Resources(cpus=1, memory=1),
        price=None,
        self_termination=says,  # type: ignore[arg-type]
    )


@pytest.mark.parametrize(
    ("one", "pool", "enough"),
    [
        (offer("mine"), POOL, True),
        (offer("mine", "none"), POOL, False),
        (offer("mine", "none"), CAPPED, False),
        (offer("mine", "cap"), POOL, False),
        (offer("mine", "cap"), CAPPED, True),
        (offer("here"), POOL, True),
    ],
)
def test_what_ends_a_machine(one: Offer, pool: Pool, enough: bool) -> None:
    assert ends_by_itself(DRAFT, pool, one) is enough
    assert unended(DRAFT, pool, one) == ("" if enough else NOTHING_ENDS_IT)


@pytest.mark.parametrize("said", ["http://127.0.0.1:4566", "https://localhost", "http://[::1]:80"])
def test_an_endpoint_of_this_machine(said: str) -> None:
    assert leads_here(said)


@pytest.mark.parametrize(
    "said",
    ["https://ec2.example.com", "http://127.0.0.1.example.com", "http://127.0.0.1@example.com", "http://localhost/x"],
)
def test_an_endpoint_elsewhere(said: str) -> None:
    assert not leads_here(said)
