"""A saved plan is a stranger's file: whatever it says, it is refused in one line or approves a part of a fresh plan."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from reconciler.cli.commands.plan.saved import save_plan, saved_plan
from reconciler.cli.exits import Fail
from reconciler.planner.approve import approve
from reconciler.planner.plan import plan
from reconciler.planner.world import World
from schemas.plan import Action, Assign, Launch, Plan, Stop, Terminate, Update
from schemas.run import Run, RunSpec
from tests.doubles.commands.command import Folder, folder_at
from tests.worlds.worlds import worlds

HEAD = '{"dstack_plan":1,"digest":"d","plan":{"version":1,"project":"p","generation":0'
OFFER = '"offer":{"backend":"b","region":"r","instance_type":"t","resources":{"cpus":1,"memory":1},"price":%s}'
LAUNCH = '{"kind":"launch","launch":"l","pool":"p","ids":["a"],"names":["a"],"why":"",' + OFFER + "}"
SHARED = settings(suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])


def read(path: Path, data: bytes) -> Plan:
    path.write_bytes(data)
    return saved_plan(path, digest="d")


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\0" * 100,
        b"\xff\xfe",
        b"[" * 100_000,
        b'{"a":' * 100_000,
        f'{HEAD},"actions":[{{"kind":"update","subject":"x","why":"","changes":'.encode() + b'{"a":' * 100_000,
        HEAD.replace('"p"', '"\xff"').encode("latin-1"),
        b'{"dstack_plan":' + b"9" * 5000 + b"}",
        f'{HEAD},"generation":1}}}}'.encode(),
        f'{HEAD},"actions":[{LAUNCH % json.dumps("1")}],"actions":[]}}}}'.encode(),
        f'{HEAD},"hourly_after":"NaN"}}}}'.encode(),
        f'{HEAD},"hourly_after":"1e999999"}}}}'.encode(),
        f'{HEAD},"actions":[{LAUNCH % json.dumps("NaN")}]}}}}'.encode(),
        f'{HEAD},"cost":{{"worst":"NaN"}}}}}}'.encode(),
        f'{HEAD},"cost":{{"pools":[{{"pool":"a","after":"NaN"}}]}}}}}}'.encode(),
        f'{HEAD},"actions":[{LAUNCH % json.dumps("Infinity")}]}}}}'.encode(),
        f'{HEAD},"permissions":{{"destroy_pools":["*"]}}}}}}'.encode(),
        f'{HEAD},"permissions":{{"mass_destroy":true}}}}, "digest":"d"}}'.encode(),
    ],
)
def test_what_is_no_plan_is_one_line(tmp_path: Path, data: bytes) -> None:
    with pytest.raises(Fail) as refused:
        read(tmp_path / "plan.json", data)
    assert "plan.json: " in str(refused.value)


def test_what_is_no_file_is_one_line(tmp_path: Path) -> None:
    endless = tmp_path / "endless"
    endless.symlink_to("/dev/zero")
    for path, said in ((tmp_path, "Is a directory"), (endless, "larger than 256 MiB")):
        with pytest.raises(Fail, match=said):
            saved_plan(path, digest="d")


def test_only_a_plan_is_overwritten(tmp_path: Path) -> None:
    """`plan --out .dstack/pools.yml` replaced the documents."""
    made, mine = Plan(version=1, project="p", generation=0), tmp_path / "pools.yml"
    mine.write_text("pools: []\n")
    for path in (mine, tmp_path, Path("/")):
        with pytest.raises(Fail, match="is no plan"):
            save_plan(path, made, digest="d")
    assert os.listdir(tmp_path) == ["pools.yml"]
    assert mine.read_text() == "pools: []\n"
    for generation in (1, 2):
        save_plan(tmp_path / "plan.json", replace(made, generation=generation), digest="d")
    assert saved_plan(tmp_path / "plan.json", digest="d").generation == 2


@SHARED
@given(st.binary(max_size=400))
def test_no_bytes_are_more_than_refused(tmp_path: Path, data: bytes) -> None:
    with pytest.raises(Fail):
        read(tmp_path / "plan.json", data)


@SHARED
@given(worlds(), st.data())
def test_no_mutation_is_more_than_refused(tmp_path: Path, world: World, data: st.DataObject) -> None:
    path = tmp_path / "plan.json"
    path.unlink(missing_ok=True)
    save_plan(path, plan(world), digest="d")
    text = bytearray(path.read_bytes())
    for at in data.draw(st.lists(st.integers(0, len(text) - 1), min_size=1, max_size=5)):
        text[at : at + 1] = data.draw(st.binary(max_size=3))
    try:
        approved = read(path, bytes(text))
    except Fail:
        return
    assert_part_of(approve(plan(world), approved), plan(world))


@SHARED
@given(worlds(), st.data())
def test_a_forged_plan_does_no_more_than_a_fresh_one(world: World, data: st.DataObject) -> None:
    """Other ids, higher counts, other pools, no price, any change: approving is all that it can do."""
    fresh = plan(world)
    changed = [_forged(action, data) for action in fresh.actions]
    approved = replace(fresh, actions=tuple(changed), hourly_after=Decimal(-5), generation=10**6, lineage="other")
    assert_part_of(approve(fresh, approved), fresh)


def _forged(action: Action, data: st.DataObject) -> Action:
    word = data.draw(st.sampled_from(["i0", "i1", "bench", "gpu", "run r1", "instance i0", "pool gpu", "x"]))
    match action:
        case Launch():
            ids = tuple(f"{word}-{number}" for number in range(data.draw(st.integers(0, 50))))
            price = data.draw(st.sampled_from([None, Decimal(0), Decimal(10**6)]))
            return replace(action, ids=ids, names=ids, gang=data.draw(st.booleans()), why=word, origin=word,
                           offer=replace(action.offer, price=price), prevent_destroy=False)  # fmt: skip
        case Update():
            smuggled = Run(id="foreign", spec=RunSpec(name="x", commands=("rm -rf /",)), origin="run")
            changes = {"draining": "x", "prevent_destroy": False, "spec": {"commands": ["evil"]}, "phase": "terminated"}
            return replace(action, subject=word, changes=changes, enrol=smuggled, quiet=True)
        case Terminate():
            return replace(action, instance=word, pool=word, inferred=False)
        case Assign():
            return replace(action, run=word, instances=(word,))
        case Stop():
            return replace(action, attempt=word, abort=True)
        case _:
            return replace(action, why=word)


def assert_part_of(made: Plan, fresh: Plan) -> None:
    whole = {action.launch: action for action in fresh.actions if isinstance(action, Launch)}
    for action in made.actions:
        if isinstance(action, Launch):
            known = whole[action.launch]
            assert set(action.ids) <= set(known.ids)
            assert replace(action, ids=known.ids, names=known.names) == known
        else:
            assert action in fresh.actions
    assert len(made.actions) <= len(fresh.actions)


# ---------------------------------------------------------------- the command


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Folder]:
    made = folder_at(tmp_path)
    yield made
    made.dstack("destroy", "--confirm", "demo")


def test_a_saved_plan_is_shown_again_in_each_form(folder: Folder) -> None:
    folder.write(".dstack/runs/hello.yml", "type: task\nname: hello\ncommands: [echo]\n")
    planned = folder.dstack("plan", "--out", "a.plan")
    shown = folder.dstack("show", "a.plan", "--markdown", "a.md")
    assert (shown.code, shown.out) == (0, planned.out)
    assert "To apply it: dstack apply a.plan" in shown.err
    assert (
        (folder.root / "a.md").read_text().startswith("<!-- dstack-plan:demo12345678 -->\n### dstack plan: 1 instance")
    )
    found = json.loads(folder.dstack("show", "a.plan", "--json").out)
    assert [one["kind"] for one in found["actions"]] == ["update", "launch"]
    assert [one["kind"] for one in found["configuration"]] == ["pool", "run"]
    elsewhere = folder_at(folder.root.parent / "elsewhere")
    assert elsewhere.dstack("show", str(folder.root / "a.plan")).code == 0
    assert folder.dstack("show", "b.plan").err.startswith("error: b.plan: no such file")


def test_a_saved_plan_is_applied_once(folder: Folder) -> None:
    folder.write(".dstack/runs/hello.yml", "type: task\nname: hello\ncommands: [echo]\n")
    assert folder.dstack("plan", "--out", "a.plan").code == 0
    assert folder.dstack("apply", "a.plan").code == 0
    again = folder.dstack("apply", "a.plan")
    assert again.code == 1
    assert "a.plan: was applied before, by " in again.err
    assert "plan again: `dstack plan --out a.plan`" in again.err
    assert folder.dstack("plan", "--out", "a.plan").code == 0
    assert folder.dstack("apply", "a.plan").code == 0
