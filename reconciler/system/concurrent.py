"""Run many calls at once on daemon threads, each with a deadline. Late answers are dropped.

A pool of threads would wait for its stragglers at exit; daemon threads do not.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from itertools import islice
from typing import Protocol, TypeVar

Key = TypeVar("Key")
Value = TypeVar("Value")

WIDTH = 32
SPARED = 2.0
NAMED = 3

Asking = Callable[[Sequence[str], int], object]
"""Hears whom one waits for: the first few by name, and how many they are; none when it is over."""


def unheard(names: Sequence[str], count: int) -> None:
    """An `Asking` of whoever shows nobody."""


class Threads(Protocol):
    """What of `reconciler.engine.ports.Ports` it takes to wait for others."""

    @property
    def clock(self) -> Callable[[], float]: ...
    @property
    def spawn(self) -> Callable[[Callable[[], None]], object]: ...


def gather(
    ports: Threads,
    tasks: Mapping[Key, Callable[[], Value]],
    *,
    limit: float,
    width: int = WIDTH,
    spare: Container[Key] = (),
) -> Iterator[tuple[Key, Value | Exception]]:
    """Each task's answer, or what it raised, as they come; those not there in time are missing.

    `limit` is in seconds for as many tasks as go at once. The `spare` ones alone are waited for no longer
    than all others took. Whatever is not an `Exception` (a Ctrl-C, a kill) is raised here.
    """
    waiting: queue.SimpleQueue[tuple[Key, Callable[[], Value]]] = queue.SimpleQueue()
    answers: queue.SimpleQueue[tuple[Key, Value | BaseException]] = queue.SimpleQueue()
    over = threading.Event()
    for item in tasks.items():
        waiting.put(item)
    began = ports.clock()
    ends = began + limit * (1 + (len(tasks) - 1) // width)
    for _ in range(min(width, len(tasks))):
        ports.spawn(lambda: _work(waiting, answers, over))
    awaited = sum(key not in spare for key in tasks)
    try:
        for _ in tasks:
            if not awaited:
                ends = min(ends, ports.clock() + max(SPARED, ports.clock() - began))
                awaited = -1
            try:
                key, answer = answers.get(timeout=max(0.0, ends - ports.clock()))
            except queue.Empty:
                return
            if isinstance(answer, BaseException) and not isinstance(answer, Exception):
                raise answer
            awaited -= key not in spare
            yield key, answer
    finally:
        over.set()


def _work(
    waiting: queue.SimpleQueue[tuple[Key, Callable[[], Value]]],
    answers: queue.SimpleQueue[tuple[Key, Value | BaseException]],
    over: threading.Event,
) -> None:
    while not over.is_set():
        try:
            key, task = waiting.get_nowait()
        except queue.Empty:
            return
        try:
            answers.put((key, task()))
        except BaseException as error:  # handed to whoever gathers, which raises it
            answers.put((key, error))
            if not isinstance(error, Exception):
                return


def awaited(
    answers: Iterator[tuple[Key, Value]], names: Mapping[Key, str], *, asking: Asking
) -> Iterator[tuple[Key, Value]]:
    """`answers` as they come. `asking` hears of those of `names` that have not given theirs yet."""
    left = dict(names)
    asking(tuple(islice(left.values(), NAMED)), len(left))
    try:
        for key, answer in answers:
            left.pop(key, None)
            asking(tuple(islice(left.values(), NAMED)), len(left))
            yield key, answer
    finally:
        asking((), 0)
