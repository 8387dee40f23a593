"""Offers as people see them: the table, the groups, the JSON, the funnel, whose price it is; and `dstack offers`.

Moto's own server stands for AWS where regions are asked for their prices.
"""

from __future__ import annotations

import io
import json
import os
import re
from collections.abc import Callable, Sequence
from decimal import Decimal
from pathlib import Path

import pytest
from jsonschema import Draft7Validator
from msgspec.structs import replace
from rich.console import Console
from syrupy.assertion import SnapshotAssertion

from backends.catalog.offers import Layers, offers
from reconciler.app.site import Site
from reconciler.cli.commands.offers.rows import OfferQuery, browsed, offer_rows, row_of
from reconciler.cli.commands.plan.approval import above_limit
from reconciler.cli.commands.run.confirm import RunConfirm
from reconciler.cli.exits import Fail
from reconciler.engine.catalog import Later
from reconciler.engine.refresh_catalog import refresh
from reconciler.planner.confirmed_price import confirmed, unpriced
from reconciler.planner.placement.browse import browse
from reconciler.planner.plan import plan
from reconciler.planner.world import World
from reconciler.report.offers import OfferRow, group_table, grouped, groups_json, offer_text, offers_json
from reconciler.report.plan import Page, render_plan
from reconciler.system.process import OwnThreads
from schemas.catalog import CATALOG_VERSION, Catalog, CatalogRegion, CatalogType, LiveRegion
from schemas.desired import BackendConfig, Cap, Desired
from schemas.documents.generate import schema
from schemas.instance import Instance
from schemas.offer import Offer
from schemas.plan import Plan
from schemas.pool import Pool
from schemas.resources import Gpu, GpuNeed, Need, Resources, Span, Where
from schemas.run import Attempt, Job, Run, RunSpec
from schemas.state import VERSION, Capacity, State
from tests.doubles.buckets.buckets import Server
from tests.doubles.commands.command import Folder, folder_at

GB = 1024
NOW = 1_800_000_000
AWS = BackendConfig(name="aws", type="aws")
STATE = State(version=VERSION, project="demo", lineage="l")
TYPES = (
    CatalogType(name="g5.xlarge", cpus=4, memory=16 * GB, gpu="A10G", gpu_count=1, gpu_memory=24 * GB, vendor="nvidia"),
    CatalogType(name="m5.large", cpus=2, memory=8 * GB),
    CatalogType(
        name="p4d.24xlarge", cpus=96, memory=1152 * GB, gpu="A100", gpu_count=8, gpu_memory=40 * GB, vendor="nvidia"
    ),
    CatalogType(name="t4g.large", cpus=2, memory=8 * GB, arch="arm"),
)
SHIPPED = Catalog(
    version=CATALOG_VERSION,
    name="snapshot",
    provider="aws",
    priced_at=1_740_936_978,
    types=TYPES,
    regions={
        "eu-west-1": CatalogRegion(types=(0, 1, 2), on_demand=(1_123_000, 107_000, 0), derived=(0,)),
        "us-east-1": CatalogRegion(types=(0, 1, 2, 3), on_demand=(1_006_000, 96_000, 32_772_600, 67_200)),
    },
)
LIVE = LiveRegion(at=NOW - 240, zones={"g5.xlarge": ("us-east-1a", "us-east-1b")},
                  spot={"g5.xlarge": {"us-east-1a": 410_000, "us-east-1b": 390_000}})  # fmt: skip
A10G = Need(gpu=GpuNeed(names=("a10g",), count=Span(min=1, max=1)))


def all_of(layers: Layers) -> tuple[Offer, ...]:
    return tuple(offers(AWS, layers, Need(), Where(spot="auto")))


ALL = all_of(Layers(shipped=SHIPPED))
LIVING = all_of(Layers(shipped=SHIPPED, live={"us-east-1": LIVE}))


def rows_of(need: Need, where: Where, *, pool: Pool | None = None, of: Sequence[Offer] = ALL) -> list[OfferRow]:
    world = World(desired=Desired(), state=STATE, offers=of, now=NOW, nonce="n")
    return [row_of(one) for one in browse(world, pool or Pool(name="p"), need=need, where=where).found]


def text_of(table: object, columns: int) -> str:
    console = Console(width=columns, color_system=None)
    with console.capture() as captured:
        console.print(table)
    return "\n".join(line.rstrip() for line in captured.get().splitlines())


@pytest.mark.parametrize("columns", [80, 120])
def test_what_people_see(columns: int, snapshot: SnapshotAssertion) -> None:
    everything = Where(spot="auto")
    gpus = Need(gpu=GpuNeed(count=Span(min=1)))
    tables = {
        "one source": rows_of(A10G, everything),
        "several": rows_of(A10G, everything, of=LIVING),
        "an eighth": rows_of(
            Need(gpu=GpuNeed(names=("a100",))), everything, pool=Pool(name="p", blocks=8), of=ALL,
        ),
    }  # fmt: skip
    parts = []
    for name, rows in tables.items():
        table, below = offer_text(rows, total=len(rows), now=NOW, width=columns)
        parts.append(f"{name}\n{text_of(table, columns)}\n{below}")
    for by in ("gpu", "region"):
        parts.append(f"by {by}\n{text_of(group_table(grouped(rows_of(gpus, everything), by=by), by=by), columns)}")
    assert "\n\n".join(parts) == snapshot


def test_the_json_is_as_its_schema_says(snapshot: SnapshotAssertion) -> None:
    rows = rows_of(A10G, Where(spot="auto"), of=LIVING)
    groups = groups_json(grouped(rows, by="gpu"), by="gpu")
    value = json.loads(json.dumps(offers_json(rows, total=9, funnel="f", warnings=["w"], groups=groups)))
    Draft7Validator(schema("offers-json")).validate(value)
    assert value["offers"][0] == snapshot


# ---------------------------------------------------------------- the funnel


@pytest.mark.parametrize(
    ("need", "where", "said"),
    [
        (
            Need(gpu=GpuNeed(memory=Span(min=80 * GB))),
            Where(spot="auto"),
            "14 offers → 0 with gpu 1 (80GB..), the cheapest left out: g5.xlarge ≤ $1.01",
        ),
        (
            A10G,
            Where(spot="spot", max_price=Decimal("0.50")),
            "14 offers → 4 with gpu 1xA10G → 2 with spot → 0 with max_price ≤ $0.50, the cheapest left out: "
            "g5.xlarge ≤ $1.01",
        ),
        (
            A10G,
            Where(spot="on-demand", regions=("eu-north-1",)),
            "14 offers → 4 with gpu 1xA10G → 0 with region eu-north-1, the cheapest left out: g5.xlarge ≤ $1.01",
        ),
        (
            A10G,
            Where(spot="on-demand", regions=("us-east-1",)),
            "14 offers → 4 with gpu 1xA10G → 2 with region us-east-1 → 1 with on-demand",
        ),
        (Need(), Where(spot="auto", regions=("us-east-1",)), "14 offers → 12 with cpu x86 → 6 with region us-east-1"),
        (Need(cpu_arch="arm"), Where(), "14 offers → 2 with cpu arm → 1 with on-demand"),
    ],
)
def test_no_offers_is_never_just_that(need: Need, where: Where, said: str) -> None:
    found = browsed(OfferQuery(need=need, where=where, pool=Pool(name="p")), state=STATE, offers=ALL)
    assert found.funnel == said


def test_an_unpriced_offer_is_last_and_fails_a_maximum() -> None:
    p4d = Need(gpu=GpuNeed(names=("a100",), count=Span(min=8)))
    assert [row.price for row in rows_of(p4d, Where())] == [Decimal("32.7726"), None]
    assert [row.price for row in rows_of(p4d, Where(max_price=Decimal(40)))] == [Decimal("32.7726")]


def test_spot_that_may_cost_less_goes_before_on_demand_at_the_same_price() -> None:
    found = [(row.spot, row.at_most) for row in rows_of(A10G, Where(spot="auto", regions=("us-east-1",)))]
    assert found == [(True, True), (False, False)]


def test_what_cannot_be_had_now_comes_last_and_says_why() -> None:
    memory = Capacity(place="aws/us-east-1", instance_type="g5.xlarge", spot=False, until=NOW + 60, why="no capacity")
    state = replace(STATE, capacity=(memory,))
    desired = Desired(caps=(Cap(instance_type="m5.large", max=1),))
    asked = OfferQuery(need=A10G, where=Where(spot="auto"), pool=Pool(name="p"), desired=desired, now=NOW)
    found = [(row.region, row.spot, row.availability) for row in offer_rows(asked, state=state, offers=ALL)]
    assert found == [
        ("eu-west-1", False, ""), ("us-east-1", True, "no autoscale rule left"), ("us-east-1", False, "no capacity"),
        ("eu-west-1", True, "no autoscale rule left"),
    ]  # fmt: skip


# ---------------------------------------------------------------- shares


def test_a_share_has_a_shares_price_wherever_it_is() -> None:
    card = Gpu(name="A100", memory=40 * GB, count=2, uuids=("u0", "u1"))
    box = Instance(
        id="i",
        name="box",
        pool="p",
        backend="aws",
        place="aws/us-east-1",
        region="us-east-1",
        instance_type="two",
        resources=Resources(cpus=8, memory=64 * GB, gpu=card),
        price=Decimal(8),
        phase="ready",
        ready_at=1,
        blocks=2,
    )
    job = Job(id="j", instance="i", status="running", blocks=1, gpus=("u0",))
    state = replace(STATE, instances=(box,), attempts=(Attempt(id="a", run="r", number=1, jobs=(job,)),))
    asked = OfferQuery(need=Need(gpu=GpuNeed(names=("a100",))), where=Where(max_price=Decimal(5)),
                  pool=Pool(name="p", blocks=0), now=NOW)  # fmt: skip
    rows = offer_rows(asked, state=state, offers=ALL)
    assert [(row.instance, row.price, row.blocks, row.of, row.availability) for row in rows] == [
        ("two (box)", Decimal(4), 1, 2, "idle"), ("p4d.24xlarge", Decimal("4.096575"), 1, 8, ""),
    ]  # fmt: skip


# ---------------------------------------------------------------- plans


def test_a_plan_needs_no_place_and_says_whose_prices_these_are() -> None:
    desired = Desired(project="demo", backends=(AWS,), pools=(
        Pool(name="gpu", nodes_min=1, need=A10G, where=Where(spot="auto")),))  # fmt: skip
    world = World(desired=desired, state=STATE, offers=ALL, now=NOW, nonce="n")
    made = plan(world)
    said = render_plan(made, STATE, now=NOW, page=Page())
    assert "+ gpu-0  aws us-east-1 g5.xlarge 1xA10G spot  ≤$1.01/h" in said
    assert "PRICES\n  snapshot of 2025-03-02 (`dstack offers --refresh` asks for younger ones)\n" in said


def test_a_plan_that_launches_nothing_looks_at_no_offer() -> None:
    def never() -> Sequence[Offer]:
        raise AssertionError("the catalog was read")

    desired = Desired(project="demo", pools=(Pool(name="p", nodes_max=3),))
    made = plan(World(desired=desired, state=STATE, offers=Later(never), now=NOW, nonce="n"))
    assert made.actions == ()


# ---------------------------------------------------------------- the command

DOCUMENTS = """\
project: {name: demo, id: demo12345678}
state: local
backends: [{type: aws, regions: [us-east-1, eu-west-1]}]
pools:
  - {name: shared, blocks: 8, spot_policy: on-demand, resources: {gpu: "A100:8"}}
"""


@pytest.fixture
def project(tmp_path: Path) -> Folder:
    return folder_at(tmp_path, documents=DOCUMENTS)


def test_offers_of_a_project_and_of_none(project: Folder, tmp_path: Path) -> None:
    ran = project.dstack("offers", "--gpu", "A10G", "--max-offers", "1", "--spot")
    assert ran.code == 0
    assert "Shown 1 of 10 offers, $1.01 max; prices: snapshot" in ran.out
    assert "`dstack offers --refresh` asks for it" in ran.err
    (tmp_path / "empty").mkdir()
    ran = project.dstack("offers", "--region", "eu-*", "--gpu", "A10G", "--group-by", "region", cwd=tmp_path / "empty")
    assert ran.code == 0
    assert "eu-west-1" in ran.out
    assert "us-east-1" not in ran.out


def test_what_is_on_sale_is_shown_without_leave_to_read_the_state(tmp_path: Path) -> None:
    folder = folder_at(tmp_path, documents=DOCUMENTS.replace("state: local", "state: s3://nobodys/here"))
    nothing = {"AWS_EC2_METADATA_DISABLED": "true"}
    ran = folder.dstack("offers", "--gpu", "A10G", "--max-offers", "1", "--spot", env=nothing)
    assert ran.code == 0
    assert "g5.xlarge" in ran.out
    assert "warning: s3://nobodys/here: no AWS credentials here" in ran.err
    assert "what was lately refused, are not shown" in ran.err


def test_a_spot_price_is_asked_for_only_where_the_price_was_in_the_way(project: Folder) -> None:
    hint = "`dstack offers --refresh` asks"
    assert hint not in project.dstack("offers", "--gpu", "A10G:3", "--spot").err
    assert hint in project.dstack("offers", "--gpu", "A10G", "--spot", "--max-price", "0.1").err


def test_a_project_without_a_cloud_and_one_in_no_known_region_say_so(tmp_path: Path) -> None:
    ran = folder_at(tmp_path).dstack("offers", "--gpu", "24GB")
    assert (
        "→ 0 with gpu 1 (24GB); the documents have no cloud: `--backend aws` or `--backend azure` shows what one has"
        in ran.err
    )
    ran = folder_at(tmp_path).dstack("offers", "--region", "mars-*")
    assert "--region mars-*: no such region is known here; there are none" in ran.err
    folder = folder_at(tmp_path, documents=DOCUMENTS.replace("us-east-1, eu-west-1", "eu-wset-1"))
    ran = folder.dstack("offers", "--gpu", "24GB")
    assert "warning: aws: no offer is known in region eu-wset-1; did you mean eu-west-1?" in ran.err


@pytest.mark.parametrize("columns", [50, 80])
def test_what_is_to_know_of_an_offer_does_not_squeeze_it(columns: int) -> None:
    rows = [
        OfferRow(
            backend="aws", region="eu-west-1a", instance=f"g5.{size}xlarge (default-pool-{size})", spot=True,
            price=Decimal("1.12"), at_most=True, availability="no autoscale rule left" if size else "",
            resources=Resources(cpus=4, memory=16384, gpu=Gpu(name="A10G", count=1, memory=24576)),
        )
        for size in (0, 2, 16)
    ]  # fmt: skip
    table, _ = offer_text(rows, total=3, now=NOW, width=columns)
    said = text_of(table, columns)
    assert "\n2, 3: no autoscale rule left" in said
    assert said.count("≤ $1.12") == 3
    assert "g5.16xlarge (default-pool-16)" in said
    assert len(said.splitlines()) <= 1 + 3 * 4 + 1, said


def test_groups_keep_what_matters_on_a_narrow_terminal() -> None:
    row = OfferRow(
        backend="aws",
        region="ap-southeast-1",
        instance="p4de.24xlarge",
        spot=True,
        price=Decimal("20.4842"),
        resources=Resources(cpus=1, memory=1024),
    )
    console = Console(width=50, record=True, file=io.StringIO())
    console.print(group_table(grouped([row], by="region"), by="region", width=50))
    said = console.export_text()
    assert "p4de.24xlarge" in said
    assert "$20.48" in said
    assert "SPOT" not in said


def test_offers_in_json_under_a_pools_limits(project: Folder) -> None:
    ran = project.dstack("offers", "--pool", "shared", "--gpu", "A100", "--json")
    value = json.loads(ran.out)
    Draft7Validator(schema("offers-json")).validate(value)
    assert {(one["instance_type"], one["blocks"], one["of_blocks"], one["spot"]) for one in value["offers"]} == {
        ("p4d.24xlarge", 1, 8, False), ("p4de.24xlarge", 1, 8, False),
    }  # fmt: skip
    assert value["total"] == len(value["offers"])


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--gpu", "A100:x:y"], "--gpu: "),
        (["--max-price", "cheap"], "--max-price cheap: not a price"),
        (["--instance-type", "p4d.24xlrge"], "no such instance type is known here; did you mean p4d.24xlarge"),
        (["--region", "us-eats-1"], "--region us-eats-1: no such region is known here; did you mean us-east-1"),
        (["--backend", "asw"], "--backend asw: no such backend is known here; did you mean aws?"),
        (["--pool", "nope"], "--pool nope: no such pool"),
        (["--group-by", "colour"], "--group-by colour: must be gpu, region or backend"),
        (["--spot", "--on-demand"], "give one of --spot, --on-demand"),
        (["--gpu", "A10G", "--max-price", "0.1"], "no offer fits: "),
    ],
)
def test_flags_are_checked_and_a_refusal_says_why(flags: list[str], said: str, project: Folder) -> None:
    ran = project.dstack("offers", *flags)
    assert ran.code == 1
    assert said in ran.err
    assert ran.out == ""


def test_a_run_is_refused_with_the_same_funnel(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    desired = Desired(project="demo", backends=(AWS,), pools=(Pool(name="p"),))
    spec = RunSpec(name="train", pool="p", need=A10G, where=Where(spot="spot", max_price=Decimal("0.1")))
    confirm = RunConfirm(
        run=Run(id="r", spec=spec, origin="run"),
        desired=desired,
        site=Site(root=tmp_path, project=""),
        yes=True,
        yes_above="",
        most=3,
    )
    with pytest.raises(Fail) as refused:
        confirm(Plan(version=1, project="demo", generation=0), STATE)
    assert re.match(
        r"no offer fits run train: \d+ offers → \d+ with gpu 1xA10G → \d+ with spot → 0 with max_price ≤ \$0.10, the "
        r"cheapest left out: g5.xlarge ≤ \$1.01 \(snapshot \(derived\) of 2025-03-02: `dstack offers --refresh`\); "
        "ask for less",
        str(refused.value),
    )


@pytest.mark.parametrize(("blocks", "nodes", "price"), [(1, 1, "4"), (1, 3, "4"), (4, 1, "1"), (4, 2, "1")])
def test_what_is_confirmed_is_the_price_of_one_share(blocks: int, nodes: int, price: str) -> None:
    offer = Offer(backend="aws", region="us", instance_type="four", price=Decimal(4),
                  resources=Resources(cpus=8, memory=64 * GB, disk=500 * GB))  # fmt: skip
    spec = RunSpec(name="train", pool="p", need=Need(cpu=Span(min=2)), nodes=nodes)
    desired = Desired(project="demo", pools=(Pool(name="p", blocks=blocks),), runs=(spec,))
    made = plan(World(desired=desired, state=STATE, offers=(offer,), now=NOW, nonce="n0000000"))
    assert confirmed(made, spec.need) == Decimal(price)
    assert confirmed(replace(made, actions=()), spec.need) is None
    assert unpriced(made) == ()


def test_what_is_confirmed_without_a_price_is_named_and_never_below_confirm_above() -> None:
    offer = Offer(backend="aws", region="us", instance_type="p5", price=None,
                  resources=Resources(cpus=8, memory=64 * GB, disk=500 * GB))  # fmt: skip
    desired = Desired(project="demo", pools=(Pool(name="p", nodes_min=1),))
    made = plan(World(desired=desired, state=STATE, offers=(offer,), now=NOW, nonce="n0000000"))
    assert (confirmed(made, Need()), unpriced(made)) == (None, ("aws p5 on-demand",))
    assert above_limit(made, limit=None, yes_above=None) is None
    above = above_limit(made, limit=Decimal(5), yes_above=Decimal(99))
    assert above is not None
    assert above.words == "aws p5 on-demand: no known price, so that it may be above confirm_above: $5.00/h"
    dear = replace(made, actions=(), hourly_after=Decimal(6))
    assert above_limit(dear, limit=Decimal(5), yes_above=None) == (
        "$6.00/h is above confirm_above: $5.00/h",
        "add -y --yes-above 6",
    )
    assert above_limit(dear, limit=Decimal(5), yes_above=Decimal(6)) is None


def test_a_plan_needs_no_credentials_and_no_network(project: Folder) -> None:
    project.write(".dstack/more.yml", "pools: [{name: gpu, nodes: 1, resources: {gpu: A10G}}]")
    nowhere = {"AWS_ENDPOINT_URL": "http://127.0.0.1:9", "DSTACK_CATALOG_URL": "http://127.0.0.1:9"}
    ran = project.dstack("plan", env=nowhere)
    assert ran.code == 0
    assert "+ gpu-0  aws us-east-1 g5.xlarge" in ran.out
    assert "warning" not in ran.said


def test_refresh_asks_the_regions_and_tells_what_it_could_not_have(
    project: Folder, server_of: Callable[[str], Server]
) -> None:
    there = {
        "AWS_ENDPOINT_URL": server_of("moto").url, "AWS_ACCESS_KEY_ID": "k", "AWS_SECRET_ACCESS_KEY": "s",
        "AWS_CONFIG_FILE": "/dev/null", "AWS_SHARED_CREDENTIALS_FILE": "/dev/null", "DSTACK_CATALOG_URL": "http://127.0.0.1:9",
    }  # fmt: skip
    ran = project.dstack("offers", "--refresh", "--gpu", "A10G", "--spot", "--region", "us-east-1", "--json", env=there)
    value = json.loads(ran.out)
    assert [one for one in value["warnings"] if "gpuhunt" in one and "127.0.0.1:9" in one]
    assert {(one["source"], one["at_most"], bool(one["zone"])) for one in value["offers"]} == {("AWS", False, True)}
    [file] = (project.root.parent / "home" / "cache" / "dstack").glob("live-aws-*.json")
    file.write_text("spoiled")
    ran = project.dstack("offers", "--gpu", "A10G", "--spot", "--max-offers", "1")
    assert ran.code == 0
    assert f"{file} is left out: it cannot be read" in ran.err
    assert "prices: snapshot" in ran.out


def test_what_every_region_lacks_is_said_once(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    config = BackendConfig(
        name="cloud", type="aws", regions=("eu-west-1", "us-east-1"), options={"creds": {"profile": "nobody"}}
    )
    environ = {"DSTACK_CATALOG_URL": "off", "XDG_CACHE_HOME": str(tmp_path)}
    said = refresh(Desired(backends=(config,)), environ, threads=OwnThreads(), now=lambda: 1_790_000_000)
    assert said[1:] == ["cloud eu-west-1, us-east-1: The config profile (nobody) could not be found"]
