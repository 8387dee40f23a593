"""Durations and moments given as flags."""

from __future__ import annotations

from datetime import UTC, datetime

from reconciler.cli.fail import Fail


def seconds(text: str, *, flag: str) -> int:
    """`90`, `10m`, `1h30m`; `off` makes no sense here. `Fail` names the flag."""
    from reconciler.need import parse_duration

    found = parse_duration(text, option=flag)
    if found is None:
        raise Fail(f"{flag} {text}: must be a duration such as 90s, 10m or 1h30m")
    return found


def moment(text: str, *, flag: str, now: int) -> int:
    """`7d` ago, or `2026-11-01`, `2026-11-01T12:30` (UTC unless it says otherwise). `Fail` names the flag."""
    if not text[:5].endswith("-"):
        return max(0, now - seconds(text, flag=flag))
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        raise Fail(f"{flag} {text}: must be a date such as 2026-11-01, or how long ago: 12h, 7d, 4w") from None
    return max(0, int((found if found.tzinfo else found.replace(tzinfo=UTC)).timestamp()))


def month_began(now: int) -> int:
    """The first of the month, in UTC, as the ledger's files are cut."""
    today = datetime.fromtimestamp(now, UTC)
    return int(today.replace(day=1, hour=0, minute=0, second=0, microsecond=0).timestamp())
