"""State load, pure plan and state write at 1k, 10k and 100k instances, in CPU seconds, as JSON on stdout.

A process of its own: what it holds would count as the memory of what is measured beside it.
"""

from __future__ import annotations

import gc
import json
import multiprocessing
import statistics
import time
from collections.abc import Callable
from typing import TypeVar

from bench import planner
from reconciler.planner.plan import plan
from reconciler.planner.world import World
from reconciler.store.statefile import dumps, loads

# Small worlds are over in a millisecond: they take more turns.
SIZES = {1_000: 25, 10_000: 7, 100_000: 3}
STEPS = ("load", "plan", "write")
THRESHOLDS = (200_000, 20, 100)  # as the command itself sets them

T = TypeVar("T")


def steps(size: int, *, rounds: int) -> dict[str, float]:
    """`load`, `plan`, `write` (medians), beside what the world holds and what was planned.

    A command loads a state once, into memory that it never had: so is each `load` measured. A second one in the same
    process finds that of the first, where a small world leaves it, and seems to be faster than any command is.
    """
    made = planner.world(size)
    data = dumps(loads(dumps(made.state), "bench"))  # as one command leaves it to the next
    taken: dict[str, list[float]] = {step: [] for step in STEPS}
    for _ in range(rounds):
        state = loads(data, "bench")
        world = World(desired=made.desired, state=state, offers=made.offers, now=made.now, nonce=made.nonce)
        planned, result = _timed(lambda world=world: plan(world))  # type: ignore[misc]
        write, _ = _timed(lambda state=state: dumps(state))  # type: ignore[misc]
        for step, seconds in zip(STEPS, (_first_load(data), planned, write), strict=True):
            taken[step].append(seconds)
    return {
        "instances": size,
        "runs": sum(run.status == "submitted" for run in made.state.runs),
        "offers": len(made.offers),
        "megabytes": len(data) / 1e6,
        "actions": len(result.actions),
        "unmet": len(result.unmet),
        **{step: statistics.median(each) for step, each in taken.items()},
    }


def _first_load(data: bytes) -> float:
    """CPU seconds, in a process that has loaded none before."""
    fork = multiprocessing.get_context("forkserver")
    with fork.Pool(1) as pool:
        return pool.apply(_seconds_to_load, (data,))


def _seconds_to_load(data: bytes) -> float:
    gc.set_threshold(*THRESHOLDS)
    return _timed(lambda: loads(data, "bench"))[0]


def _timed(work: Callable[[], T]) -> tuple[float, T]:
    began = time.process_time()
    result = work()
    return time.process_time() - began, result


def main() -> None:
    gc.set_threshold(*THRESHOLDS)
    print(json.dumps([steps(size, rounds=rounds) for size, rounds in SIZES.items()]))


if __name__ == "__main__":
    main()
