"""Processes that are killed while they work: at a request of theirs. A time would be too early on a busy machine."""

from __future__ import annotations

import random
import signal
import time
from collections.abc import Sequence
from dataclasses import dataclass

from tests.doubles.buckets.fault_proxy import FaultProxy
from tests.doubles.commands.warm import Started


@dataclass
class Doomed:
    """One whose requests pass `proxy`: killed `later` seconds after that has seen `at` requests. 0: it may live."""

    process: Started
    proxy: FaultProxy
    at: int = 0
    later: float = 0.0
    reached: float | None = None

    def due(self, now: float) -> bool:
        if self.reached is None and self.at and len(self.proxy.seen) >= self.at:
            self.reached = now
        return self.reached is not None and now - self.reached >= self.later


def doom(process: Started, proxy: FaultProxy, *, sent: int, usual: int, dice: random.Random) -> Doomed:
    """One begun when `proxy` had seen `sent` requests, to die within its `usual` ones, or a moment after one."""
    later = dice.choice((0.0, dice.uniform(0.0, 0.3)))
    return Doomed(process, proxy, at=sent + dice.randint(1, usual), later=later)


def killed(team: Sequence[Doomed], *, patience: float) -> int:
    """Waits for them all; how many were killed. Whoever lives for longer than `patience` seconds is killed, too."""
    ends, left = time.monotonic() + patience, list(team)
    while left:
        now = time.monotonic()
        for one in [one for one in left if one.due(now) or now > ends]:
            one.process.kill()
            one.process.wait()
        left = [one for one in left if one.process.poll() is None]
        time.sleep(0.002)
    return sum(one.process.returncode == -signal.SIGKILL for one in team)
