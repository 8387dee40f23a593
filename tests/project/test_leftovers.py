"""What a killed test process left goes with the next one, nothing else does; and no two suites share a thing."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.doubles.hosts.ssh_hosts import a_lab, why_not
from tests.worlds import leftovers, own_ports

HOLDS = """
import time
from tests.worlds import own_ports
print(own_ports.free_port(), flush=True)
time.sleep(600)
"""
MAKES = """
import sys, time
from pathlib import Path
from tests.worlds import leftovers
print(leftovers.folder_of_ours(parent=Path(sys.argv[1])), flush=True)
time.sleep(600)
"""


def test_only_a_dead_makers_folder_goes(tmp_path: Path) -> None:
    maker = subprocess.Popen(
        [sys.executable, "-c", MAKES, str(tmp_path)], cwd=Path(__file__).parents[2], stdout=subprocess.PIPE
    )
    assert maker.stdout is not None
    made = Path(maker.stdout.readline().decode().strip())
    (made / "deep").mkdir()
    mine = leftovers.folder_of_ours(parent=tmp_path)
    try:
        assert leftovers.sweep(tmp_path) == []
    finally:
        os.kill(maker.pid, signal.SIGKILL)
        maker.communicate()
    assert leftovers.sweep(tmp_path) == [made.name]
    assert (made.exists(), mine.exists()) == (False, True)


@pytest.mark.parametrize(
    "said",
    [
        None,
        "",
        "no words",
        "1 2 3",
        "{pid} - {namespace} other-boot",
        "{pid} - pid:[1] {boot}",
        "x - {namespace} {boot}",
    ],
)
def test_what_does_not_prove_a_dead_maker_stays(tmp_path: Path, said: str | None) -> None:
    made = leftovers.folder_of_ours(parent=tmp_path)
    namespace, boot = (made / leftovers.OWNER).read_text().split()[2:]
    (made / leftovers.OWNER).unlink()
    if said is not None:
        (made / leftovers.OWNER).write_text(said.format(pid=2**22 + 1, namespace=namespace, boot=boot))
    assert leftovers.sweep(tmp_path) == []
    (made / leftovers.OWNER).write_text(f"{2**22 + 1} 5 {namespace} {boot}")
    assert leftovers.sweep(tmp_path) == [made.name]


def test_a_link_is_not_followed(tmp_path: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    other = tmp_path_factory.mktemp("other")
    made = leftovers.folder_of_ours(parent=tmp_path)
    namespace, boot = (made / leftovers.OWNER).read_text().split()[2:]
    (other / leftovers.OWNER).write_text(f"{2**22 + 1} 5 {namespace} {boot}")
    (tmp_path / f"{leftovers.PREFIX}link").symlink_to(other)
    assert leftovers.sweep(tmp_path) == []
    assert other.exists()


ASKS = """
import sys
from tests.worlds import own_ports
print(own_ports._ours(int(sys.argv[1])), flush=True)
"""


def asked(port: int) -> str:
    """By another suite: whether it gets that port."""
    done = subprocess.run(
        [sys.executable, "-c", ASKS, str(port)],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout.strip()


def test_a_port_is_ours_before_its_server_listens_and_as_long_as_we_live() -> None:
    holder = subprocess.Popen(
        [
            sys.executable,
            "-c",
            HOLDS,
        ],
        cwd=Path(__file__).parents[2],
        stdout=subprocess.PIPE,
    )
    assert holder.stdout is not None
    port = int(holder.stdout.readline())
    try:
        assert asked(port) == "False"
    finally:
        holder.kill()
        holder.communicate()
    assert asked(port) == "True"
    assert len(set(own_ports.free_ports(50))) == 50


@pytest.mark.skipif(bool(why_not()), reason=why_not() or "-")
def test_what_a_host_names_by_user_or_process_is_seen_by_no_other(tmp_path: Path) -> None:
    with a_lab(tmp_path / "lab") as lab:
        network = lab.network()
        alias = Path(f"/sys/class/net/{network.bridge}/ifalias").read_text().split()
        assert alias == ["dstack-tests", *leftovers.who(os.getpid()).split()]
        hosts = [lab.host(f"n{number}") for number in range(2)]
        for place in ("tmp", "dev/shm"):
            first, second = (Path(f"/proc/{host._inside()}/root/{place}") for host in hosts)
            (first / "run-21000").touch()
            assert (second / "run-21000").exists() is False
            assert not Path(f"/{place}/run-21000").exists()


@pytest.mark.parametrize("said", [[], ["5"], [str(os.getpid()), "-", "pid:[1]", "boot"]])
def test_whose_maker_is_not_proven_dead(said: list[str]) -> None:
    assert not leftovers.dead(said)
    assert not leftovers.dead(leftovers.who(os.getpid()).split())
    assert leftovers.dead([str(2**22 + 1), "5", *leftovers.who(1).split()[2:]])
