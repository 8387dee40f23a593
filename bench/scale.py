"""`make bench-scale`: what grows with a project, beside its budgets.

State load, pure plan and state write at 1k, 10k and 100k instances, each beside its growth; one busy
tick on the fake backend; a whole `dstack plan` of 10,000 instances. CPU seconds; the same seed makes the same world.
`python -m bench.scale [--check]` prints tables and writes bench/out/scale.json; `--check` exits 1 where a
budget is missed by half again.
"""

from __future__ import annotations

import argparse
import gc
import json
import math
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

sys.path.insert(0, str(Path(__file__).parents[1]))

from bench import planner, tick, whole
from reconciler.plan import plan
from reconciler.statefile import dumps, loads
from reconciler.world import World

OUT = Path(__file__).parents[1] / "bench" / "out" / "scale.json"
SIZES = planner.SIZES
STEPS = ("load", "plan", "write")
# At the largest size, in CPU seconds.
STEP_BUDGETS = {"load": 0.5, "plan": 1.2, "write": 0.6}
TICK_BUDGETS = {"seconds": 1.0, "writes": 4, "later seconds": 1.0, "idle writes": 0}
WHOLE_BUDGETS = {"seconds": 0.8, "mebibytes": 250}
MISSED = 1.5

Row = dict[str, float]
T = TypeVar("T")


def steps(size: int, *, rounds: int = 3) -> Row:
    """`load`, `plan`, `write` in CPU seconds (medians) and the state's `megabytes`."""
    made = planner.world(size)
    data = dumps(made.state)
    taken: dict[str, list[float]] = {step: [] for step in STEPS}
    for _ in range(rounds):
        for step, seconds in zip(STEPS, _turn(made, data), strict=True):
            taken[step].append(seconds)
    medians = {step: statistics.median(each) for step, each in taken.items()}
    return {"instances": size, "megabytes": len(data) / 1e6, **medians}


def _turn(made: World, data: bytes) -> tuple[float, float, float]:
    load, state = _timed(lambda: loads(data, "bench"))
    world = World(desired=made.desired, state=state, offers=made.offers, now=made.now, nonce=made.nonce)
    return load, _timed(lambda: plan(world))[0], _timed(lambda: dumps(state))[0]


def _timed(work: Callable[[], T]) -> tuple[float, T]:
    began = time.process_time()
    result = work()
    return time.process_time() - began, result


def growth(row: Row, before: Row, step: str) -> float:
    """Against n·log n: 1 is exactly that, below is better."""
    expected = row["instances"] * math.log(row["instances"]) / (before["instances"] * math.log(before["instances"]))
    return row[step] / before[step] / expected


def missed(found: Row, budgets: Row, *, what: str) -> list[str]:
    """The budgets that are missed by half again."""
    return [
        f"{what}: {name} {found[name]:.2f}, budget {budget:g}"
        for name, budget in budgets.items()
        if found[name] > MISSED * budget
    ]


def main() -> None:
    parser = argparse.ArgumentParser(prog="bench.scale")
    parser.add_argument("--check", action="store_true", help="exit 1 where a budget is missed by half again")
    arguments = parser.parse_args()
    # First: what a child starts as, a copy of us, counts as its memory.
    processes = whole.rows()
    gc.set_threshold(200_000, 20, 100)  # as the command itself sets it
    rows = [steps(size) for size in SIZES]
    _print_steps(rows)
    busy = tick.row()
    _print("One tick, 1,000 launches, 1,000 assignments, 1,000 ends", busy, TICK_BUDGETS)
    for process in processes:
        offers = f"{process['offers']:,.0f} offers" if process["offers"] else "this machine's offers"
        _print(f"`dstack plan` of {whole.SIZE:,} instances, {offers}", process, WHOLE_BUDGETS)
    OUT.parent.mkdir(parents=True, exist_ok=True)
    OUT.write_text(json.dumps({"steps": rows, "tick": busy, "plan": processes}, indent=1) + "\n")
    wrong = [
        *missed(rows[-1], STEP_BUDGETS, what=f"{SIZES[-1]:,} instances"),
        *missed(busy, TICK_BUDGETS, what="tick"),
        *(line for process in processes for line in missed(process, WHOLE_BUDGETS, what="dstack plan")),
    ]
    for line in wrong:
        print(f"missed by half again: {line}")
    sys.exit(bool(wrong and arguments.check))


def _print_steps(rows: list[Row]) -> None:
    print(f"{'instances':>10} {'MB':>6}" + "".join(f" {step:>8} {'n·log n':>8}" for step in STEPS))
    for index, row in enumerate(rows):
        cells = (
            f" {row[step]:>8.3f} {growth(row, rows[index - 1], step) if index else math.nan:>8.2f}" for step in STEPS
        )
        print(f"{row['instances']:>10,.0f} {row['megabytes']:>6.1f}" + "".join(cells).replace("nan", "  –"))
    print(f"{'budget':>17}" + "".join(f" {STEP_BUDGETS[step]:>8.3f} {'':>8}" for step in STEPS))


def _print(title: str, found: Row, budgets: Row) -> None:
    print(f"\n{title}")
    for name, value in found.items():
        budget = f"  budget {budgets[name]:g}" if name in budgets else ""
        print(f"  {name:<16} {value:>9.3f}{budget}")


if __name__ == "__main__":
    main()
