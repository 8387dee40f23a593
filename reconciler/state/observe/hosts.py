"""Merge host reports: ready, unreachable, rebooted, and the progress of jobs. Pure.

A failed look is no death: it ends nothing. A job is lost only where its host says so, or
where it was running and the host came back from a boot, or with an empty folder.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from msgspec.structs import replace

from reconciler.state.observe.adopt_jobs import adopt, past
from reconciler.state.observe.clocks import SKEW
from reconciler.state.observe.job_times import began, behind_us, earliest, in_our_time
from reconciler.state.status import LOOKS_ENOUGH, UNTRUSTED
from schemas.instance import HostReport, Instance, JobReport
from schemas.resources import Resources
from schemas.run import LIVE_JOB, Attempt, Job
from schemas.state import State

FOLDER_GONE = "its folder on the host is gone"
STARTING = 30  # seconds in which a probe that does not succeed yet is no trouble worth a word
LATER = 600  # seconds that a machine's own end may move before it is written anew: ticks alone write nothing


def absorb_hosts(state: State, *, reports: Sequence[HostReport], before: State | None, now: int) -> State:
    """The state with the reports in it. `at` of each is by the clock that is stored, like `now`."""
    by_instance = {report.instance: report for report in reports}
    ours = _our_side(state, by_instance)
    then = {one.id: one for one in before.instances} if before else None
    instances, believed, emptied = [], {}, set[str]()
    for instance in state.instances:
        report = by_instance.get(instance.id)
        if report is None or instance.phase in ("pending", "terminated"):
            instances.append(instance)
            continue
        report = in_our_time(_checked(report, instance))
        if report.folder_gone and instance.ready_at is not None:
            emptied.add(instance.id)
            instances.append(_emptied(instance, now=now))
            continue
        if report.error:
            stale = then is not None and _moved(then.get(instance.id), instance)
            instances.append(instance if stale else _failed_look(instance, report, ours=ours))
            continue
        believed[instance.id] = report
        instances.append(_answered(instance, report))
    was_silent = {one.id for one in state.instances if one.phase == "ready" and one.ready_at is None}  # at a rebuild
    newcomers = [one for one in instances if one.id in was_silent and one.id in believed]
    state = adopt(replace(state, instances=tuple(instances)), newcomers, believed, now=now)
    state = _bereft(state, emptied, now=now)
    return _jobs(state, reports=believed, before=before, now=now)


def _our_side(state: State, reports: Mapping[str, HostReport]) -> frozenset[str]:
    """Places, networks and jumps all of whose hosts (two or more that once answered) fail at once.

    That is our side, not theirs: they are named as `_groups` words them.
    """
    looked: dict[str, list[bool]] = {}
    for instance in state.instances:
        report = reports.get(instance.id)
        if report is not None and instance.phase == "ready" and not report.not_visible:
            for group in _groups(instance):
                looked.setdefault(group, []).append(bool(report.error))
    return frozenset(group for group, failed in looked.items() if len(failed) > 1 and all(failed))


def _groups(instance: Instance) -> tuple[str, ...]:
    """What its fate may be shared with others, the nearest to it last."""
    network = f"network {instance.network} of {instance.backend}" if instance.network else ""
    jump = f"{instance.backend} behind {instance.via}" if instance.via else ""
    return tuple(filter(None, (instance.place, network, jump)))


def _emptied(instance: Instance, *, now: int) -> Instance:
    """It answers, and has nothing of ours any more: a declared server is attached anew, a machine is not used again."""
    found = replace(instance, unreachable_since=None, unreachable_why="", failed_looks=0, stray_jobs=())
    if instance.host is None:
        return replace(found, quarantined=instance.quarantined or FOLDER_GONE)
    if instance.phase == "terminating":
        return found
    return replace(found, phase="terminating", reason=FOLDER_GONE, terminate_at=now)


def _bereft(state: State, emptied: Collection[str], *, now: int) -> State:
    """The jobs of hosts whose folder is gone are over; a result that was there is lost with it."""
    if not emptied:
        return state
    attempts = tuple(
        replace(attempt, jobs=tuple(_emptied_job(job, attempt, emptied, now=now) for job in attempt.jobs))
        if any(job.instance in emptied for job in attempt.jobs)
        else attempt
        for attempt in state.attempts
    )
    return replace(state, attempts=attempts)


def _emptied_job(job: Job, attempt: Attempt, emptied: Collection[str], *, now: int) -> Job:
    if job.instance not in emptied or job.status not in LIVE_JOB:
        return job
    if job.status == "ended":
        return replace(job, status="lost", reason=f"result lost: {FOLDER_GONE}")
    return _settled(job, attempt=attempt, reason=FOLDER_GONE, interrupted=False, at=now)


def _moved(then: Instance | None, instance: Instance) -> bool:
    """Also one that another reconciler met first: we knew its birth key, it showed the one that it has since."""
    was = None if then is None else (then.phase, then.boot_id, then.host_key)
    return was != (instance.phase, instance.boot_id, instance.host_key)


def _checked(report: HostReport, instance: Instance) -> HostReport:
    """A reused address is another machine: what it says is not about ours."""
    if report.error or not (report.machine_id and instance.machine_id) or report.machine_id == instance.machine_id:
        return report
    return HostReport(
        instance=report.instance,
        at=report.at,
        error=f"another machine answers at {instance.address}: {report.machine_id}, not {instance.machine_id}",
    )


def _failed_look(instance: Instance, report: HostReport, *, ours: frozenset[str]) -> Instance:
    """One that never answered is booting; one that did is not used from now on, and counts after three."""
    if report.not_visible or instance.phase != "ready":
        return instance
    shared = [group for group in _groups(instance) if group in ours]
    why = f"every host of {shared[-1]} failed at once: {report.error}" if shared else report.error
    return replace(
        instance,
        unreachable_since=instance.unreachable_since if instance.unreachable_since is not None else report.at,
        unreachable_why=instance.unreachable_why if instance.failed_looks >= LOOKS_ENOUGH else why,
        failed_looks=instance.failed_looks if shared else min(LOOKS_ENOUGH, instance.failed_looks + 1),
        quarantined=report.error if report.untrusted else instance.quarantined,
    )


def _answered(instance: Instance, report: HostReport) -> Instance:
    return replace(
        instance,
        phase="ready" if instance.phase == "provisioning" and not instance.orphan else instance.phase,
        ready_at=instance.ready_at if instance.ready_at is not None else report.at,
        boot_id=report.boot_id or instance.boot_id,
        machine_id=report.machine_id or instance.machine_id,
        resources=_resources(instance, report),
        quarantined="" if UNTRUSTED in instance.quarantined else instance.quarantined,
        degraded=report.degraded,
        foreign=report.foreign,
        host_key=instance.host_key or report.host_key,
        self_destruct_at=_self_destruct(instance, report),
        disarmed=report.disarmed,
        authorized=report.authorized,
        unreachable_since=None,
        unreachable_why="",
        failed_looks=0,
    )


def _self_destruct(instance: Instance, report: HostReport) -> int | None:
    """Never later than the truth by more than a minute, and earlier by a few at most."""
    known, told = instance.self_destruct_at, report.self_destruct_at
    if known is not None and told is not None and known - SKEW <= told <= known + LATER:
        return known
    return told


def _resources(instance: Instance, report: HostReport) -> Resources:
    found = report.resources or instance.resources
    if instance.resources.runtime_fixed:
        return replace(found, runtime=instance.resources.runtime)
    return found if report.runtime in ("", found.runtime) else replace(found, runtime=report.runtime)


def _jobs(state: State, *, reports: Mapping[str, HostReport], before: State | None, now: int) -> State:
    """Settle each job that a believed report speaks of; list the folders that nobody needs."""
    if not reports:
        return state
    then = {job.id: job for attempt in before.attempts for job in attempt.jobs} if before else None
    attempts = []
    for attempt in state.attempts:
        if any(job.instance in reports for job in attempt.jobs):
            jobs = tuple(
                _job(
                    job,
                    reports[job.instance],
                    attempt=attempt,
                    known_absent=then is None or then.get(job.id) == job,
                    booted=_booted(job, reports[job.instance]),
                    now=now,
                )
                if job.instance in reports
                else job
                for job in attempt.jobs
            )
            attempt = replace(attempt, jobs=jobs)
        attempts.append(attempt)
    return _strays(replace(state, attempts=tuple(attempts)), reports=reports)


def _booted(job: Job, report: HostReport) -> bool:
    """The host has another boot than the one that the job began in."""
    return bool(report.boot_id and job.boot_id and report.boot_id != job.boot_id)


def _job(job: Job, report: HostReport, *, attempt: Attempt, known_absent: bool, booted: bool, now: int) -> Job:
    said = next((one for one in report.jobs if one.id == job.id), JobReport(id=job.id, phase="absent"))
    match job.status, said.phase:
        case "assigned", "held":
            return _held(job, said, report)
        case "assigned", "running" if len(attempt.jobs) > 1 and attempt.released_at is None:
            # Claimed, and not far enough to say that it is held back: without a release it does not run.
            return _held(job, said, report)
        case (("assigned" | "running"), "running"):
            return _running(job, said, report, attempt=attempt)
        case (("assigned" | "running"), "ended"):
            return _ended(job, said, attempt=attempt, now=now)
        case (("assigned" | "running"), "lost"):
            reason = "its host rebooted" if booted else said.reason or "its supervisor died without an exit code"
            at = past(said.ended_at, now=now, since=job.started_at or earliest(attempt))
            return _settled(job, attempt=attempt, reason=reason, interrupted=booted or said.interrupted, at=at)
        case "assigned", "absent" if known_absent and job.halted:
            return _settled(job, attempt=attempt, reason="never started", interrupted=False, at=now)
        case "assigned", "absent" if known_absent and job.held and attempt.released_at is None:
            return replace(job, held="", port=0, boot_id="")  # nothing of it has run: it may be handed over again
        case "assigned", "absent" if known_absent and job.held:
            return _settled(job, attempt=attempt, reason="its host no longer has it", interrupted=booted, at=now)
        case "running", "absent" if known_absent:
            reason = "its host rebooted" if booted else "its host no longer has it"
            return _settled(job, attempt=attempt, reason=reason, interrupted=booted, at=now)
        case "ended", ("absent" | "lost") if known_absent:
            return replace(job, status="lost", reason="result lost: its host no longer has it")
        case _:
            return job


def _held(job: Job, said: JobReport, report: HostReport) -> Job:
    held = "staged" if said.staged else "preparing"
    moved = report.at if (held, said.pulling) != (job.held, job.pulling) else job.moved_at
    return replace(job, held=held, moved_at=moved, port=said.port, pulling=said.pulling, boot_id=report.boot_id)


def _running(job: Job, said: JobReport, report: HostReport, *, attempt: Attempt) -> Job:
    known = job.started_at if behind_us(report) else None  # moved by a second or two in every report
    start = began(job, said, attempt=attempt, now=report.at) if known is None else min(known, report.at)
    starting = start is None or report.at - start < STARTING
    return replace(
        job,
        status="running",
        held="",
        boot_id=report.boot_id or job.boot_id,
        pulling=said.pulling,
        ready=None if starting and said.ready is False else said.ready,
        failing=said.failing,
        started_at=report.at if start is None else start,
    )


def reported(job: Job, said: JobReport, *, attempt: Attempt, now: int) -> Job:
    """`job`, of which its host said by its own clock that it ended, and how; its result is to be collected."""
    if job.started_at is not None and said.started_at is not None and said.ended_at is not None:
        lasted = said.ended_at - said.started_at
        said = replace(said, started_at=job.started_at, ended_at=job.started_at + lasted)
    return _ended(job, said, attempt=attempt, now=now)


def _ended(job: Job, said: JobReport, *, attempt: Attempt, now: int) -> Job:
    """Its result waits on the host; an aborted one's is not wanted. It ended after it began, and before now."""
    start = began(job, said, attempt=attempt, now=now)
    return replace(
        job,
        status="aborted" if attempt.abort and attempt.stopping else "ended",
        pulling="",
        held="",
        failing="",
        exit_code=said.exit_code,
        interrupted=said.interrupted,
        reason=attempt.stopping if attempt.abort and attempt.stopping else said.reason,
        started_at=start,
        ended_at=past(said.ended_at, now=now, since=earliest(attempt) if start is None else start),
    )


def _settled(job: Job, *, attempt: Attempt, reason: str, interrupted: bool, at: int) -> Job:
    """Proven ended without a result: as asked, or lost."""
    if attempt.stopping:
        status = "aborted" if attempt.abort else "terminated"
        return replace(job, status=status, reason=attempt.stopping, pulling="", ended_at=at)
    return replace(job, status="lost", reason=reason, pulling="", interrupted=interrupted, ended_at=at)


def _strays(state: State, *, reports: Mapping[str, HostReport]) -> State:
    """The folders whose job is settled here, or unknown: whoever started one had written it before."""
    jobs = (job for attempt in state.attempts for job in attempt.jobs)
    needed = {job.id for job in jobs if job.status in ("assigned", "running", "ended")}

    def strays(instance: Instance) -> Instance:
        if instance.id not in reports:
            return instance
        there = (one.id for one in reports[instance.id].jobs if one.phase != "absent")
        return replace(instance, stray_jobs=tuple(sorted(job for job in there if job not in needed)))

    return replace(state, instances=tuple(strays(instance) for instance in state.instances))
