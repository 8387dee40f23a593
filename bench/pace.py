"""How fast this machine is just now: CPU seconds of a fixed piece of pure Python, against the reference's.

Budgets in CPU seconds are for the reference. On a machine that takes twice as long for this piece they are
twice as large; a faster one has to keep the budgets as they are written.
"""

from __future__ import annotations

import time

# A quiet core of the machine on which the figures of docs/speed.md were taken, CPython 3.11.
REFERENCE = 0.024
TURNS = 3
RECORDS = 30_000


def pace() -> float:
    """1 where this machine is as fast as the reference, 2 where it takes twice as long. The best of a few turns."""
    return min(_turn() for _ in range(TURNS)) / REFERENCE


def _turn() -> float:
    """What a plan does most: records are made, looked up by text, grouped and sorted."""
    began = time.process_time()
    records = [(f"i{number}", number * 7919 % 10007, {"pool": f"pool-{number % 20}"}) for number in range(RECORDS)]
    by_id = {id: record for record in records for id in (record[0],)}
    groups: dict[str, list[tuple[int, str]]] = {}
    for id, weight, more in by_id.values():
        groups.setdefault(more["pool"], []).append((weight, id))
    for each in groups.values():
        each.sort(key=lambda entry: (-entry[0], entry[1]))
    return time.process_time() - began
