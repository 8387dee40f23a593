"""Limits on the attempts of a run, and what an attempt takes over from those before it. Pure."""

from __future__ import annotations

from schemas.run import Attempt, Job, RunSpec
from schemas.state import State

# More attempts than this, that a rebuild finds no trace of, no run has had.
UNSEEN = 100


def last_artifacts(state: State, spec: RunSpec, attempt: Attempt, *, rank: int) -> tuple[Attempt, Job] | None:
    """Give the newest attempt before `attempt` of the same run and replica whose node `rank` left artifacts.

    None where there is no such attempt, or where `spec` restores nothing. A run that was changed or is run again has
    another record, and so no earlier attempts.
    """
    if spec.restore == "none":
        return None
    before = [
        (one, job)
        for one in state.attempts
        if (one.run, one.replica) == (attempt.run, attempt.replica) and one.number < attempt.number
        for job in one.jobs
        if job.rank == rank and job.artifacts
    ]
    return max(before, key=lambda pair: pair[0].number, default=None)
