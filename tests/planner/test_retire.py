"""One removes an old blob while another puts it again: in whatever order they ask, what was put is there."""

from __future__ import annotations

import hashlib
import itertools
import os
import threading
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from reconciler.store.blobs.bucket import BucketBlobs
from reconciler.store.blobs.folder import BlobError, FolderBlobs
from tests.store.test_beside import Dated

DAY = 86400
PART = 4
ALL = os.environ.get("DSTACK_TEST_STORM") == "all"


class Turns:
    """Objects of one of two: each request waits for its turn in the schedule."""

    def __init__(self, objects: Dated, turn: Callable[[], None]) -> None:
        self._objects, self._turn = objects, turn
        self.url = objects.url

    def __getattr__(self, name: str) -> Any:
        call = getattr(self._objects, name)

        def asked(*args: Any, **named: Any) -> Any:
            self._turn()
            answer = call(*args, **named)
            return iter(list(answer)) if isinstance(answer, Iterator) else answer

        return asked


class Schedule:
    """Who may ask next, as the letters say; when one is done, or they are used up, whoever is left asks on."""

    def __init__(self, letters: str) -> None:
        self._letters, self._at, self._over = letters, 0, set[str]()
        self._free = threading.Condition()

    def turn(self, who: str) -> None:
        with self._free:
            self._free.wait_for(lambda: self._next() in (who, ""), timeout=10)
            self._at += 1
            self._free.notify_all()

    def done(self, who: str) -> None:
        with self._free:
            self._over.add(who)
            self._free.notify_all()

    def _next(self) -> str:
        while self._at < len(self._letters) and self._letters[self._at] in self._over:
            self._at += 1
        return self._letters[self._at] if self._at < len(self._letters) else ""


def dated() -> Dated:
    """Long enough ago that what this machine caches just now is new by that clock, too."""
    made = Dated()
    made.at -= 100 * DAY
    return made


def blobs(objects: Any, folder: Path, clock: Dated) -> BucketBlobs:
    return BucketBlobs(objects, "p/blobs", cache=FolderBlobs(folder), now=lambda: clock.at, part=PART)


@pytest.mark.parametrize(("data", "steps"), [(b"old", (8, 4)), (b"old and in parts", (5, 5))], ids=["small", "parts"])
def test_whatever_the_order_what_was_put_is_there(tmp_path: Path, data: bytes, steps: tuple[int, int]) -> None:
    """Of all orders of so many of the first requests of both one in nine; in `make chaos` each."""
    every = list(itertools.combinations(range(sum(steps)), steps[1]))[:: 1 if ALL else 9]
    orders = ["".join("P" if at in chosen else "R" for at in range(sum(steps))) for chosen in every]
    outcomes = {_both(tmp_path, data, letters) for letters in ("R" * 50, "P" * 50, *orders)}
    assert {"gone, put", "kept, put"} <= outcomes
    assert outcomes <= {"gone, put", "kept, put", "gone, try again", "kept, try again"}


def _both(tmp_path: Path, data: bytes, letters: str) -> str:
    objects = dated()
    digest = blobs(objects, tmp_path / "first", objects).put(data)
    objects.at += 40 * DAY
    schedule, said, told = Schedule(letters), {}, list[str]()
    before = objects.at - 30 * DAY

    def ran(who: str, call: Callable[[BucketBlobs], object]) -> None:
        mine = blobs(Turns(objects, partial(schedule.turn, who)), tmp_path / who, objects)
        try:
            said[who] = call(mine)
        except BlobError as error:
            said[who] = None
            told.append(str(error))
        schedule.done(who)

    work = {"R": lambda mine: mine.retire(digest, before=before), "P": lambda mine: mine.put(data)}
    threads = [threading.Thread(target=ran, args=(who, call)) for who, call in work.items()]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert len(said) == 2, letters
    assert all("try again" in one for one in told), told
    if said["P"]:
        fetched = blobs(objects, tmp_path / "other", objects)
        fetched._cache.remove(digest)
        for part in range(0, len(data), PART):
            fetched._cache.remove(hashlib.sha256(data[part : part + PART]).hexdigest())
        assert fetched.get(digest) == data, letters
        assert [one.digest for one in fetched.stored()] == [digest]
    return f"{'gone' if said['R'] else 'kept'}, {'put' if said['P'] else 'try again'}"


def test_who_slept_removes_nothing(tmp_path: Path) -> None:
    objects, woke = dated(), iter([0.0, 1.0, 3600.0])
    digest = blobs(objects, tmp_path, objects).put(b"old")
    objects.at += 40 * DAY
    sleepy = BucketBlobs(objects, "p/blobs", cache=FolderBlobs(tmp_path), clock=lambda: next(woke))  # type: ignore[arg-type]
    with pytest.raises(BlobError, match="too long"):
        sleepy.retire(digest, before=objects.at)
    assert blobs(objects, tmp_path / "other", objects).get(digest) == b"old"


def test_what_a_killed_one_left_behind_stops_nobody_for_long(tmp_path: Path) -> None:
    objects = dated()
    mine = blobs(objects, tmp_path, objects)
    digest = mine.put(b"old")
    objects.at += 40 * DAY
    objects.put(f"p/blobs/{digest[:2]}/{digest}.going", b"")
    with pytest.raises(BlobError, match="try again"):
        mine.put(b"old")
    objects.at += DAY
    assert mine.put(b"old") == digest
    assert not [key for key in objects.kept if key.endswith(".going")]


def test_a_folder_too(tmp_path: Path) -> None:
    """Putting holds the lock that removing waits for: the kernel keeps them apart."""
    folder = FolderBlobs(tmp_path)
    digest = folder.put(b"x")
    at = next(iter(folder.stored())).at
    assert not folder.retire(digest, before=at)
    started, threads = threading.Event(), []

    def remove() -> None:
        started.set()
        folder.retire(digest, before=at + DAY)

    with folder._locked(1):  # LOCK_SH
        threads.append(threading.Thread(target=remove))
        threads[0].start()
        started.wait(10)
        threads[0].join(0.05)
        assert folder.path(digest) is not None
    threads[0].join(10)
    assert folder.path(digest) is None
