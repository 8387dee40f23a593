"""Replace the applied configuration by a checkout's, in memory. The engine writes it. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from msgspec.structs import replace

from reconciler.state.relaunch.launch_backoff import unchanged_pools
from reconciler.text.dates import moment
from schemas.desired import Desired
from schemas.run import RUN_ENDED, RunSpec
from schemas.state import Applied, Destroyed, Revision, State

HISTORY = 1000


def apply(state: State, *, desired: Desired, revision: Revision, by: str, now: int) -> State:
    """`desired` rules from here on. The same revision again changes nothing."""
    before = state.applied
    if before is not None and before.revision == revision and before.desired == desired:
        return state
    applied = Applied(revision=revision, by=by, at=now, desired=desired, bundles=before.bundles if before else ())
    known = tuple(one for one in state.history if (one.digest, one.commit) != (revision.digest, revision.commit))
    same = before is not None and before.revision.digest == revision.digest
    state = unchanged_pools(state, before.desired if before else None, desired)
    return replace(
        state,
        applied=applied,
        history=(*known, revision)[-HISTORY:],
        overrides=state.overrides if same else tuple(one for one in state.overrides if not one.digest),
    )


def takes_away(was: Applied | None, desired: Desired) -> bool:
    """Whether `desired` lacks a pool, a run or an instance of a minimum that was applied, or changes a run."""
    if was is None:
        return False
    pools = {name: pool for pool in desired.pools for name in (pool.name, *pool.formerly)}
    runs = {name: spec for spec in desired.runs for name in (spec.name, *spec.formerly)}
    return any(pool.name not in pools or pools[pool.name].floor < pool.floor for pool in was.desired.pools) or any(
        spec.name not in runs or runs[spec.name].hash != spec.hash for spec in was.desired.runs
    )


def mark_destroyed(state: State, *, by: str, now: int) -> State:
    """The state with the mark of `dstack destroy`; the first mark stays."""
    return state if state.destroyed is not None else replace(state, destroyed=Destroyed(by=by, at=now))


def why_destroyed(state: State) -> str:
    """Why nothing is created, and the way out; "" where the project was not destroyed."""
    if state.destroyed is None:
        return ""
    name = (state.applied.desired.project_name if state.applied else "") or state.project
    return (
        f"Project {name} was destroyed by {state.destroyed.by} ({moment(state.destroyed.at)}), so nothing is created. "
        "To create it again: `dstack apply --revive`"
    )


def unbundled(state: State, *, was: Applied | None, done: frozenset[tuple[str, str]]) -> tuple[RunSpec, ...]:
    """Declared runs of the applied documents whose files are to be packed now: new or changed, and not run yet."""
    if state.applied is None:
        return ()
    recorded = {(run.spec.name, run.spec.hash) for run in state.runs if run.bundle or run.status in RUN_ENDED}
    before = {spec.name: spec.hash for spec in was.desired.runs} if was else {}
    packed = {name for name, _ in state.applied.bundles if was is not None}
    return tuple(
        spec
        for spec in state.applied.desired.runs
        if (spec.name, spec.hash) not in done
        and (spec.name, spec.hash) not in recorded
        and not (spec.name in packed and before.get(spec.name) == spec.hash)
        and not spec.unsupported
    )


def with_bundles(state: State, bundles: Mapping[str, str]) -> State:
    """Remember run name -> digest beside the documents, and give them to the declared runs that have none."""
    if state.applied is None:
        return state
    names = {spec.name for spec in state.applied.desired.runs}
    known = {**dict(state.applied.bundles), **bundles}
    kept = tuple(sorted((name, digest) for name, digest in known.items() if name in names))
    if kept != state.applied.bundles:
        state = replace(state, applied=replace(state.applied, bundles=kept))
    hashes = {spec.name: spec.hash for spec in state.applied.desired.runs} if state.applied else {}
    runs = tuple(
        replace(run, bundle=known[run.spec.name])
        if not run.bundle
        and run.origin == "declared"
        and run.status not in RUN_ENDED
        and run.spec.name in known
        and hashes.get(run.spec.name) == run.spec.hash
        else run
        for run in state.runs
    )
    return state if runs == state.runs else replace(state, runs=runs)


def bundled(specs: Sequence[RunSpec], *, pack: Callable[[tuple[str, ...] | None], str]) -> dict[str, str]:
    """Run name -> digest; runs with the same files share one."""
    by_files: dict[tuple[str, ...] | None, str] = {}
    found = {}
    for spec in specs:
        if spec.files not in by_files:
            by_files[spec.files] = pack(spec.files)
        if by_files[spec.files]:
            found[spec.name] = by_files[spec.files]
    return found
