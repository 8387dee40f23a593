"""The insides of a fake world's machines: jobs that start at most once, end when their time is over, and leave results.

The errors are this module's own; whoever plays the runner translates them.
"""

from __future__ import annotations

from backends.fake import FakeJob, FakeWorld, Machine
from schemas.instance import HostReport, JobReport


class Silent(Exception):
    """The host does not answer."""


class Behind(Exception):
    """The host has seen a newer generation."""


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
            clock=self._world.now(),
            generation=machine.fence,
            jobs=tuple(self._report(id, job, machine) for id, job in machine.jobs.items() if _folder(job)),
        )

    def start(self, external_id: str, job: str, *, generation: int, run: str = "") -> None:
        """At most once for ever: a job that was started, halted or cleaned before is not started."""
        machine = self._fenced(external_id, generation)
        if job in machine.jobs:
            return
        seconds, exit_code = self._world.script(job)
        now = self._world.now()
        self._world.started[job] += 1
        machine.jobs[job] = FakeJob(
            run=run, started_at=now, ends_at=now + seconds, exit_code=exit_code, boot=machine.boot
        )

    def stop(self, external_id: str, job: str, *, generation: int, why: str) -> None:
        machine = self._fenced(external_id, generation)
        known = machine.jobs.setdefault(job, FakeJob(halted=True))
        if known.ends_at is not None and known.ends_at > self._world.now() and not self._dead(known, machine):
            known.ends_at, known.exit_code, known.reason = self._world.now(), 143, why

    def collect(self, external_id: str, job: str) -> bytes:
        """The log."""
        machine = self._answering(external_id)
        known = machine.jobs.get(job)
        if known is None or not _folder(known):
            raise Silent(f"{job} is not there")
        return f"log of {job}\n".encode()

    def clean(self, external_id: str, job: str) -> None:
        """Its folder goes; the host remembers that it must not start again."""
        machine = self._answering(external_id)
        machine.jobs.setdefault(job, FakeJob(halted=True)).cleaned = True

    def _answering(self, external_id: str) -> Machine:
        machine = self._world.machines.get(external_id)
        if machine is None or machine.silent or self._world.over(machine):
            raise Silent(f"{external_id} does not answer")
        if self._world.now() < machine.born + self._world.boot:
            raise Silent(f"{external_id} is booting")
        return machine

    def _fenced(self, external_id: str, generation: int) -> Machine:
        machine = self._answering(external_id)
        if generation < machine.fence:
            raise Behind(f"generation {generation}, but {machine.fence} was here")
        machine.fence = generation
        return machine

    def _dead(self, job: FakeJob, machine: Machine) -> bool:
        """It ran in an earlier boot, and had not ended when that one did."""
        return job.lost or (job.boot != machine.boot and (job.ends_at or 0) > self._world.now())

    def _report(self, id: str, job: FakeJob, machine: Machine) -> JobReport:
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
        return JobReport(id=id, phase="running", started_at=job.started_at, run=job.run)


def _folder(job: FakeJob) -> bool:
    return job.started_at is not None and not job.cleaned
