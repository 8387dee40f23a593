"""`dstack artifacts`: what a run left, unpacked into a folder that nothing in it can leave."""

from __future__ import annotations

import tarfile
from pathlib import Path

from reconciler.blobs import Blobs
from reconciler.cli.fail import Fail
from reconciler.cli.find_run import find_attempt, find_run
from reconciler.cli.project import site, state_of
from reconciler.cli.terminal import out, say
from reconciler.render_words import counted
from reconciler.wire import blobs_of
from schemas.run import RUN_ENDED, Job


def fetch_artifacts(name: str, *, folder: Path | None, job: int | None) -> int:
    """Files of one node go into the folder itself, those of several into `node-N` in it."""
    where = site()
    state = state_of(where)
    run = find_run(state, name)
    attempt = find_attempt(state, run, replica=0, number=0)
    jobs = [one for one in (attempt.jobs if attempt else ()) if one.artifacts and job in (None, one.rank)]
    if not jobs:
        why = "its config has no `artifacts:`" if not run.spec.artifacts else "no file matched its `artifacts:`"
        if run.spec.artifacts and run.status not in RUN_ENDED:
            why = f"it is {run.status}; they are stored when it ends"
        raise Fail(f"run {name} left no artifacts: {why}")
    target = folder if folder is not None else Path(f"{run.spec.name}-artifacts")
    number = sum(
        _unpack(blobs_of(where), one, into=target if len(jobs) == 1 else target / f"node-{one.rank}") for one in jobs
    )
    out(f"{counted(number, 'file')} in {target}\n")
    return 0


def _unpack(blobs: Blobs, job: Job, *, into: Path) -> int:
    """How many files. Existing files are replaced; entries that would leave the folder are refused."""
    path = blobs.path(job.artifacts)
    if path is None:
        raise Fail(f"the artifacts of {job.id} are not in the store any more")
    into.mkdir(parents=True, exist_ok=True)
    number = 0
    with tarfile.open(path, "r:*") as packed:
        for member in packed:
            try:
                packed.extract(member, into, filter="data")
            except tarfile.FilterError as error:
                say(f"left out: {error}")
                continue
            number += member.isfile()
    return number
