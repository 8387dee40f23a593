"""The contract of a runner: what may be asked of a host, whatever connects to it.

A host starts each job at most once for ever and remembers the highest generation that it was
told (the fence). Everything is idempotent: whoever finds an effect undone may do it again.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

from schemas.backend_type import BackendType
from schemas.base import Mib, Seconds, Value
from schemas.delivery import Delivery
from schemas.instance import HostReport, Instance
from schemas.lease import Lease
from schemas.run import Probe


class HostError(Exception):
    """A host did not do what was asked. The message is one line for people, without a secret."""


class Unreachable(HostError):
    """No answer. What was asked may have been done. `ours` says that the failure is on our side."""

    def __init__(self, message: str, *, ours: bool = False) -> None:
        super().__init__(message)
        self.ours = ours


class Untrusted(Unreachable):
    """The host, or a jump before it, showed another key than the pinned one, or none is pinned. Nothing was done.

    `shown` is that key (`ssh-ed25519 AAAA…`), "" where the pin itself cannot be read.
    """

    def __init__(self, message: str, *, shown: str = "") -> None:
        super().__init__(message)
        self.shown = shown


class FolderGone(Unreachable):
    """The host answers, and our folder there is gone: proof that no job of ours is left that could be found."""


class Fenced(HostError):
    """The host has seen a newer generation: read the state again. Nothing was done.

    `claimed`: which, where only the host itself says so, and its jobs may have written it; 0 where it is proven.
    """

    def __init__(self, message: str, *, claimed: int = 0) -> None:
        super().__init__(message)
        self.claimed = claimed


class ContainerSpec(Value, frozen=True, kw_only=True):
    """The container that a job runs in: everything resolved.

    `entrypoint` None: the commands are run by the image's shell, or, where there are none, the image runs its own.
    Else its words are run with the commands as their arguments, without a shell.
    `shm` and `memory` in MiB, 0 is the engine's default or no limit; `cpus` 0 is no limit.
    `username` and `password` are of the image's registry: a 0600 file on the host, until the image is there.
    `volumes` are (folder of the host, folder in the container).
    """

    image: str
    username: str = ""
    password: str = ""
    entrypoint: tuple[str, ...] | None = None
    user: str = ""
    privileged: bool = False
    shm: Mib = 0
    cpus: int = 0
    memory: Mib = 0
    volumes: tuple[tuple[str, str], ...] = ()


class JobOrder(Value, frozen=True, kw_only=True):
    """Everything that a host needs to start one job.

    `run` is the run's id and `name` its name; `number` the attempt's, from 1. `peers` are the
    addresses of all nodes by rank (this one's included). `env` is fully resolved and goes to
    the host as a 0600 file that is removed when the job ends. `files_bundle` is a tar.gz here.
    `restore` is a tar.gz here of an earlier attempt's artifacts, put over the files; `restored_from` is that attempt's
    number, also where its artifacts are not to be had any more (`restore` None), 0 where there are none.
    `commands` and `setup` may hold `${{ run.args }}`. `working_dir` is relative to the files.
    `max_duration` None is off. `restart` is a service: its commands are begun again with
    backoff. `hold` is how long an uncollected result keeps its machine (clouds' dead-man).
    `notice` is a file on the host whose existence tells of an interruption to come ("": the default one).
    `box` None is a process of the host; `python` then asks for that version, as "3.12". `stay`: the job ends when
    it is stopped, not with its commands; `keep_changes`: what was changed in its files becomes artifacts.
    `disk_floor` is what is made free by removing images that nothing uses (MiB).
    `peer_slots` are the GPUs of each node. `master_port` is proposed: the master's host takes the next that is free.
    `hold_back`: its commands begin when it is released; after so many seconds without, and without a look, it ends.
    0: at once.
    `working_dir` may be absolute in a container. `inactivity` 0 is off. `disk` 0 is no limit.
    `limit_cpus` and `limit_memory` are a process's share of its host, held where the host can; 0 is no limit.
    `deliveries` are how the host puts the result into a bucket itself.
    `port` is where a service listens. `log_limit` is in bytes: half of it from the log's beginning, half from its end;
    `grace` is between TERM and KILL.
    """

    run: str
    attempt: str
    job: str
    name: str
    generation: int
    number: int = 1
    replica: int = 0
    rank: int = 0
    nodes: int = 1
    peers: tuple[str, ...] = ("127.0.0.1",)
    peer_slots: tuple[int, ...] = ()
    hold_back: Seconds = 0
    project: str = ""
    env: Mapping[str, str] = {}
    commands: tuple[str, ...] = ()
    setup: tuple[str, ...] = ()
    args: tuple[str, ...] = ()
    files_bundle: Path | None = None
    restore: Path | None = None
    restored_from: int = 0
    working_dir: str = ""
    max_duration: Seconds | None = None
    hold: Seconds = 86400
    gpus: tuple[str, ...] = ()
    cpus: int = 0
    disk: Mib = 0
    limit_cpus: int = 0
    limit_memory: Mib = 0
    port: int | None = None
    master_port: int = 0
    probe: Probe | None = None
    restart: bool = False
    artifacts: tuple[str, ...] = ()
    notice: str = ""
    inactivity: Seconds = 0
    box: ContainerSpec | None = None
    python: str = ""
    stay: bool = False
    keep_changes: bool = False
    disk_floor: Mib = 0
    grace: Seconds = 10
    log_limit: int = 64 * 1024 * 1024
    deliveries: tuple[Delivery, ...] = ()


class HeldJob(Value, frozen=True, kw_only=True):
    """A job that its host holds back. `staged`: its commands could begin. `port` is free there; 0 is not known."""

    staged: bool
    port: int = 0


class CollectedFiles(Value, frozen=True, kw_only=True):
    """A job's result as files here, which the caller puts into blobs and then removes.

    `artifacts` is a deterministic tar.gz, None where no glob matched. `notes` say what was left out.
    """

    log: Path
    artifacts: Path | None = None
    notes: tuple[str, ...] = ()


class Runner(Protocol):
    """Thread-safe. Each call may raise `HostError`; `look` alone never does: it reports the error."""

    def look(self, instance: Instance, *, now: int, lease: Lease | None = None) -> HostReport:
        """Every job of the host and the host itself, in one round trip. Ends nothing that lives.

        With `lease`, its dead-man timer has that from now on.
        """

    def start(self, instance: Instance, order: JobOrder) -> HeldJob | None:
        """Start the job, at most once for ever: a second call is accepted and does nothing.

        With `order.hold_back` nothing of the user's runs before `release`: how far it is by now is the answer.
        Raises `Fenced`, `Unreachable` (it may have started), `HostError` (it did not).
        """

    def release(self, instance: Instance, job: str, *, generation: int, port: int) -> None:
        """Let a job that is held back begin, once; `port` is its attempt's master port. Again, it does nothing.

        Raises `Fenced`, `Unreachable` (it may have begun), `HostError` (it waits no more, or is not there).
        """

    def stop(self, instance: Instance, job: str, *, generation: int, abort: bool, why: str) -> None:
        """Ask for the job's end: accepted, not ended; only `look` says ended. `abort` skips the grace.

        A job that never started here never will. Raises `Fenced`.
        """

    def collect(self, instance: Instance, job: str, *, artifacts: tuple[str, ...]) -> CollectedFiles:
        """The log and the files that the globs match, also of a running job. Removes nothing."""

    def clean(self, instance: Instance, job: str, *, generation: int) -> None:
        """Remove an ended job's folder; it can never start again. A running job is a `HostError`. Raises `Fenced`."""

    def read_log(self, instance: Instance, job: str, *, offset: int, to_the_end: bool = False) -> bytes:
        """The log's bytes from `offset`, at most 1 MiB; empty where there is no more (yet).

        What comes after the first half of the log limit follows when the job has ended. `to_the_end`: the end as it is
        now, too, which later bytes replace.
        """

    def admit(self, instance: Instance, keys: tuple[str, ...], *, generation: int) -> None:
        """From now on these may log in, and of those admitted before no others. Raises `Fenced`."""

    def arm(self, instance: Instance, *, generation: int, kind: BackendType) -> None:
        """Make the dead-man timer of a machine that we bought anew, and have it ask once. Raises `Fenced`."""

    def retire(self, instance: Instance, *, generation: int) -> None:
        """Nothing may start on this host any more. Optional before its end. Raises `Fenced`."""
