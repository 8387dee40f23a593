"""Move a project's state and blobs to another store: copy, compare, then retire the old one with a pointer.

Killed anywhere, it goes on where it was: what is there already is not copied again. A tick that writes meanwhile is
noticed by the seal, and what it wrote is copied too.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from msgspec.structs import replace

from reconciler.state.errors import StateMoved, StateRefused
from reconciler.store.base import Store
from reconciler.store.blobs.folder import Blobs
from reconciler.store.ledger.folder import Ledger
from reconciler.store.markers.bucket import BucketMarkers
from reconciler.store.markers.folder import Markers
from reconciler.store.moved_pointer import moved_to, pointer
from reconciler.store.statefile import dumps, loads
from reconciler.text.format import counted
from schemas.state import State

ROUNDS = 5
TELLING = 500


@dataclass(frozen=True, kw_only=True)
class Memory:
    """Everything of a project in one place. `url` is what `state:` says for it."""

    url: str
    store: Store
    blobs: Blobs
    markers: Markers | BucketMarkers
    ledger: Ledger


@dataclass(frozen=True, kw_only=True)
class MigratedParts:
    """What was copied this time; what was there already is not counted."""

    blobs: int = 0
    markers: int = 0
    entries: int = 0


def migrate(old: Memory, new: Memory, *, tell: Callable[[str], object]) -> MigratedParts:
    """The old memory is sealed when it returns. Raises `StateRefused`; the old one rules until it is sealed."""
    if _sealed_for(old, new):
        return MigratedParts()
    done = MigratedParts()
    for _ in range(ROUNDS):
        state, token = old.store.read()
        if state is None:
            raise StateRefused(f"{old.store.address}: there is no state to move")
        done = _sum(done, _copy(old, new, tell=tell))
        _write(new.store, state)
        try:
            old.store.replace_raw(pointer(state, to=new.url), token)
        except StateMoved:
            tell("somebody wrote the state meanwhile: what is new is copied too")
            continue
        return done
    raise StateRefused(f"{old.store.address}: was written again and again meanwhile: try again when it is quiet")


def _sealed_for(old: Memory, new: Memory) -> bool:
    """Whether that was done before; sealed for another place, reading it says so."""
    data, _ = old.store.raw()
    return moved_to(data) == new.url


def _write(store: Store, state: State) -> None:
    """The state there, one generation on. One of ours that an earlier try left there is written over."""
    there, _ = store.read()
    if there is not None and there.lineage != state.lineage:
        raise StateRefused(f"{store.address}: another state lies there (lineage {there.lineage}); name an empty place")
    if there is not None and there.generation > state.generation + 1:
        raise StateRefused(
            f"{store.address}: is newer than what is to be moved there (generation {there.generation}, not "
            f"{state.generation}): somebody goes on there already. Look at both with `dstack state show`"
        )
    target = replace(state, generation=state.generation + 1)
    if there is None:
        store.write(target, "")
    elif there != target:
        # An earlier try's, of the same generation: only its bytes can say whether somebody wrote since.
        raw, token = store.raw()
        if loads(raw, store.address) != there:
            raise StateRefused(f"{store.address}: somebody writes there; the old one still rules: try again")
        store.replace_raw(dumps(target), token)
    if store.read()[0] != target:
        raise StateRefused(f"{store.address}: reads back otherwise than it was written; the old one still rules")


def _copy(old: Memory, new: Memory, *, tell: Callable[[str], object]) -> MigratedParts:
    return MigratedParts(
        blobs=_copy_blobs(old.blobs, new.blobs, tell=tell),
        markers=_copy_markers(old, new),
        entries=_copy_ledger(old.ledger, new.ledger),
    )


def _copy_blobs(old: Blobs, new: Blobs, *, tell: Callable[[str], object]) -> int:
    """Each is compared with its own name on the way; then the new place is asked what it has."""
    wanted = {one.digest for one in old.stored()}
    missing = sorted(wanted - {one.digest for one in new.stored()})
    for number, digest in enumerate(missing):
        tell(f"copying blob {number + 1} of {len(missing)}")
        if new.put(old.verified(digest)) != digest:
            raise StateRefused(f"blob {digest}: changed while it was copied; the old state still rules")
    left = wanted - {one.digest for one in new.stored()}
    if left:
        raise StateRefused(
            f"{counted(len(left), 'blob')} did not arrive, {min(left)} is one; the old state still rules: try again"
        )
    return len(missing)


def _copy_markers(old: Memory, new: Memory) -> int:
    missing = old.markers.all() - new.markers.all()
    for name, digest in sorted(missing):
        new.markers.put(name, digest)
    return len(missing)


def _copy_ledger(old: Ledger, new: Ledger) -> int:
    there = {entry.id for entry in new.read()}
    missing = [entry for entry in old.read() if entry.id not in there]
    for start in range(0, len(missing), TELLING):
        new.append(missing[start : start + TELLING])
    return len(missing)


def _sum(one: MigratedParts, other: MigratedParts) -> MigratedParts:
    return MigratedParts(
        blobs=one.blobs + other.blobs, markers=one.markers + other.markers, entries=one.entries + other.entries
    )
