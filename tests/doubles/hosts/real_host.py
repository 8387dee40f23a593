"""A folder as a host, its real runner, and real processes. Waits by polling, with a deadline."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from reconciler.hosts.runner import JobOrder
from reconciler.hosts.shell_runner import HostRunner
from reconciler.hosts.transport.local import LocalTransport
from schemas.instance import HostReport, Instance, JobReport
from schemas.resources import Resources

PATIENCE = 240.0  # on a busy machine: whoever is healthy never waits for it


def until(met: Callable[[], object], *, patience: float = PATIENCE) -> None:
    """Returns as soon as it is so; fails when it never becomes so."""
    deadline = time.monotonic() + patience
    while not met():
        assert time.monotonic() < deadline, "it never came to be"
        time.sleep(0.02)


def alive(pid: int) -> bool:
    """A zombie is dead."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False
    return stat.rpartition(") ")[2][0] not in "ZX"


class RealHost:
    def __init__(self, folder: Path, *, environ: Mapping[str, str] = os.environ, **options: Any) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self.environ = environ
        self.runner = HostRunner(lambda instance: LocalTransport(Path(instance.address), environ=environ), **options)
        self.instance = Instance(
            id="i-0",
            name="pool-0",
            pool="pool",
            backend="local",
            place="local",
            resources=Resources(cpus=1, memory=1024),
            address=str(folder),
        )

    def start(self, *commands: str, job: str = "r1-0-1-0", **changes: Any) -> str:
        self.runner.start(self.instance, an_order(*commands, job=job, **changes))
        return job

    def stop(self, job: str, *, abort: bool = False, generation: int = 1) -> None:
        self.runner.stop(self.instance, job, generation=generation, abort=abort, why="asked for")

    def look(self) -> HostReport:
        report = self.runner.look(self.instance, now=1790000000)
        assert report.error == ""
        return report

    def job(self, job: str) -> JobReport:
        return next((one for one in self.look().jobs if one.id == job), JobReport(id=job, phase="absent"))

    def over(self, job: str) -> JobReport:
        """Its report, once it is over."""
        until(lambda: self.job(job).phase in ("ended", "lost"))
        return self.job(job)

    def log(self, job: str) -> bytes:
        return self.runner.read_log(self.instance, job, offset=0)

    def says(self, job: str, text: bytes) -> None:
        until(lambda: text in self.log(job))

    def at(self, job: str, name: str) -> Path:
        return self.folder / "jobs" / job / name

    def pids(self, job: str) -> list[int]:
        """Every living process that carries the job's claim."""
        claim = b"DSTACK_CLAIM=" + self.at(job, "token").read_bytes().strip()
        found = []
        for process in Path("/proc").glob("[0-9]*"):
            try:
                environment = (process / "environ").read_bytes()
            except OSError:
                continue
            if claim in environment.split(b"\0"):
                found.append(int(process.name))
        return found

    def supervisor(self, job: str) -> int:
        until(lambda: self.at(job, "pid").exists())
        return int(self.at(job, "pid").read_text().split()[0])

    def end_everything(self) -> None:
        """For the end of a test: nothing that it started outlives it."""
        (self.folder / "ending").touch()
        for job in self.look().jobs:
            if job.phase in ("running", "held"):
                self.stop(job.id, abort=True, generation=10**9)
        until(lambda: all(job.phase not in ("running", "held") for job in self.look().jobs))


def an_order(*commands: str, job: str = "r1-0-1-0", **changes: Any) -> JobOrder:
    given = {"run": "r1", "attempt": "r1-0-1", "name": "hello", "generation": 1, **changes}
    return JobOrder(job=job, commands=commands, **given)
