"""`dstack artifacts`: unpack a run's artifacts into a folder that nothing in them can leave."""

from __future__ import annotations

import tarfile
from collections.abc import Sequence
from pathlib import Path

from reconciler.app.stores import artifacts_of
from reconciler.cli.commands.run.find import find_run
from reconciler.cli.exits import Fail
from reconciler.cli.project import site, state_of
from reconciler.cli.terminal.bounded_wait import BoundedWait
from reconciler.cli.terminal.streams import out, say
from reconciler.cli.terminal.transfer_bar import Transfer
from reconciler.store.blobs.fetched import Fetched
from reconciler.store.blobs.folder import Blobs
from reconciler.text.format import counted, span
from schemas.run import RUN_ENDED, Job, Run
from schemas.state import State


def fetch_artifacts(name: str, *, folder: Path | None, job: int | None, deadline: str = "") -> int:
    """Files of one node go into the folder itself, those of several into `node-N` in it."""
    where = site()
    state = state_of(where)
    run = find_run(state, name)
    jobs = [one for one in _newest(state, run) if one.artifacts and job in (None, one.rank)]
    if not jobs:
        raise Fail(f"run {name} left no artifacts: {_why_none(run)}")
    target = folder if folder is not None else Path(f"{run.spec.name}-artifacts")
    bar = Transfer()
    left = f"; what arrived is in {target}, and it is not all"
    with BoundedWait(f"the artifacts of run {run.spec.name} from the store", deadline=deadline, left=left) as wait:

        def told(what: str, done: int, size: int) -> None:
            wait.moved()
            bar.told(what, done, size)

        blobs, fetched = artifacts_of(where, told=told), Fetched(where.root)
        number = sum(
            _unpack(blobs, one, into=target if len(jobs) == 1 else target / f"node-{one.rank}", fetched=fetched)
            for one in jobs
        )
    out(f"{counted(number, 'file')} in {target}\n")
    return 0


def _newest(state: State, run: Run) -> Sequence[Job]:
    """Of the last attempt that left anything: one that was lost may have saved some while it ran."""
    left = [one for one in state.attempts if one.run == run.id and any(job.artifacts for job in one.jobs)]
    return max(left, key=lambda one: (one.number, -one.replica)).jobs if left else ()


def _why_none(run: Run) -> str:
    if not run.spec.artifacts:
        return "its config has no `artifacts:`"
    if run.status in RUN_ENDED:
        where = " (they start at the run's folder, not at its `working_dir`)" if run.spec.working_dir else ""
        return f"no file matched its `artifacts:`{where}"
    often = f"every {span(run.spec.artifacts_every)} while it runs and " if run.spec.artifacts_every is not None else ""
    return f"it is {run.status}; they are stored {often}when it ends"


def _unpack(blobs: Blobs, job: Job, *, into: Path, fetched: Fetched) -> int:
    """How many files. Existing files are replaced; entries that would leave the folder are refused."""
    if blobs.path(job.artifacts) is None:
        raise Fail(f"the artifacts of {job.id} are not in the store any more")
    path = blobs.verified(job.artifacts)
    into.mkdir(parents=True, exist_ok=True)
    number = 0
    with fetched, tarfile.open(path, "r:*") as packed:
        for member in packed:
            fetched.expect(into / member.name)
            try:
                packed.extract(member, into, filter="data")
            except tarfile.FilterError as error:
                say(f"left out: {error}")
                continue
            number += member.isfile()
    return number
