"""The page of `dstack report --html`: its figures are those of `dstack cost`, and it asks no network for anything."""

from __future__ import annotations

import json
import re
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from reconciler.report.cost_model import By, cost
from reconciler.report.html.page import render_page
from reconciler.report.html.page_data import KINDS, MOST_EVENTS, Period, page_data
from schemas.instance import Instance
from schemas.ledger import Entry
from schemas.resources import Resources
from schemas.run import Attempt, Job, Run, RunSpec
from schemas.state import VERSION, Capacity, State, Wish
from tests.doubles.commands.command import folder_at

T = 1_793_491_200  # 2026-11-01T00:00:00Z
HOUR, DAY = 3600, 86400
UNTIL = T + 3 * DAY
WIDE = Period(project="demo", since=T, until=UNTIL)
HOSTILE = "</script><script>document.title='taken'</script><img src=x onerror=alert(1)>\x1b[31m"


def billed(id: str, start: int, end: int, *, price: str | None = "2", pool: str = "gpu", boot: int = 0) -> Entry:
    return Entry(
        id=f"billed:{id}:{start}:{end}", at=T + end, kind="billed", subject=f"instance {id}", name=f"{id}-name",
        pool=pool, instance=id, place="aws/us-east-1", instance_type="p4d", boot=boot,
        price=None if price is None else Decimal(price), seconds=end - start,
    )  # fmt: skip


def used(run: str, start: int, end: int, *, on: str, user: str = "ann", blocks: int = 1, number: int = 1) -> Entry:
    return Entry(
        id=f"used:{run}-0-{number}-0", at=T + end, kind="used", subject=f"run {run}", name=f"{run}-name", pool="gpu",
        run=run, user=user, instance=on, seconds=end - start, blocks=blocks, why="done",
    )  # fmt: skip


def of_run(kind: Any, run: str, at: int, *, why: str = "", name: str = "") -> Entry:
    about = {"name": name or f"{run}-name", "pool": "gpu", "user": "ann", "run": run, "why": why}
    return Entry(id=f"{kind}:{run}", at=T + at, kind=kind, subject=f"run {run}", **about)  # type: ignore[arg-type]


LEDGER = [
    billed("a", 0, 50 * HOUR, boot=HOUR),
    billed("b", 20 * HOUR, 30 * HOUR, price="0.3333", pool=""),
    billed("c", HOUR, 2 * HOUR, price=None, pool="cpu"),
    billed("old", -DAY, 2 * HOUR, price="1"),
    used("x", 2 * HOUR, 30 * HOUR, on="a", blocks=1),
    used("y", 20 * HOUR, 40 * HOUR, on="a", user="bob", blocks=2, number=3),
    used("z", 21 * HOUR, 22 * HOUR, on="b", user=""),
    of_run("submitted", "x", HOUR),
    of_run("started", "x", 2 * HOUR),
    of_run("finished", "x", 30 * HOUR, why="failed: exit 3"),
]


def state(**fields: Any) -> State:
    live = Instance(
        id="l", name="gpu-9", pool="gpu", backend="aws", place="aws/us-east-1",
        resources=Resources(cpus=4, memory=1024), price=Decimal("1.5"), external_id="x-l", phase="ready",
        created_at=UNTIL - 5 * HOUR, ready_at=UNTIL - 4 * HOUR,
    )  # fmt: skip
    run = Run(
        id="r", spec=RunSpec(name="r-name", pool="gpu"), user="ann", status="running", submitted_at=UNTIL - 9 * HOUR
    )
    job = Job(id="r-0-1-0", instance="l", status="running", started_at=UNTIL - 3 * HOUR)
    attempt = Attempt(id="r-0-1", run="r", number=1, jobs=(job,))
    given: dict[str, Any] = {"instances": (live,), "runs": (run,), "attempts": (attempt,), **fields}
    return State(version=VERSION, project="p" * 8, lineage="l", **given)


@pytest.mark.parametrize(("by", "column"), [("pool", 1), ("user", 2), ("run", 3)])
def test_the_money_is_that_of_the_cost_report(by: By, column: int) -> None:
    data, bill = page_data(LEDGER, state(), period=WIDE), cost(LEDGER, state(), since=T, until=UNTIL, by=by)
    assert sum(row[5] for row in data["costs"]) == pytest.approx(float(bill.total.cost) * 1e6, abs=len(data["costs"]))
    assert sum(row[6] for row in data["costs"]) == pytest.approx(float(bill.total.seconds), abs=1)
    assert sum(row[7] for row in data["costs"]) == float(bill.total.unpriced) == HOUR
    idle = sum(row[5] for row in data["costs"] if KINDS[row[4]] == "idle")
    assert idle == pytest.approx(float(bill.total.idle_cost) * 1e6, abs=len(data["costs"]))
    found: dict[str, int] = {}
    ids = {"pool": data["pools"], "user": data["users"], "run": [row[0] for row in data["runs"]]}[by]
    for row in data["costs"]:
        none = KINDS[row[4]] if KINDS[row[4]] != "busy" else "none"
        key = ids[row[column]] if row[column] >= 0 else none
        found[key] = found.get(key, 0) + row[5]
    wanted = {row.kind or row.id or row.name: float(row.cost) * 1e6 for row in bill.rows}
    wanted = {"(no pool)" if by == "pool" and key == "none" else key: value for key, value in wanted.items()}
    assert found == pytest.approx(wanted, abs=len(data["costs"]))


def test_a_day_is_a_day_in_utc() -> None:
    data = page_data([billed("a", 22 * HOUR, 26 * HOUR)], None, period=WIDE)
    assert [(row[0], row[5], row[6]) for row in data["costs"]] == [(0, 4 * 10**6, 2 * HOUR), (1, 4 * 10**6, 2 * HOUR)]
    later = Period(project="demo", since=T + 23 * HOUR, until=UNTIL)
    data = page_data([billed("a", 22 * HOUR, 26 * HOUR)], None, period=later)
    assert [(row[0], row[6]) for row in data["costs"]] == [(0, HOUR), (1, 2 * HOUR)]


def test_a_life_has_its_parts() -> None:
    (row,) = page_data([LEDGER[0], LEDGER[4]], None, period=WIDE)["instances"]
    assert row[0] == "a-name"
    parts = [(start // HOUR, seconds // HOUR, KINDS[kind], runs) for start, seconds, kind, *runs in row[-1]]
    assert parts == [(0, 1, "boot", []), (1, 1, "idle", []), (2, 28, "busy", [0]), (30, 20, "idle", [])]


def test_runs_have_their_waits_and_attempts() -> None:
    data = page_data(LEDGER, state(), period=WIDE)
    rows = {row[0]: row for row in data["runs"]}
    assert rows["x"][4:] == [HOUR, 2 * HOUR, 30 * HOUR, 1, "failed", "exit 3"]
    assert rows["y"][7] == 3
    assert rows["r"][8] == "running"


def test_what_is_pending_has_its_reason() -> None:
    waiting = Run(id="w", spec=RunSpec(name="big", pool="gpu"), submitted_at=T, reason="no capacity until 14:02Z")
    refused = Capacity(
        place="aws/us-east-1", instance_type="p4d", spot=True, until=UNTIL + 60, why="InsufficientCapacity"
    )
    over = Capacity(place="aws/us-east-1", instance_type="g5", until=UNTIL - 60, why="over")
    then = state(
        runs=(waiting,), wishes=(Wish(id="q", pool="gpu", count=2, by="ann@lab", at=T),), capacity=(refused, over)
    )
    pending = page_data([], then, period=WIDE)["pending"]
    assert [row[0] for row in pending] == ["run", "request", "offer"]
    assert (pending[0][1], pending[0][4]) == ("big", "no capacity until 14:02Z")
    assert pending[2][1] == "aws/us-east-1 p4d spot"


def test_of_many_events_the_newest_are_kept_and_all_are_counted() -> None:
    many = [of_run("submitted", f"r{number}", number) for number in range(MOST_EVENTS + 10)]
    data = page_data(many, None, period=WIDE)
    assert (len(data["events"]), data["events_total"]) == (MOST_EVENTS, MOST_EVENTS + 10)
    assert data["events"][0][0] == MOST_EVENTS + 9


def test_the_page_has_its_policy_and_nothing_that_asks_the_network() -> None:
    page = render_page(page_data(LEDGER, state(), period=WIDE))
    policy = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; img-src data:"
    assert f'<meta http-equiv="Content-Security-Policy" content="{policy}">' in page
    asks = (
        r"fetch\(|XMLHttpRequest|import\(|WebSocket|EventSource|sendBeacon|url\(|\bsrc=|@import|<link|innerHTML|eval\("
    )
    assert re.findall(asks, page) == []


def test_no_name_ends_the_script_that_holds_it() -> None:
    page = render_page(page_data([of_run("submitted", "x", 0, name=HOSTILE)], None, period=Period(
        project=HOSTILE, since=T, until=UNTIL)))  # fmt: skip
    assert page.count("<script") == page.count("</script>") == 2
    assert "<img" not in page
    assert "\x1b" not in page
    held = re.search(r'<script type="application/json" id="data">(.*?)</script>', page, re.S)
    assert held is not None
    assert json.loads(held[1])["runs"][0][1].startswith("</script>")


def test_the_command_writes_one_file(tmp_path: Path) -> None:
    folder = folder_at(tmp_path)
    assert folder.dstack("apply", "-y", "-d").code == 0
    done = folder.dstack("report", "--html", "report.html", "--since", "7d")
    assert done.code == 0, done.said
    assert done.err.startswith("Wrote report.html: 0 instances and 0 runs since 20")
    page = (folder.root / "report.html").read_text()
    assert "<title>dstack report: demo</title>" in page
    assert folder.dstack("report", "--html", "-").out.startswith("<!doctype html>")


def test_the_command_says_what_is_missing(tmp_path: Path) -> None:
    folder = folder_at(tmp_path)
    for args, said in (
        ((), "no file is named. Run `dstack report --html report.html`"),
        (("--html", "."), "is a folder; name a file"),
        (("--html", "none/report.html"), "--html none/report.html: No such file"),
        (("--html", "a.html", "--since", "2999-01-01"), "is in the future"),
    ):
        done = folder.dstack("report", *args)
        assert (done.code, said in done.err) == (1, True), done.said
    assert not (folder.root / "a.html").exists()
