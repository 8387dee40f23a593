"""Format dates: UTC where they are stored or compared, local time where a person reads them. Pure."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import UTC, datetime

Here = Callable[[datetime], datetime]
"""A moment in the zone of whoever reads it; without an offset it is in that zone already."""

_MOMENT = re.compile(r"\b(\d{4}-\d{2}-\d{2} \d{2}:\d{2})Z\b", re.ASCII)


def moment(at: int) -> str:
    """`2026-11-03 06:00Z`: to the minute, for times that may be days away."""
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d %H:%MZ")


def localized(text: str, here: Here | None) -> str:
    """Each `moment` in `text` as `2026-11-03 07:00 CET`; without `here`, the text as it is."""
    return text if here is None else _MOMENT.sub(lambda found: _local(found[1], here), text)


def _local(text: str, here: Here) -> str:
    try:
        found = here(datetime.fromisoformat(f"{text}+00:00"))
    except (ValueError, OverflowError):  # somebody's words that only look like a time
        return f"{text}Z"
    return found.strftime("%Y-%m-%d %H:%M %Z")


def clock(at: int) -> str:
    """`04:35Z`: the hour and minute in UTC of a time close by."""
    minutes = at // 60 % 1440
    return f"{minutes // 60:02}:{minutes % 60:02}Z"


ARCHIVED = 315_619_200
"""Unix time of 1980-01-02 00:00Z: zip files have no earlier dates, in no time zone."""
_LAST_ARCHIVED = 4_354_732_800  # 2107-12-30: zip files have no later ones


def archived_time(at: float) -> int:
    """Give a file's time of change (Unix time) as an archive may have it: whole seconds, from 1980 to 2107.

    Whatever is no such time (an archive may hold anything) becomes the nearest that is.
    """
    if not at > ARCHIVED:
        return ARCHIVED
    return int(min(at, _LAST_ARCHIVED))
