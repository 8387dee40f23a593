"""Containers on real servers, by the real command: each server has an engine and images of its own."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.doubles.commands.command import Folder
from tests.doubles.hosts.real_engine import IMAGE, Engine, Unusable, end_engines, podman, why_no_engine
from tests.doubles.hosts.ssh_hosts import a_lab, task, why_not
from tests.hosts.test_ssh_runs import Shop
from tests.worlds import leftovers

WHY = why_not() or why_no_engine("podman")
pytestmark = pytest.mark.skipif(bool(WHY), reason=WHY or "-")


@pytest.fixture
def engines() -> Iterator[list[Engine]]:
    """One a server. Short paths, as podman's sockets need them."""
    folders = [leftovers.folder_of_ours() for _ in range(2)]
    try:
        yield [podman(folder) for folder in folders]
    except Unusable as error:
        pytest.skip(f"podman does not work here: {error}")
    finally:
        for folder in folders:
            end_engines(folder)


def boxed(name: str, *commands: str, more: str = "") -> str:
    """A run of one block."""
    return task(name, *commands, more=f"image: {IMAGE}\n{more}").replace("cpu: 1.., ", "")


def test_a_gang_of_containers_and_one_that_needs_too_much(tmp_path: Path, engines: list[Engine]) -> None:
    with a_lab(tmp_path / "lab") as lab:
        shop = Shop(lab, Folder(tmp_path / "project"))
        network = lab.network()
        hosts = [
            lab.host(f"box{number}", networks=(network,), uid=0, environment=engine.env)
            for number, engine in enumerate(engines)
        ]
        shop.documents(*hosts, pool="blocks: 100")  # each has a hundredth of the memory
        pair = boxed("pair", 'echo "rank $DSTACK_NODE_RANK, $(echo "$DSTACK_NODES_IPS" | wc -l) nodes"',
                     "echo $DSTACK_NODE_RANK > rank.txt", more="nodes: 2\nartifacts: [rank.txt]")  # fmt: skip
        shop.folder.write(".dstack/runs/pair.yml", pair)
        shop.comes_to("pair", "done")
        for rank in ("0", "1"):
            assert f"rank {rank}, 2 nodes" in shop.dstack("logs", "pair", "--job", rank).out
        shop.folder.write(".dstack/runs/stays.yml", boxed("stays", "echo up; sleep 600", more="nodes: 2"))
        shop.folder.write(".dstack/runs/greedy.yml", boxed("greedy", "dd if=/dev/zero bs=1000M count=1 of=/dev/null"))
        shop.comes_to("stays", "running")
        shop.comes_to("greedy", "failed")
        assert shop.runs()["greedy"]["reason"].startswith("out of memory: more than ")
        assert [len(engine.containers()) for engine in engines] == [1, 1]
        shop.dstack("stop", "stays", "-y")
        shop.comes_to("stays", "terminated")
        assert [engine.containers() for engine in engines] == [[], []]
