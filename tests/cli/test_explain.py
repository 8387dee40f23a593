"""`dstack explain` in a project: what it finds, says and refuses."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import jsonschema
import pytest

from schemas.documents.generate import schema
from tests.cli.test_job import until
from tests.doubles.commands.command import Folder, folder_at

POOLS = """\
project: {name: demo, id: demo12345678}
pools:
  - name: bench
    default: true
    nodes: 0..2
    idle_duration: 30m
    resources: {cpu: 1.., memory: 0.1GB.., disk: 0.1GB..}
runs:
  - {type: task, name: big, commands: [x], resources: {cpu: 4000..}}
  - {type: task, name: hello, commands: [echo]}
"""


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Folder]:
    made = folder_at(tmp_path)
    made.write(".dstack/pools.yml", POOLS)
    yield made
    made.dstack("destroy", "--confirm", "demo")


def test_a_run_an_instance_a_pool_and_an_offer(folder: Folder) -> None:
    planned = folder.dstack("explain", "big").out
    assert "run big: not applied yet, pool bench" in planned
    assert "cpu 4000.. asked, it has " in planned
    assert folder.dstack("apply", "-y").code in (0, 1)
    until(lambda: "idle" in folder.dstack("explain", "bench-0").out or not folder.dstack("apply", "-y", "-d"))
    said = folder.dstack("explain", "bench-0").out
    assert "instance bench-0: idle, $0.00/h, created for runs" in said
    assert "idle for 30m (from pool bench, .dstack/pools.yml:6:5)" in said
    pool = folder.dstack("explain", "bench").out
    assert "idle_duration" in pool
    assert "pool (.dstack/pools.yml:6:5)" in pool
    for words in (("big",), ("run", "hello"), ("instance", "bench-0"), ("pool", "bench"), ("offer", "local")):
        found = json.loads(folder.dstack("explain", *words, "--json").out)
        jsonschema.validate(found, schema("explain-json"))
        assert found[found["kind"]]["name"] == words[-1]


def test_what_is_not_there_is_named_with_what_is(folder: Folder) -> None:
    ran = folder.dstack("explain", "bug")
    assert (ran.code, ran.out) == (1, "")
    assert ran.err == "error: no run, instance or pool bug; did you mean big?\n"
    assert "error: no pool benc; did you mean bench?" in folder.dstack("explain", "pool", "benc").err
    assert "name a run, an instance or a pool" in folder.dstack("explain", "a", "b", "c").err
