"""What comes into the planner, as one value. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from schemas.desired import Desired
from schemas.offer import Offer
from schemas.plan import Permissions
from schemas.resources import Need
from schemas.run import RUN_ENDED, Run
from schemas.state import Applied, State, Wish


@dataclass(frozen=True, kw_only=True)
class World:
    """Everything that a plan depends on.

    `nonce` (8 characters of a–z and 0–9) makes its ids unique. `lacking`: run name -> why
    something it needs is missing here. `done`: (run name, hash) of tasks that ran.
    `goes_on`: until when this apply repeats itself: not at all, until what it stops has ended, or its runs.
    """

    desired: Desired
    state: State
    offers: Sequence[Offer] = ()
    now: int
    nonce: str
    permissions: Permissions = field(default_factory=Permissions)
    lacking: Mapping[str, str] = field(default_factory=dict)
    assumed: Mapping[str, str] = field(default_factory=dict)
    """Run name -> what it needs and this machine does not have, which whoever applies the plan is assumed to have."""
    done: frozenset[tuple[str, str]] = frozenset()
    goes_on: Literal["", "stops", "runs"] = ""
    before: Desired | None = None
    """The configuration that was applied before, where the plan applies another one; empty where there was none."""
    priced: bool = False
    """The cost of each pool is computed although nothing changes."""
    lapses: bool = True
    """Whether the overrides of persons end in time: not while two clocks disagree."""


def replaced(applied: Applied | None, desired: Desired) -> Desired | None:
    """The configuration that `desired` replaces, as `World.before` has it."""
    before = Desired() if applied is None else applied.desired
    return None if before == desired else before


def needs_of(desired: Desired, *, runs: Iterable[Run] = (), wishes: Iterable[Wish] = ()) -> tuple[Need, ...]:
    """What pools, runs that are not over and added instances need, each once; empty where nothing is asked for."""
    found = (
        *(pool.need for pool in desired.pools if not pool.hosts),
        *(spec.need for spec in desired.runs),
        *(run.spec.need for run in runs if run.status not in RUN_ENDED),
        *(wish.need for wish in wishes),
    )
    return tuple(dict.fromkeys(found))
