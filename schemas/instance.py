"""An instance as remembered, and as a place or a host reports it."""

from __future__ import annotations

from typing import Literal

from schemas.access import Way
from schemas.base import Price, Seconds, Value
from schemas.host import Host
from schemas.launch import Refused
from schemas.leftover import Leftover
from schemas.resources import Resources

Phase = Literal["pending", "provisioning", "ready", "terminating", "terminated"]
Origin = Literal["declared", "run", "added"]


class Instance(Value, frozen=True, kw_only=True):
    """One machine that we own, from before it was asked for until long after its end.

    pending       its launch is written, no place has shown it yet
    provisioning  its place shows it; no host has answered
    ready         its host answered once (`ready_at`); it is then idle, busy or holding,
                  which `reconciler.state.status` derives from the attempts
    terminating   its end was written (before it was asked for); billed until gone
    terminated    its place says ended, or it is proven gone (a tombstone)

    `id` is minted by us (launch id + index), `name` is for people and unique among the
    living, `external_id` is its place's. `idle_duration` is fixed at its making;
    `idle_source` says where that number came from. Idle since
    `max(ready_at, last_job_end)` (see `reconciler.state.status`).
    `orphan` says why nobody owns it: it is counted, never used, and ended after a grace.
    `missing_since`/`absences`: good listings that did not have it. `unreachable_since`
    /`failed_looks`: looks at its host that failed. `reserved_for` is the run that it
    was made for, alone, until `reserved_until`; `wish` the `pool add` that asked for it.
    `quarantined`: why it is given no more work; `trusted_at` is when a person lifted that: what failed before it
    counts no more.
    `hold`: for how long a result waits on it, where its run does not say.
    `stray_jobs`: job folders on its host that nobody needs: unknown, given up, or collected.
    `foreign`: who else uses its GPUs: it is degraded, unless its pool has `allow_foreign`.
    `ending`: its place showed it on its way out, so that its end need not be asked for again.
    `network` names the network that it shares with others ("": that of its place), `internal_ip` is its
    address there, where other nodes reach it ("": `address`). `via` is the jump that leads us to it.
    `priced_at`: since when it costs `price` (`None`: since `created_at`); `at_most`: it may cost less, never more.
    `ended_at` is when its place says that it ended, where the place tells; `terminated_at` is when we knew.
    `host`: how a declared server is reached; it goes with its declaration alone, never for being idle.
    `unfit`: a check of its place that fails now; it is given no work.
    Of a machine in a cloud: `host_key` is its pin ("": that of its launch, which its first contact replaces), `user`
    who logs in ("": `backends.boot.spec.LOGIN`), `way` how it is reached. It powers itself off at `self_destruct_at`
    (`None`: never, or not known); `disarmed` is why it does not, where its timer was stopped or changed: it is degraded
    until that is armed again. `authorized` is the digest of the documents' keys that may log in.
    """

    id: str
    name: str
    pool: str
    backend: str
    place: str
    region: str = ""
    zone: str = ""
    instance_type: str = ""
    resources: Resources
    spot: bool = False
    price: Price | None = None
    at_most: bool = False
    external_id: str = ""
    launch: str = ""
    wish: str = ""
    origin: Origin = "declared"
    phase: Phase = "pending"
    reason: str = ""
    address: str = ""
    internal_ip: str = ""
    network: str = ""
    via: str = ""
    machine_id: str = ""
    boot_id: str = ""
    """Of its last start, by its host: the kernel's boot id, or, in a container, the id of that container's start
    (its incarnation). A job of another one is proven ended."""
    created_at: int = 0
    seen_at: int | None = None
    ready_at: int | None = None
    last_job_end: int | None = None
    terminate_at: int | None = None
    terminated_at: int | None = None
    priced_at: int | None = None
    ended_at: int | None = None
    idle_duration: Seconds | None = 300
    idle_source: str = "default"
    max_lifetime: Seconds | None = None
    hold: Seconds = 86400
    unattended: Seconds | None = 259200
    prevent_destroy: bool = False
    blocks: int = 1
    reserved_for: str = ""
    reserved_until: int | None = None
    orphan: str = ""
    draining: str = ""
    drain_until: int | None = None
    quarantined: str = ""
    trusted_at: int | None = None
    degraded: str = ""
    foreign: str = ""
    missing_since: int | None = None
    absences: int = 0
    unreachable_since: int | None = None
    failed_looks: int = 0
    unreachable_why: str = ""
    stray_jobs: tuple[str, ...] = ()
    ending: bool = False
    host: Host | None = None
    kernel: str = ""
    unfit: str = ""
    host_key: str = ""
    user: str = ""
    way: Way = Way()
    self_destruct_at: int | None = None
    disarmed: str = ""
    authorized: str = ""
    promised: bool = False
    """Its backend lists it and has not made it yet: its launch may still be refused, and stays open."""
    image: str = ""
    """The image that it was made of, where the instance is itself a container (`resources.runtime` is `image`)."""
    stopped: bool = False
    """Its backend lists it as powered off: nothing runs there any more, and it is ended."""


class Seen(Value, frozen=True, kw_only=True):
    """An instance as its place lists it. `id`, `launch`, `pool`, `lineage`, `generation` are our tags.

    `phase`: starting | running | ending | ended. An ended one stays listed for a while, or
    for good; `interrupted` says that the place took it away (a spot kill), `by_itself` that it was shut down from
    within: by its dead-man timer, or by whoever was there. `ended_at` is when, where it tells.
    `unfit` says what is wrong with it, as far as its place can tell; it is then given no work. `untagged` names the
    tags of ours that somebody took off.
    """

    external_id: str
    id: str = ""
    launch: str = ""
    pool: str = ""
    backend: str = ""
    """Name of the backend that asked for it, by its tag; "" where no tag says so. Two backends may be one account."""
    lineage: str = ""
    generation: int = 0
    phase: Literal["starting", "running", "stopped", "ending", "ended"] = "running"
    interrupted: bool = False
    by_itself: bool = False
    reason: str = ""
    region: str = ""
    zone: str = ""
    instance_type: str = ""
    spot: bool = False
    price: Price | None = None
    resources: Resources | None = None
    address: str = ""
    internal_ip: str = ""
    network: str = ""
    via: str = ""
    machine_id: str = ""
    created_at: int | None = None
    ended_at: int | None = None
    kernel: str = ""
    unfit: str = ""
    untagged: tuple[str, ...] = ()
    image: str = ""
    """What it is made of, where its type's instances are containers and its backend lists that."""
    failure: Refused | None = None
    """Why its launch failed after the request was accepted: treated as a refusal at once."""


class Listing(Value, frozen=True, kw_only=True):
    """What one place answered. `error` set means unknown: `instances` then says nothing.

    `identity` is the account or machine that answered; another one than pinned is unknown.
    `clock` is the place's own time, where it tells it. `partial` is a look-up by id. `by` is who asked.
    """

    place: str
    at: int
    identity: str = ""
    error: str = ""
    clock: int | None = None
    partial: bool = False
    instances: tuple[Seen, ...] = ()
    by: str = ""
    leftovers_asked: bool = False
    """Whether its place was asked for leftovers too."""
    leftovers: tuple[Leftover, ...] | None = None
    """What it answered to that; `None` where it did not."""


class JobReport(Value, frozen=True, kw_only=True):
    """A job as its host reports it.

    absent    the host has never had it (or has cleaned it)
    held      the host has it, and none of its commands has run: it waits for the other nodes. `staged`: it is
              ready to; until then its files are unpacked or its image is pulled
    running   its supervisor lives
    ended     `exit_code` is known; the result waits to be collected
    lost      claimed, and its supervisor is dead without an exit code (a crash, a reboot)

    `run` is the run's name as its order had it, where the host tells: a rebuild asks for it. `port` is a free one
    of the host, of a held job (0: not known). `pulling` is how far its image has come, while it is not there yet.
    """

    id: str
    phase: Literal["absent", "held", "running", "ended", "lost"]
    staged: bool = False
    port: int = 0
    exit_code: int | None = None
    reason: str = ""
    interrupted: bool = False
    started_at: int | None = None
    ended_at: int | None = None
    ready: bool | None = None
    run: str = ""
    pulling: str = ""


class HostReport(Value, frozen=True, kw_only=True):
    """What one look at one host gave. `error` set means unreachable from here: no other field counts.

    `not_visible` is true where the failure is ours (no key, no route): it counts against nobody.
    `jobs` has every job folder of the host, asked for or not. `foreign` tells of processes on its
    GPUs that are none of its jobs'. `runtime` as in `Resources`.
    `untrusted`: it showed another key than the pinned one, or none is pinned. `host_key` is the pinned one that it
    showed. `generation` is the highest that we told it of, `claimed` one that it says so and nobody can prove.
    `self_destruct_at` is when it powers itself off, `disarmed` and `authorized` as in `Instance`.
    """

    instance: str
    at: int
    error: str = ""
    not_visible: bool = False
    boot_id: str = ""
    """As `Instance.boot_id`: in a container, the incarnation."""
    machine_id: str = ""
    clock: int | None = None
    uptime: Seconds | None = None
    generation: int = 0
    claimed: int = 0
    jobs: tuple[JobReport, ...] = ()
    untrusted: bool = False
    resources: Resources | None = None
    runtime: str = ""
    degraded: str = ""
    foreign: str = ""
    host_key: str = ""
    self_destruct_at: int | None = None
    disarmed: str = ""
    authorized: str = ""
