"""Durations given as flags."""

from __future__ import annotations

from reconciler.cli.fail import Fail


def seconds(text: str, *, flag: str) -> int:
    """`90`, `10m`, `1h30m`; `off` makes no sense here. `Fail` names the flag."""
    from reconciler.need import parse_duration

    found = parse_duration(text, option=flag)
    if found is None:
        raise Fail(f"{flag} {text}: must be a duration such as 90s, 10m or 1h30m")
    return found
