"""Format durations: 90 seconds as `1m30s`. Pure."""

from __future__ import annotations

from functools import lru_cache


@lru_cache(maxsize=1024)
def words(seconds: int) -> str:
    """`90` is 90s, `5400` 1h30m, `604800` 7d: whole units, the two largest."""
    parts = []
    for unit, length in (("d", 86400), ("h", 3600), ("m", 60), ("s", 1)):
        count, seconds = divmod(seconds, length)
        if count:
            parts.append(f"{count}{unit}")
    return "".join(parts[:2]) or "0s"
