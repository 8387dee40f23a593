"""What every store of a state must do. Subclass `StoreConformance`, give it `opened`, and pytest runs it."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable
from typing import Any

import pytest
from msgspec.structs import replace

from reconciler.state.errors import StateMoved, StateRefused
from reconciler.store.base import Store
from schemas.desired import BackendConfig
from schemas.run import Attempt
from schemas.state import VERSION, Place, State, Tombstone

PROJECT = "conformance1"
Open = Callable[[], Store]


def a_state(generation: int = 1, *, lineage: str = "aaaaaaaa", project: str = PROJECT) -> State:
    config = BackendConfig(name="local", type="local", options={"instances": 4, "ratio": 1e-7})
    return State(
        version=VERSION,
        project=project,
        lineage=lineage,
        generation=generation,
        places=(Place(name="local", config=config, error="caf\u00e9 \x7f\x85\u2028 no"),),
    )


def grow(open: Open, done: Any, name: str, times: int) -> None:
    """One of several writers: `times` tombstones, each written by a compare-and-swap that is tried until it lands."""
    moved = 0
    for index in range(times):
        while True:
            state, token = open().read()
            assert state is not None
            grave = Tombstone(id=f"{name}-{index}", kind="run", at=0, why="")
            more = replace(state, generation=state.generation + 1, tombstones=(*state.tombstones, grave))
            try:
                open().write(more, token)
                break
            except StateMoved:
                moved += 1
    done.put(moved)


def once(open: Open, start: Any, done: Any, token: str, mine: State) -> None:
    start.wait()
    try:
        open().write(mine, token)
        done.put("won")
    except StateMoved:
        done.put("lost")


class StoreConformance:
    """`opened()` gives a new object for the same, at first empty, store; it must be picklable (a partial)."""

    @pytest.fixture
    def opened(self) -> Open:
        raise NotImplementedError

    def test_missing_is_none(self, opened: Open) -> None:
        assert opened().read() == (None, "")

    def test_what_was_written_is_read_equal_by_another(self, opened: Open) -> None:
        token = opened().write(a_state(), "")
        assert opened().read() == (a_state(), token)

    def test_the_token_follows_the_content(self, opened: Open) -> None:
        first = opened().write(a_state(1), "")
        second = opened().write(a_state(2), first)
        assert second != first
        assert opened().read() == (a_state(2), second)

    def test_an_old_token_is_moved_and_writes_nothing(self, opened: Open) -> None:
        first = opened().write(a_state(1), "")
        second = opened().write(a_state(2), first)
        with pytest.raises(StateMoved):
            opened().write(a_state(3), first)
        assert opened().read() == (a_state(2), second)

    def test_creation_is_exclusive(self, opened: Open) -> None:
        opened().write(a_state(1), "")
        with pytest.raises(StateMoved):
            opened().write(a_state(2), "")

    def test_a_token_for_a_missing_state_is_moved(self, opened: Open) -> None:
        with pytest.raises(StateMoved):
            opened().write(a_state(1), "0" * 64)
        assert opened().read() == (None, "")

    def test_exactly_what_is_given_is_stored(self, opened: Open) -> None:
        opened().write(a_state(41), "")
        state, _ = opened().read()
        assert state is not None
        assert state.generation == 41

    @pytest.mark.parametrize(
        ("wrong", "word"),
        [
            (a_state(5), "generation"),
            (a_state(4), "generation"),
            (a_state(6, lineage="bbbbbbbb"), "lineage"),
            (a_state(6, project="another12"), "project"),
        ],
    )
    def test_it_never_goes_backwards_or_elsewhere(self, opened: Open, wrong: State, word: str) -> None:
        token = opened().write(a_state(5), "")
        with pytest.raises(StateRefused, match=word):
            opened().write(wrong, token)
        assert opened().read() == (a_state(5), token)

    def test_a_state_that_no_reader_would_take_changes_nothing(self, opened: Open) -> None:
        token = opened().write(a_state(1), "")
        twice = Attempt(id="twice", run="r", number=1, jobs=())
        wrong = replace(a_state(2), attempts=(twice, twice))
        with pytest.raises(StateRefused, match="two records of attempts"):
            opened().write(wrong, token)
        with pytest.raises(StateRefused, match="two records of attempts"):
            opened().supersede(wrong, now=77)
        assert opened().read() == (a_state(1), token)

    def test_a_reader_notices_a_restored_backup(self, opened: Open) -> None:
        store = opened()
        store.write(a_state(7), "")
        fresh = opened()
        assert fresh.read()[0] == a_state(7)
        self.overwrite(opened, a_state(6))
        with pytest.raises(StateRefused, match="rebuild"):
            fresh.read()

    def overwrite(self, opened: Open, state: State) -> None:
        """Put `state` there behind the store's back, as a restore would."""
        raise NotImplementedError

    def test_of_racing_processes_exactly_one_wins_a_token(self, opened: Open) -> None:
        token = opened().write(a_state(1), "")
        context = multiprocessing.get_context("spawn")
        start, done = context.Event(), context.Queue()
        writers = [
            context.Process(target=once, args=(opened, start, done, token, a_state(2 + index))) for index in range(4)
        ]
        for writer in writers:
            writer.start()
        start.set()
        outcomes = sorted(done.get(timeout=60) for _ in writers)
        for writer in writers:
            writer.join(240)
        assert outcomes == ["lost", "lost", "lost", "won"]

    def test_no_write_of_racing_processes_is_lost(self, opened: Open) -> None:
        opened().write(a_state(1), "")
        context = multiprocessing.get_context("spawn")
        done = context.Queue()
        writers = [context.Process(target=grow, args=(opened, done, f"w{index}", 10)) for index in range(3)]
        for writer in writers:
            writer.start()
        for _ in writers:
            done.get(timeout=60)
        for writer in writers:
            writer.join(240)
        state, _ = opened().read()
        assert state is not None
        assert state.generation == 31
        assert sorted(each.id for each in state.tombstones) == sorted(f"w{w}-{i}" for w in range(3) for i in range(10))
