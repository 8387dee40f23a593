"""`dstack cp SRC RUN:PATH`: files go into a running job, and none is there by half."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cli.test_job import ticked_until, until
from tests.doubles.commands.command import Folder, folder_at

WAITS = """\
type: task
name: waits
files: []
working_dir: sub
artifacts: [sub]
commands:
  - echo up
  - until [ -f go ]; do sleep 0.1; done
"""


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Folder]:
    made = folder_at(tmp_path)
    made.write(".dstack/runs/waits.yml", WAITS)
    assert made.dstack("apply", "-y").code == 0
    until(lambda: "up" in made.dstack("logs", "waits").out)
    yield made
    made.dstack("destroy", "--confirm", "demo")


def test_files_and_folders_go_in(folder: Folder) -> None:
    folder.write("one.txt", "one\n")
    folder.write("tree/a/b.txt", "b\n")
    folder.write("tree/-odd name", "odd\n")
    (folder.root / "tree/link").symlink_to("a/b.txt")
    for source, place, files in (
        ("one.txt", "waits:copy.txt", 1), ("one.txt", "waits:new/", 1), ("tree", "waits:tree", 2),
        ("one.txt", "waits:tree", 1), ("one.txt", "waits:", 1),
    ):  # fmt: skip
        ran = folder.dstack("cp", source, place)
        assert (ran.code, ran.out) == (0, f"{files} file{'s' if files > 1 else ''} copied to {place}\n"), ran
    folder.write("one.txt", "two\n")
    assert folder.dstack("cp", "one.txt", "waits:copy.txt").code == 0
    assert folder.dstack("cp", "one.txt", "waits:go").code == 0
    ticked_until(folder, "waits", "done")
    assert folder.dstack("artifacts", "waits", "got").code == 0
    got = folder.root / "got/sub"
    found = {path.relative_to(got).as_posix(): path.read_text() for path in got.rglob("*") if path.is_file()}
    assert found == {
        "copy.txt": "two\n", "new/one.txt": "one\n", "tree/a/b.txt": "b\n", "tree/-odd name": "odd\n",
        "tree/link": "b\n", "tree/one.txt": "one\n", "one.txt": "one\n", "go": "two\n",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("source", "place", "told"),
    [
        ("no-such", "waits:x", "no-such: no such file or folder here"),
        ("one.txt", "waits:no/such/x", "not all of it arrived"),
        ("one.txt", "other:x", "other"),
        ("one.txt", "here.txt", "dstack cp SRC RUN:PATH"),
    ],
)
def test_what_cannot_go_in_is_an_error(folder: Folder, source: str, place: str, told: str) -> None:
    folder.write("one.txt", "one\n")
    ran = folder.dstack("cp", source, place)
    assert (ran.code, told in ran.err) == (1, True), ran
    assert ran.err.count("error: ") == 1
