"""`make bench`: every budget of docs/speed.md beside its figure, in one table; the same seed makes the same worlds.

Prints the table and how things grow, writes bench/out/bench.json, and exits 1 where a budget is missed by
half again, and is missed so at a second look too, or where a part could not be measured: the other rows are printed
all the same. This process stays small: whatever holds much is a child.
"""

from __future__ import annotations

import dataclasses
import json
import math
import os
import platform
import statistics
import subprocess
import sys
import traceback
from collections.abc import Callable
from pathlib import Path

from bench import catalog, commands, report, whole
from bench.budgets import BUDGETS, Row, better, lines, missed
from bench.pace import pace

ROOT = Path(__file__).parents[1]
OUT = ROOT / "bench" / "out" / "bench.json"
STEPS = ("load", "plan", "write")


def main() -> None:
    grown: list[dict[str, float]] = []
    rows, failed = _measured(
        {
            "commands": commands.measure_commands,
            "whole": whole.measure_whole,
            "report": report.measure_report,
            "catalog": catalog.measure_catalog,
            "steps": lambda: _steps(grown),
            "spent": _spent,
            "tick": _tick,
            "bucket": _bucket,
            "aws": _aws,
            "ssh": _ssh,
        }
    )
    machine = {
        "python": platform.python_version(), "machine": platform.machine(), "cpus": os.cpu_count(),
        "pace": round(statistics.median([row.pace for row in rows] or [1.0]), 2),
    }  # fmt: skip
    print(f"CPU seconds (medians), {', '.join(f'{name} {value}' for name, value in machine.items())}; ", end="")
    print("a budget in seconds is multiplied by the pace where that is above 1\n")
    print("\n".join(lines(rows)))
    if grown:
        print("\n" + "\n".join(_growth_lines(grown[-3:])))
    OUT.parent.mkdir(parents=True, exist_ok=True)
    told = [{**dataclasses.asdict(row), "allowed": row.allowed, "verdict": row.verdict} for row in rows]
    told_all = {"machine": machine, "rows": told, "growth": grown[-3:], "failed": failed}
    OUT.write_text(json.dumps(told_all, indent=1) + "\n")
    print(f"\nwritten to {OUT.relative_to(ROOT)}")
    wrong = missed(rows)
    if wrong:
        print("missed by half again:\n" + "\n".join(lines(wrong)))
    for part, why in failed.items():
        print(f"NOT MEASURED: {part}: {why}")
    sys.exit(bool(wrong or failed))


def _measured(parts: dict[str, Callable[[], list[Row]]]) -> tuple[list[Row], dict[str, str]]:
    """The rows of all parts, and why a part has none: one that fails takes no other along."""
    rows: list[Row] = []
    failed: dict[str, str] = {}
    for part, measure in parts.items():
        try:
            rows += _judged(measure)
        except (Exception, SystemExit) as error:
            traceback.print_exc()
            failed[part] = f"{type(error).__name__}: {error}"
    return rows, failed


def _judged(measure: Callable[[], list[Row]]) -> list[Row]:
    """The rows with the machine's pace around them; where one is missed, the better of two looks."""
    rows = _paced(measure)
    return better(rows, _paced(measure)) if missed(rows) else rows


def _paced(measure: Callable[[], list[Row]]) -> list[Row]:
    before = pace()
    rows = measure()
    around = (before + pace()) / 2
    return [dataclasses.replace(row, pace=around) for row in rows]


def _steps(grown: list[dict[str, float]]) -> list[Row]:
    """`grown` is given the sizes measured, for the table of growth."""
    found = _child("bench.steps")
    grown += found
    largest = found[-1]
    return [
        Row(what="load the state of 100,000 instances", value=largest["load"], unit="s"),
        Row(what="plan 100,000 instances, 10,000 runs", value=largest["plan"], unit="s"),
        Row(what="write the state of 100,000 instances", value=largest["write"], unit="s"),
        *(
            Row(what=f"growth of {step}, 10k to 100k", value=_growth(found[-2], largest, step), unit="x n log n")
            for step in STEPS
        ),
    ]


def _spent() -> list[Row]:
    (found,) = _child("bench.spent")
    return [Row(what="plan of 10,000 instances, the budget used up", value=found["seconds"], unit="s")]


def _tick() -> list[Row]:
    (found,) = _child("bench.tick")
    return [
        Row(what="tick of 1,000 launches, assignments, ends", value=found["seconds"], unit="s"),
        Row(what="its writes", value=found["writes"], unit="writes"),
        Row(what="the tick after it", value=found["later seconds"], unit="s"),
        Row(what="a tick with nothing to do", value=found["idle seconds"], unit="s"),
        Row(what="writes of a tick with nothing to do", value=found["idle writes"], unit="writes"),
    ]


def _bucket() -> list[Row]:
    (found,) = _child("bench.bucket")
    units = {what: unit for what, (_, unit) in BUDGETS.items()}
    return [Row(what=what, value=value, unit=units.get(what, "retries")) for what, value in found.items()]


def _aws() -> list[Row]:
    (found,) = _child("bench.aws")
    return [Row(what=what, value=value, unit="requests") for what, value in found.items()]


def _ssh() -> list[Row]:
    """Wall time beside the plain loop's, since both wait for the same servers; none where they cannot be started."""
    return [
        row
        for found in _child("bench.ssh")
        for row in (
            Row(
                what="attach and status of 100 servers",
                value=(found["attach"] + found["status"]) / found["plain"],
                unit="x plain ssh",
            ),
            Row(what="a look at one of them, connected", value=found["warm"], unit="s"),
        )
    ]


def _child(module: str) -> list[dict[str, float]]:
    done = subprocess.run([sys.executable, "-m", module], cwd=ROOT, stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"python -m {module}: exit {done.returncode}")
    found: list[dict[str, float]] = json.loads(done.stdout)
    return found


def _growth(before: dict[str, float], after: dict[str, float], step: str) -> float:
    """Against n·log n: 1 is exactly that, below is better."""
    size, larger = before["instances"], after["instances"]
    return after[step] / before[step] / (larger * math.log(larger) / (size * math.log(size)))


def _growth_lines(grown: list[dict[str, float]]) -> list[str]:
    """One line a size: what it holds, CPU seconds of each step, and its growth against n·log n from the size before."""
    heads = ("instances", "runs", "offers", "MB")
    head = "".join(f"{name:>10}" for name in heads) + "".join(f"{step:>10}{'n·log n':>9}" for step in STEPS)
    told = [head]
    for index, row in enumerate(grown):
        line = f"{row['instances']:>10,}{row['runs']:>10,}{row['offers']:>10,}{row['megabytes']:>10.1f}"
        for step in STEPS:
            growth = f"{_growth(grown[index - 1], row, step):.2f}" if index else "–"
            line += f"{row[step]:>10.3f}{growth:>9}"
        told.append(line)
    return told


if __name__ == "__main__":
    main()
