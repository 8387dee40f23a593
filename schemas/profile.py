"""Rules for when to try again, and the profile that pools and runs take values from."""

from __future__ import annotations

from schemas.base import Mib, Price, Seconds, Value
from schemas.resources import SpotPolicy


class Retry(Value, frozen=True, kw_only=True):
    """Events after which a run (or an added instance) is tried again, and for how long.

    The duration counts from the submission for no-capacity, and from the event for
    the others; `None` is without limit. All events false: never.
    """

    no_capacity: bool = False
    interruption: bool = False
    error: bool = False
    duration: Seconds | None = 3600


class Profile(Value, frozen=True, kw_only=True):
    """A named set of values, each `None` or empty where the profile is silent."""

    name: str
    default: bool = False
    backends: tuple[str, ...] = ()
    regions: tuple[str, ...] = ()
    zones: tuple[str, ...] = ()
    instance_types: tuple[str, ...] = ()
    spot: SpotPolicy | None = None
    retry: Retry | None = None
    max_duration: Seconds | None = None
    max_duration_off: bool = False
    stop_duration: Seconds | None = None
    stop_off: bool = False
    max_price: Price | None = None
    pool: str = ""
    instance_name: str = ""
    reuse_only: bool | None = None
    idle_duration: Seconds | None = None
    idle_off: bool = False
    reservation: str = ""
    log_limit: Mib | None = None
    """As in `RunSpec`."""
    utilization: bool | None = None
    """It has a `utilization_policy`, which is not supported."""
    tags: tuple[tuple[str, str], ...] = ()
