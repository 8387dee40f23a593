"""What lies beside a state, in a folder and in buckets of real servers: blobs, done-markers, the ledger, expiry."""

from __future__ import annotations

import itertools
import os
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from reconciler.engine.expire_blobs import due, expire
from reconciler.hosts.uploads import Deliveries
from reconciler.state.errors import StateRefused
from reconciler.store.blobs.bucket import BucketBlobs
from reconciler.store.blobs.folder import BlobError, Blobs, FolderBlobs
from reconciler.store.blobs.split import BlobsApart
from reconciler.store.ledger.bucket import BucketLedger
from reconciler.store.ledger.folder import FolderLedger, Ledger
from reconciler.store.markers.bucket import BucketMarkers
from reconciler.store.markers.folder import Markers
from reconciler.store.objects.base import Item, Objects, StoredObject
from reconciler.store.objects.open import open_bucket
from schemas.ledger import Entry
from schemas.location import Bucket, location
from schemas.run import Run, RunSpec
from schemas.state import VERSION, State, Tick
from tests.doubles.buckets.buckets import KINDS, Server
from tests.doubles.buckets.fault_proxy import FaultProxy

NUMBERS = itertools.count()
NOVEMBER = 1_793_491_200
DAY = 86_400
PART = 1 << 20


@dataclass
class Beside:
    """The same place, opened anew by each call; `sent` are the requests that it took, where a server counts them."""

    folder: Path
    server: Server | None = None
    prefix: str = ""

    def objects(self, port: int = 0) -> Objects:
        assert self.server is not None
        where = location(self.server.state("first-bucket", self.prefix))
        assert isinstance(where, Bucket)
        return open_bucket(where, environ=self.server.at(port or self.server.port))

    def blobs(
        self, *, cache: str = "cache", port: int = 0, told: Callable[[str, int, int], None] | None = None
    ) -> Blobs:
        if self.server is None:
            return FolderBlobs(self.folder / "blobs")
        local = FolderBlobs(self.folder / cache)
        return BucketBlobs(self.objects(port), "p/blobs", cache=local, part=PART, told=told)

    def markers(self) -> Markers | BucketMarkers:
        return Markers(self.folder / "done") if self.server is None else BucketMarkers(self.objects(), "p/done")

    def ledger(self, many: int = 64) -> Ledger:
        if self.server is None:
            return FolderLedger(self.folder / "ledger")
        return BucketLedger(self.objects(), "p/ledger", many=many)


def beside_of(kind: str, tmp_path: Path, server_of: Callable[[str], Server]) -> Beside:
    if kind == "folder":
        return Beside(tmp_path)
    return Beside(tmp_path, server_of(kind), f"beside-{os.getpid()}-{next(NUMBERS)}")


@pytest.fixture(params=["folder", *KINDS])
def beside(request: pytest.FixtureRequest, tmp_path: Path, server_of: Callable[[str], Server]) -> Beside:
    return beside_of(request.param, tmp_path, server_of)


@pytest.fixture(params=KINDS)
def far(request: pytest.FixtureRequest, tmp_path: Path, server_of: Callable[[str], Server]) -> Beside:
    return beside_of(request.param, tmp_path, server_of)


def noise(size: int) -> bytes:
    return random.Random(size).randbytes(size)  # noqa: S311 - the same each time


# ---------------------------------------------------------------- blobs


@pytest.mark.parametrize(
    "data", [b"", b"a log\n", b"a log\n" * 99_999, noise(3 * PART + 7), noise(PART), noise(PART + 1)], ids=len
)
def test_a_blob_is_read_back_elsewhere(beside: Beside, data: bytes) -> None:
    digest = beside.blobs().put(data)
    elsewhere = beside.blobs(cache="other")
    assert elsewhere.get(digest) == data
    path = elsewhere.path(digest)
    assert path is not None
    assert path.read_bytes() == data
    assert {one.digest for one in elsewhere.stored()} >= {digest}


def test_a_file_and_again(beside: Beside) -> None:
    source = beside.folder / "source"
    source.write_bytes(noise(2 * PART + 3))
    digest = beside.blobs().put(source)
    assert beside.blobs().put(source) == digest
    assert [one.digest for one in beside.blobs().stored()] == [digest]


def test_one_that_is_gone(beside: Beside) -> None:
    large, small = beside.blobs().put(noise(2 * PART)), beside.blobs().put(b"small")
    for digest in (large, small):
        assert not beside.blobs().retire(digest, before=1)
        assert beside.blobs().retire(digest, before=LATER)
        assert not beside.blobs().retire(digest, before=LATER)
        assert beside.blobs(cache="other").path(digest) is None
        with pytest.raises(BlobError, match="not in"):
            beside.blobs(cache="other").verified(digest)
    assert list(beside.blobs().stored()) == []


def test_a_digest_is_never_a_path(beside: Beside) -> None:
    for wrong in ("", "../../x", "A" * 64):
        with pytest.raises(BlobError, match="not the digest"):
            beside.blobs().path(wrong)


def test_what_was_sent_before_a_kill_is_not_sent_again(far: Beside) -> None:
    """The second part's request dies with its sender; the next one sends what is missing, and the list at last."""
    assert far.server is not None
    data = noise(4 * PART)
    puts = itertools.count(1)

    def cut(method: str, path: str, number: int) -> str:
        writes = method == "PUT" or (method == "POST" and "upload" in path)
        return "refuse" if writes and next(puts) > 2 else ""

    bad = FaultProxy(far.server.port, choose=cut)  # type: ignore[arg-type]
    said: list[tuple[int, int]] = []
    died = far.blobs(port=bad.port, told=lambda what, done, size: Dying.after(said, done, size))
    with pytest.raises((BlobError, Dying)):
        died.put(data)
    bad.close()
    digest = far.blobs(cache="third").put(data[:1]) and FolderBlobs(far.folder / "probe").put(data)
    assert far.blobs(cache="other").path(digest) is None, "a part of it is not a blob"

    good = FaultProxy(far.server.port)
    assert far.blobs(port=good.port).put(data) == digest
    writes = [path for method, path in good.seen if method == "PUT" or "upload" in path]
    good.close()
    assert len(writes) == 3, "two parts were there: two parts and the list are sent"
    assert far.blobs(cache="other").get(digest) == data


class Dying(Exception):
    """The process ends here."""

    @staticmethod
    def after(said: list[tuple[int, int]], done: int, size: int) -> None:
        said.append((done, size))
        if done >= 2 * PART:
            raise Dying


def test_what_was_fetched_before_a_kill_is_not_fetched_again(far: Beside) -> None:
    assert far.server is not None
    digest = far.blobs().put(noise(4 * PART))
    said: list[tuple[int, int]] = []
    with pytest.raises(Dying):
        far.blobs(cache="other", told=lambda what, done, size: Dying.after(said, done, size)).get(digest)
    proxy = FaultProxy(far.server.port)
    assert far.blobs(cache="other", port=proxy.port).get(digest) == noise(4 * PART)
    fetched = [
        path
        for method, path in proxy.seen
        if method == "GET" and "00" in path and ".gz" in path and "projection=" not in path
    ]
    proxy.close()
    assert len({path for path in fetched if "0000" in path}) == 2


def test_progress_is_told_of_large_ones(far: Beside) -> None:
    said: list[tuple[str, int, int]] = []
    digest = far.blobs(told=lambda *each: said.append(each)).put(noise(2 * PART + 5))
    assert said == [(digest[:12], done, 2 * PART + 5) for done in (0, PART, 2 * PART, 2 * PART + 5)]


def test_a_damaged_copy_is_fetched_anew(far: Beside) -> None:
    digest = far.blobs().put(b"good")
    local = FolderBlobs(far.folder / "cache").path(digest)
    assert local is not None
    local.write_bytes(b"evil")
    assert far.blobs().get(digest) == b"good"


@pytest.mark.parametrize("evil", [b"evil", b""])
def test_a_damaged_object_is_noticed(far: Beside, evil: bytes) -> None:
    digest = far.blobs().put(b"good")
    far.objects().put(f"p/blobs/{digest[:2]}/{digest}.gz", evil)
    with pytest.raises(BlobError, match="damaged"):
        far.blobs(cache="other").get(digest)


# ---------------------------------------------------------------- expiry


def state_with(*bundles: str, ticked: int = NOVEMBER) -> State:
    runs = tuple(
        Run(
            id=f"r{number}",
            spec=RunSpec(name=f"r{number}", type="task"),
            status="running",
            bundle=bundle,
            submitted_at=0,
        )
        for number, bundle in enumerate(bundles)
    )
    return State(
        version=VERSION, project="demo12345678", lineage="aaaaaaaa", runs=runs, ticks=(Tick(by="a@b", at=ticked),)
    )


def test_old_blobs_go_unless_a_run_needs_them(beside: Beside) -> None:
    blobs = beside.blobs()
    needed, idle, large = blobs.put(b"needed"), blobs.put(b"idle"), blobs.put(noise(2 * PART))
    at = min(one.at for one in blobs.stored())
    state = state_with(needed)
    assert expire(blobs, read=lambda: state, keep=None, now=at + 30 * DAY) == 0
    assert expire(blobs, read=lambda: None, keep=None, now=at + 32 * DAY) == 0, "a missing state needs what it needed"
    assert expire(blobs, read=lambda: state, keep=90 * DAY, now=at + 32 * DAY) == 0
    assert expire(blobs, read=lambda: state, keep=None, now=at + 32 * DAY) == 2
    assert {one.digest for one in blobs.stored()} == {needed}
    assert {idle, large}.isdisjoint({needed})
    assert expire(blobs, read=lambda: state_with(), keep=0, now=at + DAY) == 0, (
        "what is new may be of a run not written yet"
    )


LATER = 4_000_000_000


class Dated:
    """Objects of a bucket, in memory, by a clock that the test sets."""

    url = "memory://bucket"

    def __init__(self) -> None:
        self.at = NOVEMBER
        self.kept: dict[str, tuple[bytes, int]] = {}

    def get(self, key: str) -> StoredObject | None:
        return StoredObject(self.kept[key][0], "") if key in self.kept else None

    def download(self, key: str, into: Path) -> bool:
        found = self.get(key)
        into.write_bytes(found.data if found else b"")
        return found is not None

    def put(self, key: str, data: bytes, *, tag: str | None = None) -> str:
        self.kept[key] = data, self.at
        return ""

    def stat(self, key: str) -> Item | None:
        return Item(key, len(self.kept[key][0]), self.kept[key][1]) if key in self.kept else None

    def items(self, under: str) -> Iterator[Item]:
        yield from [Item(key, len(data), at) for key, (data, at) in self.kept.items() if key.startswith(f"{under}/")]

    def delete(self, key: str) -> None:
        self.kept.pop(key, None)


@pytest.mark.parametrize("where", ["folder", "bucket", "apart"])
@pytest.mark.parametrize("size", [5, 3 * PART], ids=["small", "in parts"])
def test_what_is_put_again_while_old_ones_are_removed_stays(tmp_path: Path, where: str, size: int) -> None:
    """Its run is written only after the state was read: once the blob was gone when a host came for it."""
    objects: Any = Dated()
    blobs: Any = FolderBlobs(tmp_path / "blobs")
    if where != "folder":
        blobs = BucketBlobs(objects, "p/blobs", cache=FolderBlobs(tmp_path / "c"), now=lambda: objects.at, part=PART)
    if where == "apart":
        blobs = BlobsApart(blobs, beside=FolderBlobs(tmp_path / "beside"))
    again, idle = blobs.put(noise(size)), blobs.put(b"idle")
    for digest in (again, idle):
        if where == "folder":
            os.utime(blobs.path(digest), (NOVEMBER, NOVEMBER))
    objects.at += 40 * DAY

    def read() -> State:
        assert blobs.put(noise(size)) == again
        return state_with()

    assert expire(blobs, read=read, keep=None, now=NOVEMBER + 40 * DAY) == 1
    assert {one.digest for one in blobs.stored()} == {again}
    assert blobs.get(again) == noise(size)


@pytest.mark.parametrize(
    ("was", "now", "expected"),
    [
        (NOVEMBER - 1, NOVEMBER, True),
        (NOVEMBER, NOVEMBER + DAY - 1, False),
        (NOVEMBER, NOVEMBER + DAY, True),
        (NOVEMBER + DAY, NOVEMBER, False),
    ],
)
def test_the_first_write_of_a_day_tidies_up(was: int, now: int, expected: bool) -> None:
    assert due(state_with(ticked=was), state_with(ticked=now)) is expected
    assert not due(None, state_with(ticked=now))


@pytest.mark.parametrize("size", [0, 7, 12 * PART])
def test_an_object_is_downloaded_into_a_file(far: Beside, size: int) -> None:
    into = far.folder / "into"
    far.objects().put("p/x", noise(size))
    assert far.objects().download("p/x", into)
    assert into.read_bytes() == noise(size)
    assert not far.objects().download("p/y", into)


def test_what_hosts_put_goes_with_time(far: Beside) -> None:
    made = Deliveries(far.objects(), "p/results", scratch=far.folder)
    far.objects().put("p/results/r1/end", b"ended 0 exit 1 2 0\n")
    (item,) = far.objects().items("p/results")
    made.expire(before=item.at)
    assert made.result("r1") is not None
    made.expire(before=item.at + 1)
    assert made.result("r1") is None


# ---------------------------------------------------------------- markers


def test_markers(beside: Beside) -> None:
    assert beside.markers().all() == frozenset()
    beside.markers().put("train-1", "ab12")
    markers = beside.markers()
    markers.put("train-1", "ab12")
    assert markers.all() == {("train-1", "ab12")}
    markers.put("eval", "cd34")
    assert markers.has("eval", "cd34")
    assert beside.markers().all() == {("train-1", "ab12"), ("eval", "cd34")}
    with pytest.raises(ValueError, match="not a run"):
        markers.put("../x", "ab")


def test_markers_that_cannot_be_listed_are_not_none(server_of: Callable[[str], Server], tmp_path: Path) -> None:
    server = server_of("moto")
    where = location("s3://no-such-bucket-here/x")
    assert isinstance(where, Bucket)
    with pytest.raises(StateRefused, match="NoSuchBucket"):
        BucketMarkers(open_bucket(where, environ=server.environ), "done").all()


# ---------------------------------------------------------------- the ledger


def entry(id: str, at: int = NOVEMBER) -> Entry:
    return Entry(id=id, at=at, kind="billed", subject="instance x", price=Decimal("0.5"), seconds=60)


def test_by_month_and_each_once(beside: Beside) -> None:
    entries = [entry("a", NOVEMBER - 1), entry("b"), entry("c", NOVEMBER + 31 * DAY)]
    beside.ledger().append(entries)
    beside.ledger().append(entries[1:])
    beside.ledger().append(())
    assert list(beside.ledger().read()) == entries
    assert list(beside.ledger().read(since=NOVEMBER)) == entries[1:]
    assert list(beside.ledger().read(since=NOVEMBER + 1)) == entries[2:]


@pytest.mark.parametrize("killed", [0, 1, 2, 5])
def test_a_merge_killed_anywhere_loses_and_doubles_nothing(far: Beside, killed: int) -> None:
    """After the merged object was written, and after so many of the others went."""
    for number in range(6):
        far.ledger().append([entry(f"e{number}"), entry("shared")])
    ledger = BucketLedger(_Dying(far.objects(), killed), "p/ledger", many=3)
    with pytest.raises(Dying):
        ledger.merge()
    everything = {"shared", *(f"e{number}" for number in range(6))}
    found = [one.id for one in far.ledger().read()]
    assert (len(found), set(found)) == (7, everything)
    far.ledger(many=1).merge()
    far.ledger().append([entry("late")])
    found = [one.id for one in far.ledger().read()]
    assert (len(found), set(found)) == (8, everything | {"late"})
    assert len(list(far.objects().items("p/ledger"))) == 2


class _Dying:
    """Objects whose process dies at a delete."""

    def __init__(self, objects: Objects, left: int) -> None:
        self._objects, self._left = objects, left

    def __getattr__(self, name: str) -> object:
        return getattr(self._objects, name)

    def delete(self, key: str) -> None:
        if not self._left:
            raise Dying
        self._left -= 1
        self._objects.delete(key)
