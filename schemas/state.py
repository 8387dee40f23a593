"""The state: the memory that neither git nor the clouds have. One document a project."""

from __future__ import annotations

from typing import Literal

from schemas.base import Price, Seconds, Value
from schemas.desired import BackendConfig, Cap, Desired
from schemas.instance import Instance
from schemas.launch import Intent
from schemas.ledger import Entry
from schemas.leftover import Kind
from schemas.profile import Retry
from schemas.resources import Need, Where
from schemas.run import Attempt, Run

VERSION = 3
"""1: the first. 2: `untold`, and since when an instance costs what it costs. 3: what launches without a token,
late refusals and container machines need."""


class Revision(Value, frozen=True, kw_only=True):
    """Applied documents by where they came from. `commit` is "" without git.

    A `digest` of "" is not an apply: a wish came first and carried its pools.
    `on_authority` is whether the branch of `authority` held the commit then; `None` is not known.
    """

    digest: str
    commit: str = ""
    committed_at: int | None = None
    dirty: bool = False
    on_authority: bool | None = None


class Applied(Value, frozen=True, kw_only=True):
    """The documents that rule. Only `dstack apply` replaces them.

    `bundles`: declared run name -> digest of the files that it had when they were applied.
    """

    revision: Revision
    by: str
    at: int
    desired: Desired
    bundles: tuple[tuple[str, str], ...] = ()


class Place(Value, frozen=True, kw_only=True):
    """What is known of a place. `identity` is pinned at the first good answer.

    `observed_at` is the last good listing; `error` is why the last one failed, since when.
    `skew` is by how much our clock was off from its own, where by more than 60 s: then
    nothing ends for reasons of time. `answered_by` is who answered in its stead, where that is
    another account or machine: then nothing there is believed, and nothing there is touched.
    `config` is kept so that a place with live instances stays known after it left the YAML.
    `failures`: looks at a declared server that failed in a row, the last one at `failed_at`, from `failing_by`.
    """

    name: str
    config: BackendConfig
    region: str = ""
    identity: str = ""
    observed_at: int | None = None
    error: str = ""
    failing_since: int | None = None
    forgotten: bool = False
    skew: Seconds = 0
    answered_by: str = ""
    failures: int = 0
    failed_at: int | None = None
    failing_by: str = ""
    leftovers_at: int | None = None
    """Unix time at which an apply last asked it for leftovers, answered or not."""


class Wish(Value, frozen=True, kw_only=True):
    """Instances asked for by `pool add`, until launched or given up. `origin` is `added`."""

    id: str
    pool: str
    name: str = ""
    count: int = 1
    need: Need = Need()
    where: Where = Where()
    idle_duration: Seconds | None = 259200
    idle_source: str = "default"
    retry: Retry = Retry()
    by: str = ""
    at: int = 0
    confirmed_price: Price | None = None
    launched: int = 0


class Override(Value, frozen=True, kw_only=True):
    """A person's word that holds over the documents: `pool drain|pause|resume`, `autoscale …`.

    `subject` is a pool's name, `instance ID`, or what an `autoscale` one is about: the words of its rule (`cap`; a
    maximum of 0 removes it), "every rule" that was there before it, or "spot instances" as such (`enabled`).
    A drain holds from `begins` (`None`: from `at`, when it was said), and stops what still runs `stop_after` later.
    `until` ends it; an autoscale one ends when other documents are applied than those of `digest`.
    """

    kind: Literal["drain", "pause", "autoscale"]
    subject: str
    by: str
    at: int
    begins: int | None = None
    until: int | None = None
    stop_after: Seconds | None = None
    reason: str = ""
    cap: Cap | None = None
    enabled: bool | None = None
    digest: str = ""


class Capacity(Value, frozen=True, kw_only=True):
    """A place had no capacity or quota for an offer; it is not tried again until then. `since`: when it said so.

    `instance_type` "" is all of it: it refused for good (a permission, a setting), or cannot be asked. With
    `reservation`, it is about machines of that reservation alone.
    """

    place: str
    instance_type: str
    zone: str = ""
    spot: bool = False
    until: int
    since: int | None = None
    why: str = ""
    quota: str = ""
    reservation: str = ""


class Pace(Value, frozen=True, kw_only=True):
    """How fast launch requests of one account may follow each other, kept across processes."""

    account: str
    """The identity that the requests are counted for, or the backend's name where it is not known yet."""
    at: int = 0
    """Unix time of its last request, or for which that one is scheduled."""
    not_before: int = 0
    """Unix time before which its vendor asked for no further request."""


class Unowned(Value, frozen=True, kw_only=True):
    """A resource that bills, carries this state's tags, and that nothing uses."""

    place: str
    """The first of the places that list the same resources."""
    kind: Kind
    id: str
    launch: str = ""
    """The launch that made it, where it says so."""
    since: int
    """Unix time of its first sighting, or of the last failed removal."""
    hourly: Price | None = None
    removing_at: int | None = None
    """Unix time at which its removal was decided. It is removed by every apply until that succeeds or is refused."""

    @property
    def key(self) -> str:
        return f"{self.place} {self.kind} {self.id}"


class Tombstone(Value, frozen=True, kw_only=True):
    """Something that ended and must not come back: an instance, a launch, a run."""

    id: str
    kind: Literal["instance", "launch", "run", "place"]
    at: int
    why: str


class Tick(Value, frozen=True, kw_only=True):
    """Who ticks: `by` is user@host; `every` is the median time between its last ticks."""

    by: str
    at: int
    unattended: bool = False
    every: Seconds | None = None


class State(Value, frozen=True, kw_only=True):
    """Everything remembered. Collections are tuples in a stable order, keyed by their `id` or `name`.

    `generation` grows by one in every write. `lineage` is minted with the state and never
    changes: a state of another lineage is another world. `untold` is what the ledger is to hear of
    the write that made this generation: if its writer was killed before it told, the next one tells.
    """

    version: int
    project: str
    lineage: str
    generation: int = 0
    applied: Applied | None = None
    history: tuple[Revision, ...] = ()
    places: tuple[Place, ...] = ()
    instances: tuple[Instance, ...] = ()
    runs: tuple[Run, ...] = ()
    attempts: tuple[Attempt, ...] = ()
    intents: tuple[Intent, ...] = ()
    wishes: tuple[Wish, ...] = ()
    overrides: tuple[Override, ...] = ()
    capacity: tuple[Capacity, ...] = ()
    tombstones: tuple[Tombstone, ...] = ()
    ticks: tuple[Tick, ...] = ()
    untold: tuple[Entry, ...] = ()
    paces: tuple[Pace, ...] = ()
    unowned: tuple[Unowned, ...] = ()
