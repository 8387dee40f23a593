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
    """The applied configuration. Only `dstack apply` replaces it."""

    revision: Revision
    by: str
    """user@host."""
    at: int
    """Unix time."""
    desired: Desired
    bundles: tuple[tuple[str, str], ...] = ()
    """Declared run name → digest of its files when it was applied."""


class Destroyed(Value, frozen=True, kw_only=True):
    """A person's `dstack destroy`. Until a person revives the project, nothing is created."""

    by: str
    """user@host."""
    at: int
    """Unix time."""


class Place(Value, frozen=True, kw_only=True):
    """What is known of a place: a backend and region, or a declared server."""

    name: str
    """Its key: `aws/us-east-1`."""
    config: BackendConfig
    """Kept so that a place with running instances stays known after it was removed from the YAML."""
    region: str = ""
    identity: str = ""
    """Account or machine, pinned at the first good answer."""
    observed_at: int | None = None
    """Unix time of the last good listing."""
    error: str = ""
    """Why the last listing failed; "": it did not."""
    failing_since: int | None = None
    """Unix time."""
    forgotten: bool = False
    """A person said that it never returns."""
    skew: Seconds = 0
    """Seconds by which our clock was ahead of its own, or of all its hosts', where they disagree by more than 60:
    nothing there ends for reasons of time then."""
    answered_by: str = ""
    """Another account or machine that answered: its listing is ignored, and nothing is done there."""
    failures: int = 0
    """Failed looks at a declared server in a row."""
    failed_at: int | None = None
    """Unix time of the last of them."""
    failing_by: str = ""
    """Who looked: user@host."""
    leftovers_at: int | None = None
    """Unix time at which an apply last asked it for leftovers, answered or not."""


class Wish(Value, frozen=True, kw_only=True):
    """Instances requested by `pool add`, until each was ready once, was removed, or failed and is not retried."""

    id: str
    pool: str
    name: str = ""
    count: int = 1
    """How many are still wanted: those that were ready, were removed or failed for good are no longer counted."""
    need: Need = Need()
    where: Where = Where()
    idle_duration: Seconds | None = 259200
    """Seconds; None: off."""
    idle_source: str = "default"
    """Which setting `idle_duration` came from."""
    retry: Retry = Retry()
    by: str = ""
    """user@host."""
    at: int = 0
    """Unix time."""
    confirmed_price: Price | None = None
    """$/h confirmed for each. None: of no known price."""
    confirmed_unpriced: tuple[str, ...] = ()
    """What was confirmed without a known price, as `Offer.purchase`: it may be bought at any."""
    launched: int = 0
    """How many were launched, in all tries."""


class Override(Value, frozen=True, kw_only=True):
    """A person's command that holds over the configuration: `pool drain|pause|resume`, `autoscale …`."""

    kind: Literal["drain", "pause", "autoscale"]
    subject: str
    """A pool's name, `instance ID`, or what an `autoscale` override is about."""
    by: str
    """user@host."""
    at: int
    """Unix time."""
    begins: int | None = None
    """Unix time since which a drain holds; None: since `at`."""
    until: int | None = None
    """Unix time at which it ends; None: an autoscale override ends when another configuration is applied."""
    stop_after: Seconds | None = None
    """Seconds after `begins` at which a drain stops what still runs."""
    reason: str = ""
    cap: Cap | None = None
    """The rule of an `autoscale allow`; a maximum of 0 removes it."""
    enabled: bool | None = None
    """Of `autoscale enable|disable`."""
    digest: str = ""
    """Of the configuration that an autoscale override was made on."""


class Capacity(Value, frozen=True, kw_only=True):
    """An offer that a place refused: it is skipped until then."""

    place: str
    instance_type: str
    """"": all of the place, which refused for a permission or setting, or cannot be asked."""
    zone: str = ""
    spot: bool = False
    until: int
    """Unix time."""
    since: int | None = None
    """Unix time of the first refusal in a row."""
    why: str = ""
    """The vendor's own words."""
    quota: str = ""
    """Which quota refused it."""
    reservation: str = ""
    """It is about machines of that reservation alone."""


class LaunchBackoff(Value, frozen=True, kw_only=True):
    """A pool whose machines were given up because they were never ready: it is tried again later and later."""

    pool: str
    at: int = 0
    """Unix time at which a machine was last given up."""
    until: int = 0
    """Unix time of the next try."""
    tries: int = 0
    """Failures in a row, those at one time counted once."""
    launches: int = 0
    """Launches that were given up in a row."""
    last: str = ""
    """Id of the last of these launches."""


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
    boot_id: str = ""
    """Which start of its machine it was at `at`; "": not known."""
    uptime: Seconds | None = None
    """Seconds since that start, at `at`: no clock moves it."""


class UsedPlan(Value, frozen=True, kw_only=True):
    """A saved plan that was applied."""

    digest: str
    """SHA-256 of its file."""
    by: str
    """user@host."""


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
    destroyed: Destroyed | None = None
    backoffs: tuple[LaunchBackoff, ...] = ()
    used_plans: tuple[UsedPlan, ...] = ()
    """Saved plans that were applied, the last ones: none is applied twice."""
