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

    pending       its launch is written, no backend has shown it yet
    provisioning  its backend shows it; no host has answered
    ready         its host answered once (`ready_at`); it is then idle, busy or holding,
                  which `reconciler.state.status` derives from the attempts
    terminating   its end was written (before it was asked for); billed until gone
    terminated    its backend says ended, or it is proven gone

    It is idle since `max(ready_at, last_job_end)`.
    """

    id: str
    """Minted by us: launch id + index."""
    name: str
    """For people; unique among the living."""
    pool: str
    """Its pool's name; "" where nothing tells it."""
    backend: str
    """Name of its backend."""
    place: str
    """Key of the place that lists it: `local`, `aws/us-east-1`."""
    region: str = ""
    zone: str = ""
    instance_type: str = ""
    resources: Resources
    spot: bool = False
    price: Price | None = None
    """$/h; None where unknown."""
    at_most: bool = False
    """It may cost less than `price`, never more."""
    external_id: str = ""
    """The vendor's id; "" until it was seen."""
    launch: str = ""
    """Id of the launch that made it."""
    wish: str = ""
    """Id of the open `pool add` request that it is launched for; "": none, or its part of that is settled."""
    refused: bool = False
    """Its launch was refused or never sent, so it never existed: another offer may be tried for it."""
    origin: Origin = "declared"
    phase: Phase = "pending"
    reason: str = ""
    """Why it is in this phase, for people."""
    address: str = ""
    """Where we reach it."""
    internal_ip: str = ""
    """Where other nodes reach it; "": `address`."""
    network: str = ""
    """Name of the network that it shares with others; "": that of its place."""
    via: str = ""
    """The jump that leads to it."""
    machine_id: str = ""
    """As its host reports it."""
    boot_id: str = ""
    """Of its last start, by its host: the kernel's boot id, or, in a container, the id of that container's start
    (its incarnation). A job of another one is proven ended."""
    created_at: int = 0
    """Unix time."""
    seen_at: int | None = None
    """Unix time of the first listing that had it."""
    ready_at: int | None = None
    """Unix time of its host's first answer."""
    last_job_end: int | None = None
    """Unix time at which its last job ended."""
    terminate_at: int | None = None
    """Unix time from which its end is asked for."""
    terminated_at: int | None = None
    """Unix time at which we knew of its end."""
    priced_at: int | None = None
    """Unix time since which it costs `price`; None: since `created_at`."""
    ended_at: int | None = None
    """Unix time of its end as its backend tells it, where it does."""
    idle_duration: Seconds | None = 300
    """Seconds of idling until it terminates, fixed at its making; None: off."""
    idle_source: str = "default"
    """Which setting `idle_duration` came from."""
    max_lifetime: Seconds | None = None
    """Seconds; None: no limit."""
    hold: Seconds = 86400
    """Seconds for which a result waits on it, where its run does not say."""
    unattended: Seconds | None = 259200
    """Seconds that it may run without an apply; None: no limit."""
    prevent_destroy: bool = False
    """A person must confirm its end."""
    blocks: int = 1
    """Parts of equal size that runs may share; 1: it is not shared."""
    reserved_for: str = ""
    """Id of the run that it was made for, alone, until `reserved_until`."""
    reserved_until: int | None = None
    """Unix time."""
    orphan: str = ""
    """Why it has no owner: it is counted, never used, and terminated after a grace. "": it has one."""
    draining: str = ""
    """Why it gets no new work while its jobs end; "": it is not draining."""
    drain_until: int | None = None
    """Unix time at which its jobs are stopped."""
    forced: bool = False
    """A person said that it terminates although it is busy: where its host does not answer, at once."""
    quarantined: str = ""
    """Why it gets no work; "": it is not quarantined."""
    trusted_at: int | None = None
    """Unix time at which a person lifted a quarantine: failures before it do not count."""
    degraded: str = ""
    """What is broken on it; "": nothing."""
    foreign: str = ""
    """Who else uses its GPUs. It is degraded, unless its pool has `allow_foreign`."""
    missing_since: int | None = None
    """Unix time of the first good listing that lacked it."""
    absences: int = 0
    """Good listings in a row that lacked it."""
    unreachable_since: int | None = None
    """Unix time of the first failed look at its host."""
    failed_looks: int = 0
    """Failed looks at its host in a row."""
    unreachable_why: str = ""
    """Why its host could not be reached."""
    stray_jobs: tuple[str, ...] = ()
    """Job folders on its host that are unknown, given up or collected."""
    ending: bool = False
    """Its backend showed it on its way out: its end is not asked for again."""
    host: Host | None = None
    """How a declared server is reached. Such an instance is removed with its declaration alone, never for idling."""
    kernel: str = ""
    """As its backend or host names it."""
    unfit: str = ""
    """A check of its backend that fails now: it gets no work."""
    host_key: str = ""
    """Its pinned host key; "": that of its launch, which the first contact replaces."""
    user: str = ""
    """Who logs in; "": `backends.boot.spec.LOGIN`."""
    way: Way = Way()
    """How it is reached."""
    self_destruct_at: int | None = None
    """Unix time at which it powers itself off; None: never, or unknown."""
    disarmed: str = ""
    """Why its self-termination timer does not run: it is degraded until the timer is armed again."""
    authorized: str = ""
    """Digest of the configured keys that may log in."""
    promised: bool = False
    """Its backend lists it and has not made it yet: its launch may still be refused, and stays open."""
    image: str = ""
    """The image that it was made of, where the instance is itself a container (`resources.runtime` is `image`)."""
    stopped: bool = False
    """Its backend lists it as powered off: nothing runs there any more, and it is ended."""
    made_for: tuple[str, ...] = ()
    """Ids of the runs of one node that it was launched for: as long as they wait, they come first there."""


class Seen(Value, frozen=True, kw_only=True):
    """An instance as its backend lists it. `id`, `launch`, `pool`, `lineage` and `generation` are our tags.

    An ended one stays listed for a while, or for ever.
    """

    external_id: str
    """The vendor's id."""
    id: str = ""
    launch: str = ""
    pool: str = ""
    backend: str = ""
    """Name of the backend that asked for it, by its tag; "" where no tag says so. Two backends may be one account."""
    lineage: str = ""
    generation: int = 0
    """Generation of the state that launched it."""
    phase: Literal["starting", "running", "stopped", "ending", "ended"] = "running"
    interrupted: bool = False
    """The backend took it away (a spot interruption)."""
    by_itself: bool = False
    """It was shut down from within: by its self-termination timer, or by a person on it."""
    reason: str = ""
    """The vendor's own words."""
    region: str = ""
    zone: str = ""
    instance_type: str = ""
    spot: bool = False
    price: Price | None = None
    """$/h; None where the listing does not tell."""
    resources: Resources | None = None
    address: str = ""
    internal_ip: str = ""
    network: str = ""
    via: str = ""
    machine_id: str = ""
    created_at: int | None = None
    """Unix time; None where the listing does not tell."""
    ended_at: int | None = None
    """Unix time of its end, where the backend tells it."""
    kernel: str = ""
    unfit: str = ""
    """What is wrong with it, as far as its backend can tell: it gets no work."""
    untagged: tuple[str, ...] = ()
    """Tags of ours that were removed from it."""
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
    leftovers_refused: tuple[str, ...] = ()
    """Kinds of them that it may not list: nothing is known of those."""


class JobReport(Value, frozen=True, kw_only=True):
    """A job as its host reports it.

    absent    the host has never had it, or has cleaned it
    held      the host has it, and none of its commands has run: it waits for the other nodes
    running   its supervisor runs
    ended     `exit_code` is known; the result waits to be collected
    lost      claimed, and its supervisor died without an exit code (a crash, a reboot)
    """

    id: str
    phase: Literal["absent", "held", "running", "ended", "lost"]
    staged: bool = False
    """Of a held job: its files are unpacked and its image is pulled."""
    port: int = 0
    """A free port of the host, of a held job; 0: unknown."""
    exit_code: int | None = None
    reason: str = ""
    interrupted: bool = False
    """It ended under a spot notice."""
    started_at: int | None = None
    """Unix time by the host's clock."""
    ended_at: int | None = None
    """Unix time by the host's clock."""
    ready: bool | None = None
    """Of a service: what its probe said last; None: it has none."""
    run: str = ""
    """The run's name as its order had it, where the host tells: a rebuild asks for it."""
    pulling: str = ""
    """How far its image has come, while it is pulled."""
    failing: str = ""
    """Of a service: how its commands ended when they were last begun again; "" while they hold."""


class HostReport(Value, frozen=True, kw_only=True):
    """What one look at one host gave. With `error`, the host is unreachable from here and no other field counts."""

    instance: str
    """Id of the instance."""
    at: int
    """Unix time by our clock."""
    error: str = ""
    """Why nothing came back; "": it did."""
    not_visible: bool = False
    """The failure is ours (no key, no route): it counts against no host."""
    boot_id: str = ""
    """As `Instance.boot_id`: in a container, the incarnation."""
    machine_id: str = ""
    clock: int | None = None
    """Unix time by the host's clock."""
    uptime: Seconds | None = None
    """Seconds since its start."""
    generation: int = 0
    """The highest generation that it was told."""
    claimed: int = 0
    """A generation that it claims to know and that nobody can prove."""
    jobs: tuple[JobReport, ...] = ()
    """Every job folder of the host, asked for or not."""
    untrusted: bool = False
    """It showed another key than the pinned one, or none is pinned."""
    folder_gone: bool = False
    """It answered, and our folder there is gone: its jobs are over."""
    resources: Resources | None = None
    runtime: str = ""
    """As in `Resources`."""
    degraded: str = ""
    """What is broken on it."""
    foreign: str = ""
    """Processes on its GPUs that belong to none of its jobs."""
    host_key: str = ""
    """The pinned key that it showed."""
    self_destruct_at: int | None = None
    """Unix time at which it powers itself off."""
    disarmed: str = ""
    """As in `Instance`."""
    authorized: str = ""
    """As in `Instance`."""
