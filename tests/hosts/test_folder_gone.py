"""The folder of a server that answers is removed: a fact, not a silence. On real OpenSSH servers."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from tests.doubles.commands.command import Folder
from tests.doubles.hosts.real_host import until
from tests.doubles.hosts.ssh_hosts import SshHost, a_lab, why_not
from tests.hosts.test_ssh_runs import Shop

pytestmark = pytest.mark.skipif(bool(why_not()), reason=why_not() or "-")


@pytest.fixture
def shop(tmp_path: Path) -> Iterator[Shop]:
    with a_lab(tmp_path / "lab") as lab:
        yield Shop(lab, Folder(tmp_path / "project"))


def folders(host: SshHost) -> list[Path]:
    """What this project has on a host: a folder with its claim, its jobs below `host`."""
    return [path.parent for path in host.home.glob(".dstack*/**/claim")]


def claim(host: SshHost) -> str:
    return (folders(host)[0] / "claim").read_text()


# No other test, of no other suite, sleeps for so long.
SECONDS = 10_000_000 + time.time_ns() % 10_000_000
SLEEP = f"sleep {SECONDS}"


def sleepers() -> set[int]:
    """Process ids of the jobs, as this machine counts."""
    wanted, found = f"sleep\0{SECONDS}\0".encode(), set()
    for path in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if (path / "cmdline").read_bytes() == wanted:
                found.add(int(path.name))
    return found


def removed(folder: Path) -> None:
    """With all that is in it, also while a job that runs there writes into it."""

    def gone() -> bool:
        with suppress(OSError):
            shutil.rmtree(folder)
        return not folder.exists()

    until(gone, patience=30)


def attached(shop: Shop, *commands: str, more: str = "") -> SshHost:
    host = shop.lab.host("one")
    shop.documents(host)
    if commands:
        shop.run_file("train", *commands, more=more)
        shop.comes_to("train", "running")
    else:
        shop.attaches("one")
    return host


@pytest.mark.parametrize("part", ["", "host"])
def test_an_idle_host_is_attached_anew(shop: Shop, part: str) -> None:
    host = attached(shop)
    was = claim(host)
    removed(folders(host)[0] / part)
    shop.apply(ok=False)
    until(lambda: shop.apply().code == 0 and shop.hosts()["one"]["status"] == "idle", patience=20)
    assert claim(host) != was
    shop.run_file("hello", "echo hello")
    shop.comes_to("hello", "done")


@pytest.mark.parametrize("part", ["", "host"])
def test_the_run_of_a_busy_host_is_retried_and_runs_nowhere_twice(shop: Shop, part: str) -> None:
    host = attached(shop, "echo $DSTACK_ATTEMPT", SLEEP, more="retry: {on_events: [interruption]}")
    until(sleepers, patience=20)
    before = sleepers()
    removed(folders(host)[0] / part)

    def again() -> bool:
        shop.apply(ok=False)
        return shop.dstack("logs", "train", ok=False).out == "2\n"

    until(again, patience=60)
    after = sleepers()
    assert len(after) == 1
    assert after != before


def test_the_run_of_a_busy_host_that_is_not_retried_fails_with_the_reason(shop: Shop) -> None:
    host = attached(shop, SLEEP, more="retry: false")
    removed(folders(host)[0])
    shop.comes_to("train", "failed")
    assert shop.runs()["train"]["reason"] == "its folder on the host is gone"
    until(lambda: shop.apply(ok=False) and not sleepers(), patience=20)


def test_a_stopped_run_ends_though_its_folder_is_gone(shop: Shop) -> None:
    host = attached(shop, SLEEP)
    until(sleepers, patience=20)  # what begins a job still writes there until then
    removed(folders(host)[0])
    assert "terminated" in shop.dstack("stop", "train", "-y").out


def test_removing_such_a_host_works_and_a_healthy_one_is_refused(shop: Shop) -> None:
    host = attached(shop)
    said = shop.dstack("pool", "remove", "one", "-y", ok=False)
    assert (said.code, "SSH host of the configuration" in said.err) == (1, True)
    removed(folders(host)[0])
    assert shop.dstack("pool", "remove", "one", "-y").out == "instance one is ended\n"


def test_a_folder_that_cannot_be_entered_is_a_silence(shop: Shop) -> None:
    host = attached(shop, SLEEP)
    until(sleepers, patience=20)
    folder = folders(host)[0] / "host"
    folder.chmod(0)
    shop.apply(ok=False)
    assert shop.runs()["train"]["status"] == "running"
    assert "cannot be entered" in shop.hosts()["one"]["reason"]
    folder.chmod(0o700)
    shop.apply()
    assert shop.hosts()["one"]["status"] == "busy"
