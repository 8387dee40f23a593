"""What a backend's failures mean. Each backend maps its vendor's codes to these in one table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from schemas.leftover import Leftover


class CallFailed(Exception):
    """A call to a backend failed in a way that the contract knows; the message is the vendor's own words, cleaned."""


class BackendError(CallFailed):
    """Permanent: asking again will not help.

    Raised by `launch` it is a refusal of every id: it promises that nothing was made.
    """


class LackingHere(BackendError):
    """This machine lacks what the call needs: a key, a profile, a program, a package. Nothing was sent.

    It says nothing of the place: another machine that has it may go on, and so may this one once it has it.
    """


class StillUsed(BackendError):
    """What should be removed is used by something. Nothing was done."""


class TryLater(CallFailed):
    """Throttled, unreachable, timed out: no refusal. From `launch`: any of the machines may have been made.

    `retry_after`: seconds that the vendor asks to wait before the next request; 0 where it does not say.
    """

    def __init__(self, message: str, *, retry_after: int = 0) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class Behind(BackendError):
    """The place knows a newer generation than the caller's. Nothing was done.

    `claimed`: which, where jobs may have written that there; 0 where they cannot.
    """

    def __init__(self, message: str, *, claimed: int = 0) -> None:
        super().__init__(message)
        self.claimed = claimed


class NoCapacity(BackendError):
    """This offer cannot be had now. Promises that nothing was made. `retry_after` in seconds."""

    def __init__(self, message: str, *, retry_after: int = 180) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class QuotaExceeded(BackendError):
    """A named quota forbids it. Promises that nothing was made."""

    def __init__(self, message: str, *, quota: str) -> None:
        super().__init__(message)
        self.quota = quota


class PartlyListed(BackendError):
    """Raised by `leftovers` where some kinds of resources were refused to be listed.

    `found`: those of the other kinds. `refused`: kind -> why, in the vendor's words.
    """

    def __init__(self, found: Sequence[Leftover], refused: Mapping[str, str]) -> None:
        super().__init__("; ".join(f"{kind}s: {why}" for kind, why in refused.items()))
        self.found, self.refused = tuple(found), dict(refused)
