"""Replace the applied documents: what `dstack apply` does, and nothing else may. Pure."""

from __future__ import annotations

from msgspec.structs import replace

from schemas.desired import Desired
from schemas.state import Applied, Revision, State

HISTORY = 1000


def adopt(state: State, *, desired: Desired, revision: Revision, by: str, now: int) -> State:
    """`desired` rules from here on. The documents already applied change nothing, not even the state.

    An override of `autoscale` lasts until other documents are applied: it ends here.
    """
    if state.applied is not None and state.applied.revision.digest == revision.digest:
        return state
    return replace(
        state,
        applied=Applied(revision=revision, by=by, at=now, desired=desired),
        history=(*state.history, revision)[-HISTORY:],
        overrides=tuple(each for each in state.overrides if each.kind != "autoscale"),
    )
