"""Format single values for people: prices, ages, resources. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable
from datetime import UTC, datetime
from decimal import ROUND_HALF_UP, Decimal

from schemas.base import Price, Seconds
from schemas.resources import Resources

# C0, DEL, C1 and the marks that reorder text: a vendor's message must not drive a terminal.
_UNSAFE = re.compile(r"[\x00-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069]")
FIRST, LAST = -62135596800, 253402300799  # of the years 1 and 9999
NO_POOL = "(no pool)"  # of an orphan whose pool tag is missing; no pool can be called so
_UNITS = ((7 * 86400, "w"), (86400, "d"), (3600, "h"), (60, "m"), (1, "s"))


def clean(text: str) -> str:
    """One line that is safe on a terminal: line ends become spaces, other control characters are escaped."""
    return _UNSAFE.sub(_escape, re.sub(r"[ \t]*[\r\n]+[ \t]*", " ", text.strip("\r\n")).replace("\t", " "))


def _escape(found: re.Match[str]) -> str:
    code = ord(found.group())
    return f"\\x{code:02x}" if code < 256 else f"\\u{code:04x}"


def pool_label(pool: str) -> str:
    """The name of a pool where each row and each sample needs one."""
    return pool or NO_POOL


def price(amount: Price | None) -> str:
    """`$1.20`; as many digits as a price below a cent needs; `$?` where unknown."""
    if amount is None:
        return "$?"
    if amount and abs(amount) < Decimal("0.01"):
        return f"${amount.quantize(Decimal('0.0001'), ROUND_HALF_UP)}"
    return f"${amount.quantize(Decimal('0.01'), ROUND_HALF_UP)}"


def hourly(amount: Price | None) -> str:
    return f"{price(amount)}/h"


def span(seconds: Seconds | None) -> str:
    """A duration exactly, as documents write it: `1h30m`, `72h`, `off`."""
    if seconds is None:
        return "off"
    if seconds <= 0:
        return "0s"
    days_as_hours = seconds % 3600 == 0 and seconds <= 72 * 3600
    units = _UNITS[2:] if days_as_hours else _UNITS
    parts = []
    for size, name in units:
        count, seconds = divmod(seconds, size)
        if count:
            parts.append(f"{count}{name}")
    return "".join(parts)


def rough(seconds: Seconds) -> str:
    """A duration for a glance, two units at most: `3m20s`, `6d`, `2h5m`."""
    if seconds < 1:
        return "0s"
    for index, (size, name) in enumerate(_UNITS):
        if seconds >= size:
            count, rest = divmod(seconds, size)
            if index + 1 == len(_UNITS) or count >= 10:
                return f"{count}{name}"
            next_size, next_name = _UNITS[index + 1]
            more = rest // next_size
            return f"{count}{name}{more}{next_name}" if more else f"{count}{name}"
    return "0s"


def ago(moment: int | None, *, now: int) -> str:
    """`3m20s ago`; empty where there is no time. The future is said to be so."""
    if moment is None or moment == 0:
        return ""
    age = now - moment
    if age < 0:
        return f"in {rough(-age)}"
    return "now" if age == 0 else f"{rough(age)} ago"


def stamp(moment: int | None) -> str | None:
    """ISO 8601, UTC, to the second, as all JSON has it."""
    if moment is None:
        return None
    return _calendar(moment).strftime("%Y-%m-%dT%H:%M:%SZ")


def _calendar(moment: int) -> datetime:
    """A time that no calendar has is the first or the last that it has."""
    return datetime.fromtimestamp(min(max(moment, FIRST), LAST), UTC)


def clock(moment: int) -> str:
    """`04:15:08Z`, for the near future beside a relative time."""
    return _calendar(moment).strftime("%H:%M:%SZ")


OLD = 14 * 86400
"""Seconds: from then on a price's date says more than its age."""


def dated(source: str, at: int | None, *, now: int) -> str:
    """Who said a price, and how old that is: `AWS, 3h old`; above two weeks `snapshot of 2025-03-02`."""
    if not source or at is None:
        return source
    if now - at >= OLD:
        return f"{source} of {_calendar(at):%Y-%m-%d}"
    return f"{source}, {rough(now - at)} old" if now - at >= 60 else f"{source}, now"


def size(mib: int) -> str:
    """`80GB`, `1.5GB`, `100MB`: MiB as documents write sizes."""
    if mib % 1024 == 0 or mib >= 10 * 1024:
        return f"{round(mib / 1024)}GB"
    if mib >= 1024:
        return f"{mib / 1024:.1f}GB".replace(".0GB", "GB")
    return f"{mib}MB"


def resources(has: Resources) -> str:
    """`10xCPU, 80GB, 1xA100 (80GB)`."""
    if not (has.cpus or has.memory or has.gpu):
        return ""  # not looked at yet
    cpu = f"{has.cpus}xCPU" if has.cpu_arch == "x86" else f"{has.cpus}x{has.cpu_arch.upper()} CPU"
    parts = [cpu, size(has.memory)]
    if has.gpu is not None and has.gpu.count:
        parts.append(f"{has.gpu.count}x{clean(has.gpu.name).upper()} ({size(has.gpu.memory)})")
    return ", ".join(parts)


def bounded(amount: Price | None, *, at_most: bool) -> str:
    """`≤ $1.20` where it may cost less, never more."""
    return f"{'≤ ' if at_most and amount is not None else ''}{price(amount)}"


def by_number(name: str) -> tuple[int, str]:
    """A key that puts gpu-2 before gpu-10."""
    return len(name), name


def few(names: Iterable[str], *, most: int = 4) -> str:
    """`a, b, c, d and 3 more`; "none" of none."""
    listed = list(names)
    rest = len(listed) - most
    return (", ".join(listed) if rest <= 0 else f"{', '.join(listed[:most])} and {rest} more") or "none"


def counted(number: int, noun: str, *, several: str = "") -> str:
    """`1 run`, `2 runs`; `several` where an s is not all."""
    return f"{number} {noun}" if number == 1 else f"{number} {several or f'{noun}s'}"
