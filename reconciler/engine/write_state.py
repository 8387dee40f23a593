"""Write the state by compare-and-swap, rebased until it lands, with its ledger entries and markers."""

from __future__ import annotations

from collections.abc import Callable

from msgspec.structs import replace

from reconciler.engine.begin import TickRefused
from reconciler.engine.ports import Ports
from reconciler.state.errors import StateMoved
from reconciler.state.ledger.entries import entries
from reconciler.state.observe.future_times import past_ticks
from schemas.state import State, Tick

TRIES = 30
HEARTBEAT = 600
SAME_VISIT = 60
LONGEST_RHYTHM = 31 * 86400
"""Seconds: whoever comes back later than this has no rhythm."""
SLOWER = 4
"""One visit slows a rhythm down as if it came after this many times its length, at most."""


def write(ports: Ports, state: State, *, was: State | None, token: str) -> State:
    """Store `state` as the next generation after `was`. Raises `StateMoved`.

    What the ledger is to hear is written with the state (`untold`), and told after it. So a write that
    lost tells nothing, and what a writer was killed before telling is told by the next one, under the same ids.
    """
    now = ports.now()
    generation = (was.generation if was else state.generation) + 1
    told = entries(was, state, by=ports.who, now=now)
    state = replace(state, generation=generation, ticks=_ticks(state, ports, now=now), untold=told)
    if was is not None and was.untold:
        ports.record(was.untold)
    ports.store.write(state, token)
    if told:
        ports.record(told)
    mark_done(ports, state)
    return state


def land(ports: Ports, change: Callable[[State], State]) -> tuple[State, bool]:
    """Make `change` on whatever the state has become, until it lands. The state, and whether it was written."""
    for attempt in range(TRIES):
        stored, token = ports.store.read()
        if stored is None:
            raise TickRefused("the state is gone: what was done is remembered nowhere. Put it back, and apply again")
        changed = change(stored)
        if not differs(stored, changed):
            return stored, False
        try:
            return write(ports, changed, was=stored, token=token), True
        except StateMoved:
            jitter(ports, attempt)
    raise TickRefused(f"the state moved {TRIES} times under our writes; what was done will be found again: try again")


def jitter(ports: Ports, attempt: int) -> None:
    """Wait a little before the next try, a different little for each of us."""
    spread = sum(map(ord, ports.nonce())) % 16
    ports.sleep(0.01 * (1 + spread) * min(8, attempt + 1))


def differs(was: State, state: State) -> bool:
    """Whether it says anything new: the time of the look and of the visit alone do not."""
    return _said(was) != _said(state)


def heartbeat_due(state: State, *, now: int) -> bool:
    """Nobody has written for so long that people would wonder whether anybody looks."""
    return now - max((tick.at for tick in past_ticks(state.ticks, now=now)), default=0) > HEARTBEAT


def mark_done(ports: Ports, state: State) -> None:
    """A done-marker for each declared task that ended well; they outlive the state."""
    done = {
        (run.spec.name, run.spec.hash)
        for run in state.runs
        if run.origin == "declared" and run.status == "done" and run.spec.type == "task" and run.spec.hash
    }
    if not done:
        return
    for name, hash in sorted(done - ports.markers.all()):
        ports.markers.put(name, hash)


def _said(state: State) -> State:
    places = tuple(replace(place, observed_at=None) for place in state.places)
    return replace(state, generation=0, ticks=(), untold=(), places=places)


def _ticks(state: State, ports: Ports, *, now: int) -> tuple[Tick, ...]:
    """Who was here, when, and how often: visits of the same minute are one, and a long absence is no rhythm."""
    mine = next((tick for tick in state.ticks if tick.by == ports.who), None)
    others = tuple(tick for tick in state.ticks if tick.by != ports.who)
    every = mine.every if mine and mine.every is not None and mine.every <= LONGEST_RHYTHM else None
    gap = now - mine.at if mine else 0
    if SAME_VISIT <= gap <= LONGEST_RHYTHM:
        every = gap if every is None else (3 * every + min(gap, SLOWER * every)) // 4
    boot_id, uptime = ports.boot_time()
    known = uptime if boot_id else None
    return (
        *others,
        Tick(by=ports.who, at=now, unattended=ports.unattended, every=every, boot_id=boot_id, uptime=known),
    )
