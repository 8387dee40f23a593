"""The ledger: a killed writer loses or doubles no entry."""

from __future__ import annotations

import multiprocessing
from decimal import Decimal
from pathlib import Path

import pytest

from reconciler.state.errors import StateRefused
from reconciler.store.ledger.folder import FolderLedger
from schemas.ledger import Entry

NOVEMBER = 1_793_491_200  # 2026-11-01T00:00:00Z
DAY = 86_400


def entry(id: str, at: int = NOVEMBER) -> Entry:
    return Entry(id=id, at=at, kind="billed", subject="instance x", price=Decimal("0.5"), seconds=60)


def test_nothing_told_makes_nothing(tmp_path: Path) -> None:
    FolderLedger(tmp_path / "ledger").append(())
    assert list(FolderLedger(tmp_path / "ledger").read()) == []
    assert not (tmp_path / "ledger").exists()


def test_by_month(tmp_path: Path) -> None:
    entries = [entry("a", NOVEMBER - 1), entry("b"), entry("c", NOVEMBER + 31 * DAY)]
    FolderLedger(tmp_path).append(entries)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["2026-10.jsonl", "2026-11.jsonl", "2026-12.jsonl"]
    assert list(FolderLedger(tmp_path).read()) == entries
    assert list(FolderLedger(tmp_path).read(since=NOVEMBER)) == entries[1:]
    assert list(FolderLedger(tmp_path).read(since=NOVEMBER + 1)) == entries[2:]


def test_told_twice_counts_once(tmp_path: Path) -> None:
    FolderLedger(tmp_path).append([entry("a"), entry("b")])
    FolderLedger(tmp_path).append([entry("b"), entry("c")])
    assert [each.id for each in FolderLedger(tmp_path).read()] == ["a", "b", "c"]


@pytest.mark.parametrize("cut", range(1, 60, 7))
def test_a_torn_line_is_skipped_closed_and_told_again(tmp_path: Path, cut: int) -> None:
    FolderLedger(tmp_path).append([entry("a"), entry("b")])
    file = tmp_path / "2026-11.jsonl"
    file.write_bytes(file.read_bytes()[:-cut])
    assert [each.id for each in FolderLedger(tmp_path).read()] in (["a"], ["a", "b"])
    FolderLedger(tmp_path).append([entry("b"), entry("c")])
    assert [each.id for each in FolderLedger(tmp_path).read()] == ["a", "b", "c"]


def test_foreign_lines_are_skipped(tmp_path: Path) -> None:
    (tmp_path / "2026-11.jsonl").write_bytes(b'\xff\xfe\n{"id":1}\n\n[]\n')
    (tmp_path / "notes.txt").write_text("x")
    FolderLedger(tmp_path).append([entry("a")])
    assert [each.id for each in FolderLedger(tmp_path).read()] == ["a"]


def test_an_entry_with_a_key_twice_is_refused_with_its_place(tmp_path: Path) -> None:
    FolderLedger(tmp_path).append([entry("a"), entry("b")])
    file = tmp_path / "2026-11.jsonl"
    file.write_bytes(file.read_bytes().replace(b'{"id":"b"', b'{"id":"x","id":"b"'))
    with pytest.raises(StateRefused, match=r"2026-11.jsonl:2: damaged: key `id` at line 1, column 11 is there twice"):
        list(FolderLedger(tmp_path).read())


def test_it_is_its_owners_alone(tmp_path: Path) -> None:
    FolderLedger(tmp_path).append([entry("a")])
    assert (tmp_path / "2026-11.jsonl").stat().st_mode & 0o777 == 0o600


def test_it_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StateRefused, match="ledger cannot be written"):
        FolderLedger(tmp_path / "file" / "ledger").append([entry("a")])


def _tell(folder: Path, name: str) -> None:
    for index in range(50):
        FolderLedger(folder).append([entry(f"{name}-{index}-{part}") for part in range(20)])


def test_writers_at_once_lose_nothing(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    writers = [context.Process(target=_tell, args=(tmp_path, name)) for name in ("x", "y")]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join(240)
    assert len(list(FolderLedger(tmp_path).read())) == 2000
