"""The one matcher: every rule of it, with the words of its refusal."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reconciler.planner.placement.fit import fits, misfit
from reconciler.planner.placement.machine_image import image_for
from schemas.backend_types import type_of
from schemas.instance import Instance
from schemas.offer import Offer
from schemas.pool import Pool
from schemas.resources import GpuNeed, Need, Resources, Span, Where
from tests.worlds.planning import MACHINES
from tests.worlds.worlds import KINDS, NEEDS, PRICES, WHERES

MACHINE: dict[str, Any] = {
    "resources": MACHINES["a100x8"], "backend": "aws", "region": "us", "zone": "us-1a", "instance_type": "p4d",
    "spot": False, "price": Decimal("9.80"),
}  # fmt: skip
GB = 1024


def refusal(need: Need | None = None, where: Where | None = None, *, cloud: bool = False, **machine: Any) -> str:
    offer = Offer(**{**MACHINE, **machine})
    why = misfit(need or Need(), where or Where(), offer, cloud=cloud)
    assert fits(need or Need(), where or Where(), offer, cloud=cloud) is not bool(why)
    return why


@pytest.mark.parametrize(
    "need",
    [
        Need(),
        Need(cpu=Span(min=96, max=96)),
        Need(memory=Span(min=8 * GB), disk=Span(max=1000 * GB), cpu_arch="x86"),
        Need(gpu=GpuNeed(names=("h100", "a100"), count=Span(min=8, max=8), memory=Span(min=80 * GB))),
        Need(gpu=GpuNeed(vendor="NVIDIA", total_memory=Span(min=640 * GB))),
    ],
)
def test_what_suffices_fits(need: Need) -> None:
    assert refusal(need) == ""


@pytest.mark.parametrize(
    ("need", "why"),
    [
        (Need(cpu=Span(min=97)), "cpu 97.. asked, it has 96"),
        (Need(cpu=Span(max=8)), "cpu ..8 asked, it has 96"),
        (Need(cpu_arch="arm"), "cpu arm asked, it has x86"),
        (Need(memory=Span(min=2000 * GB)), "memory 2000GB.. asked, it has 1100GB"),
        (Need(disk=Span(min=1001 * GB)), "disk 1001GB.. asked, it has 1000GB"),
        (Need(gpu=GpuNeed(names=("h100",))), "gpu 1xH100 asked, it has 8xA100 (80GB)"),
        (Need(gpu=GpuNeed(count=Span(min=1, max=4))), "gpu 1..4 asked, it has 8xA100 (80GB)"),
        (Need(gpu=GpuNeed(vendor="amd")), "gpu 1xamd asked, it has 8xA100 (80GB)"),
        (Need(gpu=GpuNeed(memory=Span(min=141 * GB))), "gpu 1 (141GB..) asked, it has 8xA100 (80GB)"),
        (
            Need(gpu=GpuNeed(compute_capability=Span(min=90))),
            "gpu 1 (compute capability 9..) asked, it has 8xA100 (80GB)",
        ),
    ],
)
def test_what_is_short_is_named_with_both_numbers(need: Need, why: str) -> None:
    assert refusal(need) == why


def test_no_gpu() -> None:
    assert refusal(Need(gpu=GpuNeed()), resources=MACHINES["small"]) == "gpu 1 asked, it has none"
    assert refusal(Need(gpu=GpuNeed(count=Span(min=0))), resources=MACHINES["small"]) == ""


@pytest.mark.parametrize(
    ("where", "why"),
    [
        (Where(backends=("gcp",)), "backend gcp accepted, it is aws"),
        (Where(regions=("eu", "ap")), "regions eu, ap accepted, it is us"),
        (Where(zones=("us-1b",)), "zone us-1b accepted, it is us-1a"),
        (Where(instance_types=("g5",)), "instance type g5 accepted, it is p4d"),
        (Where(spot="spot"), "spot accepted, it is on-demand"),
        (Where(max_price=Decimal("9.79")), "max_price ≤ $9.79 accepted, it is $9.80"),
    ],
)
def test_what_is_not_accepted_is_named(where: Where, why: str) -> None:
    assert refusal(where=where) == why


def test_a_place_without_regions_is_said_to_have_none() -> None:
    assert refusal(where=Where(regions=("eu",)), region="") == "region eu accepted, it is no region"


def test_a_price_that_is_not_known_fails_max_price() -> None:
    where = Where(max_price=Decimal("99"))
    assert refusal(where=where, price=None) == "max_price ≤ $99.00 accepted, it is no known price"
    assert refusal(price=None) == ""


def test_spot_policies() -> None:
    assert refusal(where=Where(spot="auto"), spot=True) == ""
    assert refusal(where=Where(spot="on-demand"), spot=True) == "on-demand accepted, it is spot"


def test_what_is_not_asked_is_required_of_new_cloud_machines_only() -> None:
    tiny = Resources(cpus=1, memory=512, disk=GB)
    assert refusal(resources=tiny) == ""
    assert refusal(resources=tiny, cloud=True) == "cpu 2.. asked, it has 1"
    assert refusal(Need(cpu=Span(min=1)), resources=tiny, cloud=True) == "memory 8GB.. asked, it has 0.5GB"
    asked = Need(cpu=Span(min=1), memory=Span(min=100), disk=Span(min=1))
    assert refusal(asked, resources=tiny, cloud=True) == ""


@given(NEEDS, WHERES, st.sampled_from(KINDS), PRICES, st.booleans(), st.booleans())
def test_fits_and_misfit_never_disagree(
    need: Need, where: Where, kind: str, price: Decimal | None, spot: bool, cloud: bool
) -> None:
    refusal(need, where, resources=MACHINES[kind], price=price, spot=spot, cloud=cloud)


@pytest.mark.parametrize(
    ("need", "runtime", "image", "why"),
    [
        (Need(), "image", "a:1", ""),
        (Need(container=True, image="a:1"), "image", "a:1", ""),
        (Need(container=True, image="a:1"), "image", "", "image a:1 asked, it is a container of an unknown image"),
        (Need(container=True, image="a:1"), "image", "b:1", "image a:1 asked, it is a container of b:1"),
        (
            Need(container=True, image="a:1", engine=True),
            "image",
            "a:1",
            "docker or podman asked (entrypoint, user, volumes …), it is itself a container",
        ),
        (Need(), "process", "", ""),
        (
            Need(container=True, image="a:1"),
            "process",
            "",
            "a container runtime asked, it has none: its backend runs processes only",
        ),
        (Need(container=True, image="a:1", engine=True), "docker", "", ""),
    ],
)
def test_an_image_asks_for_an_engine_or_an_equal_machine(need: Need, runtime: str, image: str, why: str) -> None:
    small = Resources(cpus=4, memory=16 * GB, disk=200 * GB, runtime=runtime)
    one = Instance(id="i", name="i", pool="p", backend="b", place="b/r", resources=small, image=image)
    assert misfit(need, Where(), one, cloud=False) == why
    assert fits(need, Where(), one, cloud=False) is not bool(why)


@pytest.mark.parametrize(
    ("kind", "need", "default", "image"),
    [
        ("fake", Need(image="run:1", container=True), "pool:1", ""),
        ("fake-processes", Need(), "pool:1", ""),
        ("fake-container", Need(image="run:1", container=True), "pool:1", "run:1"),
        ("fake-container", Need(), "pool:1", "pool:1"),
        ("fake-container", Need(), "${{ env.IMAGE }}", "ubuntu:24.04"),
        ("fake-container", Need(), "", "ubuntu:24.04"),
    ],
)
def test_what_a_machine_is_made_of(kind: str, need: Need, default: str, image: str) -> None:
    assert image_for(type_of(kind), need, Pool(name="p", default_image=default)) == image
