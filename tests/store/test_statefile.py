"""The state as bytes: every YAML reader reads it equal, and whatever is not exactly ours is refused in words."""

from __future__ import annotations

import contextlib
import io
import json
from collections.abc import Callable
from decimal import Decimal
from typing import Any

import msgspec
import pytest
import yaml
from hypothesis import example, given
from hypothesis import strategies as st
from msgspec.structs import replace
from ruamel.yaml import YAML

from reconciler.state.errors import StateRefused
from reconciler.store.statefile import COLLECTIONS, dumps, header, loads
from schemas.desired import BackendConfig, Desired
from schemas.instance import Instance
from schemas.launch import Intent, Request
from schemas.ledger import Entry
from schemas.pool import Pool
from schemas.resources import Gpu, Resources
from schemas.run import Attempt, Job, Run, RunSpec
from schemas.state import VERSION, Applied, Destroyed, Override, Place, Revision, State, Tick, Tombstone, Wish

NASTY = (
    "del\x7f c1\x80\x9f nel\x85 ls\u2028 ps\u2029 bom\ufeff non\ufffe\uffff nul\x00 tab\t nl\n esc\x1b \U0001f600 \xe9"
)
NASTY += " 3000:22 \"'\\ # - {}[]"


def place(options: dict[str, Any], *, error: str = "") -> Place:
    return Place(name="local", error=error, config=BackendConfig(name="local", type="local", options=options))


def instance(index: int, **changes: Any) -> Instance:
    made = Instance(
        id=f"abcdefgh{index}-0",
        name=f"gpu-{index}",
        pool="gpu",
        backend="local",
        place="local",
        resources=Resources(cpus=2, memory=1024, gpu=Gpu(name="h100", memory=81920)),
        price=Decimal("0.0000001"),
        reason=NASTY,
    )
    return replace(made, **changes)


def full() -> State:
    spec = RunSpec(name="train", env=(("A", NASTY), ("B", None)), commands=("echo 'a: b' # c",))
    desired = Desired(project="abcdefgh1", pools=(Pool(name="gpu"),), runs=(spec,))
    return State(
        version=VERSION,
        project="abcdefgh1",
        lineage="aaaaaaaa",
        generation=7,
        destroyed=Destroyed(by="ann@lab", at=9),
        applied=Applied(revision=Revision(digest="d", commit="c" * 40), by="no", at=1, desired=desired),
        history=(Revision(digest="d"),),
        places=(place({"small": 1e-7, "big": 1e22, "n": 0.5, "text": NASTY, "no": [{}, [], None, True, -1]}),),
        instances=(instance(1), instance(2)),
        runs=(Run(id="r1", spec=spec, reason="2024-02-26"),),
        attempts=(Attempt(id="r1-0-1", run="r1", number=1, jobs=(Job(id="r1-0-1-0", instance="abcdefgh1-0"),)),),
        overrides=(Override(kind="pause", subject="gpu", by="a@b", at=3),),
        tombstones=(Tombstone(id="x", kind="run", at=1, why="1e3"),),
        ticks=(Tick(by="a@b", at=4),),
    )


READERS: dict[str, Callable[[bytes], Any]] = {
    "PyYAML": yaml.safe_load,
    "ruamel, pure": lambda data: YAML(typ="safe", pure=True).load(io.BytesIO(data)),
    "ruamel, C": lambda data: YAML(typ="safe", pure=False).load(io.BytesIO(data)),
    "json": json.loads,
}
if hasattr(yaml, "CSafeLoader"):
    READERS["libyaml"] = lambda data: yaml.load(data, yaml.CSafeLoader)


@pytest.mark.parametrize("reader", READERS)
def test_every_reader_reads_it_equal(reader: str) -> None:
    data = dumps(full())
    read = READERS[reader](data)
    assert read == json.loads(data)
    assert read["instances"][0]["reason"] == NASTY
    assert read["places"][0]["config"]["options"]["small"] == 1e-7
    assert read["instances"][0]["price"] == "1E-7"


@given(st.text(), st.floats(allow_nan=False, allow_infinity=False), st.integers())
@example("\ud800 lone", 1e-7, 0)
def test_any_text_and_number_survives_yaml(text: str, number: float, whole: int) -> None:
    data = dumps(replace(full(), instances=(), places=(place({"f": number, "i": whole}, error=text),)))
    read = yaml.safe_load(data)
    assert read == json.loads(data)
    assert read["places"][0]["config"]["options"] == {"f": number, "i": whole}
    assert loads(data, "s").places[0].error == text.encode("utf-8", "replace").decode().replace("?", "\ufffd") or (
        loads(data, "s").places[0].error == text
    )


def test_it_is_read_back_equal_and_written_the_same() -> None:
    data = dumps(full())
    assert loads(data, "s") == full()
    assert dumps(loads(data, "s")) == data


def test_a_lone_surrogate_is_replaced() -> None:
    state = replace(full(), instances=(instance(1, reason="file \udcff"),))
    assert loads(dumps(state), "s").instances[0].reason == "file \ufffd"


def test_a_record_a_line() -> None:
    lines = dumps(full()).decode().split("\n")
    assert lines[0] == '{"version":3,"project":"abcdefgh1","lineage":"aaaaaaaa","generation":7,'
    assert lines[1].startswith('"applied":{')
    assert sum(line.startswith('{"id":"abcdefgh') for line in lines) == 2
    for name in COLLECTIONS:
        assert sum(f'"{name}":[' == line for line in lines) <= 1


def test_the_collections_are_all_of_the_state() -> None:
    assert set(State.__struct_fields__) == {
        *COLLECTIONS,
        "version",
        "project",
        "lineage",
        "generation",
        "applied",
        "destroyed",
    }


def test_the_header_is_the_first_line() -> None:
    assert header(dumps(full())) == (VERSION, "abcdefgh1", "aaaaaaaa", 7)
    assert header(dumps(State(version=VERSION, project="abcdefgh1", lineage="l"))) == (VERSION, "abcdefgh1", "l", 0)
    assert header(b"no") is None


def test_a_long_key_is_refused_before_it_is_written() -> None:
    with pytest.raises(StateRefused, match="a key of 1024 characters"):
        dumps(replace(full(), places=(place({"k" * 1024: 1}),)))


def _edited(old: bytes, new: bytes) -> bytes:
    data = dumps(full())
    assert old in data
    return data.replace(old, new, 1)


def test_a_state_laid_out_otherwise_is_read() -> None:
    """By hand, or by a formatter: with spaces, with defaults that are written out, with a key's text in a value."""
    data = msgspec.json.format(dumps(full()), indent=2)
    assert loads(data, "the.yml") == full()
    assert loads(_edited(b'"generation":7', b'"generation" :\t7, "wishes": [] '), "the.yml") == full()
    strange = replace(full(), wishes=(Wish(id="w", pool='","pool":"{[', name='\\":'),))
    assert loads(dumps(strange), "the.yml") == strange


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "the.yml: empty, so it was cut short; nothing was touched."),
        (b" \n", "the.yml: empty"),
        (dumps(full())[:-3], "the.yml: truncated after "),
        (dumps(full())[:20], "the.yml: truncated after 20 bytes"),
        (b"pools:\n- name: gpu\n", "the.yml: not a state of ours"),
        (b'{"a": 1}', "the.yml: not a state of ours"),
        (b"[]", "the.yml: not a state of ours"),
        (b"\x89PNG\r\n", "the.yml: not a state of ours"),
        ("\ufeff{}".encode(), "the.yml: not a state of ours (it starts with a byte order mark)"),
        (_edited(b'"version":3', b'"version":4'), "the.yml: written by a newer dstack (format 4, this one reads 3)"),
        (_edited(b'"version":3', b'"version":4,"new":{}'), "the.yml: written by a newer dstack"),
        (b'{"version":4,"project":"p","lineage":"l","shape":"other"}', "the.yml: written by a newer dstack"),
        (_edited(b'"version":3', b'"version":0'), "the.yml: format 0 is not one that was ever written"),
        (_edited(b'"name":"gpu-2"', b'"name":"gpu-2","colour":1'), "the.yml: unknown field `colour` in instances[1]"),
        (_edited(b'"generation":7', b'"generation":7,"extra":1'), "the.yml: unknown field `extra`;"),
        (_edited(b'"generation":7', b'"generation":"7"'), "the.yml: damaged: Expected `int`, got `str`"),
        (_edited(b'"price":"1E-7"', b'"price":"NaN"'), "the.yml: damaged: a price that is none; restore it"),
        (_edited(b'"price":"1E-7"', b'"price":"1e99999"'), "the.yml: damaged: a price that is none; restore it"),
        (_edited(b'"pool":"gpu"', b'"pool":\xff\xff'), "the.yml: damaged: at line "),
        (
            _edited(b'"id":"abcdefgh2-0"', b'"id":"abcdefgh1-0"'),
            "the.yml: damaged: two records of instances have the same id (abcdefgh1-0); restore it from a copy",
        ),
        (
            _edited(b'"generation":7', b'"generation":7,"generation":8'),
            "the.yml: damaged: key `generation` at line 1, column 72 is there twice, first at line 1, column 57; keep",
        ),
        (_edited(b'"name":"gpu-2"', b'"name":"gpu-2","n\\u0061me":"gpu-9"'), "the.yml: damaged: key `name` at line "),
        (dumps(full()).rstrip()[:-1] + b',"runs":[]}', "the.yml: damaged: key `runs` at line "),
        (dumps(full()).rstrip()[:-1] + b', "lineage" : "l"}', "the.yml: damaged: key `lineage` at line "),
        (
            _edited(b'"generation":7', b'"generation":100000000000000000000000'),
            "the.yml: damaged: generation 100000000000000000000000 is not between 0 and 99999999999999; restore it",
        ),
        (_edited(b'"generation":7', b'"generation":-1'), "the.yml: damaged: generation -1 is not between"),
        (_edited(b'"instances":[\n', b'<<<<<<< HEAD\n"instances":[\n'), "the.yml: holds conflict markers of a merge."),
        (_edited(b'"instances":[\n', b'"instances":[\n=======\n'), "the.yml: holds conflict markers of a merge."),
        (b'{"version":1,"project":' + b"[" * 100_000, "the.yml: "),
    ],
)
def test_what_is_refused_and_how(data: bytes, message: str) -> None:
    with pytest.raises(StateRefused) as refused:
        loads(data, "the.yml")
    assert str(refused.value).startswith(message)
    assert "\n" not in str(refused.value)


@given(st.data())
def test_no_mutation_is_more_than_refused(data: st.DataObject) -> None:
    whole = dumps(full())
    at = data.draw(st.integers(0, len(whole)))
    end = data.draw(st.integers(at, min(len(whole), at + 40)))
    mutated = whole[:at] + data.draw(st.binary(max_size=8)) + whole[end:]
    _read_or_refused(mutated)


@given(st.binary(max_size=200))
def test_no_bytes_are_more_than_refused(data: bytes) -> None:
    _read_or_refused(data)
    _read_or_refused(b'{"version":1,"project":"p","lineage":"l",' + data)


def _read_or_refused(data: bytes) -> None:
    """Anything but a state or `StateRefused` fails the test by itself."""
    with contextlib.suppress(StateRefused):
        read = loads(data, "the.yml")
        assert loads(dumps(read), "the.yml") == read


def broken() -> dict[str, State]:
    """States that the reader refuses, by what is wrong."""
    made = full()
    spec = RunSpec(name="train")
    run, attempt = Run(id="r", spec=spec), Attempt(id="a", run="r", number=1, jobs=())
    request = Request(
        place="local", launch="l", token="l", ids=("l-0",), names=("n",), pool="gpu", instance_type="small"
    )
    intent = Intent(id="l", request=request, opened_at=0)
    wish, told = Wish(id="w", pool="gpu"), Entry(id="e", at=0, kind="launched", subject="instance l-0")
    bad = Decimal("NaN")
    surrogates = (instance(1, id="x-\ud800"), instance(2, id="x-\ud801"))
    return {
        "two records of instances have the same id (abcdefgh1-0)": replace(made, instances=(instance(1), instance(1))),
        "two records of instances have the same id (x-\ufffd)": replace(made, instances=surrogates),
        "two records of runs have the same id (r)": replace(made, runs=(run, run)),
        "two records of attempts have the same id (a)": replace(made, attempts=(attempt, attempt)),
        "two records of intents have the same id (l)": replace(made, intents=(intent, intent)),
        "two records of wishes have the same id (w)": replace(made, wishes=(wish, wish)),
        "two records of untold have the same id (e)": replace(made, untold=(told, told)),
        "a price that is none": replace(made, instances=(instance(1, price=bad),)),
        "a price that is none ": replace(made, wishes=(replace(wish, confirmed_price=bad),)),
    }


@pytest.mark.parametrize("why", broken())
def test_what_no_reader_would_take_is_not_written(why: str) -> None:
    with pytest.raises(StateRefused) as refused:
        dumps(broken()[why])
    assert str(refused.value).startswith(f"the new state was not written: {why.strip()}, ")
    assert "\n" not in str(refused.value)
