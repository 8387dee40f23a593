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
    `${{ secrets.X }}` are resolved at use, never stored. `sealed`: the password is encrypted with the project key.

    `entrypoint` None: `commands` are run by the image's shell, else they are its arguments.
    `volumes` are `/instance/path:/path`.
    """

    image: str
    username: str = ""
    password: str = ""
    sealed: bool = False
    entrypoint: str | None = None
    user: str = ""
    privileged: bool = False
    volumes: tuple[str, ...] = ()


class RunSpec(Value, frozen=True, kw_only=True):
    """A run configuration with every value effective: flag > run > profile > pool > default.

    `env` values are as written: `None` is a bare name (it comes from where the job is
    started), and `${{ env.X }}` / `${{ secrets.X }}` are resolved at use, never stored.
    `sealed` holds values given by `-e K=V`, encrypted with the project key.
    `hash` is of the run as written, without scheduling keys, plus `rerun`.
    `inactivity` is how long a dev environment lives without anybody attached, `None` for off; `ide` is its editor.
    """

    name: str
    type: RunType = "task"
    pool: str = ""
    hash: str = ""
    nodes: int = 1
    replicas: int = 1
    need: Need = Need()
    where: Where = Where()
    commands: tuple[str, ...] = ()
    setup: tuple[str, ...] = ()
    env: tuple[tuple[str, str | None], ...] = ()
    sealed: tuple[tuple[str, str], ...] = ()
    args: tuple[str, ...] = ()
    working_dir: str = ""
    files: tuple[str, ...] = ()
    priority: int = 50
    retry: Retry = Retry()
    max_duration: Seconds | None = 72 * 3600
    idle_duration: Seconds | None = 300
    reuse_only: bool = False
    destroy_after: bool = True
    instance_name: str = ""
    artifacts: tuple[str, ...] = ()
    artifacts_every: Seconds | None = None
    rerun: int = 0
    hold: Seconds | None = None
    formerly: tuple[str, ...] = ()
    stop_criteria: Literal["all-done", "master-done"] = "all-done"
    port: int | None = None
    ports: tuple[str, ...] = ()
    probe: Probe | None = None
    shm: Mib | None = None
    python: str = ""
    container: Container | None = None
    inactivity: Seconds | None = None
    ide: str = ""
    tags: tuple[tuple[str, str], ...] = ()
    unsupported: tuple[str, ...] = ()
    sources: tuple[tuple[str, str], ...] = ()


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
    """One node of an attempt on one instance. Its id is `<attempt id>-<rank>`.

    `pulse` is when the host last answered for it. `gpus` are UUIDs.
    `reason` says why it ended, in words: "exit 3", "max duration 2h", "interrupted".
    `log` and `artifacts` are digests of blobs, set in the write that ends it; `artifacts` also while it runs,
    as of `saved_at`, where its run has `artifacts_every`.
    `pulling` is how far its image has come, while it is not there yet.
    `halted`: its host accepted its end, and will refuse a start that comes later.
    `held`, while it is assigned: its host has it, and holds it back until every node of its attempt is "staged".
    `moved_at` is when it last got further on its way there. `port` is then one that is free there.
    `blocks`: how many of its instance's it takes, where that is shared.
    """

    id: str
    instance: str
    rank: int = 0
    status: JobStatus = "assigned"
    gpus: tuple[str, ...] = ()
    blocks: int = 1
    boot_id: str = ""
    started_at: int | None = None
    ended_at: int | None = None
    exit_code: int | None = None
    interrupted: bool = False
    reason: str = ""
    log: str = ""
    artifacts: str = ""
    saved_at: int | None = None
    pulling: str = ""
    halted: bool = False
    held: Literal["", "preparing", "staged"] = ""
    moved_at: int | None = None
    port: int = 0


class Attempt(Value, frozen=True, kw_only=True):
    """One try of one replica: all its jobs start together or not at all. Numbers from 1.

    Its id is `<run id>-<replica>-<number>`. `stopping` is why its end was asked for
    (written before the host is told); `abort` skips the grace.
    One of several jobs is held back on its hosts until `released_at` is written: before that, none of its commands
    has run anywhere, nor will. `port` is for its master, as the plan proposes it.
    """

    id: str
    run: str
    number: int
    replica: int = 0
    jobs: tuple[Job, ...]
    assigned_at: int = 0
    stopping: str = ""
    stop_asked_at: int | None = None
    abort: bool = False
    released_at: int | None = None
    port: int = 0

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
    """A run as remembered. `origin`: declared in the YAML, or wished by `dstack run`.

    `status` is stored: `submitted` waits (its `reason` says for what), `provisioning` has a live
    attempt that does not run everywhere yet, `running` has one that does, `terminating` was asked
    to end (`stop_reason`), the rest are ends.
    `held` waits for `--first-run`. `not_before` delays a retry. `wait_until` is when a run
    without capacity fails (from `retry`); `None` waits without limit.
    `superseded_by` is the hash that replaces it at its end.
    `bundle` is the digest of its files; `confirmed_price` the $/h confirmed for each of its nodes, a share's price
    where it has one (`reconciler.planner.confirmed_price`).
    """

    id: str
    spec: RunSpec
    origin: Literal["declared", "run"] = "declared"
    user: str = ""
    status: RunStatus = "submitted"
    reason: str = ""
    submitted_at: int = 0
    started_at: int | None = None
    finished_at: int | None = None
    exit_code: int | None = None
    bundle: str = ""
    held: bool = False
    not_before: int | None = None
    wait_until: int | None = None
    attempts: int = 0
    stop_reason: str = ""
    abort: bool = False
    superseded_by: str = ""
    assume_lost: bool = False
    confirmed_price: Price | None = None
