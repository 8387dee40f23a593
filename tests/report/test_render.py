"""What people read: plans, tables and single values, at 80 and 160 columns."""

from __future__ import annotations

import io
import json
from decimal import Decimal
from zoneinfo import ZoneInfo

import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace
from rich.console import Console, RenderableType
from syrupy.assertion import SnapshotAssertion

from reconciler.report.in_progress import under_way
from reconciler.report.instance_rows import explain_instances, explain_pools
from reconciler.report.json import dump, instances_json, plan_json, runs_json
from reconciler.report.offers import OfferRow, offer_text, shown
from reconciler.report.plan import Page, render_plan
from reconciler.report.plan_rows import explain
from reconciler.report.run_rows import explain_runs
from reconciler.report.tables import instance_table, pool_table, run_table
from reconciler.state.observe.merge import absorb
from reconciler.text.colour import ansi
from reconciler.text.format import ago, clean, hourly, resources, rough, size, span, stamp
from schemas.base import Price
from schemas.desired import BackendConfig, Desired
from schemas.documents.generate import schema
from schemas.instance import Instance, Listing, Seen
from schemas.launch import Intent, Request
from schemas.offer import Offer
from schemas.plan import Assign, IdleNote, Launch, Plan, Resume, Stop, Terminate, Unmet, Update
from schemas.pool import Pool
from schemas.resources import Gpu, Resources
from schemas.run import Attempt, Job, Run, RunSpec
from schemas.state import VERSION, Applied, Place, Revision, State

NOW = 1_764_000_000
A100 = Resources(cpus=10, memory=80 * 1024, disk=200 * 1024, gpu=Gpu(name="a100", memory=80 * 1024))
SMALL = Resources(cpus=2, memory=1536)


def instance(name: str, **values: object) -> Instance:
    known: dict[str, object] = {
        "id": f"i-{name}", "name": name, "pool": name.rpartition("-")[0], "backend": "aws", "place": "aws/us-east-1",
        "region": "us-east-1", "instance_type": "p4d.24xlarge", "resources": A100, "price": Price("1.2"),
        "phase": "ready", "created_at": NOW - 4000, "ready_at": NOW - 3900, "idle_source": "pool gpu",
    }  # fmt: skip
    return Instance(**{**known, **values})  # type: ignore[arg-type]


def a_state() -> State:
    running = Attempt(id="r1-0-1", run="r1", number=1, jobs=(Job(id="r1-0-1-0", instance="i-gpu-1", status="running"),))
    starting = Attempt(
        id="r2-0-2",
        run="r2",
        number=2,
        jobs=(Job(id="r2-0-2-0", instance="i-gpu-2"), Job(id="r2-0-2-1", instance="i-gpu-3", rank=1)),
    )
    failed = Attempt(
        id="r3-0-1",
        run="r3",
        number=1,
        jobs=(Job(id="r3-0-1-0", instance="i-gpu-9", status="failed", exit_code=3, reason="exit 3"),),
    )
    return State(
        version=VERSION,
        project="helloexample",
        lineage="l" * 16,
        generation=7,
        applied=Applied(
            revision=Revision(digest="d" * 64),
            by="ann@lab",
            at=NOW - 600,
            desired=Desired(pools=(Pool(name="gpu", default=True, nodes_min=0), Pool(name="cpu"))),
        ),
        places=(
            Place(
                name="aws/us-east-1",
                config=BackendConfig(name="aws", type="aws"),
                region="us-east-1",
                observed_at=NOW - 200,
            ),
        ),
        instances=(
            instance("gpu-0", last_job_end=NOW - 100),
            instance("gpu-1", self_destruct_at=NOW + 9000),
            instance("gpu-2"),
            instance("gpu-3"),
            instance("gpu-4", unreachable_since=NOW - 90, unreachable_why="timed out after 10 s", failed_looks=2),
            instance("gpu-10", phase="pending", launch="l1", ready_at=None, created_at=NOW),
            instance("gpu-5", phase="terminating", reason="idle for 5m (pool gpu)", self_destruct_at=NOW + 900),
            instance("gpu-9", phase="terminated"),
        ),
        runs=(
            Run(
                id="r1",
                spec=RunSpec(name="train", pool="gpu"),
                status="running",
                user="ann@lab",
                submitted_at=NOW - 500,
                started_at=NOW - 300,
            ),
            Run(
                id="r2", spec=RunSpec(name="sweep", pool="gpu", nodes=2), status="provisioning", submitted_at=NOW - 400
            ),
            Run(
                id="r3",
                spec=RunSpec(name="eval", pool="gpu"),
                status="failed",
                exit_code=3,
                reason="exit 3",
                submitted_at=NOW - 4000,
                started_at=NOW - 3900,
                finished_at=NOW - 3000,
            ),
            Run(
                id="r4",
                spec=RunSpec(name="big", pool="gpu"),
                submitted_at=NOW - 10,
                reason="no instance fits: gpu 8xH100 asked, gpu-0 has 1xA100",
            ),
        ),
        attempts=(running, starting, failed),
        intents=(
            Intent(
                id="l1",
                opened_at=NOW,
                request=Request(
                    place="aws/us-east-1",
                    launch="l1",
                    token="t",
                    ids=("i-gpu-10",),
                    names=("gpu-10",),
                    pool="gpu",
                    instance_type="p4d.24xlarge",
                ),
            ),
        ),
    )


def a_plan() -> Plan:
    offer = Offer(backend="aws", region="us-east-1", instance_type="p4d.24xlarge", resources=A100, price=Price("1.2"))
    run = Run(id="r5", spec=RunSpec(name="new", pool="cpu"))
    return Plan(
        version=1,
        project="helloexample",
        generation=7,
        made_at=NOW,
        observed=(("aws/us-east-1", NOW - 200, ""), ("gcp/eu", NOW - 90000, "timed out\nafter 60 s \x1b[31m")),
        actions=(
            Update(subject="run r5", name="new", pool="cpu", enrol=run, why="new"),
            Update(subject="instance i-gpu-1", name="gpu-1", pool="gpu", why="bookkeeping", quiet=True),
            Launch(
                launch="l2",
                pool="gpu",
                ids=("a", "b"),
                names=("gpu-11", "gpu-12"),
                offer=offer,
                why="for run big: 2 nodes, cheapest of 82 offers that fit",
                reserved_for="r4",
            ),
            Resume(
                launch="l1",
                why="the launch of 2m ago was not seen yet",
                request=Request(
                    place="aws/us-east-1",
                    launch="l1",
                    token="t",
                    ids=("i-gpu-10",),
                    names=("gpu-10",),
                    pool="gpu",
                    instance_type="p4d.24xlarge",
                ),
            ),
            Assign(
                run="r4",
                name="big",
                attempt="r4-0-1",
                number=1,
                replica=0,
                pool="gpu",
                instances=("i-gpu-0", "a"),
                why="idle, the cheapest that fits",
            ),
            Stop(run="r1", name="train", attempt="r1-0-1", pool="gpu", why="stopped by ann@lab"),
            Terminate(instance="i-gpu-4", name="gpu-4", pool="gpu", why="unreachable for 21m", inferred=True),
        ),
        unmet=(Unmet(subject="run huge", why="gpu 8xH100 asked; 82 offers have fewer, the nearest is 4xH100"),),
        warnings=("budget: the minimum of pool gpu alone costs $2.40/h, above max_hourly $2.00/h",),
        notes=("gpu: paused by ann@lab, until 05:58Z (maintenance)",),
        idle=(
            IdleNote(instance="i-gpu-0", name="gpu-0", pool="gpu", at=NOW + 200, duration=300, source="pool gpu"),
            IdleNote(instance="i-gpu-6", name="gpu-6", pool="gpu", at=None, duration=None, source="flag"),
        ),
        next_actor="No apply is scheduled (last: 6d ago, by cron@lab): run `dstack apply` again.",
        hourly_before=Price("6.00"),
        hourly_after=Price("8.4"),
    )


def shown_at(table: RenderableType, columns: int) -> str:
    sink = io.StringIO()
    Console(file=sink, width=columns, highlight=False, markup=False, emoji=False).print(table)
    return "\n".join(line.rstrip() for line in sink.getvalue().splitlines())


@pytest.mark.parametrize("columns", [80, 160, 0])
def test_a_plan(columns: int, snapshot: SnapshotAssertion) -> None:
    text = render_plan(a_plan(), a_state(), now=NOW, page=Page(width=columns))
    assert text == snapshot
    assert all(len(line) <= columns for line in text.splitlines()[:-1] if columns)


def test_the_summary_is_the_last_line() -> None:
    last = render_plan(a_plan(), a_state(), now=NOW, page=Page()).splitlines()[-1]
    assert last.startswith(
        "Plan: 3 instances to create, 1 to terminate, 1 run to start, 1 run to stop, 1 run added, 1 pending"
    )
    assert last.endswith("$6.00/h now → $8.40/h after.")


def test_a_plan_without_anything() -> None:
    empty = Plan(version=1, project="p", generation=0)
    text = render_plan(empty, None, now=NOW, page=Page())
    assert text == "dstack plan · project p · state 0\n\nNo changes. $0.00/h now.\n"


def test_colour_changes_no_word() -> None:
    def bare(text: str) -> str:
        import re

        return re.sub(r"\x1b\[\d+m", "", text)

    plain = render_plan(a_plan(), a_state(), now=NOW, page=Page(width=120))
    painted = render_plan(a_plan(), a_state(), now=NOW, page=Page(width=120, paint=ansi))
    assert painted != plain
    assert bare(painted) == plain


def test_vendor_words_cannot_drive_the_terminal() -> None:
    plan = replace(a_plan(), next_actor="last tick 6d ago by \x1b]0;t\x07")
    text = render_plan(plan, a_state(), now=NOW, page=Page())
    assert not {"\x1b", "\x07"} & set(text)
    assert r"\x1b[31m" in text
    assert r"\x1b]0;t\x07" in text


@pytest.mark.parametrize("columns", [80, 160])
def test_the_tables(columns: int, snapshot: SnapshotAssertion) -> None:
    state = a_state()
    offers = [
        OfferRow(backend="local", region="", instance="local (gpu-0)", resources=SMALL, spot=False, price=Price(0),
                 availability="idle"),
        OfferRow(backend="aws", region="us-east-1", instance="p4d.24xlarge", resources=A100, spot=True,
                 price=Price("40.94")),
        OfferRow(backend="aws", region="us-west-2", instance="p4d.24xlarge", resources=A100, spot=True, price=None,
                 availability="no quota"),
    ]  # fmt: skip
    pools = explain_pools(state, pools=(Pool(name="gpu", default=True),), now=NOW)
    tables = {
        "dstack ps": run_table(explain_runs(state, everything=False), now=NOW, width=columns),
        "dstack ps -av": run_table(explain_runs(state, everything=True), now=NOW, width=columns, verbose=True),
        "dstack pool ps": instance_table(explain_instances(state, now=NOW), now=NOW, width=columns),
        "dstack pool list -v": pool_table(pools, now=NOW, verbose=True),
        "offers": offer_text(offers, total=82, now=NOW)[0],
    }  # fmt: skip
    text = "\n\n".join(f"$ {name}\n{shown_at(table, columns)}" for name, table in tables.items())
    assert f"{text}\n{shown(offers, total=82)}\n" == snapshot
    assert all(len(line) <= columns for line in text.splitlines())


def test_a_price_that_is_a_bound_is_shown_as_one_until_its_place_says_another() -> None:
    """As the plan showed it that bought the machine."""
    one = instance("gpu-9", at_most=True, external_id="i-9", seen_at=NOW - 60)
    place = Place(name=one.place, config=BackendConfig(name="aws", type="aws"), region="us-east-1", identity="aws:1")
    state = replace(a_state(), lineage="l", instances=(one,), attempts=(), runs=(), intents=(), places=(place,))
    for price, told in ((Price("1.2"), "≤ $1.20"), (Price("0.4"), "$0.40")):
        seen = Seen(external_id="i-9", id=one.id, lineage="l", price=price)
        listing = Listing(place=one.place, at=NOW, identity="aws:1", instances=(seen,))
        rows = explain_instances(absorb(state, listings=[listing], reports=(), now=NOW), now=NOW)
        table = shown_at(instance_table(rows, now=NOW), 200)
        assert told in table
        assert ("≤" in table, instances_json(rows)[0]["at_most"]) == ("≤" in told, "≤" in told)


def test_a_narrow_terminal_cuts_neither_names_nor_states_off() -> None:
    state = a_state()
    runs = shown_at(run_table(explain_runs(state, everything=True), now=NOW, width=44), 44)
    assert all(run.spec.name in runs and run.status in runs for run in state.runs)
    rows = explain_instances(state, now=NOW)
    instances = shown_at(instance_table(rows, now=NOW, width=50), 50)
    assert "STATUS" in instances
    assert all(row.instance.name in instances and row.status in instances for row in rows)


def test_json_is_as_its_schemas_say(snapshot: SnapshotAssertion) -> None:
    state = a_state()
    made = {
        "plan-json": plan_json(a_plan(), state),
        "ps-json": runs_json(explain_runs(state, everything=True)),
        "pool-ps-json": instances_json(explain_instances(state, now=NOW)),
    }
    for name, value in made.items():
        jsonschema.validate(json.loads(dump(value)), schema(name))
    assert dump(made) == snapshot


def test_json_and_text_have_the_same_actions() -> None:
    rows = explain(a_plan(), a_state())
    assert len(rows) == len(plan_json(a_plan(), a_state())["actions"])
    assert [row.kind for row in rows].count("launch") == 3


def test_ps_shows_the_last_run_when_none_is_active() -> None:
    ended = replace(a_state(), runs=a_state().runs[2:3])
    assert [row.run.spec.name for row in explain_runs(ended, everything=False)] == ["eval"]
    assert [row.run.spec.name for row in explain_runs(a_state(), everything=False)] == ["big", "sweep", "train"]


def test_the_floor_keeps_an_idle_instance() -> None:
    state = a_state()
    assert state.applied is not None
    held = replace(state.applied, desired=Desired(pools=(Pool(name="gpu", nodes_min=6),)))
    rows = {row.instance.name: row for row in explain_instances(replace(state, applied=held), now=NOW)}
    assert rows["gpu-0"].reap_at is None
    assert rows["gpu-0"].reason == "kept: the pool's minimum"


def test_what_is_under_way() -> None:
    assert under_way(a_state()) == {
        "gpu-10": "launching",
        "gpu-5": "terminating (idle for 5m (pool gpu))",
        "sweep": "starting on gpu-2, gpu-3",
    }


def test_a_place_that_keeps_everybody_waiting_says_why() -> None:
    state = a_state()
    places = tuple(replace(place, error="no answer within 20 s") for place in state.places)
    told = under_way(replace(state, places=places))
    assert [what for subject, what in told.items() if subject.startswith("place ")] == [
        "unknown (no answer within 20 s): 7 instances there left alone"
    ]


def test_times_in_a_plan_are_local_where_a_person_reads_them() -> None:
    made = replace(a_plan(), notes=("gpu: drained by ann, until 2026-11-03 21:00Z",))
    berlin = Page(here=lambda moment: moment.astimezone(ZoneInfo("Europe/Berlin")))
    assert "until 2026-11-03 22:00 CET" in render_plan(made, None, now=NOW, page=berlin)
    assert "until 2026-11-03 21:00Z" in render_plan(made, None, now=NOW, page=Page())


@pytest.mark.parametrize(
    ("seconds", "exact", "glance"),
    [
        (0, "0s", "0s"),
        (59, "59s", "59s"),
        (90, "1m30s", "1m30s"),
        (5400, "1h30m", "1h30m"),
        (72 * 3600, "72h", "3d"),
        (8 * 86400, "1w1d", "1w1d"),
        (13 * 60 + 5, "13m5s", "13m"),
    ],
)
def test_durations(seconds: int, exact: str, glance: str) -> None:
    assert span(seconds) == exact
    assert rough(seconds) == glance


def test_single_words() -> None:
    assert span(None) == "off"
    assert hourly(None) == "$?/h"
    assert hourly(Decimal("0.0043")) == "$0.0043/h"
    assert hourly(Decimal(0)) == "$0.00/h"
    assert resources(A100) == "10xCPU, 80GB, 1xA100 (80GB)"
    assert resources(SMALL) == "2xCPU, 1.5GB"
    assert size(100) == "100MB"
    assert ago(NOW - 61, now=NOW) == "1m1s ago"
    assert ago(None, now=NOW) == ""
    assert stamp(NOW) == "2025-11-24T16:00:00Z"


@given(st.text())
def test_clean_text_is_one_harmless_line(text: str) -> None:
    cleaned = clean(text)
    assert all(char.isprintable() or ord(char) > 0x9F for char in cleaned)
    assert len(cleaned.splitlines()) <= 1
