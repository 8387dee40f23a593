"""Hosts that report again with jobs that were given up. Pure."""

from __future__ import annotations

from collections.abc import Iterator

from reconciler.state.job_results import ASSUMED_LOST, NOT_STARTED
from schemas.instance import Instance
from schemas.run import Job
from schemas.state import State


def returned(state: State) -> Iterator[tuple[Instance, Job, str]]:
    """(instance, job, its run's name) of each such job: it is ended there, and its folder removed."""
    back = {
        one.id: one
        for one in state.instances
        if one.stray_jobs and one.unreachable_since is None and one.phase == "ready"
    }
    if not back:
        return
    names = {run.id: run.spec.name for run in state.runs}
    for attempt in state.attempts:
        for job in attempt.jobs:
            one = back.get(job.instance)
            if one is not None and job.id in one.stray_jobs and _given_up(job):
                yield one, job, names.get(attempt.run, attempt.run)


def _given_up(job: Job) -> bool:
    """It was settled without its host's word."""
    return job.reason == ASSUMED_LOST or (job.status == "terminated" and job.reason.startswith(NOT_STARTED))
