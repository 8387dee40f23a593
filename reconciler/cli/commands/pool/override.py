"""`dstack pool drain | pause | resume`: write an override into the state."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from reconciler.cli.commands.plan.scoped_tick import Wished, fulfil
from reconciler.cli.exits import Fail
from reconciler.cli.project import site
from reconciler.cli.terminal.streams import out
from reconciler.cli.terminal.times import seconds, when
from reconciler.state.drains import INSTANCE, told
from reconciler.state.requests import clear_override, set_override
from reconciler.system.process import now, who
from reconciler.text.dates import localized
from reconciler.text.format import clean
from schemas.state import Override, State


@dataclass(frozen=True, kw_only=True)
class PoolOverride:
    """The flags as given, each "" where it was not."""

    kind: Literal["drain", "pause"]
    at: str = ""
    until: str = ""
    duration: str = ""
    stop_after: str = ""
    reason: str = ""


def override_pool(name: str, word: PoolOverride) -> int:
    """Of a pool, or (a drain) of an instance. Written at once; the next apply acts on it."""
    if word.until and word.duration:
        raise Fail("--until and --for both say when it ends: give one")
    at = now()
    begins = when(word.at, flag="--at", now=at) if word.at else None
    until = when(word.until, flag="--until", now=at) if word.until else None
    if word.duration:
        until = (begins or at) + seconds(word.duration, flag="--for")
    limit = seconds(word.stop_after, flag="--stop-after") if word.stop_after else None

    def wish(state: State) -> State:
        return set_override(
            state,
            kind=word.kind,
            subject=name,
            by=who(),
            now=at,
            begins=begins,
            until=until,
            stop_after=limit,
            reason=word.reason,
        )

    last = fulfil(site(), Wished(wish=wish), until=None)
    found = [one for one in last.state.overrides if (one.kind, one.at) == (word.kind, at)] if last.state else []
    out("".join(f"{_said(one, name=name)}\n" for one in found if one.by == who()))
    return 0


def _said(override: Override, *, name: str) -> str:
    what = "instance" if override.subject.startswith(INSTANCE) else "pool"
    return clean(f"{what} {name}: {localized(told(override, whole=True), datetime.astimezone)}")


def resume_pool(name: str) -> int:
    """The documents rule again."""
    last = fulfil(site(), Wished(wish=lambda state: clear_override(state, subject=name, now=now())), until=None)
    pools = {pool.name for pool in last.state.applied.desired.pools} if last.state and last.state.applied else set()
    said = "is neither drained nor paused, and launches are not put off"
    out(f"pool {name} {said} any more\n" if name in pools else f"{name} is given work again\n")
    return 0
