"""Blobs and done-markers: whole or absent, verified, and never outside their folder."""

from __future__ import annotations

import hashlib
import multiprocessing
import os
import subprocess
import sys
from pathlib import Path

import pytest

from reconciler.state.errors import StateRefused
from reconciler.store.blobs.folder import BlobError, FolderBlobs
from reconciler.store.markers.folder import Markers

EMPTY = hashlib.sha256(b"").hexdigest()


@pytest.fixture
def blobs(tmp_path: Path) -> FolderBlobs:
    return FolderBlobs(tmp_path / "blobs")


@pytest.mark.parametrize("data", [b"", b"a log\n", bytes(range(256)) * 10_000])
def test_what_was_put_is_got(blobs: FolderBlobs, data: bytes) -> None:
    digest = blobs.put(data)
    assert digest == hashlib.sha256(data).hexdigest()
    assert blobs.get(digest) == data
    path = blobs.path(digest)
    assert path is not None
    assert path.stat().st_mode & 0o777 == 0o600


def test_a_file_is_copied(blobs: FolderBlobs, tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.write_bytes(b"x" * 3_000_000)
    digest = blobs.put(source)
    source.write_bytes(b"changed")
    assert blobs.get(digest) == b"x" * 3_000_000


def test_the_same_again_is_one(blobs: FolderBlobs) -> None:
    assert blobs.put(b"a") == blobs.put(b"a")
    assert len(blobs.digests()) == 1


def test_missing(blobs: FolderBlobs) -> None:
    assert blobs.path(EMPTY) is None
    assert blobs.digests() == frozenset()
    with pytest.raises(BlobError, match="not in"):
        blobs.get(EMPTY)
    blobs.remove(EMPTY)


def test_damage_is_noticed_and_mended_by_the_next_put(blobs: FolderBlobs) -> None:
    digest = blobs.put(b"good")
    path = blobs.path(digest)
    assert path is not None
    path.write_bytes(b"evil")
    with pytest.raises(BlobError, match="damaged"):
        blobs.get(digest)
    blobs.put(b"good")
    assert blobs.get(digest) == b"good"


@pytest.mark.parametrize("digest", ["", "../../etc/passwd", "A" * 64, "a" * 63, "a" * 64 + "\n", "/" + "a" * 63])
def test_a_digest_is_never_a_path(blobs: FolderBlobs, digest: str) -> None:
    for attempt in (blobs.get, blobs.path, blobs.remove):
        with pytest.raises(BlobError, match="not the digest"):
            attempt(digest)


def test_leftovers_of_the_dead_are_swept_and_never_listed(blobs: FolderBlobs, tmp_path: Path) -> None:
    digest = blobs.put(b"a")
    for name, age in ((".old.tmp", 100_000), (".new.tmp", 10)):
        (tmp_path / "blobs" / name).write_bytes(b"half")
        os.utime(tmp_path / "blobs" / name, (1_000_000 - age, 1_000_000 - age))
    blobs.sweep(now=1_000_000)
    assert sorted(path.name for path in (tmp_path / "blobs").glob(".*.tmp")) == [".new.tmp"]
    blobs.put(b"a")  # long after 1970
    assert list((tmp_path / "blobs").glob(".*.tmp")) == []
    assert blobs.digests() == {digest}


@pytest.mark.parametrize("off", ["+40y", "+40d", "-40d"])
def test_a_wrong_clock_sweeps_nothing_that_is_being_written(blobs: FolderBlobs, tmp_path: Path, off: str) -> None:
    """`faketime dstack apply` removed its own half-written blob: the folder's clock judges what the folder dates."""
    blobs.put(b"a")
    other = tmp_path / "blobs" / ".other.tmp"
    other.write_bytes(b"half")
    program = f"from pathlib import Path\nfrom reconciler.store.blobs.folder import *\n{PUT}"
    done = subprocess.run(
        ["faketime", "-f", off, sys.executable, "-c", program, str(tmp_path / "blobs")], capture_output=True, text=True
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert other.exists()
    assert len(blobs.digests()) == 2


PUT = "import sys\nFolderBlobs(Path(sys.argv[1])).put(b'b')\n"


def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(BlobError, match="cannot be written"):
        FolderBlobs(tmp_path / "file" / "blobs").put(b"a")


def _put(folder: Path) -> None:
    FolderBlobs(folder).put(b"z" * 1_000_000)


def test_racing_writers_of_the_same(blobs: FolderBlobs, tmp_path: Path) -> None:
    writers = [multiprocessing.get_context("spawn").Process(target=_put, args=(tmp_path / "blobs",)) for _ in range(3)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join(240)
    assert [writer.exitcode for writer in writers] == [0, 0, 0]
    assert blobs.get(hashlib.sha256(b"z" * 1_000_000).hexdigest())


def test_markers(tmp_path: Path) -> None:
    markers = Markers(tmp_path / "done")
    assert markers.all() == frozenset()
    markers.put("train-1", "ab12")
    markers.put("train-1", "ab12")
    markers.put("eval", "cd34")
    (tmp_path / "done" / "README").write_text("not ours")
    assert markers.all() == {("train-1", "ab12"), ("eval", "cd34")}
    assert markers.has("eval", "cd34")
    assert not markers.has("eval", "ab12")


@pytest.mark.parametrize(
    ("name", "digest"), [("../x", "ab"), ("x", "../y"), ("", "ab"), ("x", ""), ("X", "ab"), ("x", "a/b")]
)
def test_a_marker_is_never_a_path(tmp_path: Path, name: str, digest: str) -> None:
    with pytest.raises(ValueError, match="not a run"):
        Markers(tmp_path).put(name, digest)


def test_markers_that_cannot_be_read_are_not_none(tmp_path: Path) -> None:
    (tmp_path / "done").write_text("a file")
    with pytest.raises(StateRefused, match="cannot be read"):
        Markers(tmp_path / "done").all()
    with pytest.raises(StateRefused, match="cannot be written"):
        Markers(tmp_path / "done").put("a", "b")
