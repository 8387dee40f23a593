"""Remove from the state what ended long ago. Done-markers, blobs and the ledger are kept elsewhere. Pure."""

from __future__ import annotations

from msgspec.structs import replace

from schemas.base import Seconds
from schemas.instance import Instance
from schemas.run import RUN_ENDED, Run
from schemas.state import State, Tombstone

KEEP = 30 * 86400
TOMBSTONES = 10_000
HISTORY = 1000


def prune(state: State, *, now: int, keep: Seconds | None = KEEP) -> State:
    """`state` without what ended more than `keep` ago; `keep` None keeps for ever. Unchanged: the same object.

    An ended run that the applied documents still declare stays: without its record it would start again.
    What ended counts from when its end was written: a result that came home late, or that a host dates long ago, is
    kept as long as any other.
    """
    if keep is None:
        return state
    before = now - keep
    runs = [run for run in state.runs if _ended_before(run, before) and not _declared(run, state)]
    gone = {run.id for run in runs} - {each.run for each in state.attempts if each.live}
    attempts = tuple(each for each in state.attempts if each.run not in gone)
    used = {job.instance for each in attempts for job in each.jobs}
    dead = {each.id for each in state.instances if _over_before(each, before) and each.id not in used}
    tombstones = _buried(state, gone, now=now, before=before)
    if not gone and not dead and tombstones == state.tombstones:
        return state
    return replace(
        state,
        runs=tuple(run for run in state.runs if run.id not in gone),
        attempts=attempts,
        instances=tuple(each for each in state.instances if each.id not in dead),
        tombstones=tombstones,
        history=state.history[-HISTORY:],
    )


def remembered_anew(state: State, *, now: int) -> State:
    """The state in which what ended is kept as if its end had been written now: who wrote it had another clock."""
    return replace(
        state,
        runs=tuple(replace(run, settled_at=now) if run.status in RUN_ENDED else run for run in state.runs),
        tombstones=tuple(replace(stone, at=max(stone.at, now)) for stone in state.tombstones),
    )


def needed_blobs(state: State) -> frozenset[str]:
    """Digests that a remembered run or the applied documents still refer to: files, logs and artifacts."""
    found = {run.bundle for run in state.runs}
    found |= {digest for _, digest in state.applied.bundles} if state.applied else set()
    for attempt in state.attempts:
        for job in attempt.jobs:
            found |= {job.log, job.artifacts}
    return frozenset(found - {""})


def _ended_before(run: Run, before: int) -> bool:
    return run.status in RUN_ENDED and max(run.finished_at or run.submitted_at, run.settled_at or 0) < before


def _declared(run: Run, state: State) -> bool:
    """By (name, hash), renames too: the ways in which documents know their runs."""
    if run.origin != "declared" or state.applied is None:
        return False
    return any(run.spec.name in (spec.name, *spec.formerly) for spec in state.applied.desired.runs)


def _over_before(instance: Instance, before: int) -> bool:
    return instance.phase == "terminated" and (instance.terminated_at or instance.created_at) < before


def _buried(state: State, gone: set[str], *, now: int, before: int) -> tuple[Tombstone, ...]:
    kept = [each for each in state.tombstones if each.at >= before or each.kind == "place"]
    new = [
        Tombstone(id=run.id, kind="run", at=now, why=f"{run.spec.name} {run.status}: {run.reason}".rstrip(": "))
        for run in state.runs
        if run.id in gone
    ]
    return (*kept, *new)[-TOMBSTONES:]
