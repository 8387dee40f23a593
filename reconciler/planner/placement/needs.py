"""The resources that backends are asked offers for. Pure."""

from __future__ import annotations

from collections.abc import Iterable

from schemas.desired import Desired
from schemas.resources import Need
from schemas.run import RUN_ENDED, Run
from schemas.state import Wish


def needs_of(desired: Desired, *, runs: Iterable[Run] = (), wishes: Iterable[Wish] = ()) -> tuple[Need, ...]:
    """What pools, runs that are not over and added instances need, each once; empty where nothing is asked for."""
    found = (
        *(pool.need for pool in desired.pools if not pool.hosts),
        *(spec.need for spec in desired.runs),
        *(run.spec.need for run in runs if run.status not in RUN_ENDED),
        *(wish.need for wish in wishes),
    )
    return tuple(dict.fromkeys(found))
