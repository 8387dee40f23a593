"""A plan: what would be done, what it costs, and why. Complete: executing it decides nothing more."""

from __future__ import annotations

from typing import Any

from schemas.base import Mib, Price, Seconds, Value
from schemas.configuration import Change, PlanCost
from schemas.host import Host
from schemas.launch import Request
from schemas.offer import Offer
from schemas.run import Run


class Launch(Value, frozen=True, kw_only=True, tag_field="kind", tag="launch"):
    """Ask a place for `ids` alike machines; what the instances will remember of their pool comes with it.

    With `host`, the machine is there and declared: it is attached.

    `max_price`, `disk`, `reservation`, `together`, `near` and `tags` are as in `schemas.launch.Request`.
    A gang's are `reserved_for` it until `reserved_until`. Is this offer sold out, the next plan takes another.
    """

    launch: str
    pool: str
    ids: tuple[str, ...]
    names: tuple[str, ...]
    offer: Offer
    why: str
    origin: str = "declared"
    wish: str = ""
    reserved_for: str = ""
    reserved_until: int | None = None
    idle_duration: Seconds | None = 300
    idle_source: str = "default"
    gang: bool = False
    together: bool = False
    near: str = ""
    max_price: Price | None = None
    disk: Mib = 0
    reservation: str = ""
    tags: tuple[tuple[str, str], ...] = ()
    max_lifetime: Seconds | None = None
    hold: Seconds = 86400
    unattended: Seconds | None = 259200
    prevent_destroy: bool = False
    blocks: int = 1
    host: Host | None = None
    image: str = ""
    """What its machines are made of, where they are containers: as `image` of `schemas.launch.Request`."""
    runtime: str = ""
    """`Resources.runtime` of its machines, where their type of backend fixes it."""
    engine: bool = False
    """As `engine` of `schemas.launch.Request`."""
    made_for: tuple[tuple[str, ...], ...] = ()
    """For each of `ids`, the runs of one node that are to use it: id and name of each in turn. Empty: of none."""


class Resume(Value, frozen=True, kw_only=True, tag_field="kind", tag="resume"):
    """Send an open launch again, the same request. Shown as a `launch`."""

    launch: str
    request: Request
    why: str


class Attach(Value, frozen=True, kw_only=True, tag_field="kind", tag="attach"):
    """Take a declared host into a pool."""

    pool: str
    instance: str
    name: str
    why: str


class Assign(Value, frozen=True, kw_only=True, tag_field="kind", tag="assign"):
    """Start one attempt: all its jobs at once. `instances[rank]` runs node `rank`; `port` is its master's.

    `blocks[rank]`: how many of that instance's, where any is shared. `service_ports[rank]`: where its service listens.
    """

    run: str
    name: str
    attempt: str
    number: int
    replica: int
    pool: str
    instances: tuple[str, ...]
    gpus: tuple[tuple[str, ...], ...] = ()
    blocks: tuple[int, ...] = ()
    port: int = 0
    service_ports: tuple[int, ...] = ()
    why: str


class Stop(Value, frozen=True, kw_only=True, tag_field="kind", tag="stop"):
    """End a live attempt. `abort` at once and without its result.

    `follows`: it is the rest of a change that was approved when it was written, so it is not asked for again.
    """

    run: str
    name: str
    attempt: str
    pool: str
    why: str
    abort: bool = False
    follows: bool = False


class Terminate(Value, frozen=True, kw_only=True, tag_field="kind", tag="terminate"):
    """End an instance. `inferred`: nobody asked for it; it counts against the brake."""

    instance: str
    name: str
    pool: str
    why: str
    inferred: bool = False


class Detach(Value, frozen=True, kw_only=True, tag_field="kind", tag="detach"):
    """Let a host go; the host itself lives on."""

    pool: str
    instance: str
    name: str
    why: str


class Update(Value, frozen=True, kw_only=True, tag_field="kind", tag="update"):
    """A change of memory alone: `changes` are fields of the subject and their new values.

    `subject` is `instance ID`, `run ID`, `attempt ID`, `wish ID`, `pool NAME` …; `enrol` adds a run.
    `quiet` ones are bookkeeping that nobody needs to read; they are not counted as changes.
    """

    subject: str
    name: str
    pool: str = ""
    changes: dict[str, Any] = {}
    enrol: Run | None = None
    why: str
    quiet: bool = False


Action = Launch | Resume | Attach | Assign | Stop | Terminate | Detach | Update


class Unmet(Value, frozen=True, kw_only=True):
    """Something wanted that will not happen now, and why, with numbers. `subject` is `run NAME` or `pool NAME`."""

    subject: str
    why: str
    final: bool = False
    """No wait helps: the configuration must change."""


class Wait(Value, frozen=True, kw_only=True):
    """A run that waits for an instance that is being made or frees itself, instead of having another launched."""

    run: str
    """Its name."""
    why: str
    """For people: `waits for gpu-1, free in 3m; saves $2.10`."""
    instances: tuple[str, ...] = ()
    """Ids of the busy instances that it waits for; empty where it waits for new ones alone."""
    results: tuple[str, ...] = ()
    """Those of them whose jobs have ended: they are free once these results are stored."""
    at: int | None = None
    """Unix time by which the last of the others is free."""
    saves: Price | None = None
    """$ that new ones would cost while they start and, after the run, idle; None: unknown, or none can be had."""


class IdleNote(Value, frozen=True, kw_only=True):
    """When an idle instance goes; `at` is `None` for never. `source`: where the duration came from."""

    instance: str
    name: str
    pool: str
    at: int | None
    duration: Seconds | None
    source: str


class Plan(Value, frozen=True, kw_only=True):
    """`basis` is what it was made on: a saved plan approves, it does not command."""

    version: int
    project: str
    generation: int
    lineage: str = ""
    made_at: int = 0
    basis: str = ""
    observed: tuple[tuple[str, int | None, str], ...] = ()
    actions: tuple[Action, ...] = ()
    unmet: tuple[Unmet, ...] = ()
    waits: tuple[Wait, ...] = ()
    lacking_here: tuple[Unmet, ...] = ()
    """What runs need and the machine that plans does not have: the plan assumes that apply has it."""
    warnings: tuple[str, ...] = ()
    configuration: tuple[str, ...] = ()
    """Changes of the configuration that are confirmed by themselves, each one sentence."""
    notes: tuple[str, ...] = ()
    idle: tuple[IdleNote, ...] = ()
    next_actor: str = ""
    uncounted: tuple[str, ...] = ()
    """What bills, or may, and is in neither sum, each in words: forgotten places, those never seen, unknown prices."""
    hourly_before: Price = Price(0)
    hourly_after: Price = Price(0)
    changes: tuple[Change, ...] = ()
    """Keys of the configuration that differ from what was applied before."""
    cost: PlanCost | None = None
    """Per pool, and at most; None where nothing changes and nobody asked."""


class Permissions(Value, frozen=True, kw_only=True):
    """What a person allowed beyond the usual, by flag or at the prompt.

    `destroy_pools`: removed pools whose instances may end; "*" is all, where a prompt shows them first.
    `only_pool` narrows what is done; `scope` of run/wish/instance ids narrows a wish's tick
    (then nothing is retired, stopped or grown for the YAML's sake).
    """

    destroy_pools: tuple[str, ...] = ()
    mass_destroy: bool = False
    first_run: bool = False
    replace: tuple[str, ...] = ()
    assume_lost: tuple[str, ...] = ()
    may_end: bool = True
    only_pool: str = ""
    scope: tuple[str, ...] | None = None
    destroy_all: bool = False
