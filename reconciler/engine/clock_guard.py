"""Withhold what ends for reasons of time, and delete nothing, while two clocks disagree."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from msgspec.structs import replace

from reconciler.engine.begin import TickRefused
from reconciler.engine.pass_clock import PassClock
from reconciler.planner.rules.scale_up import GIVEN_UP_AFTER
from reconciler.state.job_results import DRAINED, MAX_DURATION
from reconciler.state.observe.clocks import LAST_APPLY, BootTime, ClockReading, read_clocks
from reconciler.state.observe.future_times import dated_ahead, without_future
from reconciler.state.prune import KEEP, prune, remembered_anew
from reconciler.state.settle import conclude, would_lapse
from schemas.base import Price
from schemas.plan import Action, Permissions, Plan, Stop, Terminate, Unmet, Update
from schemas.run import Run
from schemas.state import State

IN_TIME = (f" was to be {DRAINED}", " was silent for ", " got no further in ")
"""Words of `planner.rules.stop_attempts` where it is the time that ends an attempt."""
REMEDY = "set the clock of this machine; if it is right, `dstack apply --trust-clock`"


def corrected(state: State, *, was: State, clock: PassClock) -> State:
    """The state without what a wrong clock dated in a time to come, where another clock now agrees with ours.

    Where the last apply of this boot had another time, what is remembered for a while is so from now on.
    """
    if not clock.reading.proven or clock.reading.apart:
        return state
    now = clock.now()
    state = remembered_anew(state, now=now) if clock.reading.resumed else state
    if any(place.skew for place in was.places) or dated_ahead(state, now=now):
        return without_future(state, now=now)
    return state


def requested(state: State, *, was: State, clock: PassClock) -> State:
    """The state after a person's request, in the time that is stored: a command knows the clock of its machine alone.

    Raises `TickRefused` where the request names a time, which that clock tells wrongly.
    """
    off = clock.reading.off
    if not off:
        return state
    overrides = set(was.overrides)
    if any(one not in overrides and (one.begins, one.until) != (None, None) for one in state.overrides):
        raise TickRefused(f"{clock.reading.why}: the time that you gave cannot be told from it. Set the clock first")
    runs, wishes = {one.id: one for one in was.runs}, {one.id for one in was.wishes}
    return replace(
        state,
        runs=tuple(_requested_run(one, runs.get(one.id), off=off) for one in state.runs),
        wishes=tuple(one if one.id in wishes else replace(one, at=one.at - off) for one in state.wishes),
        overrides=tuple(one if one in overrides else replace(one, at=one.at - off) for one in state.overrides),
    )


def _requested_run(run: Run, was: Run | None, *, off: int) -> Run:
    if run is was:
        return run
    times = {name: getattr(run, name) for name in ("submitted_at", "finished_at", "wait_until")}
    new = {name: at - off for name, at in times.items() if at is not None and at != getattr(was, name, None)}
    return replace(run, **new)


def concluded(state: State, *, clock: PassClock) -> State | None:
    """The state with every consequence drawn, and without what ended long ago where no clock disagrees with ours.

    `None`: something would go, and the store, which is asked only then, says that our clock is wrong.
    """
    keep = state.applied.desired.keep if state.applied else None
    calm = conclude(state, now=clock.now(), lapses=not clock.reading.apart)
    if clock.reading.apart:
        return calm
    kept = prune(calm, now=clock.now(), keep=KEEP if keep is None else keep)
    if (kept is not calm or would_lapse(state, now=clock.now())) and clock.contradicted():
        return None
    return kept


def would_end(made: Plan, *, permissions: Permissions) -> bool:
    """Whether the plan has an end that may have its reason in the time of day, and that no person asked for."""
    asked_for = permissions.destroy_all or permissions.scope is not None
    return not asked_for and any(_by_the_clock(one) for one in made.actions)


def concluded_unasked(state: State, *, now: int, boot: tuple[str, int]) -> tuple[State, ClockReading]:
    """The state with every consequence drawn, and what is known of our clock where nobody is asked.

    That is what the last apply makes of it. `boot` is as `Ports.boot_time` gives it.
    """
    reading = read_clocks(state, now=now, boot=BootTime(boot_id=boot[0], uptime=boot[1]))
    return conclude(state, now=now - reading.off, lapses=not reading.apart), reading


def withheld_by_the_clock(
    made: Plan, *, by_ours: Plan, reading: ClockReading, state: State, permissions: Permissions
) -> Plan:
    """The plan without what ends for reasons of time, where a clock disagrees with ours by more than 60 seconds.

    `by_ours` is the plan at the time that our clock says: what would end by that is told, too. A clock that counts for
    one place withholds what ends there. What a person asked for still ends.
    """
    if permissions.destroy_all or permissions.scope is not None or not reading.apart:
        return made
    where = _Places(state)
    held = [one for one in made.actions if _held(one, reading=reading, where=where)]
    told = [*held, *(one for one in by_ours.actions if _held(one, reading=reading, where=where))]
    subjects = tuple(dict.fromkeys(_by_the_clock(one) for one in told))
    if not subjects and not reading.whose:
        return made
    ends = {one.instance for one in told if isinstance(one, Terminate)}
    kept = sum((where.price(one.instance) for one in held if isinstance(one, Terminate)), Price(0))
    cost = sum(map(where.price, ends), Price(0))
    why = f"{reading.why}: nothing ends until they agree"
    warning = f"{why}{f'; what would end costs ${cost:.2f}/h' if ends else ''}"
    warning += f"; {REMEDY}" if reading.whose == LAST_APPLY else ""
    return replace(
        made,
        actions=tuple(one for one in made.actions if not any(one is each for each in held)),
        unmet=(*made.unmet, *(Unmet(subject=subject, why=f"not ended: {why}") for subject in subjects)),
        warnings=(*made.warnings, warning),
        hourly_after=made.hourly_after + kept,
    )


class _Places:
    """Where what a plan ends is, and what it costs."""

    def __init__(self, state: State) -> None:
        self._state = state
        self._instances = {one.id: one for one in state.instances}
        self._unowned: Mapping[str, str] = {f"leftover {one.key}": one.place for one in state.unowned}

    def price(self, instance: str) -> Price:
        """$/h; 0 where it is not known."""
        one = self._instances.get(instance)
        return Price(0) if one is None or one.price is None else one.price

    def of(self, action: Action) -> Iterator[str]:
        match action:
            case Terminate():
                yield from self._place(action.instance)
            case Stop():
                attempts = (one for one in self._state.attempts if one.id == action.attempt)
                yield from (place for one in attempts for job in one.jobs for place in self._place(job.instance))
            case Update() if action.subject in self._unowned:
                yield self._unowned[action.subject]

    def _place(self, instance: str) -> Iterator[str]:
        if instance in self._instances:
            yield self._instances[instance].place


def _held(action: Action, *, reading: ClockReading, where: _Places) -> bool:
    if not _by_the_clock(action):
        return False
    return bool(reading.whose) or any(place in reading.places for place in where.of(action))


def _by_the_clock(action: Action) -> str:
    """The subject of an end that may have its reason in the time of day; "" for any other action."""
    match action:
        case Terminate():
            return f"instance {action.name}"
        case Stop() if action.why.startswith(MAX_DURATION) or any(words in action.why for words in IN_TIME):
            return f"run {action.name}"
        case Update() if action.changes.get("status") == "failed":
            return f"run {action.name}"
        case Update() if action.subject.startswith("leftover "):
            return action.name
        case Update() if action.subject.startswith("wish ") and action.why.startswith(GIVEN_UP_AFTER):
            return f"request for {action.name}"
        case _:
            return ""
