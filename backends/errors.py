"""What a backend's failures mean. Each backend maps its vendor's codes to these in one table."""

from __future__ import annotations


class BackendError(Exception):
    """Permanent: asking again will not help. The message holds the vendor's own words, cleaned.

    Raised by `launch` it promises that nothing was made.
    """


class StillUsed(BackendError):
    """What should be removed is used by something. Nothing was done."""


class TryLater(BackendError):
    """Throttled, unreachable, timed out. From `launch`: something may have been made."""


class Behind(BackendError):
    """The place has been told of a newer generation: whoever asked is not the newest, and nothing was done.

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
