"""The hosts of a fake backend: jobs start at most once, end in time, and leave results.

The errors are this module's own; whoever plays the runner translates them.
"""

from __future__ import annotations

from msgspec.structs import replace

from backends.fake.backend import FakeJob, FakeMachine, FakeWorld
from schemas.instance import HostReport, JobReport
from schemas.resources import Resources


class Silent(Exception):
    """The host does not answer."""


class StaleReconciler(Exception):
    """The host has seen a newer generation."""


class NotHeld(Exception):
    """There is no such job that could be released."""


class FakeHosts:
    """What can be asked of the machines of a world, by external id."""

    def __init__(self, world: FakeWorld) -> None:
        self._world = world

    def look(self, external_id: str, *, instance: str, now: int) -> HostReport:
        try:
            machine = self._answering(external_id)
        except Silent as error:
            return HostReport(instance=instance, at=now, error=str(error))
        return HostReport(
            instance=instance,
            at=now,
            boot_id=f"boot-{external_id}-{machine.boot}",
            machine_id=f"machine-{external_id}",
            clock=self._world.now() + machine.ahead,
            generation=machine.fence,
            jobs=tuple(self._by_its_clock(id, job, machine) for id, job in machine.jobs.items() if _folder(job)),
            resources=_resources(machine),
            degraded=f"missing GPU {', '.join(machine.gpus[: machine.broken])}" if machine.broken else "",
        )

    def start(self, external_id: str, job: str, *, generation: int, run: str = "", hold_back: bool = False) -> bool:
        """At most once for ever: a job that was started, halted or cleaned before is not started.

        With `hold_back` it waits for its release; true where it is ready for it.
        """
        machine = self._fenced(external_id, generation)
        now = self._world.now()
        if job not in machine.jobs and hold_back:
            machine.jobs[job] = FakeJob(run=run, held_at=now, boot=machine.boot)
        elif job not in machine.jobs:
            machine.jobs[job] = FakeJob(run=run, boot=machine.boot)
            self._begin(job, machine)
        return self._staged(machine.jobs[job])

    def release(self, external_id: str, job: str, *, generation: int) -> None:
        machine = self._fenced(external_id, generation)
        known = machine.jobs.get(job)
        if known is None or known.halted or known.cleaned or self._dead(known, machine):
            raise NotHeld(f"{job} is not held back there")
        if known.started_at is None and known.ends_at is None:
            self._begin(job, machine)

    def _begin(self, job: str, machine: FakeMachine) -> None:
        seconds, exit_code = self._world.script(job)
        now, known = self._world.now(), machine.jobs[job]
        self._world.started[job] += 1
        known.started_at, known.ends_at, known.exit_code = now, now + seconds, exit_code

    def _staged(self, job: FakeJob) -> bool:
        return job.held_at is not None and self._world.now() >= job.held_at + self._world.staging

    def stop(self, external_id: str, job: str, *, generation: int, why: str) -> None:
        machine = self._fenced(external_id, generation)
        known = machine.jobs.setdefault(job, FakeJob(halted=True))
        waits = known.held_at is not None and known.started_at is None and known.ends_at is None
        goes_on = known.ends_at is not None and known.ends_at > self._world.now()
        if (waits or goes_on) and not machine.stubborn and not self._dead(known, machine):
            known.ends_at, known.exit_code, known.reason = self._world.now(), 143, why

    def collect(self, external_id: str, job: str) -> bytes:
        """The log."""
        machine = self._answering(external_id)
        known = machine.jobs.get(job)
        if known is None or not _folder(known):
            raise Silent(f"{job} is not there")
        return f"log of {job}\n".encode()

    def clean(self, external_id: str, job: str, *, generation: int) -> None:
        """Its folder goes; the host remembers that it must not start again."""
        machine = self._fenced(external_id, generation)
        machine.jobs.setdefault(job, FakeJob(halted=True)).cleaned = True

    def _answering(self, external_id: str) -> FakeMachine:
        machine = self._world.machines.get(external_id)
        if machine is None or machine.silent or self._world.over(machine):
            raise Silent(f"{external_id} does not answer")
        if self._world.now() < machine.born + self._world.boot:
            raise Silent(f"{external_id} is booting")
        return machine

    def _fenced(self, external_id: str, generation: int) -> FakeMachine:
        machine = self._answering(external_id)
        if generation < machine.fence:
            raise StaleReconciler(f"generation {generation}, but {machine.fence} was here")
        machine.fence = generation
        return machine

    def _dead(self, job: FakeJob, machine: FakeMachine) -> bool:
        """It ran in an earlier boot, and had not ended when that one did."""
        over = job.ends_at is not None and job.ends_at <= self._world.now()
        return job.lost or (job.boot != machine.boot and _known(job) and not over)

    def _by_its_clock(self, id: str, job: FakeJob, machine: FakeMachine) -> JobReport:
        told = self._report(id, job, machine)
        began = None if told.started_at is None else told.started_at + machine.ahead
        ended = None if told.ended_at is None else told.ended_at + machine.ahead
        return replace(told, started_at=began, ended_at=ended)

    def _report(self, id: str, job: FakeJob, machine: FakeMachine) -> JobReport:
        if self._dead(job, machine):
            job.lost = True
            return JobReport(id=id, phase="lost", reason="the host rebooted", started_at=job.started_at, run=job.run)
        if job.ends_at is not None and job.ends_at <= self._world.now():
            return JobReport(
                id=id,
                phase="ended",
                exit_code=job.exit_code,
                reason=job.reason,
                started_at=job.started_at,
                ended_at=job.ends_at,
                run=job.run,
            )
        if job.started_at is None:
            return JobReport(id=id, phase="held", staged=self._staged(job), port=20000, run=job.run)
        return JobReport(id=id, phase="running", started_at=job.started_at, run=job.run)


def _resources(machine: FakeMachine) -> Resources | None:
    """Its GPUs by UUID, which no place tells; what was there once is asked for, also when it is broken."""
    gpu = machine.resources.gpu
    return replace(machine.resources, gpu=replace(gpu, uuids=machine.gpus)) if gpu else None


def _folder(job: FakeJob) -> bool:
    return _known(job) and not job.cleaned


def _known(job: FakeJob) -> bool:
    return job.started_at is not None or job.held_at is not None
