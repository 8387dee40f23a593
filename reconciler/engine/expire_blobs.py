"""Delete blobs that no run needs any more, and compact the ledger's small objects.

A blob of a run that the state remembers is needed, however old it is: prune decides for how long a run is remembered.
One that was put lately may belong to a run whose state is not written yet.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from reconciler.hosts.uploads import Deliveries
from reconciler.state.errors import StateRefused
from reconciler.state.observe.clocks import SKEW
from reconciler.state.prune import KEEP, needed_blobs
from reconciler.store.base import Store
from reconciler.store.blobs.folder import BlobError, Blobs
from reconciler.store.ledger.folder import Ledger
from reconciler.store.objects.base import ObjectsError
from schemas.base import Seconds
from schemas.state import State

DAY = 86400
LEAST = 2 * DAY


def expire(blobs: Blobs, *, read: Callable[[], State | None], keep: Seconds | None, now: int) -> int:
    """Remove what is older than `keep` and needed by nothing; how many went. Reads the state after the list.

    One that is put again meanwhile, for a run that is not written yet, stays: see `Blobs.retire`.
    """
    before = now - max(LEAST, KEEP if keep is None else keep)
    old = [one.digest for one in blobs.stored() if one.at < before]
    if not old:
        return 0
    state = read()
    if state is None:  # missing is not empty
        return 0
    needed = needed_blobs(state)
    return sum(blobs.retire(digest, before=before) for digest in old if digest not in needed)


def due(was: State | None, state: State) -> bool:
    """Whether the write that made `state` was the first of its day (UTC): once a day somebody tidies up."""
    if was is None:
        return False
    then, now = (max((tick.at for tick in one.ticks), default=0) for one in (was, state))
    return bool(then) and then // DAY < now // DAY


def tidying(
    stores: Sequence[Blobs], *, deliveries: Deliveries | None, store: Store, ledger: Ledger, now: Callable[[], int]
) -> Callable[[State], Sequence[str]]:
    """`tidy` of `Ports`. What could not be done is returned in words, and tried again tomorrow."""

    def _remove_old(keep: Seconds | None) -> None:
        for blobs in stores:
            expire(blobs, read=lambda: store.read()[0], keep=keep, now=now())
        if deliveries is not None:
            deliveries.expire(before=now() - max(LEAST, KEEP if keep is None else keep))

    def tidy(state: State) -> Sequence[str]:
        keep = state.applied.desired.keep if state.applied else None
        problems = []
        try:
            if why := _clock_off(store.date(), now=now()):
                problems.append(f"old blobs were not removed: {why}")
            else:
                _remove_old(keep)
        except (BlobError, ObjectsError) as error:
            problems.append(f"old blobs were not removed: {error}")
        try:
            ledger.merge()
        except StateRefused as error:
            problems.append(str(error))
        return problems

    return tidy


def _clock_off(date: int | None, *, now: int) -> str:
    """Why nothing is old by our clock: what was put a moment ago would be, by one that is a month ahead."""
    off = 0 if date is None else now - date
    return f"our clock is {abs(off)} s {'ahead of' if off > 0 else 'behind'} the store's" if abs(off) > SKEW else ""
