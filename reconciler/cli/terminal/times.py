"""Parse durations and times given as flags."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta

from reconciler.cli.exits import Fail
from reconciler.text.dates import Here

_CLOCK = re.compile(r"(?:(today|tomorrow) )?(\d{1,2}):(\d{2})\Z", re.ASCII)
_DAY = re.compile(r"\d{4}-\d{2}-\d{2}\Z", re.ASCII)
_ISO = re.compile(r"\d{4}-\d{2}-\d{2}[T ]\d{2}:\d{2}(:\d{2})?(Z|[+-]\d{2}:\d{2})?\Z", re.ASCII)
MINUTE = timedelta(minutes=1)
_DURATION = re.compile(r"\d[0-9a-z]*\Z", re.ASCII)


def seconds(text: str, *, flag: str) -> int:
    """`90`, `10m`, `1h30m`; `off` makes no sense here. `Fail` names the flag."""
    from reconciler.config.options import parse_duration

    found = parse_duration(text, option=flag)
    if found is None:
        raise Fail(f"{flag} {text}: must be a duration such as 90s, 10m or 1h30m")
    return found


def past(text: str, *, flag: str, now: int) -> int:
    """`7d` ago, or `2026-11-01`, `2026-11-01T12:30` (UTC unless it says otherwise). `Fail` names the flag."""
    if not text[:5].endswith("-"):
        return max(0, now - seconds(text, flag=flag))
    try:
        if not (_DAY.match(text) or _ISO.match(text)):
            raise ValueError(text)
        return max(0, _dated(text, here=_in_utc))
    except (ValueError, OverflowError):
        raise Fail(f"{flag} {text}: must be a date such as 2026-11-01, or how long ago: 12h, 7d, 4w") from None


def _in_utc(at: datetime) -> datetime:
    return at if at.tzinfo else at.replace(tzinfo=UTC)


def month_began(now: int) -> int:
    """The first of the month, in UTC, as the ledger's files are cut."""
    today = datetime.fromtimestamp(now, UTC)
    return int(today.replace(day=1, hour=0, minute=0, second=0, microsecond=0).timestamp())


def when(text: str, *, flag: str, now: int, here: Here = datetime.astimezone) -> int:
    """A moment in seconds since the epoch: `2h` from now, `22:00` (the next one), `tomorrow 06:00`, or ISO.

    Without an offset it is local time, by `here`. Where the clocks go back it is the first of the two moments of that
    name that is still to come. One that the clocks skip is refused: `Fail` names the flag and the hours skipped.
    """
    said = " ".join(text.split())
    try:
        if clock := _CLOCK.match(said):
            return _next(here(datetime.fromtimestamp(now, UTC)), clock, here=here)
        if _ISO.match(said):
            return _dated(said, here=here)
    except (ValueError, OverflowError) as error:
        raise Fail(f"{flag} {text}: {error}") from None
    if _DURATION.match(said):
        return now + seconds(said, flag=flag)
    raise Fail(f"{flag} {text}: must be such as 2h, 22:00, `tomorrow 06:00` or 2026-11-03T22:00")


def _dated(text: str, *, here: Here) -> int:
    """Of a text that looks like ISO. Raises `ValueError` where the calendar has no such day or hour."""
    return _moment(datetime.fromisoformat(text), here=here)


def _moment(said: datetime, *, here: Here) -> int:
    """Unix time of a local time, or of one with an offset. Raises `ValueError` where the clocks skip it."""
    at = int(here(said).timestamp())
    if said.tzinfo is None and not _exists(said, here=here):
        first = said
        while not _exists(first - MINUTE, here=here):
            first -= MINUTE
        last = said
        while not _exists(last, here=here):
            last += MINUTE
        raise ValueError(
            f"there is no such local time: the clocks go from {first:%H:%M} to {last:%H:%M} on {said:%Y-%m-%d}. Give "
            f"another one, or one with an offset, such as {said:%Y-%m-%dT%H:%M}Z"
        )
    return at


def _exists(local: datetime, *, here: Here) -> bool:
    """Whether the clocks show that time once at least."""
    shown = here(datetime.fromtimestamp(here(local).timestamp(), UTC))
    return shown.replace(tzinfo=None, fold=0) == local.replace(fold=0)


def _next(local: datetime, clock: re.Match[str], *, here: Here) -> int:
    """That time of the day: of the named one, else the next to come. Days are counted on the calendar."""
    first = local.replace(tzinfo=None, hour=int(clock[2]), minute=int(clock[3]), second=0, microsecond=0)
    if clock[1] == "tomorrow":
        first += timedelta(days=1)
    elif not clock[1]:
        again = first.replace(fold=1)  # where the clocks go back, the second moment of that name
        later = (one for one in (first, again) if here(one).timestamp() > local.timestamp())
        first = next(later, first + timedelta(days=1))
    return _moment(first, here=here)
