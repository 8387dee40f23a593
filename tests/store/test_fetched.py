"""What dstack wrote into the project's folder is not sent with a run, until somebody makes it the project's."""

from __future__ import annotations

import os
import shutil
import subprocess
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

from reconciler.store.blobs.bundle import bundle
from reconciler.store.blobs.fetched import MOST, Fetched


@pytest.fixture
def project(tmp_path: Path) -> Path:
    (tmp_path / "project/.dstack").mkdir(parents=True)
    (tmp_path / "project/train.py").write_text("own")
    return tmp_path / "project"


def fetch(project: Path, *names: str) -> None:
    with Fetched(project) as fetched:
        for name in names:
            (project / name).parent.mkdir(parents=True, exist_ok=True)
            fetched.expect(project / name)
            (project / name).write_text(f"fetched {name}")


def sent(project: Path, *files: str) -> tuple[list[str], list[str]]:
    """(names, notes)."""
    told: list[str] = []
    packed = bundle(project, files or None, told=told.append)
    with tarfile.open(packed) as tar:
        names = tar.getnames()
    packed.unlink()
    return names, told


def git(root: Path, *args: str) -> None:
    subprocess.run(["git", "-C", str(root), *args], check=True, capture_output=True)


@pytest.mark.parametrize("with_git", [True, False])
def test_what_was_fetched_is_not_sent_and_that_is_told(project: Path, with_git: bool) -> None:
    if with_git:
        git(project, "init", "-q")
    fetch(project, "hello-artifacts/model.pt", "hello-artifacts/deep/log.txt", "one.bin")
    names, told = sent(project)
    assert names == ["train.py"]
    assert told[0] == (
        "3 files that dstack fetched (one.bin, …) are not sent. To send one, add it to git or name it in `files`."
    )


def test_again_and_a_file_that_was_there_before(project: Path) -> None:
    """A copy brings a changed program back from a dev environment: the project's file stays the project's."""
    fetch(project, "out/a", "train.py")
    fetch(project, "out/a", "train.py", "out/b")
    assert sent(project)[0] == ["train.py"]


@pytest.mark.parametrize(
    ("change", "sends"),
    [
        (lambda root: (root / "out/a").write_text("edited by hand"), ["out/a", "train.py"]),
        (lambda root: os.utime(root / "out/a", (1, 1)), ["out/a", "train.py"]),
        (lambda root: (root / "out").rename(root / "results"), ["train.py"]),
        (lambda root: (root / "out/a").unlink(), ["train.py"]),
        (lambda root: (root / ".dstack/state/fetched").write_text("no JSON\n[1]\n"), ["out/a", "train.py"]),
        (lambda root: (root / ".dstack/state/fetched").unlink(), ["out/a", "train.py"]),
    ],
    ids=["edited", "touched", "moved", "removed", "damaged", "forgotten"],
)
def test_it_counts_while_it_is_as_dstack_wrote_it(
    project: Path, change: Callable[[Path], object], sends: list[str]
) -> None:
    fetch(project, "out/a")
    change(project)
    assert sent(project)[0] == sends


def test_a_copied_project_knows_it_too(project: Path) -> None:
    fetch(project, "out/a")
    shutil.copytree(project, project.parent / "copy")
    assert sent(project.parent / "copy")[0] == ["train.py"]


@pytest.mark.parametrize(
    ("files", "names"),
    [
        (("out/a",), ["out/a"]),
        (("out",), ["out/a", "out/b"]),
        ((".",), ["src/main.py", "train.py"]),
        (("src", "train.py"), ["src/main.py", "train.py"]),
        ((".", "out/b"), ["out/b", "src/main.py", "train.py"]),
    ],
)
def test_whoever_names_it_has_it_sent(project: Path, files: tuple[str, ...], names: list[str]) -> None:
    """Not by the name of a folder that has other files, too."""
    fetch(project, "out/a", "out/b", "src/c")
    (project / "src/main.py").write_text("own")
    assert sent(project, *files)[0] == names


def test_git_makes_it_the_projects(project: Path) -> None:
    git(project, "init", "-q")
    fetch(project, "new_module.py", "model.pt")
    git(project, "add", "new_module.py")
    assert sent(project)[0] == ["new_module.py", "train.py"]


def test_what_lies_elsewhere_or_leads_there_is_not_remembered(project: Path) -> None:
    (project.parent / "other").mkdir()
    (project / "link").symlink_to(project.parent / "other")
    fetch(project, "../other/a", "link/b")
    assert not Fetched(project)


def test_records_are_bounded(project: Path) -> None:
    fetch(project, "out/a")
    line = '["x", 1, 2, 3]\n'
    (project / ".dstack/state/fetched").write_text(line * (MOST + 5))
    fetch(project, "out/b")
    assert (project / ".dstack/state/fetched").read_text().count("\n") == MOST
    assert (project / ".dstack/state").stat().st_mode & 0o777 == 0o700
