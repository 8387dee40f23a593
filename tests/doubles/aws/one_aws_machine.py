"""A tick of one of several reconcilers over the double of AWS: a process with a checkout and a clock of its own.

`one_aws_machine.py CHECKOUT HOSTS SKEW`: SKEW is by how many seconds its clock is ahead. Places, state and ledger are
real; a host is a folder in HOSTS as long as EC2 has its machine, and a job a folder in that, which is done in a moment.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import sys
import tempfile
import time
from pathlib import Path

from reconciler.app.wiring import wire
from reconciler.cli.commands.plan.revision import revision
from reconciler.cli.project import documents_of, site_of
from reconciler.engine.begin import TickRefused
from reconciler.engine.request import TickAsk
from reconciler.engine.tick import tick
from reconciler.hosts.runner import CollectedFiles, HeldJob, HostError, JobOrder, Unreachable
from reconciler.state.errors import StateMoved, StateRefused
from schemas.instance import HostReport, Instance, JobReport
from schemas.lease import Lease
from schemas.plan import Permissions
from schemas.resources import Resources
from tests.doubles.aws.aws_double import KEY, Account

TAKES = 0.5  # seconds of a job
HAS = Resources(cpus=2, memory=8192, disk=40960)


class Folders:
    """The runner's contract over files: JOB.job is its claim, with its run and attempt, and began when it was made."""

    def __init__(self, hosts: Path, account: Account, *, skew: int) -> None:
        self.hosts, self.skew, self._account = hosts, skew, account

    def _folder(self, instance: Instance) -> Path:
        """Raises `Unreachable` where there is no such machine (any more)."""
        if not any(one["id"] == instance.external_id for one in self._account.living(instance.region)):
            raise Unreachable("no answer")
        made = self.hosts / instance.external_id
        made.mkdir(exist_ok=True)
        return made

    def look(self, instance: Instance, *, now: int, lease: Lease | None = None) -> HostReport:
        try:
            folder = self._folder(instance)
        except Unreachable as error:
            return HostReport(instance=instance.id, at=now, error=str(error))
        jobs = tuple(self._job(one) for one in sorted(folder.glob("*.job")) if not one.with_suffix(".cleaned").exists())
        return HostReport(
            instance=instance.id,
            at=now,
            boot_id=f"boot-{instance.external_id}",
            machine_id=instance.external_id,
            clock=int(time.time()),
            jobs=jobs,
            resources=HAS,
        )

    def _job(self, claim: Path) -> JobReport:
        began, halted = claim.stat().st_mtime, claim.with_suffix(".halted")
        ends = halted.stat().st_mtime if halted.exists() else began + TAKES
        over = time.time() >= ends
        code = None if not over else 143 if halted.exists() else 0
        return JobReport(
            id=claim.stem,
            phase="ended" if over else "running",
            exit_code=code,
            started_at=int(began) + self.skew,
            ended_at=int(ends) + self.skew if over else None,
        )

    def start(self, instance: Instance, order: JobOrder) -> HeldJob | None:
        self._claim(self._folder(instance) / f"{order.job}.job", f"{order.run} {order.number}\n")
        return None

    def stop(self, instance: Instance, job: str, *, generation: int, abort: bool, why: str) -> None:
        claim = self._folder(instance) / f"{job}.job"
        self._claim(claim, "halted before it began\n")
        if self._job(claim).phase == "running":
            claim.with_suffix(".halted").touch()

    def _claim(self, claim: Path, text: str) -> None:
        """At most once for ever, whoever dies in between."""
        handle, name = tempfile.mkstemp(dir=self.hosts.parent)
        os.write(handle, text.encode())
        os.close(handle)
        with contextlib.suppress(FileExistsError):
            os.link(name, claim)
        os.unlink(name)

    def collect(self, instance: Instance, job: str, *, artifacts: tuple[str, ...]) -> CollectedFiles:
        if not (self._folder(instance) / f"{job}.job").exists():
            raise HostError("no such job")
        handle, name = tempfile.mkstemp(dir=self.hosts.parent)
        os.write(handle, f"log of {job}\n".encode())
        os.close(handle)
        return CollectedFiles(log=Path(name))

    def clean(self, instance: Instance, job: str, *, generation: int) -> None:
        claim = self._folder(instance) / f"{job}.job"
        self._claim(claim, "cleaned before it began\n")
        claim.with_suffix(".cleaned").touch()

    def admit(self, instance: Instance, keys: tuple[str, ...], *, generation: int) -> None:
        raise HostError("nobody is let in")

    def release(self, instance: Instance, job: str, *, generation: int, port: int) -> None:
        raise HostError("nothing is held")

    def read_log(self, instance: Instance, job: str, *, offset: int, to_the_end: bool = False) -> bytes:
        return b""

    def retire(self, instance: Instance, *, generation: int) -> None:
        raise HostError("not asked for")


def run(checkout: Path, hosts: Path, *, skew: int) -> int:
    documents = documents_of(checkout)
    account = Account(os.environ["DOUBLE"], os.environ["AWS_ACCESS_KEY_ID"].removeprefix(KEY))
    ports = wire(site_of(documents), environ=os.environ, unattended=True, now=lambda: int(time.time()) + skew)
    ports = dataclasses.replace(ports, runner=Folders(hosts, account, skew=skew), who=os.environ["USER"])
    pools = tuple(pool.name for pool in documents.desired.pools)
    ask = TickAsk(
        documents=documents,
        revision=revision(documents),
        permissions=Permissions(destroy_pools=pools, mass_destroy=True),
    )
    try:
        result = tick(ports, ask)
    except (StateRefused, StateMoved, TickRefused) as error:
        print(f"refused: {error}")
        return 1
    for line in (result.refused, *result.warnings, *map(repr, result.plan.actions), *map(repr, result.outcomes)):
        print(line)
    return 1 if result.refused else 0


def main() -> None:
    checkout, hosts, skew = sys.argv[1:]
    sys.exit(run(Path(checkout), Path(hosts), skew=int(skew)))


if __name__ == "__main__":
    main()
