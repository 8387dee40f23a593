"""Ticks until something is so: what `apply` and `run` wait with."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from reconciler.ports import Ports
from reconciler.tick import TickAsk, TickResult
from schemas.plan import Plan
from schemas.state import State


@dataclass(frozen=True, kw_only=True)
class Settled:
    """`first` is the tick that planned and asked; `last` the newest. `reached`: `until` was so in time."""

    first: TickResult
    last: TickResult
    reached: bool


def settle(
    ports: Ports,
    ask: TickAsk,
    *,
    until: Callable[[State, Plan], bool],
    progress: Callable[[State], object],
    deadline: float | None = None,
    pause: float = 0.25,
) -> Settled:
    """Tick as asked, then on, doing only what the first tick's approval covers, until `until(state, plan)`.

    `plan` is what the first tick was approved to do; `deadline` is in seconds from now.
    `ask.stop` ends it after the tick that is under way.
    """
    raise NotImplementedError


def settled(state: State, plan: Plan) -> bool:
    """Every effect is seen, each run that was started is running or ended, results found are stored."""
    raise NotImplementedError
