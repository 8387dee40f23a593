"""A state of an older format: readable at once, written only when asked for, kept as it was; and `requires`."""

from __future__ import annotations

import json
from collections.abc import Iterator
from decimal import Decimal
from importlib.metadata import version
from pathlib import Path
from typing import Any

import msgspec
import pytest
from msgspec.structs import replace

from reconciler.state.errors import StateMoved, StateRefused
from reconciler.store.folder import FolderStore
from reconciler.store.format_upgrade import STEPS, upgrade, upgraded
from reconciler.store.statefile import dumps, loads
from schemas.instance import Instance
from schemas.resources import Resources
from schemas.state import VERSION, State
from tests.doubles.commands.command import POOLS, Folder, folder_at

PROJECT = "demo12345678"
BOX = Instance(
    id="i",
    name="gpu-0",
    pool="gpu",
    backend="aws",
    place="aws",
    resources=Resources(cpus=1, memory=1),
    price=Decimal("1.20"),
    created_at=5,
)
STATE = State(version=VERSION, project=PROJECT, lineage="l", generation=7, instances=(BOX,))


def of_format(version: int, *changes: tuple[bytes, bytes]) -> bytes:
    data = dumps(STATE).replace(f'"version":{VERSION}'.encode(), f'"version":{version}'.encode())
    for old, new in changes:
        assert old in data
        data = data.replace(old, new)
    return data


def test_every_format_that_was_ever_written_has_a_way_to_todays() -> None:
    assert sorted(STEPS) == list(range(1, VERSION))
    for format in STEPS:
        state = loads(of_format(format), "the.yml")
        assert (state.version, replace(state, version=VERSION)) == (format, STATE)


@pytest.mark.parametrize("name", ["ssm", "instance-connect"])
def test_a_way_that_was_a_mode_is_a_program_since_format_3(name: str) -> None:
    """In instances and open launches, in what pools and backends say, and where a backend is remembered."""
    old, new = {"mode": name, "profile": "me"}, {"mode": "program", "name": name, "profile": "me"}
    jump = {"mode": "jump", "jump": {"hostname": "h"}}
    raw = {
        "instances": [{"way": old}, {"way": jump}, {"id": "i"}],
        "intents": [{"request": {"way": old}}],
        "applied": {
            "desired": {"pools": [{"connect": old}, {"connect": None}], "backends": [{"options": {"connect": old}}]}
        },
    }
    third = STEPS[2](raw)
    assert third["instances"] == [{"way": new}, {"way": jump}, {"id": "i"}]
    assert third["intents"] == [{"request": {"way": new}}]
    assert third["applied"]["desired"] == {
        "pools": [{"connect": new}, {"connect": None}], "backends": [{"options": {"connect": new}}],
    }  # fmt: skip
    assert STEPS[2](third) == third


def names(raw: dict[str, Any]) -> dict[str, Any]:
    """An artificial step: instances were called machines, and a price was a number."""
    machines = raw.pop("machines", [])
    return {**raw, "instances": [{**one, "price": str(one["price"])} for one in machines]}


def lineages(raw: dict[str, Any]) -> dict[str, Any]:
    """Another one, before it: the lineage was called world."""
    raw["lineage"] = raw.pop("world")
    return raw


def test_a_chain_of_steps_goes_one_after_another() -> None:
    steps = {-1: lineages, 0: names, **STEPS}
    old = json.loads(dumps(STATE))
    old["version"], old["world"] = -1, old["lineage"]
    old["machines"] = [{**one, "price": 1.2} for one in old.pop("instances")]
    state = msgspec.convert(upgraded(old, version=-1, steps=steps), State)
    assert state.version == -1
    assert state.instances[0].price == Decimal("1.2")
    data = of_format(0, (b'"instances"', b'"machines"'), (b'"price":"1.20"', b'"price":1.25'))
    assert loads(data, "the.yml", steps=steps).instances[0].price == Decimal("1.25")
    with pytest.raises(StateRefused, match="format 0 is not one that was ever written"):
        loads(data, "the.yml")


def test_what_an_old_state_holds_too_much_is_refused_all_the_same() -> None:
    with pytest.raises(StateRefused, match="unknown field `colour`"):
        loads(of_format(1, (b'"pool":"gpu"', b'"pool":"gpu","colour":1')), "the.yml")
    with pytest.raises(StateRefused, match="two records of instances"):
        loads(of_format(1, (b'"instances":[\n', b'"instances":[\n' + msgspec.json.encode(BOX) + b",\n")), "the.yml")


def test_it_is_written_only_by_the_upgrade_which_keeps_it(tmp_path: Path) -> None:
    (tmp_path / f"{PROJECT}.yml").write_bytes(of_format(1))
    (tmp_path / f"{PROJECT}.yml").chmod(0o600)
    store = FolderStore(tmp_path, PROJECT)
    state, token = store.read()
    assert state is not None
    with pytest.raises(StateRefused, match="`dstack apply --upgrade-state` upgrades it"):
        store.write(replace(state, generation=8), token)
    kept = Path(upgrade(store))
    assert kept.read_bytes() == of_format(1)
    assert kept.stat().st_mode & 0o777 == 0o600
    after, _ = FolderStore(tmp_path, PROJECT).read()
    assert after == replace(STATE, generation=8)
    assert upgrade(store) == ""


class Contended:
    """A store whose first writes lose against somebody else's."""

    address, notes = "contended", list[str]()

    def __init__(self, losses: int) -> None:
        self.losses, self.kept, self.state = losses, list[str](), replace(STATE, version=1)

    def read(self) -> tuple[State | None, str]:
        return self.state, str(self.state.generation)

    def write(self, state: State, token: str) -> str:
        if self.losses:
            self.losses -= 1
            self.state = replace(self.state, generation=self.state.generation + 1)
            raise StateMoved("moved")
        self.state = state
        return ""

    def keep_copy(self, name: str) -> str:
        self.kept.append(name)
        return name


def test_of_two_upgrades_at_once_none_is_lost() -> None:
    store = Contended(2)
    assert upgrade(store) == "format-1-generation-9"
    assert (store.state.version, store.state.generation) == (VERSION, 10)
    with pytest.raises(StateRefused, match="somebody else wrote it"):
        upgrade(Contended(99))


# ---------------------------------------------------------------- with the command


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Folder]:
    made = folder_at(tmp_path)
    yield made
    made.write(".dstack/pools.yml", POOLS)
    made.dstack("destroy", "--confirm", "demo")


def as_format_1(folder: Folder) -> bytes:
    path = folder.root / f".dstack/state/{PROJECT}.yml"
    data = path.read_bytes().replace(b'"version":3', b'"version":1')
    untold = data.find(b'"untold":[')
    if untold >= 0:
        data = data[:untold].rstrip(b",\n") + b"\n}\n"
    path.write_bytes(data)
    return data


def test_an_upgrade_is_shown_asked_for_and_done(folder: Folder) -> None:
    assert folder.dstack("apply", "-y").code == 0
    old = as_format_1(folder)
    plan = folder.dstack("plan")
    assert plan.code == 0
    assert "the state is of format 1, and this dstack writes format 3: `dstack apply --upgrade-state`" in plan.out
    assert folder.dstack("plan", "--refresh").out.count("`dstack apply --upgrade-state`") == 1
    for listing in ("ps", "pool ps", "cost", "events", "state show"):
        assert folder.dstack(*listing.split()).code == 0
    for writing in ("apply -y", "pool pause bench", "pool add -y --pool bench", "stop nobody -y"):
        ran = folder.dstack(*writing.split())
        assert ran.code == 1
    assert "`dstack apply --upgrade-state`" in folder.dstack("apply", "-y", "--detach").err
    assert "`dstack apply --upgrade-state`" in folder.dstack("pool", "pause", "bench").err
    assert (folder.root / f".dstack/state/{PROJECT}.yml").read_bytes() == old
    done = folder.dstack("apply", "-y", "--upgrade-state")
    assert done.code == 0, done.said
    kept = next((folder.root / ".dstack/state").glob("*.format-1-*"))
    assert str(kept) in done.err
    assert kept.read_bytes() == old
    assert "upgrade-state" not in folder.dstack("plan").out
    assert "nothing to upgrade" in folder.dstack("apply", "-y", "--upgrade-state").err


INSTALLED = f"dstack {version('dstack-pools')} is installed, and the documents require"
REQUIRES = f"error: the documents are not valid (1):\n.dstack/pools.yml:1:11: requires: {INSTALLED}"


def test_a_tool_that_does_not_fit_neither_plans_nor_ticks(folder: Folder) -> None:
    folder.write("run.yml", "type: task\nname: r\ncommands: [echo hi]\n")
    assert folder.dstack("apply", "-y").code == 0
    folder.write(".dstack/pools.yml", 'requires: ">=9"\n' + POOLS)
    for line in ("plan", "plan --refresh", "plan --json", "apply -y", "run . -f run.yml -y", "state rebuild -y"):
        ran = folder.dstack(*line.split())
        assert (ran.code, ran.out) == (1, ""), line
        assert ran.err.startswith(REQUIRES), ran.err
        assert "`pip install 'dstack-pools>=9'`, or change `requires`" in ran.err
    for line in ("ps", "pool ps", "cost", "events", "state show"):
        assert folder.dstack(*line.split()).code == 0


def test_what_the_applied_documents_require_holds_for_ticks_without_others(folder: Folder) -> None:
    """The same documents, another version of the program: they are not compiled again, and still judged."""
    folder.write(".dstack/pools.yml", 'requires: ">=0.1,<1"\n' + POOLS)
    assert folder.dstack("apply", "-y").code == 0
    path = folder.root / f".dstack/state/{PROJECT}.yml"
    path.write_bytes(path.read_bytes().replace(b'"requires":">=0.1,<1"', b'"requires":">=8"'))
    for line in ("pool pause bench", "pool add -y --pool bench", "destroy --confirm demo"):
        ran = folder.dstack(*line.split())
        assert ran.code == 1, line
        assert f"error: {INSTALLED} >=8: `pip install" in ran.err
    assert folder.dstack("plan").code == 0  # these documents may replace those
    assert folder.dstack("apply", "-y").code == 0
