"""What can be asked of a backend before it is used: each probe is named, changes nothing and says what to do next."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


class NotKnown(Exception):
    """It cannot be told here and now: neither good nor bad. The message says why."""


@dataclass(frozen=True, kw_only=True)
class Probe:
    """`look` gives what was found, or raises `BackendError` (it fails) or `NotKnown`. `then`: what mends it."""

    name: str
    look: Callable[[], str]
    then: str
