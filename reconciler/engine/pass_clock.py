"""The time of one apply: counted by the boot-time clock, and corrected by what other clocks say."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING

from msgspec.structs import replace

from reconciler.state.observe.clocks import AGREED, BootTime, ClockReading, read_clocks
from reconciler.state.record_outcomes import Outcome, fold
from reconciler.state.settle import conclude
from schemas.base import Seconds
from schemas.state import State

if TYPE_CHECKING:
    from reconciler.engine.observe import Observed
    from reconciler.engine.ports import Ports


class PassClock:
    """Our clock as it was when the apply began, and on from there: a step of it meanwhile moves nothing.

    `trusted`: a person says that our clock is right, whatever the last apply makes of it.
    """

    def __init__(self, ports: Ports, *, trusted: bool = False) -> None:
        self._ports, self._trusted = ports, trusted
        self._began = ports.now() - ports.clock()
        self._date: tuple[str, Seconds] | None = None
        self._asked = False
        self._seen: tuple[State, Observed] | None = None
        self.reading: ClockReading = AGREED

    def ports(self) -> Ports:
        """The same ports, with the time that is stored."""
        return dataclasses.replace(self._ports, now=self.now, boot_time=self.boot_time)

    def observing(self) -> Ports:
        """The same ports, with our own clock: what others tell is compared with it."""
        return dataclasses.replace(self._ports, now=self.wall)

    def wall(self) -> int:
        """Unix time by our clock."""
        return int(self._began + self._ports.clock())

    def now(self) -> int:
        """Unix time by the clock that is stored."""
        return self.wall() - self.reading.off

    def boot_time(self) -> tuple[str, int]:
        """As `Ports.boot_time`; unknown where the time that is stored is no measure of it."""
        return ("", 0) if self.reading.stands_still else self._ports.boot_time()

    def read(self, state: State, observed: Observed) -> None:
        """Compare our clock with what was observed. The store is asked where that leaves a doubt."""
        self._seen = state, observed
        self._compare()
        if self.reading.apart:
            self.ask()

    def contradicted(self) -> bool:
        """Ask the store for its date, once, since something would end. Whether that makes another time ours."""
        return self.ask() and self.reading.apart

    def folded(self, state: State, outcomes: Sequence[Outcome], *, now: int) -> State:
        """The state with these outcomes in it, and with what follows from them."""
        return conclude(fold(state, outcomes, now=now), now=now, lapses=not self.reading.apart)

    def ask(self) -> bool:
        """Whether the store was asked by this call, and told its time."""
        if self._asked:
            return False
        self._asked, date = True, self._ports.store.date()
        if date is None:
            return False
        self._date = self._ports.store.address, self.wall() - date
        self._compare()
        return True

    def _compare(self) -> None:
        if self._seen is None:
            return
        state, observed = self._seen
        boot_id, uptime = self._ports.boot_time()
        found = read_clocks(
            replace(state, ticks=()) if self._trusted else state,
            listings=observed.listings,
            reports=observed.reports,
            now=self.wall(),
            boot=BootTime(boot_id=boot_id, uptime=uptime),
            date=self._date,
        )
        self.reading = replace(found, proven=True, resumed=True) if self._trusted and not found.apart else found
