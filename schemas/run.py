"""A run as written (`RunSpec`) and as remembered (`Run`, its attempts and their jobs).

run ── attempt ── job: a task has one replica; a service has several. Each attempt is one
replica's gang of `nodes` jobs, placed and ended together. At most one attempt of a
replica is live. An attempt is repeated only after every job of the old one is proven ended.
"""

from __future__ import annotations

from typing import Literal

from schemas.base import Mib, Price, Seconds, Value
from schemas.profile import Retry
from schemas.resources import Need, Where

LARGEST_LOG = 1024
"""MiB: the largest `log_limit`."""

RunType = Literal["task", "service", "dev-environment"]


class Probe(Value, frozen=True, kw_only=True):
    """How a service's replica is watched on its host: an HTTP path or a command."""

    path: str = ""
    command: str = ""
    interval: Seconds = 15
    timeout: Seconds = 10
    ready_after: int = 1
    fail_after: int = 3


class Container(Value, frozen=True, kw_only=True):
    """A run's image, and how it is run. `image`, `username` and `password` are as written: `${{ env.X }}` and
    `${{ secrets.X }}` are resolved at use, never stored.
    """

    image: str
    username: str = ""
    password: str = ""
    sealed: bool = False
    """The password is encrypted with the project key."""
    entrypoint: str | None = None
    """None: the image's shell runs `commands`; else they are its arguments."""
    user: str = ""
    privileged: bool = False
    volumes: tuple[str, ...] = ()
    """`/instance/path:/path` each."""


class RunSpec(Value, frozen=True, kw_only=True):
    """A run configuration with every value effective: flag > run > profile > pool > default."""

    name: str
    type: RunType = "task"
    pool: str = ""
    hash: str = ""
    """Of the run as written, without scheduling keys, plus `rerun`."""
    nodes: int = 1
    replicas: int = 1
    need: Need = Need()
    where: Where = Where()
    commands: tuple[str, ...] = ()
    setup: tuple[str, ...] = ()
    env: tuple[tuple[str, str | None], ...] = ()
    """As written. None is a bare name, whose value comes from where the job is started. `${{ … }}` is resolved at use,
    never stored."""
    sealed: tuple[tuple[str, str], ...] = ()
    """Values given by `-e K=V`, encrypted with the project key."""
    args: tuple[str, ...] = ()
    working_dir: str = ""
    files: tuple[str, ...] | None = None
    """What is sent; None: the project as git sees it."""
    priority: int = 50
    """0 to 100; higher runs come first."""
    retry: Retry = Retry()
    max_duration: Seconds | None = 72 * 3600
    """Seconds; None: off."""
    stop_duration: Seconds | None = 10
    """Seconds between the TERM of a stop and the kill of what is left; None: off, only an abort kills."""
    idle_duration: Seconds | None = 300
    """Seconds; None: off."""
    reuse_only: bool = False
    """It waits for an existing instance; none is launched."""
    destroy_after: bool = True
    """Its instance may terminate when idle."""
    instance_name: str = ""
    artifacts: tuple[str, ...] = ()
    """Globs of files to keep."""
    artifacts_every: Seconds | None = None
    """Seconds between two copies of the artifacts of a running job."""
    restore: Literal["artifacts", "none"] = "artifacts"
    """What an attempt after the first begins with: the artifacts that were stored last, or nothing."""
    rerun: int = 0
    hold: Seconds | None = None
    """Seconds for which a result waits on its instance."""
    formerly: tuple[str, ...] = ()
    stop_criteria: Literal["all-done", "master-done"] = "all-done"
    port: int | None = None
    """Where a service listens; 0: `auto`, a free port of each host; None: nowhere."""
    ports: tuple[str, ...] = ()
    needs_services: tuple[str, ...] = ()
    """Names of the services of its pool that it waits for, and whose addresses it is given."""
    log_limit: Mib = 64
    """MiB of a job's log that are kept, half of them from its beginning and half from its end."""
    probe: Probe | None = None
    shm: Mib | None = None
    """MiB of `/dev/shm`."""
    python: str = ""
    container: Container | None = None
    inactivity: Seconds | None = None
    """Seconds that a dev environment runs without anybody attached; None: off."""
    ide: str = ""
    """The editor of a dev environment."""
    tags: tuple[tuple[str, str], ...] = ()
    unsupported: tuple[str, ...] = ()
    """What is valid in the YAML and does not work yet."""
    sources: tuple[tuple[str, str], ...] = ()
    """Field → where its value was written."""


JobStatus = Literal[
    "assigned",  # written before the start: the host may or may not have it yet
    "running",  # the host said so
    "ended",  # the host said so; its result is not collected yet
    "done",  # collected: exit code 0
    "failed",  # collected: another exit code, or the result is lost
    "terminated",  # ended on request (stop, max_duration, superseded), collected
    "aborted",  # ended on request at once, result not wanted
    "lost",  # proven ended with its machine, without a result
]
LIVE_JOB = frozenset({"assigned", "running", "ended"})


class Job(Value, frozen=True, kw_only=True):
    """One node of an attempt on one instance. Its id is `<attempt id>-<rank>`."""

    id: str
    instance: str
    """Id of the instance."""
    rank: int = 0
    status: JobStatus = "assigned"
    gpus: tuple[str, ...] = ()
    """UUIDs of its GPUs."""
    blocks: int = 1
    """How many blocks of a shared instance it takes."""
    boot_id: str = ""
    """Of the start of its host in which it was started."""
    started_at: int | None = None
    ended_at: int | None = None
    exit_code: int | None = None
    interrupted: bool = False
    by_hand: bool = False
    """Its machine ended, and nothing says that its backend took it away: `retry` on interruption does not apply."""
    reason: str = ""
    """Why it ended, in words: `exit 3`, `max duration 2h`, `interrupted`."""
    log: str = ""
    """Digest of a blob, set in the write that ends the job."""
    artifacts: str = ""
    """Digest of a blob; also while the job runs, where its run has `artifacts_every`."""
    saved_at: int | None = None
    """Unix time of the last copy of its artifacts."""
    pulling: str = ""
    """How far its image has come, while it is pulled."""
    halted: bool = False
    """Its host accepted its end, and refuses a start that comes later."""
    held: Literal["", "preparing", "staged"] = ""
    """Its host holds it back until every node of its attempt is `staged`."""
    moved_at: int | None = None
    """Unix time of its last progress while it is held back."""
    port: int = 0
    """A free port of its host, while it is held back; 0: unknown."""
    service_port: int = 0
    """Where its service listens on its host; 0: it has no port."""
    ready: bool | None = None
    """Of a service: what its probe said last; None: no probe, or none that succeeded in its first half minute."""
    failing: str = ""
    """Of a service: how its commands ended when they were last begun again (`exit 3, restarted 4 times`); "" once they
    run for a minute or answer their probe."""
    uncollected_since: int | None = None
    """Unix time at which its result could not be collected for the first time; None: it never failed."""


class Attempt(Value, frozen=True, kw_only=True):
    """One try of one replica: all its jobs start together or not at all. Its id is `<run id>-<replica>-<number>`.

    An attempt of several jobs is held back on its hosts until `released_at` is written: before that, none of its
    commands has run anywhere.
    """

    id: str
    run: str
    """Id of the run."""
    number: int
    """From 1."""
    replica: int = 0
    jobs: tuple[Job, ...]
    assigned_at: int = 0
    """Unix time."""
    stopping: str = ""
    """Why its end was asked for, written before the host is told."""
    stop_asked_at: int | None = None
    """Unix time."""
    abort: bool = False
    """It is stopped without a grace period."""
    released_at: int | None = None
    """Unix time."""
    port: int = 0
    """For its master, as the plan proposes it."""

    @property
    def live(self) -> bool:
        return any(job.status in LIVE_JOB for job in self.jobs)

    @property
    def held_back(self) -> bool:
        """Proven to have run nothing: its release was never written."""
        return len(self.jobs) > 1 and self.released_at is None and all(job.started_at is None for job in self.jobs)


RunStatus = Literal["submitted", "provisioning", "running", "terminating", "done", "failed", "terminated", "aborted"]
RUN_ENDED = frozenset({"done", "failed", "terminated", "aborted"})


class Run(Value, frozen=True, kw_only=True):
    """A run as remembered.

    `status` is stored: `submitted` waits (`reason` says for what), `provisioning` has a live attempt that does not run
    everywhere yet, `running` has one that does, `terminating` was asked to end. The others are ends.
    """

    id: str
    spec: RunSpec
    origin: Literal["declared", "run"] = "declared"
    """Declared in the YAML, or requested by `dstack run`."""
    user: str = ""
    """Who asked for it: user@host."""
    status: RunStatus = "submitted"
    reason: str = ""
    """Why it waits or how it ended, for people."""
    submitted_at: int = 0
    started_at: int | None = None
    finished_at: int | None = None
    settled_at: int | None = None
    """Unix time at which its end was written. It is remembered from then on, whenever it ended."""
    exit_code: int | None = None
    bundle: str = ""
    """Digest of its files."""
    held: bool = False
    """It waits for `--first-run`."""
    not_before: int | None = None
    """Unix time before which it is not retried."""
    wait_until: int | None = None
    """Unix time at which a run without capacity fails; None: it waits without limit."""
    attempts: int = 0
    """How many there were."""
    stop_reason: str = ""
    """Why it is to end."""
    abort: bool = False
    superseded_by: str = ""
    """Hash of the configuration that replaces it at its end."""
    assume_lost: bool = False
    """A person said that its unreachable attempt has ended."""
    confirmed_price: Price | None = None
    """$/h confirmed for each of its nodes; for a share, of the share. None: of no known price."""
    confirmed_unpriced: tuple[str, ...] = ()
    """What was confirmed without a known price, as `Offer.purchase`: it may be bought at any."""
