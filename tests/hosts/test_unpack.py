"""What a job packs is not trusted: nothing of it gets out of the folder, and what is whole arrives."""

from __future__ import annotations

import io
import os
import tarfile
import tempfile
import uuid
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reconciler.hosts.artifacts import repack
from reconciler.hosts.unpack import Unpacked, unpack
from reconciler.text.dates import ARCHIVED, archived_time

FILE, FOLDER, LINK, SECOND, FIFO = tarfile.REGTYPE, tarfile.DIRTYPE, tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE


def packed(*members: tuple[bytes, str, str]) -> bytes:
    """Of (kind, name, content or link)."""
    raw = io.BytesIO()
    with tarfile.open(fileobj=raw, mode="w", format=tarfile.GNU_FORMAT) as tar:
        for kind, name, text in members:
            entry = tarfile.TarInfo()
            entry.name, entry.type, entry.mode = name, kind, 0o644
            if kind == FILE:
                entry.size = len(text)
            else:
                entry.linkname = text
            tar.addfile(entry, io.BytesIO(text.encode()))
    return raw.getvalue()


def unpacked(root: Path, *members: tuple[bytes, str, str]) -> Unpacked:
    (root / "outside").mkdir(parents=True, exist_ok=True)
    return unpack(io.BytesIO(packed(*members)), root / "in")


def everything(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): os.readlink(path) if path.is_symlink() else path.read_text()
        for path in sorted(folder.rglob("*"))
        if path.is_symlink() or path.is_file()
    }


# Nobody else's, though several run these tests at once.
EVIL = Path(tempfile.gettempdir(), f"dstack-evil-{uuid.uuid4().hex}")
HOSTILE = {
    "absolute": [(FILE, str(EVIL), "x")],
    "above": [(FILE, "../outside/evil", "x")],
    "above, later": [(FILE, "a/../../outside/evil", "x")],
    "through a link": [(LINK, "d", "../outside"), (FILE, "d/evil", "x")],
    "through an absolute link": [(LINK, "d", str(EVIL.parent)), (FILE, f"d/{EVIL.name}", "x")],
    "over a link": [(LINK, "evil", "../outside/evil"), (FILE, "evil", "x")],
    "a chain of links": [(LINK, "z", "."), (LINK, "k", "z/.."), (FILE, "k/outside/evil", "x")],
    "a deep chain": [(FOLDER, "a", ""), (LINK, "a/b", ".."), (LINK, "c", "a/b/../outside"), (FILE, "c/evil", "x")],
    "a second name of what is outside": [(SECOND, "evil", "../outside/theirs")],
    "a second name through a link": [(LINK, "d", "../outside"), (SECOND, "evil", "d/theirs")],
    "a second name, absolute": [(SECOND, "evil", "/etc/passwd")],
    "a pipe": [(FIFO, "evil", "")],
    "a folder's place": [(LINK, "d", "../outside"), (FOLDER, "d", ""), (FILE, "d/evil", "x")],
}


@pytest.mark.parametrize("name", HOSTILE)
def test_nothing_leaves_the_folder(tmp_path: Path, name: str) -> None:
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside/theirs").write_text("secret")
    done = unpacked(tmp_path, *HOSTILE[name])
    assert everything(tmp_path / "outside") == {"theirs": "secret"}
    assert not EVIL.exists()
    inside = tmp_path / "in"
    for path in inside.rglob("*") if inside.exists() else ():
        assert path.resolve().is_relative_to(inside), path
        assert not path.is_file() or path.read_text() != "secret"
    assert done.notes or name == "over a link"


@pytest.mark.parametrize(
    ("said", "kept"),
    [
        (1_700_000_000, 1_700_000_000),
        (0, ARCHIVED),
        (-5, ARCHIVED),
        (2**60, 4_354_732_800),
        (1.7e9 + 0.5, 1_700_000_000),
    ],
)
def test_a_file_keeps_its_date(tmp_path: Path, said: float, kept: int) -> None:
    """In artifacts, too: what an archive claims is bounded, since no tool takes any number."""
    raw = tmp_path / "raw.tar"
    with tarfile.open(raw, mode="w", format=tarfile.PAX_FORMAT) as tar:
        entry = tarfile.TarInfo("a")
        entry.mtime, entry.size = said, 1
        tar.addfile(entry, io.BytesIO(b"a"))
    with raw.open("rb") as stream:
        assert unpack(stream, tmp_path / "in").notes == []
    assert (tmp_path / "in/a").stat().st_mtime == kept
    stored, notes = repack(raw, into=tmp_path / "stored")
    assert (stored, notes) == (tmp_path / "stored", [])
    with tarfile.open(tmp_path / "stored") as tar:
        assert [entry.mtime for entry in tar] == [kept]


@pytest.mark.parametrize("said", ["nan", "inf", "-inf", "1e300"])
def test_no_date_at_all(tmp_path: Path, said: str) -> None:
    assert archived_time(float(said)) in (ARCHIVED, 4_354_732_800)


def test_links_that_stay_and_second_names_arrive(tmp_path: Path) -> None:
    done = unpacked(
        tmp_path,
        (FOLDER, "./a", ""),
        (FILE, "./a/one", "1"),
        (LINK, "./a/up", "../two"),
        (FILE, "./two", "2"),
        (SECOND, "./again", "./a/one"),
        (LINK, "./here", "a/one"),
    )
    assert (done.notes, done.cut, done.files) == ([], "", 3)
    assert everything(tmp_path / "in") == {"a/one": "1", "a/up": "../two", "again": "1", "here": "a/one", "two": "2"}


def test_what_is_there_is_replaced_and_a_folder_stays(tmp_path: Path) -> None:
    kept = tmp_path / "in/a"
    kept.mkdir(parents=True)
    (kept / "old").write_text("old")
    unpacked(tmp_path, (FOLDER, "a", ""), (FILE, "a/old", "new"), (FILE, "a/more", "m"))
    assert everything(tmp_path / "in") == {"a/more": "m", "a/old": "new"}


def test_a_users_own_link_in_the_way_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "outside").mkdir()
    (tmp_path / "in/d").symlink_to(tmp_path / "outside")
    done = unpacked(tmp_path, (FILE, "d/evil", "x"))
    assert done.notes == ["left out, a link is in its way: d/evil"]
    assert everything(tmp_path / "outside") == {}


@pytest.mark.parametrize("keep", [0, 100, 512, 700, 1500, 3000])
def test_a_stream_that_is_cut_is_told_and_leaves_whole_files(tmp_path: Path, keep: int) -> None:
    raw = packed((FILE, "one", "1" * 1000), (FILE, "two", "2" * 1000))
    done = unpack(io.BytesIO(raw[:keep]), tmp_path / "in")
    assert done.cut
    found = everything(tmp_path / "in") if (tmp_path / "in").exists() else {}
    assert set(found.values()) <= {"1" * 1000, "2" * 1000}


NAMES = st.lists(st.sampled_from(["a", "b", "..", ".", "", "c"]), min_size=1, max_size=4).map("/".join)
MEMBERS = st.lists(st.tuples(st.sampled_from([FILE, FOLDER, LINK, SECOND]), NAMES, NAMES), max_size=8)


@given(members=MEMBERS)
def test_whatever_is_in_it_stays_inside(
    tmp_path_factory: pytest.TempPathFactory, members: list[tuple[bytes, str, str]]
) -> None:
    root = tmp_path_factory.mktemp("u")
    unpacked(root, *[(kind, name or "x", text) for kind, name, text in members])
    assert {path.name for path in root.iterdir()} <= {"outside", "in"}
    assert everything(root / "outside") == {}
    for path in (root / "in").rglob("*"):
        try:
            where = path.resolve(strict=True)
        except FileNotFoundError:
            where = path.resolve()
        except (OSError, RuntimeError):  # links in a circle lead nowhere
            continue
        assert where.is_relative_to(root / "in"), path
