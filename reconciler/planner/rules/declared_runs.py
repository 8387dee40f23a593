"""Record declared runs once per content, and runs that were removed from the configuration. Pure.

A task runs once for each (name, hash): a record or a done-marker of that pair enrols nothing.
Another hash supersedes: one that waits is replaced at once, a running task at its end, and a run named by
`--replace` is stopped first. The new record comes when the old one has ended, so that no two attempts of a run live at
once. A service has no end: its new record comes beside the old one, whose replicas are replaced one by one
(`reconciler.planner.rules.roll_services`).
"""

from __future__ import annotations

from msgspec.structs import replace

from reconciler.planner.draft import Draft, base36, without
from reconciler.text.durations import words
from schemas.instance import Instance
from schemas.plan import Update
from schemas.run import Run, RunSpec

# What a rename may not change: then it is another run.
_CONTENT = (
    "type",
    "nodes",
    "need",
    "commands",
    "setup",
    "env",
    "args",
    "working_dir",
    "files",
    "artifacts",
    "rerun",
    "port",
    "probe",
    "python",
    "container",
)


def enrol(draft: Draft) -> None:
    """Add the records of new declared runs and mark what was changed, renamed or deleted."""
    _assume_lost(draft)
    if draft.may.destroy_all:
        _end_all(draft)
        return
    if not draft.rules_documents:
        return
    records = _records(draft)
    count = 0
    for spec in draft.world.desired.runs:
        if not _covered(draft, spec):
            continue
        known = _known(draft, spec, records=records)
        if _enrolled(draft, spec, known=known):
            count += 1
            _add(draft, spec, id=f"{draft.world.nonce}r{base36(count)}")
    _deleted(draft)


def _assume_lost(draft: Draft) -> None:
    if not draft.may.assume_lost:
        return
    for run in list(draft.runs.values()):
        named = run.spec.name in draft.may.assume_lost or run.id in draft.may.assume_lost
        if not named or run.assume_lost:
            continue
        dark = [one for one in _hosts(draft, run) if one.unreachable_since is not None]
        if any(draft.silent(one) for one in dark):
            draft.update_run(run, why="a person says that its unreachable attempt is lost", assume_lost=True)
        elif dark:
            grace = words(draft.grace(dark[0]))
            why = f"{dark[0].name} is silent for less than its pool's unreachable_grace ({grace})"
            draft.cannot(f"run {run.spec.name}", f"not taken as lost yet: {why}")


def _hosts(draft: Draft, run: Run) -> list[Instance]:
    found = (draft.living.get(job.instance) for each in draft.live.get(run.id, ()) for job in each.jobs)
    return [one for one in found if one is not None]


def _covered(draft: Draft, spec: RunSpec) -> bool:
    only = draft.may.only_pool
    return not only or draft.pool_name(spec.pool) == only


def _records(draft: Draft) -> dict[str, list[Run]]:
    """Every declared record, ended ones too, by name, oldest first."""
    found: dict[str, list[Run]] = {}
    for run in draft.world.state.runs:
        if run.origin == "declared":
            found.setdefault(run.spec.name, []).append(draft.runs.get(run.id, run))
    return found


def _known(draft: Draft, spec: RunSpec, *, records: dict[str, list[Run]]) -> list[Run]:
    """Its records; those under a former name are renamed, provided that the content is the same."""
    known = list(records.get(spec.name, ()))
    for old in spec.formerly:
        for run in records.get(old, ()):
            if not _same_content(run.spec, spec):
                known.append(run)
                continue
            draft.update_run(run, why=f"renamed from {old}", spec=spec)
            known.append(draft.runs.get(run.id, replace(run, spec=spec)))
    return known


def _same_content(one: RunSpec, other: RunSpec) -> bool:
    return all(getattr(one, name) == getattr(other, name) for name in _CONTENT)


def _enrolled(draft: Draft, spec: RunSpec, *, known: list[Run]) -> bool:
    """Whether it gets a new record now; its living old ones are brought up to date."""
    # A service that another version replaced is begun anew when its own content comes back.
    same = [run for run in known if run.spec.hash == spec.hash and not (_replaced(run) and run.id not in draft.runs)]
    living = [run for run in known if run.id in draft.runs]
    if same:
        _refresh(draft, spec, runs=same)
        for run in living if spec.type == "service" else ():
            if run not in same:
                _superseded(draft, draft.runs[run.id], by=spec)
        return False
    if spec.type != "service" and (spec.name, spec.hash) in draft.world.done:
        return False
    waits = [run for run in living if not _superseded(draft, run, by=spec)]
    return not waits


def _replaced(run: Run) -> bool:
    return run.spec.type == "service" and bool(run.superseded_by)


def _refresh(draft: Draft, spec: RunSpec, *, runs: list[Run]) -> None:
    """Scheduling keys and effective values may change under the same hash: the next attempt has them."""
    for run in runs:
        current = draft.runs.get(run.id)
        if current is None:
            continue
        if current.held and draft.may.first_run:
            draft.update_run(current, why="first run allowed", held=False, reason="")
            current = draft.runs[run.id]
        if current.superseded_by:
            draft.update_run(current, why="changed back", superseded_by="")
            current = draft.runs[run.id]
        if current.spec != spec:
            draft.update_run(current, why=f"now {_difference(current.spec, spec)}", spec=spec)


def _difference(old: RunSpec, new: RunSpec) -> str:
    """`priority 50 → 80`, in the words of the document."""
    changed = []
    for name in ("priority", "max_duration", "idle_duration", "pool", "replicas"):
        before, after = getattr(old, name), getattr(new, name)
        if before != after:
            changed.append(f"{name} {_value(name, before)} → {_value(name, after)}")
    if old.where != new.where:
        changed.append("other places or prices")
    if old.retry != new.retry:
        changed.append("another retry")
    return ", ".join(changed) or "with other settings"


def _value(name: str, value: int | str | None) -> str:
    if not name.endswith("_duration"):
        return str(value)
    return "off" if value is None else words(int(value))


def _superseded(draft: Draft, run: Run, *, by: RunSpec) -> bool:
    """Whether the old record makes way at once. Where it does not, it is marked."""
    name = run.spec.name
    if not draft.live.get(run.id):
        when = "while it waited to be tried again" if run.attempts else "before it started"
        draft.update_run(
            run,
            why=f"the run was changed {when}",
            status="terminated",
            reason=f"superseded {when}",
            superseded_by=by.hash,
            finished_at=draft.now,
        )
        return True
    wanted = name in draft.may.replace or by.name in draft.may.replace
    if run.stop_reason:
        return False
    if not wanted and run.spec.type == by.type == "service":
        # Nothing ends before its successor serves: a change, which needs no permission to end.
        if run.superseded_by != by.hash:
            why = "changed: its replicas are replaced one by one, each once a replica of the new version is ready"
            draft.update_run(run, why=why, superseded_by=by.hash)
        return True
    may_end = draft.may_end(draft.pool_name(run.spec.pool))
    if wanted or (run.spec.type == "service" and may_end):
        why = "replaced by its changed configuration"
        draft.update_run(run, why=why, status="terminating", stop_reason=why, superseded_by=by.hash)
    elif run.superseded_by != by.hash:
        why = f"changed: the new one starts at the end of this attempt; `--replace {name}` starts it now"
        draft.update_run(run, why=why, superseded_by=by.hash)
    if run.spec.type == "service" and not (wanted or may_end):
        draft.cannot(f"run {name}", f"changed, but this apply may not end anything: `--replace {name}`")
    return False


def _add(draft: Draft, spec: RunSpec, *, id: str) -> None:
    wait = spec.retry.duration if spec.retry.no_capacity else None
    run = Run(
        id=id,
        spec=spec,
        submitted_at=draft.now,
        wait_until=None if wait is None else draft.now + wait,
    )
    pool = draft.pool_name(spec.pool)
    why = ("new" if spec.type == "task" else f"new {spec.type}") + _sends(spec)
    draft.actions.append(Update(subject=f"run {id}", name=spec.name, pool=pool, enrol=run, why=why))
    draft.runs[id] = run


def _sends(spec: RunSpec) -> str:
    if spec.files is None or "." in spec.files:
        return ""
    if not spec.files:
        return ", sends no files"
    more = f" and {len(spec.files) - 3} more" if len(spec.files) > 3 else ""
    return f", sends only {', '.join(spec.files[:3])}{more}"


# ---------------------------------------------------------------- deleted from the documents


def _deleted(draft: Draft) -> None:
    """A declared run that was removed from the configuration is stopped: shown, and only where ends are allowed."""
    desired = draft.world.desired
    kept = {name for spec in desired.runs for name in (spec.name, *spec.formerly)}
    empty = not desired.runs and all(pool.name == "default-pool" for pool in desired.pools)
    for run in list(draft.runs.values()):
        if run.origin != "declared" or run.spec.name in kept or run.stop_reason:
            continue
        name, pool = run.spec.name, draft.pool_name(run.spec.pool)
        if not draft.covers(id=run.id, pool=pool):
            continue
        if not draft.may_end(pool):
            why = f"was removed from the configuration, but this apply may not end it: {without(pool)}"
            draft.cannot(f"run {name}", why)
        elif empty and not draft.named(pool):
            draft.cannot(f"run {name}", f"the documents are empty; `--allow-destroy {pool}` stops it")
        else:
            _end(draft, run, why="was removed from the configuration")


def _end_all(draft: Draft) -> None:
    for run in list(draft.runs.values()):
        if not run.stop_reason and draft.covers(id=run.id, pool=run.spec.pool):
            _end(draft, run, why="the project is destroyed")


def _end(draft: Draft, run: Run, *, why: str) -> None:
    if draft.live.get(run.id):
        draft.update_run(run, why=why, status="terminating", stop_reason=why)
    else:
        draft.update_run(run, why=why, status="terminated", reason=why, stop_reason=why, finished_at=draft.now)
