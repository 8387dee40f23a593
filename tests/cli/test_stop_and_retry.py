"""What a stop gives a run, and what a second attempt has of the first: by the command, on real processes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cli.test_job import runs, ticked_until, until
from tests.doubles.commands.command import Folder, folder_at


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Folder]:
    made = folder_at(tmp_path)
    yield made
    made.dstack("destroy", "--confirm", "demo")


def orders(folder: Folder) -> str:
    """What the hosts were told of every job that has not ended."""
    return "".join(path.read_text() for path in (folder.root.parent / "home").rglob("jobs/*/order"))


@pytest.mark.parametrize(("said", "seconds"), [("stop_duration: 2m", "120"), ("stop_duration: off", "999999999")])
def test_the_host_knows_how_long_a_stop_waits(folder: Folder, said: str, seconds: str) -> None:
    saves = "trap 'sleep 1; echo saved; exit 1' TERM; echo up; while :; do sleep 0.1; done"
    folder.write(".dstack/runs/long.yml", f'type: task\n{said}\ncommands: ["{saves}"]\n')
    assert folder.dstack("apply", "-y").code == 0
    ticked_until(folder, "long", "running")
    assert f"grace={seconds}\n" in orders(folder)
    until(lambda: "up" in folder.dstack("logs", "long").out)
    assert folder.dstack("stop", "long", "-y").code == 0
    ticked_until(folder, "long", "terminated")
    assert "saved" in folder.dstack("logs", "long").out
    assert runs(folder)["long"]["status"] == "terminated"
