"""A run's files: the project as git sees it, the same bytes for the same content, links never followed."""

from __future__ import annotations

import os
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

from reconciler.store.blobs.bundle import CannotBundle, TooLarge, bundle
from reconciler.text.dates import ARCHIVED


@pytest.fixture
def project(tmp_path: Path) -> Path:
    root = tmp_path / "project"
    write(root, "train.py", "print()")
    write(root, "data/a.txt", "a")
    write(root, ".dstack/pools.yml", "pools: []")
    write(root, ".dstack/state/p.yml", "private")
    write(root, ".dstack/keys/project.key", "private")
    return root


def write(root: Path, name: str, text: str) -> None:
    (root / name).parent.mkdir(parents=True, exist_ok=True)
    (root / name).write_text(text)


def git(root: Path, *args: str) -> None:
    subprocess.run(["git", "-C", str(root), "-c", "protocol.file.allow=always", *args], check=True, capture_output=True)


def names(packed: Path) -> list[str]:
    with tarfile.open(packed) as tar:
        return tar.getnames()


def test_without_git_everything_but_litter_and_what_is_private(project: Path) -> None:
    write(project, ".venv/bin/python", "")
    write(project, "node_modules/x/index.js", "")
    write(project, "pkg/__pycache__/x.pyc", "")
    assert names(bundle(project)) == [".dstack/pools.yml", "data/a.txt", "train.py"]


def test_with_git_what_it_tracks_and_what_it_does_not_ignore(project: Path) -> None:
    git(project, "init", "-q")
    write(project, ".gitignore", "*.log\n/data/\n")
    write(project, "x.log", "ignored")
    write(project, "gone.py", "")
    git(project, "add", "-f", "train.py", "gone.py", ".dstack")
    (project / "gone.py").unlink()
    assert names(bundle(project)) == [".dstack/pools.yml", ".gitignore", "train.py"]


def test_its_files_have_a_date_that_zip_takes_and_no_other(project: Path, tmp_path: Path) -> None:
    first = bundle(project, into=tmp_path / "one")
    os.utime(project / "train.py", (1_700_000_000, 1_700_000_000))
    (project / "link").symlink_to("train.py")
    second = bundle(project, into=tmp_path / "two")
    (project / "link").unlink()
    assert bundle(project, into=tmp_path / "three").name == first.name != second.name
    with tarfile.open(second) as tar:
        assert {entry.mtime for entry in tar} == {ARCHIVED}
        tar.extractall(tmp_path / "out", filter="data")
    for zone in ("Etc/GMT+12", "Etc/GMT-14"):
        program = "import sys, zipfile as z; z.ZipFile(sys.argv[1], 'w').write(sys.argv[2])"
        command = [sys.executable, "-c", program, str(tmp_path / "x.zip"), str(tmp_path / "out/train.py")]
        subprocess.run(command, env={**os.environ, "TZ": zone}, check=True)


def test_a_file_that_a_secret_is_read_from_stays(project: Path) -> None:
    """By whatever name: a link to it, or a list of files that asks for it, takes it no further."""
    write(project, "token.txt", "hunter2")
    (project / "alias.txt").symlink_to("token.txt")
    never = ("./data/../token.txt",)
    assert names(bundle(project, ("token.txt", "train.py"), never=never)) == ["train.py"]


@pytest.mark.parametrize("with_git", [True, False])
@pytest.mark.parametrize(
    ("files", "sent"),
    [
        ((), []),
        (("train.py",), ["train.py"]),
        (("data", "model.bin"), ["data/a.txt", "model.bin"]),
        (("./data/", "data/a.txt"), ["data/a.txt"]),
        ((".", "model.bin"), [".dstack/pools.yml", ".gitignore", "model.bin", "train.py"]),
    ],
)
def test_files_are_all_that_is_sent_ignored_or_not(
    project: Path, files: tuple[str, ...], sent: list[str], with_git: bool
) -> None:
    """`.` is the project as git sees it, or as its rules leave it, for whoever wants more than that."""
    if with_git:
        git(project, "init", "-q")
    write(project, ".gitignore", "/data/\nmodel.bin\n")
    write(project, "model.bin", "m")
    assert names(bundle(project, files)) == sent


@pytest.mark.parametrize("files", [".dstack", ".", ".dstack/state", ".dstack/keys/project.key"])
def test_nothing_private_travels_even_when_asked_for(project: Path, files: str) -> None:
    git(project, "init", "-q")
    git(project, "add", "-f", ".")
    assert not any("private" in content(bundle(project, (files,)), name) for name in names(bundle(project, (files,))))


def content(packed: Path, name: str) -> str:
    with tarfile.open(packed) as tar:
        file = tar.extractfile(name)
        return file.read().decode() if file else ""


def test_a_folder_of_a_repository_is_a_project_of_its_own(project: Path) -> None:
    git(project.parent, "init", "-q")
    write(project.parent, "outside.txt", "")
    assert names(bundle(project)) == [".dstack/pools.yml", "data/a.txt", "train.py"]


def test_a_project_that_its_repository_ignores_is_packed_all_the_same(project: Path) -> None:
    git(project.parent, "init", "-q")
    write(project.parent, ".gitignore", "/project/\n")
    assert names(bundle(project)) == [".dstack/pools.yml", "data/a.txt", "train.py"]


def test_a_submodule_travels_with_its_files(project: Path, tmp_path: Path) -> None:
    library = tmp_path / "library"
    write(library, "lib.py", "")
    git(library, "init", "-q")
    git(library, "add", ".")
    git(library, "commit", "-qm", "x")
    git(project, "init", "-q")
    git(project, "submodule", "add", "-q", str(library), "lib")
    assert "lib/lib.py" in names(bundle(project))
    assert not any(name.startswith("lib/.git") for name in names(bundle(project)))


@pytest.mark.parametrize("harm", ["owner", "HEAD"])
def test_files_are_not_packed_where_git_does_not_read_the_repository(
    project: Path, harm: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What git ignores, secrets among it, must not travel because git fails."""
    git(project, "init", "-q")
    write(project, ".gitignore", ".env\n")
    write(project, ".env", "TOKEN=1")
    match harm:
        case "owner":
            monkeypatch.setenv("GIT_TEST_ASSUME_DIFFERENT_OWNER", "1")
        case "HEAD":
            write(project, ".git/HEAD", "garbage")
    with pytest.raises(CannotBundle, match="git cannot read the repository of"):
        bundle(project)


def test_the_same_content_is_the_same_bytes(project: Path, tmp_path: Path) -> None:
    first = bundle(project, into=tmp_path / "a")
    for path in project.rglob("*"):
        os.utime(path, (1, 1))
    (project / "train.py").chmod(0o600)
    second = bundle(project, into=tmp_path / "b")
    assert first.name == second.name
    assert first.read_bytes() == second.read_bytes()
    write(project, "train.py", "other")
    assert bundle(project, into=tmp_path / "a").name != first.name
    assert sorted(path.suffix for path in (tmp_path / "a").iterdir()) == [".gz", ".gz"]


def test_links_are_kept_and_never_followed(project: Path, tmp_path: Path) -> None:
    write(tmp_path, "outside/secret.txt", "secret")
    (project / "link").symlink_to(tmp_path / "outside")
    (project / "loop").symlink_to(".")
    (project / "to-file").symlink_to("train.py")
    with tarfile.open(bundle(project)) as tar:
        links = {member.name: member.linkname for member in tar if member.issym()}
        assert links == {"link": str(tmp_path / "outside"), "loop": ".", "to-file": "train.py"}
        assert not any("secret" in name for name in tar.getnames())


def test_a_tracked_folder_that_became_a_link_is_not_followed(project: Path, tmp_path: Path) -> None:
    git(project, "init", "-q")
    git(project, "add", "data", "train.py")
    write(tmp_path, "outside/a.txt", "secret")
    (project / "data/a.txt").unlink()
    (project / "data").rmdir()
    (project / "data").symlink_to(tmp_path / "outside")
    assert names(bundle(project)) == [".dstack/pools.yml", "data", "train.py"]
    with pytest.raises(CannotBundle):
        bundle(project, ("data/a.txt",))


def test_strange_names_and_modes_arrive(project: Path) -> None:
    strange = ["-rf", "a b\n'c'", "ü", os.fsdecode(b"\xff\xfe"), "d" * 180 + "/" + "e" * 180]
    for name in strange:
        write(project, name, "x")
    (project / "train.py").chmod(0o755)
    os.mkfifo(project / "pipe")
    with tarfile.open(bundle(project)) as tar:
        assert set(strange) <= set(tar.getnames())
        assert tar.getmember("train.py").mode == 0o755
        assert "pipe" not in tar.getnames()


@pytest.mark.parametrize("files", ["/etc/passwd", "../x", "a/../../x", "no-such"])
def test_extra_files_lie_in_the_project(project: Path, files: str) -> None:
    with pytest.raises(CannotBundle, match=files):
        bundle(project, (files,))


def test_too_large_names_the_five_largest(project: Path) -> None:
    for number in range(7):
        write(project, f"big-{number}", "x" * (1000 + number))
    with pytest.raises(TooLarge) as caught:
        bundle(project, limit=5000)
    assert caught.value.largest == tuple((f"big-{n}", 1000 + n) for n in (6, 5, 4, 3, 2))
    assert caught.value.total > 7000
    assert "big-6 (0.0 MB)" in str(caught.value)
    assert names(bundle(project, limit=None))
