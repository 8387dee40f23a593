"""What was billed and who used it: prices that change, runs that share, what lives, what ended unseen."""

from __future__ import annotations

import csv
import io
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace
from syrupy.assertion import SnapshotAssertion

from reconciler.engine.write_state import land, write
from reconciler.report.cost import cost_csv, cost_json, event_json, event_line
from reconciler.report.cost_model import BYS, By, Cost, cost
from reconciler.report.tables import cost_table
from reconciler.state.errors import StateMoved
from reconciler.state.ledger.entries import entries
from reconciler.store.ledger.folder import FolderLedger, Telling
from schemas.documents.generate import schema
from schemas.instance import Instance
from schemas.ledger import Entry
from schemas.pool import Pool
from schemas.resources import Resources
from schemas.run import Attempt, Job, Run, RunSpec
from schemas.state import VERSION, Capacity, State
from tests.doubles.commands.command import DSTACK, ROOT, Folder, folder_at
from tests.worlds.world import Site, apply, desired

T = 1_793_491_200  # 2026-11-01T00:00:00Z
HOUR = 3600
BOX = Resources(cpus=4, memory=16384)
SOLD_OUT = Capacity(place="aws", instance_type="p4d", until=2_000_000_000)


def instance(id: str = "i", **fields: Any) -> Instance:
    given: dict[str, Any] = {
        "name": id, "pool": "gpu", "backend": "aws", "place": "aws/us-east-1", "instance_type": "p4d",
        "resources": BOX, "price": Decimal(2), "external_id": f"x-{id}", "phase": "ready", "created_at": T,
        "seen_at": T, "ready_at": T, **fields,
    }  # fmt: skip
    return Instance(id=id, **given)


def ended(one: Instance, at: int, **fields: Any) -> Instance:
    return replace(one, phase="terminated", terminated_at=at, **fields)


def run_of(name: str, *jobs: Job, user: str = "ann", tags: tuple[tuple[str, str], ...] = ()) -> tuple[Run, Attempt]:
    made = Run(id=f"{name}-id", spec=RunSpec(name=name, pool="gpu", tags=tags), user=user, submitted_at=T)
    return made, Attempt(id=f"{name}-id-0-1", run=made.id, number=1, jobs=jobs)


def job(id: str, since: int, until: int | None = None, *, on: str = "i") -> Job:
    """From hour to hour after T."""
    if until is None:
        return Job(id=id, instance=on, status="running", started_at=T + since * HOUR)
    return Job(id=id, instance=on, status="done", started_at=T + since * HOUR, ended_at=T + until * HOUR)


def state(*instances: Instance, runs: tuple[tuple[Run, Attempt], ...] = ()) -> State:
    return State(
        version=VERSION,
        project="p" * 8,
        lineage="l",
        instances=instances,
        runs=tuple(run for run, _ in runs),
        attempts=tuple(attempt for _, attempt in runs),
    )


def told(*states: State, now: int = T) -> list[Entry]:
    """What a ledger holds after these states were written one after another."""
    steps = zip((None, *states), states, strict=False)
    return [entry for was, then in steps for entry in entries(was, then, by="cron@lab", now=now)]


def rows(found: Cost) -> dict[str, tuple[float, float, float]]:
    """name (or kind) -> hours, idle hours, dollars."""
    return {
        row.name or row.kind: (float(row.seconds / HOUR), float(row.idle / HOUR), float(row.cost)) for row in found.rows
    }


def asked(ledger: list[Entry], then: State | None, *, by: By = "pool", since: int = T, until: int = 10) -> Cost:
    return cost(ledger, then, since=since, until=T + until * HOUR, by=by)


# ---------------------------------------------------------------- the numbers are right


def test_of_what_ended_and_of_what_lives() -> None:
    first, second = instance("a"), instance("b", created_at=T + HOUR, pool="cpu")
    last = state(ended(first, T + 4 * HOUR), second)
    ledger = told(state(first, second), last)
    found = asked(ledger, last)
    assert rows(found) == {"gpu": (4, 4, 8), "cpu": (9, 9, 18)}
    assert (float(found.total.cost), found.alive) == (26, 1)


def test_a_price_that_changes() -> None:
    cheap = instance()
    dear = replace(cheap, price=Decimal(3), priced_at=T + 4 * HOUR)
    over = state(ended(dear, T + 6 * HOUR))
    for then in (state(dear), over):
        ledger = told(state(cheap), then)
        assert rows(asked(ledger, then, until=6)) == {"gpu": (6, 6, 14)}


def test_two_runs_on_one_instance_share_it() -> None:
    both = (run_of("x", job("x0", 0, 4)), run_of("y", job("y0", 2, 6), user="bob"))
    over = state(ended(instance(), T + 8 * HOUR), runs=both)
    ledger = told(state(instance()), over)
    assert rows(asked(ledger, over, by="run")) == {"x": (3, 0, 6), "y": (3, 0, 6), "idle": (2, 2, 4)}
    assert rows(asked(ledger, over, by="user")) == {"ann": (3, 0, 6), "bob": (3, 0, 6), "idle": (2, 2, 4)}
    assert rows(asked(ledger, over)) == {"gpu": (8, 2, 16)}
    assert asked(ledger, over).rows[0].idle_share == 0.25


def test_of_a_shared_instance_each_pays_by_its_blocks() -> None:
    both = (run_of("x", replace(job("x0", 0, 4), blocks=3)), run_of("y", job("y0", 0, 4), user="bob"))
    over = state(ended(instance(blocks=8), T + 4 * HOUR), runs=both)
    assert rows(asked(told(state(instance(blocks=8)), over), over, by="run")) == {"x": (3, 0, 6), "y": (1, 0, 2)}
    busy = state(instance(blocks=8), runs=(run_of("x", replace(job("x0", 0), blocks=3)), run_of("y", job("y0", 0))))
    assert rows(asked(told(busy), busy, by="run", until=4)) == {"x": (3, 0, 6), "y": (1, 0, 2)}


def test_a_run_that_left_the_state_was_not_idle() -> None:
    """The state keeps ended runs for a while, instances may live longer."""
    busy = state(instance(), runs=(run_of("x", job("x0", 0)),))
    done = state(instance(), runs=(run_of("x", job("x0", 0, 5)),))
    pruned = state(instance())
    over = state(ended(instance(), T + 6 * HOUR))
    assert rows(asked(told(busy, done, pruned, over), over)) == {"gpu": (6, 1, 12)}
    assert rows(asked(told(busy, done, pruned), pruned, until=6)) == {"gpu": (6, 1, 12)}
    assert rows(asked(told(busy), busy, until=6)) == {"gpu": (6, 0, 12)}


@pytest.mark.parametrize(
    ("end", "hours"),
    [
        ({}, 9),
        ({"ended_at": T + 3 * HOUR}, 3),
        ({"missing_since": T + 4 * HOUR}, 4),
        ({"missing_since": T + 4 * HOUR, "ended_at": T + 3 * HOUR}, 3),
        ({"ended_at": T - HOUR}, 0),
    ],
)
def test_an_instance_that_ended_unseen_is_not_billed_until_somebody_looked(end: dict[str, Any], hours: int) -> None:
    over = state(ended(instance(), T + 9 * HOUR, **end))
    found = asked(told(state(instance()), over), over)
    assert float(found.total.seconds / HOUR) == hours


def test_a_launch_that_was_never_seen_costs_nothing() -> None:
    open = instance(external_id="", phase="pending", seen_at=None, ready_at=None)
    over = state(ended(open, T + HOUR))
    ledger = told(state(open), over)
    assert [entry.kind for entry in ledger] == ["launched", "lost"]
    assert asked(ledger, state(open)).rows == ()


def test_what_was_thought_before_it_was_seen_is_not_billed() -> None:
    """The place's own time of birth, and its price, count from its first sight on."""
    open = instance(external_id="", phase="pending", seen_at=None, ready_at=None)
    then = state(instance(created_at=T + 60, price=Decimal(3)))
    assert [entry.kind for entry in told(state(open), then)] == ["launched", "seen", "ready"]


def test_boot_time_is_not_idle_time() -> None:
    one = instance(ready_at=T + HOUR)
    over = state(ended(one, T + 4 * HOUR))
    for then in (state(one), over):
        found = asked(told(state(one), then), then, by="user", until=4)
        assert rows(found) == {"boot": (1, 0, 2), "idle": (3, 3, 6)}
    assert float(asked(told(state(one), over), over).total.boot) == HOUR


def test_only_of_the_time_asked_for() -> None:
    over = state(ended(instance(), T + 8 * HOUR), runs=(run_of("x", job("x0", 1, 5)),))
    ledger = told(state(instance()), over)
    found = cost(ledger, over, since=T + 4 * HOUR, until=T + 7 * HOUR, by="run")
    assert rows(found) == {"x": (1, 0, 2), "idle": (2, 2, 4)}
    assert cost(ledger, over, since=T + 9 * HOUR, until=T + 10 * HOUR, by="run").rows == ()


def test_without_a_known_price() -> None:
    found = asked(told(state(instance(price=None))), state(instance(price=None)), until=2)
    assert (float(found.total.cost), float(found.total.unpriced)) == (0, 2 * HOUR)


def test_by_tag_a_run_stands_in_the_line_of_each_and_the_total_counts_it_once() -> None:
    tags = (("team", "vision"), ("grant", "g1"))
    over = state(
        ended(instance(), T + 4 * HOUR), runs=(run_of("x", job("x0", 0, 2), tags=tags), run_of("y", job("y0", 2, 3)))
    )
    found = asked(told(state(instance()), over), over, by="tag")
    assert rows(found) == {"team=vision": (2, 0, 4), "grant=g1": (2, 0, 4), "none": (1, 0, 2), "idle": (1, 1, 2)}
    assert float(found.total.cost) == 8


def test_one_that_returned_bills_on_from_where_it_was_taken_for_gone() -> None:
    gone = ended(instance(), T + 4 * HOUR, missing_since=T + 3 * HOUR)
    back = replace(gone, phase="provisioning", terminated_at=None, missing_since=None, priced_at=T + 3 * HOUR)
    over = ended(back, T + 6 * HOUR)
    ledger = told(state(instance()), state(gone), state(back), state(over))
    assert rows(asked(ledger, state(over))) == {"gpu": (6, 6, 12)}
    assert len([entry for entry in ledger if entry.kind == "ended"]) == 2


def test_after_a_rebuild_no_hour_counts_twice() -> None:
    """The new state knows of no change of price: the time that the old one told of keeps its price."""
    dear = replace(instance(), price=Decimal(3), priced_at=T + 4 * HOUR)
    ledger = told(state(instance()), state(dear))
    rebuilt = state(instance(price=Decimal(3)))
    found = asked([*ledger, *told(rebuilt)], rebuilt, until=6)
    assert float(found.total.seconds / HOUR) == 6


# ---------------------------------------------------------------- killed writers


def test_told_twice_counts_once() -> None:
    alive = state(instance(), runs=(run_of("x", job("x0", 0)),))
    over = state(ended(instance(), T + 4 * HOUR), runs=(run_of("x", job("x0", 0, 2)),))
    ledger = [*told(alive, over), *told(alive, over)]
    assert rows(asked(ledger, over)) == {"gpu": (4, 2, 8)}


def test_a_write_that_lost_tells_nothing(tmp_path: Path) -> None:
    """Somebody else's write came first: what ours would have told did not come true."""
    site = Site(scratch=tmp_path)
    apply(site, desired(pools=[Pool(name="default-pool", default=True, nodes_min=1)]))
    before = site.state
    ports = site.ports()
    _, token = site.store.read()
    site.store.write(replace(before, generation=before.generation + 1), token)
    told_before = list(site.ledger)
    gone = replace(before, instances=tuple(ended(one, T) for one in before.instances))
    with pytest.raises(StateMoved):
        write(ports, gone, was=before, token=token)
    assert {entry.id for entry in site.ledger} == {entry.id for entry in told_before}


def test_what_a_writer_was_killed_before_telling_the_next_one_tells(tmp_path: Path) -> None:
    site = Site(scratch=tmp_path)
    apply(site, desired(pools=[Pool(name="default-pool", default=True, nodes_min=1)]))
    land(site.ports(), lambda state: replace(state, instances=tuple(ended(one, T) for one in state.instances)))
    untold = site.state.untold
    assert {entry.kind for entry in untold} == {"lost"}
    site.ledger = [entry for entry in site.ledger if entry not in untold]
    land(site.ports(), lambda state: replace(state, capacity=(*state.capacity, SOLD_OUT)))
    assert {entry.id for entry in untold} <= {entry.id for entry in site.ledger}


def test_lines_of_the_first_ledgers_are_read(tmp_path: Path) -> None:
    line = {
        "id": "billed:i", "at": T + HOUR, "kind": "billed", "subject": "instance i", "name": "gpu-0", "pool": "gpu",
        "place": "aws/r", "price": "2", "seconds": HOUR, "idle": 60, "by": "x",
    }  # fmt: skip
    (tmp_path / "2026-11.jsonl").write_text(json.dumps(line) + "\n")
    assert rows(asked(list(FolderLedger(tmp_path).read()), None)) == {"gpu": (1, 1, 2)}


def test_nothing_is_told_twice_in_a_process(tmp_path: Path) -> None:
    telling = Telling(FolderLedger(tmp_path))
    made = told(state(instance()))
    for _ in range(3):
        telling(made)
    assert len((tmp_path / "2026-11.jsonl").read_bytes().splitlines()) == len(made) == 3


TELLER = """
import sys
from pathlib import Path
from reconciler.store.ledger.folder import FolderLedger
from schemas.ledger import Entry
folder, index = FolderLedger(Path(sys.argv[1])), int(sys.argv[2])
while True:
    folder.append([Entry(id=f"e{index}-{part}", at=1793491200, kind="seen", subject="x", why="y" * 3000)
                   for part in range(20)])
    print(index, flush=True)
    index += 1
"""


def test_a_killed_writer_loses_and_doubles_no_entry(tmp_path: Path) -> None:
    """kill -9 in the middle of appends; who comes after tells again what was not acknowledged."""
    acknowledged = -1
    for _ in range(15):
        teller = subprocess.Popen(
            [sys.executable, "-c", TELLER, str(tmp_path), str(acknowledged + 1)],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert teller.stdout is not None
        for _ in range(3):
            acknowledged = int(teller.stdout.readline())
        teller.kill()
        acknowledged = max([acknowledged, *map(int, teller.stdout.read().split())])
        teller.wait()
    found = [entry.id for entry in FolderLedger(tmp_path).read()]
    assert len(found) == len(set(found))
    assert {f"e{index}-{part}" for index in range(acknowledged + 1) for part in range(20)} <= set(found)


# ---------------------------------------------------------------- laws

HOURS = st.integers(0, 12)


@st.composite
def histories(draw: st.DrawFn) -> State:
    """Some instances that ended or live, with jobs anywhere on them."""
    made, runs = [], []
    for index in range(draw(st.integers(1, 3))):
        one = instance(
            str(index), ready_at=T + draw(HOURS) * HOUR, price=Decimal(draw(st.sampled_from(["1", "0.3", "7"])))
        )
        made.append(ended(one, T + draw(HOURS) * HOUR) if draw(st.booleans()) else one)
        for number in range(draw(st.integers(0, 4))):
            begun = draw(HOURS)
            end = draw(st.none() | st.integers(begun, 13))
            name = f"r{index}{number}"
            tags = (("t", draw(st.sampled_from("ab"))),)
            runs.append(
                run_of(
                    name,
                    job(f"j-{name}", begun, end, on=str(index)),
                    user=draw(st.sampled_from(["u", "v", ""])),
                    tags=tags,
                )
            )
    return state(*made, runs=tuple(runs))


@given(histories(), HOURS, st.sampled_from(BYS))
def test_the_rows_add_up_to_the_bill_however_it_is_cut(then: State, cut: int, by: By) -> None:
    ledger = told(then)
    whole = asked(ledger, then, by=by, until=13)
    parts = [
        cost(ledger, then, since=T, until=T + cut * HOUR, by=by),
        cost([e for e in ledger if e.at >= T + cut * HOUR], then, since=T + cut * HOUR, until=T + 13 * HOUR, by=by),
    ]
    assert sum(part.total.cost for part in parts) == whole.total.cost
    for field in ("seconds", "cost", "idle", "boot", "idle_cost"):
        assert sum(getattr(row, field) for row in whole.rows) == getattr(whole.total, field)
    assert all(0 <= row.idle_share <= 1 for row in whole.rows)
    lives = sum(
        (Fraction(min(one.terminated_at or T + 13 * HOUR, T + 13 * HOUR) - T) for one in then.instances), Fraction(0)
    )
    assert whole.total.seconds == lives


# ---------------------------------------------------------------- what is printed


def many() -> Cost:
    tags = (("=cmd", "x"),)
    over = state(
        ended(
            instance(),
            T + 4 * HOUR,
        ),
        instance("b", pool="cpu", price=None, ready_at=T + HOUR),
        runs=(run_of("train", job("x0", 0, 3), tags=tags),),
    )
    return asked(told(state(instance()), over), over, by="tag")


def test_the_shapes() -> None:
    found = many()
    jsonschema.validate(cost_json(found, project="p"), schema("cost-json"))
    read = list(csv.DictReader(io.StringIO(cost_csv(found))))
    assert [line["name"] for line in read] == ["'=cmd=x", "", ""]
    assert sum(float(line["cost"]) for line in read) == 8
    jsonschema.validate([event_json(entry) for entry in told(state(instance()))], schema("events-json"))


def test_the_table(snapshot: SnapshotAssertion) -> None:
    from rich.console import Console

    console = Console(width=120, file=io.StringIO(), color_system=None)
    with console.capture() as captured:
        console.print(cost_table(many(), width=120))
    over = state(
        ended(instance(), T + 4 * HOUR, reason="idle\x1b[31m for 5m"), runs=(run_of("train", job("x0", 0, 3)),)
    )
    lines = "\n".join(event_line(entry, {"i": "gpu-0"}) for entry in told(state(instance()), over))
    assert "\n".join(line.rstrip() for line in captured.get().splitlines()) + "\n\n" + lines == snapshot


# ---------------------------------------------------------------- the commands


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Folder]:
    made = folder_at(tmp_path)
    made.write(".dstack/runs/hello.yml", "type: task\nname: hello\ncommands: [sleep 2]\ntags: {team: vision}\n")
    yield made
    made.dstack("destroy", "--confirm", "demo")


def test_what_the_commands_say(folder: Folder) -> None:
    assert folder.dstack("cost").err.count("nothing was applied yet") == 1
    assert folder.dstack("apply", "-y").code == 0
    for _ in range(100):
        folder.dstack("apply", "-y", "--detach")
        if '"finished"' in folder.dstack("events", "--json").out:
            break
        time.sleep(0.1)
    told_now = json.loads(folder.dstack("events", "--json", "--since", "1d").out)
    jsonschema.validate(told_now, schema("events-json"))
    kinds = [one["kind"] for one in told_now]
    assert {"applied", "launched", "seen", "ready", "submitted", "started", "used", "finished"} <= set(kinds)
    assert len({one["id"] for one in told_now}) == len(told_now)
    of_run = json.loads(folder.dstack("events", "--json", "--run", "hello", "--pool", "bench").out)
    assert {one["name"] for one in of_run} == {"hello"}
    assert folder.dstack("events", "--run", "nobody").err.startswith("no events since ")
    assert "instance bench-0 (pool bench, local)" in folder.dstack("events").out
    for by in BYS:
        found = json.loads(folder.dstack("cost", "--by", by, "--json").out)
        jsonschema.validate(found, schema("cost-json"))
        assert (found["by"], found["alive"]) == (by, 1)
    assert folder.dstack("pool", "drain", "bench").code == 0
    drained = [line.split()[1:4] for line in folder.dstack("events", "--pool", "bench").out.splitlines()]
    assert ["drained", "pool", "bench:"] in drained
    assert folder.dstack("cost").out.splitlines()[0].split() == ["POOL", "INSTANCES", "TIME", "BOOT", "IDLE", "COST"]
    assert "team=vision" in folder.dstack("cost", "--by", "tag", "--csv").out


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("cost --by colour", "--by colour: must be pool, user, run, backend or tag"),
        ("cost --json --csv", "--json or --csv, not both"),
        ("cost --since yesterday", "--since: the text `yesterday` is not a duration"),
        ("cost --since 2026-13-01", "--since 2026-13-01: must be a date such as 2026-11-01, or how long ago"),
        ("events --since 2026-1", "--since 2026-1: must be a date"),
    ],
)
def test_wrong_options(folder: Folder, line: str, said: str) -> None:
    ran = folder.dstack(*line.split())
    assert (ran.code, ran.out) == (1, "")
    assert said in ran.err


def test_events_are_followed_until_ctrl_c(folder: Folder) -> None:
    assert folder.dstack("apply", "-y").code == 0
    follower = subprocess.Popen(
        [*DSTACK, "events", "-f", "--json"],
        cwd=folder.root,
        env=folder.env,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert follower.stdout is not None
        first = json.loads(follower.stdout.readline())
        ledger = folder.root / ".dstack/state/ledger"
        FolderLedger(ledger).append([Entry(id="later", at=int(time.time()), kind="seen", subject="instance later")])
        seen = [first["id"]]
        while seen[-1] != "later":
            seen.append(json.loads(follower.stdout.readline())["id"])
        assert len(seen) == len(set(seen))
        used = os.times()
        follower.send_signal(signal.SIGINT)
        assert follower.wait(240) == 0
        assert follower.stderr is not None
        assert follower.stderr.read() == ""
        assert used
    finally:
        follower.kill()
        follower.communicate()


def test_following_does_not_keep_a_processor_busy(folder: Folder) -> None:
    """Three seconds of waiting cost less than one of them."""
    assert folder.dstack("apply", "-y").code == 0
    before = os.times()
    with subprocess.Popen(
        [*DSTACK, "events", "-f"], cwd=folder.root, env=folder.env, stdout=subprocess.PIPE, text=True
    ) as follower:
        assert follower.stdout is not None
        follower.stdout.readline()
        time.sleep(3)
        follower.send_signal(signal.SIGINT)
    after = os.times()
    assert (after.children_user - before.children_user) + (after.children_system - before.children_system) < 2
