"""Translate the times of jobs from their host's clock into ours, and bound them. Pure.

Jobs can set the clock of their host, and can write what is read of them: a job begins after it was assigned, ends after
it began, and neither is to come.
"""

from __future__ import annotations

from msgspec.structs import replace

from reconciler.state.observe.clocks import SKEW
from schemas.base import Seconds
from schemas.instance import HostReport, JobReport
from schemas.run import Attempt, Job


def in_our_time(report: HostReport) -> HostReport:
    """A host whose clock is wrong tells wrong times: they are moved by as much. Nobody else's are."""
    off = behind_us(report)
    if not off:
        return report
    jobs = tuple(
        replace(
            job,
            started_at=None if job.started_at is None else job.started_at + off,
            ended_at=None if job.ended_at is None else job.ended_at + off,
        )
        for job in report.jobs
    )
    return replace(report, jobs=jobs)


def behind_us(report: HostReport) -> Seconds:
    """By how many seconds its clock is behind ours, where that is more than a minute; 0: they agree."""
    off = 0 if report.clock is None else report.at - report.clock
    return off if abs(off) > SKEW else 0


def earliest(attempt: Attempt) -> int:
    """No job of it has begun before: clocks that are no further apart agree."""
    return attempt.assigned_at - SKEW


def began(job: Job, said: JobReport, *, attempt: Attempt, now: int) -> int | None:
    """When it began: as its host says, unless that is to come, before its assignment, or not as we saw it."""
    at, seen = said.started_at, job.started_at
    if at is None or (seen is not None and seen <= now and abs(at - seen) > SKEW):
        return seen
    return min(at, now) if at >= earliest(attempt) else min(attempt.assigned_at, now)
