"""Whatever lies in the four files that others may write: no traceback, a located message, exit 1, nothing touched.

The documents, the state and a saved plan at the command itself; a host's status at its parser, and on a host whose
files are noise.
"""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st

from reconciler.hosts.report import UnreadableReport, parse_report
from tests.doubles.commands.command import Folder, Ran, folder_at
from tests.doubles.commands.many_commands import Commands
from tests.doubles.hosts.real_host import RealHost

LONG = os.environ.get("HYPOTHESIS_PROFILE") == "long"
SLOW = [HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
FUZZ = settings(max_examples=2000 if LONG else 120, suppress_health_check=SLOW)
STATE = ".dstack/state/demo12345678.yml"
RUNS = """\
profiles:
  - {name: fast, idle_duration: 5m, spot_policy: auto, max_price: 1.5, retry: {on_events: [error], duration: 1h}}
backends:
  - {type: local, instances: 3}
secrets: {TOKEN: {env: MY_TOKEN}}
budget: {max_hourly: 2}
"""
ONCE = "type: task\nname: once\ncommands: [echo said]\n"
DECLARED = """\
type: task
nodes: 2
idle_duration: 5m
retry: {on_events: [error, interruption], duration: 1h}
env: {A: "1", B: "${{ env.HOME }}"}
resources: {cpu: 1.., memory: 0.1GB.., gpu: "0..1", disk: 0.1GB..}
commands:
  - |
    echo 'said'
artifacts: ["*.txt"]
"""


def contents(root: Path) -> dict[str, tuple[bytes, int]]:
    """Without what a host remembers of its engine: any look asks for that again, after a minute where there is none."""
    files = (path for path in root.rglob("*") if path.is_file() and not path.is_symlink() and path.name != "runtime")
    return {str(path): (path.read_bytes(), path.stat().st_mode) for path in files}


def sound(ran: Ran) -> Ran:
    """As a person may meet it: never a defect, never a trace, no raw control characters."""
    assert ran.code in (0, 1, 2), ran
    assert "defect" not in ran.said, ran
    assert "Traceback" not in ran.said, ran
    assert not set(ran.said) & {chr(code) for code in range(32) if code not in (9, 10)}, ran
    return ran


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Folder]:
    """A project with a state, blobs, a ledger, and nothing left to do."""
    made = folder_at(tmp_path_factory.mktemp("fuzz"))
    made.write("once.yml", ONCE)
    made.write(".dstack/runs/twice.yml", ONCE.replace("once", "twice"))
    assert made.dstack("apply", "-y").code == 0
    assert made.dstack("run", ".", "-f", "once.yml", "-y").code == 0
    assert made.dstack("apply", "-y").code == 0
    yield made
    made.dstack("destroy", "--confirm", "demo")


@pytest.fixture(scope="module")
def commands(folder: Folder) -> Iterator[Commands]:
    made = Commands(folder)
    yield made
    made.close()


def mutated(text: bytes, data: st.DataObject, *, most: int = 4) -> bytes:
    """With some stretches cut, doubled, or replaced by a few bytes or by what a writer might have meant."""
    changed = bytearray(text)
    for _ in range(data.draw(st.integers(1, most))):
        at = data.draw(SOMEWHERE) % (len(changed) + 1)
        end = min(len(changed), at + data.draw(st.sampled_from([0, 1, 1, 2, 5, 30])))
        word = data.draw(st.one_of(st.binary(max_size=6), st.sampled_from(WORDS), st.none()))
        changed[at:end] = bytes(changed[at:end]) * 2 if word is None else word
    return bytes(changed)


SOMEWHERE = st.integers(0, 10**6)  # the length of what is altered may differ from run to run
WORDS = [
    b"", b"null", b"-1", b"0", b"1e999", b"99999999999999999999", b"[]", b"{}", b"&a ", b"*a", b"<<: *a",
    b"!!python/x ", b"\t", b"---\n", b"\xff", b"\x00", b"\x1b[31m", "\u202e".encode(), b"../..", b"$(id)", b"${{ ",
    b"\n  - ", b": ", b'"', b"'", b"| ", b"yes", b"22:59", b"\r\n", b"#", b"{" * 70, b"name: x\n", b"type: ",
    b"%YAML 9\n",
]  # fmt: skip


# ---------------------------------------------------------------- documents

LOCATED = re.compile(r"\.dstack/(pools|fuzzed|runs/fuzzed|runs/twice)\.yml:\d+:\d+: ")


def located(ran: Ran) -> None:
    assert ran.code == 1, ran
    lines = [line for line in ran.err.splitlines() if line.strip() and not line.startswith(("error: ", " "))]
    found = [line for line in ran.said.splitlines() if LOCATED.search(line)]
    assert found, ran
    assert all(LOCATED.search(line) for line in lines), ran


DOCUMENTS = {"fuzzed.yml": RUNS, "runs/fuzzed.yml": DECLARED}


@pytest.mark.parametrize("name", DOCUMENTS)
def test_the_documents_are_good_before_they_are_fuzzed(folder: Folder, name: str) -> None:
    path = folder.write(f".dstack/{name}", DOCUMENTS[name])
    ran = folder.dstack("validate")
    path.unlink()
    assert ran.code == 0, ran


@pytest.mark.parametrize("name", DOCUMENTS)
@FUZZ
@given(data=st.data())
def test_documents(folder: Folder, commands: Commands, name: str, data: st.DataObject) -> None:
    path = folder.write(f".dstack/{name}", "")
    path.write_bytes(mutated(DOCUMENTS[name].encode(), data))
    before = contents(folder.root.parent)
    try:
        if sound(commands.dstack("validate")).code == 0:
            sound(commands.dstack("plan"))
        else:
            for line in (["validate"], ["plan"], ["plan", "--json"], ["apply", "-y", "-d"]):
                located(sound(commands.dstack(*line)))
        assert contents(folder.root.parent) == before
    finally:
        path.unlink()


# ---------------------------------------------------------------- the state


@pytest.fixture
def state(folder: Folder) -> Iterator[Path]:
    path = folder.root / STATE
    kept = path.read_bytes()
    yield path
    path.write_bytes(kept)
    path.chmod(0o600)


@FUZZ
@given(data=st.data())
def test_a_state_of_any_bytes(folder: Folder, commands: Commands, state: Path, data: st.DataObject) -> None:
    whole = state.read_bytes()
    try:
        state.write_bytes(mutated(whole, data))
        _looked_at(folder, commands)
    finally:
        state.write_bytes(whole)


LOOKS = (
    "ps -a",
    "ps -av",
    "ps -a --json",
    "pool ps",
    "pool ps --json",
    "plan",
    "plan --json",
    "logs once",
    "pool list",
)


def _looked_at(folder: Folder, commands: Commands) -> int:
    """Every command that only looks; one that would act, too, where the state cannot be read."""
    before = contents(folder.root.parent)
    told = [sound(commands.dstack(*line.split())) for line in LOOKS]
    if told[0].code:
        told.append(sound(commands.dstack("apply", "-y", "-d")))
        for ran in told:
            assert ran.code == 1, ran
            assert STATE in ran.err, ran
            assert ran.err.count("\n") == 1, ran
    assert contents(folder.root.parent) == before
    return told[0].code


@FUZZ
@given(data=st.data())
def test_a_state_that_says_what_it_likes(folder: Folder, commands: Commands, state: Path, data: st.DataObject) -> None:
    """Of the right shape, with other values: records twice, without what they name, at impossible times."""
    whole = state.read_bytes()
    value = json.loads(whole)
    for _ in range(data.draw(st.integers(1, 3))):
        alter(value, data)
    try:
        state.write_bytes(json.dumps(value).encode())
        event(f"ps ended with {_looked_at(folder, commands)}")
    finally:
        state.write_bytes(whole)


STRINGS = [
    "", "x", "../../x", "\x1b]0;t\x07", "\u202e\ud7ff", "demo12345678", "once", "local", "bench", "NaN", "a" * 3000,
]  # fmt: skip
NUMBERS = [0, -1, 1, 2**31, 2**62, -(2**62)]
WAYS = st.integers(0, 3)


def alter(value: Any, data: st.DataObject) -> None:
    """One leaf gets another value of its kind, or one record is doubled, dropped or turned round.

    As much is drawn whatever is there: what a command wrote differs with the time of day.
    """
    places = list(_places(value))
    hold, key = places[data.draw(SOMEWHERE) % len(places)]
    number, text, way = (data.draw(each) for each in (st.sampled_from(NUMBERS), st.sampled_from(STRINGS), WAYS))
    found = hold[key]
    match found:
        case bool():
            hold[key] = not found
        case int():
            hold[key] = number
        case str():
            hold[key] = text
        case list():
            ways = [found[1:], found[::-1], [*found, *found[:1]], []]
            hold[key] = ways[way]
        case _:
            hold.pop(key) if isinstance(hold, dict) else hold.clear()


def _places(value: Any) -> Iterator[tuple[Any, Any]]:
    for key, inner in value.items() if isinstance(value, dict) else enumerate(value):
        yield value, key
        if isinstance(inner, dict | list):
            yield from _places(inner)


# ---------------------------------------------------------------- a saved plan


@FUZZ
@given(data=st.data(), shaped=st.booleans())
def test_a_saved_plan(folder: Folder, commands: Commands, tmp_path: Path, shaped: bool, data: st.DataObject) -> None:
    """Nothing is left to do here: whatever a file approves, nothing is done."""
    path = tmp_path / "saved.plan"
    path.unlink(missing_ok=True)
    assert commands.dstack("plan", "--out", str(path)).code == 0
    before = contents(folder.root.parent / "home")
    if shaped:
        value = json.loads(path.read_bytes())
        value["plan"]["actions"] = data.draw(st.permutations(FORGED))[: data.draw(st.integers(1, 4))]
        for _ in range(data.draw(st.integers(0, 2))):
            alter(value["plan"], data)
        path.write_text(json.dumps(value))
    else:
        path.write_bytes(mutated(path.read_bytes(), data))
    known = sorted((folder.root / ".dstack/state").rglob("*"))
    ran = sound(commands.dstack("apply", str(path), "-y", "-d"))
    assert ran.code == 0 or (str(path) in ran.err and ran.err.count("\n") == 1), ran
    assert contents(folder.root.parent / "home") == before
    assert sorted((folder.root / ".dstack/state").rglob("*")) == known


BOX = {"cpus": 1, "memory": 1}
OFFER = {"backend": "local", "region": "", "instance_type": "local", "resources": BOX, "price": "0"}
FORGED = [
    {"kind": "launch", "launch": "l", "pool": "bench", "ids": ["l-0"], "names": ["evil"], "why": "", "offer": OFFER},
    {"kind": "terminate", "instance": "bench-0", "name": "bench-0", "pool": "bench", "why": "x"},
    {"kind": "stop", "run": "once", "name": "once", "attempt": "x", "pool": "bench", "why": "", "abort": True},
    {
        "kind": "update", "subject": "run x", "name": "evil", "why": "",
        "enrol": {"id": "x", "spec": {"name": "evil", "commands": ["touch /evil"]}},
    },
]  # fmt: skip


# ---------------------------------------------------------------- a host's status

STATUS = b"""\
dstack-host 1
host 3f77-a 100 1790000000 7 abc
job a-0-1-0 running 1 1790000000 2 train
job b-0-1-0 ended 137 max-duration:7200 5 9 0 -
job c-0-1-0 ended 1 exit 5 9 1 train
job d-0-1-0 lost - lost - - 0 train
missing GPU-1
foreign 0 17 900
.
"""


@settings(max_examples=400)
@given(data=st.data())
def test_a_status(data: st.DataObject) -> None:
    refused = ""
    try:
        report = parse_report(mutated(STATUS, data), instance="i", now=5)
    except UnreadableReport as error:
        refused = str(error)
    if refused:
        assert refused.startswith("unreadable status: ")
        assert refused.isprintable()
        return
    assert all(re.fullmatch(r"[a-z0-9][a-z0-9-]*", job.id) for job in report.jobs)
    assert all((job.reason + job.run).isprintable() for job in report.jobs)


def test_a_status_is_read_whole() -> None:
    assert len(parse_report(STATUS, instance="i", now=5).jobs) == 4


NOISE = [b"", b"\0\xff" * 50, b"../../x", b"9" * 400, b"1\n2\n3\n", b"$(id)", b"-1", b"a b c d e f\n" * 100]


@pytest.fixture(scope="module")
def over(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A host's folder, and a job of it that is over: nothing of it lives any more."""
    host = RealHost(tmp_path_factory.mktemp("host"))
    job = host.start("echo said")
    host.over(job)
    return host.folder, job


@settings(max_examples=200 if LONG else 25, suppress_health_check=SLOW)
@given(data=st.data())
def test_a_host_whose_files_are_noise(
    over: tuple[Path, str], tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    """A job may write in its own folder: its host is looked at all the same, and says nothing that is not so."""
    folder, job = over
    host = RealHost(shutil.copytree(folder, tmp_path_factory.mktemp("host") / "copy", symlinks=True))
    files = sorted(path for path in host.folder.rglob("*") if path.is_file())
    path = files[data.draw(SOMEWHERE) % len(files)]
    path.chmod(0o600)
    path.write_bytes(data.draw(st.sampled_from(NOISE)))
    report = host.runner.look(host.instance, now=5)
    event(f"{path.name}: {report.error[:40] or 'read'}")
    assert report.error.isprintable(), report
    assert [one.id for one in report.jobs] in ([], [job])
