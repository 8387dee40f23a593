"""Checks of a backend before it is used: each is named, changes nothing and says what to do next."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from backends.errors import CallFailed


class NotKnown(Exception):
    """It cannot be told here and now: neither good nor bad. The message says why."""


@dataclass(frozen=True, kw_only=True)
class BackendCheck:
    """`look` gives what was found, or raises `CallFailed` (it fails) or `NotKnown`. `then`: what mends it.

    Where that depends on the failure, `then` is asked; "" where nothing but the failure's own words is known.
    """

    name: str
    look: Callable[[], str]
    then: str | Callable[[CallFailed], str]

    def mends(self, error: CallFailed) -> str:
        return self.then if isinstance(self.then, str) else self.then(error)
