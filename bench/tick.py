"""One tick on the fake backend that does a lot at once: 1,000 launches, 1,000 assignments, 1,000 ends. JSON on stdout.

What counts is our own CPU: the time spent inside the fake's machines and places is taken off.
The store writes and reads real bytes, in memory; one thread, so that nothing waits for another.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from reconciler.engine.ports import Ports
from reconciler.engine.tick import TickResult, tick
from reconciler.state.record_outcomes import Failed
from schemas.desired import Desired
from schemas.plan import Assign, Launch, Terminate
from schemas.pool import Pool
from tests.worlds.world import Site, apply, apply_ask, desired, offer, task, ticks

COUNT = 1_000
IDLE = 600
PLACE_CALLS = ("identity", "offers", "prepare", "launch", "instances", "terminate")
HOST_CALLS = ("look", "start", "stop", "collect", "clean")


@dataclass
class Meter:
    """CPU seconds spent beneath the calls that it wraps."""

    seconds: float = 0.0

    def wrap(self, call: Callable[..., Any]) -> Callable[..., Any]:
        def metered(*args: Any, **kwargs: Any) -> Any:
            began = time.process_time()
            try:
                return call(*args, **kwargs)
            finally:
                self.seconds += time.process_time() - began

        return metered


def row(count: int = COUNT) -> dict[str, float]:
    """`launches`, `assignments`, `ends`, our CPU `seconds`, the `fake`'s, `writes`.

    `later seconds` is the next tick, which sees it all done; `idle` one that finds nothing to do.
    """
    with tempfile.TemporaryDirectory() as scratch:
        site = Site(Path(scratch), offers=[offer("small", "1.00")])
        apply(site, _documents(count, before=True))
        ticks(site, 2)
        site.clock.at += IDLE + 1
        result, costs = _measured(site, count)
        failed = [outcome for outcome in result.outcomes if isinstance(outcome, Failed)]
        if failed or result.refused:
            raise SystemExit(f"the tick went wrong: {result.refused or failed[0]}")
        actions = result.plan.actions
        found = {
            "launches": sum(len(one.ids) for one in actions if isinstance(one, Launch)),
            "assignments": sum(isinstance(one, Assign) for one in actions),
            "ends": sum(isinstance(one, Terminate) for one in actions),
            **costs,
        }
        _, later = _measured(site, count)
        ticks(site, 8)
        _, idle = _measured(site, count)
        return {
            **found,
            **{f"later {name}": value for name, value in later.items()},
            **{f"idle {name}": value for name, value in idle.items()},
        }


def _measured(site: Site, count: int) -> tuple[TickResult, dict[str, float]]:
    """One tick, a second later, and what it cost."""
    site.clock.at += 1
    meter, writes = Meter(), site.store.writes
    ports = _metered(site.ports(), meter)
    began = time.process_time()
    result = tick(ports, apply_ask(_documents(count, before=False)))
    seconds = time.process_time() - began - meter.seconds
    return result, {"seconds": seconds, "fake": meter.seconds, "writes": site.store.writes - writes}


def _documents(count: int, *, before: bool) -> Desired:
    """First two pools of as many idle machines; then one of them has work, one has to go, and a third is wanted."""
    floor = count if before else 0
    pools = [
        Pool(name="work", default=True, nodes_min=count, idle_duration=IDLE),
        Pool(name="ends", nodes_min=floor, idle_duration=IDLE),
        Pool(name="grow", nodes_min=count - floor, idle_duration=IDLE),
    ]
    return desired(pools=pools, runs=[] if before else [task(f"run-{index}", pool="work") for index in range(count)])


def _metered(ports: Ports, meter: Meter) -> Ports:
    def connect(*args: Any) -> Any:
        return _wrapped(ports.connect(*args), meter, PLACE_CALLS)

    return replace(ports, connect=connect, runner=_wrapped(ports.runner, meter, HOST_CALLS))


def _wrapped(thing: Any, meter: Meter, names: tuple[str, ...]) -> Any:
    for name in names:
        setattr(thing, name, meter.wrap(getattr(thing, name)))
    return thing


def main() -> None:
    print(json.dumps([row()]))


if __name__ == "__main__":
    main()
