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
