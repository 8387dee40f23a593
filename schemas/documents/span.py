"""Durations, sizes and ranges, as people write them."""

from __future__ import annotations

import math
import re
from typing import Annotated, Any

from schemas.documents.shape import Schema, Shape, Wrong, kind_of
from schemas.resources import Span

OFF = -1
"""A duration that never ends (`off`); absent is `None`."""

_UNITS = {"w": 604800, "d": 86400, "h": 3600, "m": 60, "s": 1}
_DURATION = "(?=[0-9])" + " *".join(f"(?:[0-9]{{1,9}} *{unit})?" for unit in "wdhms")
_LONGEST = 100 * 365 * 86400
_OFF_WORDS = ("off", "Off", "OFF", "no", "No", "NO", "-1")
_UNSAID_WORDS = ("on", "On", "ON", "yes", "Yes", "YES")

_LONG_TEXT = 64
"""Longer text is none of these: the expressions below would take long to say so."""

_SIZE = r" *(?:[0-9]{1,9}(?:\.[0-9]{0,6})?|\.[0-9]{1,6}) *(?:[mMgGtT][bB])? *"
_COUNT = r" *[0-9]{1,9} *"
_FACTORS = {"mb": 1, "gb": 1024, "tb": 1024 * 1024, "": 1024}


def duration(value: Any, *, off: bool = False) -> int:
    """Seconds: a number, `90s`, `15m`, `1h30m`, `2d`, `1w`; with `off` also `off`, `false` and `-1`."""
    if value is False or (isinstance(value, str) and value in _OFF_WORDS) or value == OFF:
        if not off:
            raise Wrong("cannot be off: a duration such as `2h`")
        return OFF
    seconds = _seconds(value)
    if seconds is None:
        raise Wrong(
            f"{kind_of(value)} is not a duration: seconds, or such as `90s`, `15m`, `1h30m`, `2d`"
            + (", or `off`" if off else "")
        )
    if not 0 <= seconds <= _LONGEST:
        raise Wrong("a duration cannot be negative" if seconds < 0 else "is longer than 100 years")
    return seconds


def _seconds(value: Any) -> int | None:
    if isinstance(value, int | float) and not isinstance(value, bool):
        return math.floor(value)
    if not isinstance(value, str) or len(value) > _LONG_TEXT:
        return None
    trimmed = value.strip()
    if re.fullmatch("[0-9]{1,10}", trimmed):
        return int(trimmed)
    if not re.fullmatch(_DURATION, trimmed):
        return None
    return sum(int(amount) * _UNITS[unit] for amount, unit in re.findall("([0-9]+) *([smhdw])", trimmed))


def off_duration(value: Any) -> int | None:
    """With `off`. `true` means that nothing was said (older files)."""
    if value is True or (isinstance(value, str) and value in _UNSAID_WORDS):
        return None
    return duration(value, off=True)


def size(value: Any) -> int:
    """MiB: `512MB`, `24GB`, `1.5TB`; a bare number is GB."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        amount, unit = float(value), ""
    elif isinstance(value, str) and len(value) <= _LONG_TEXT and re.fullmatch(_SIZE, value):
        parts = re.fullmatch(r"\s*([0-9.]+)\s*([a-z]*)\s*", value.lower())
        amount, unit = (float(parts[1]), parts[2]) if parts else (-1.0, "")
    else:
        meant = _meant_size(value)
        raise Wrong(
            f"{kind_of(value)} is not a size"
            + (f", did you mean `{meant}`?" if meant else ": such as `512MB`, `24GB`, `1.5TB`; a bare number is GB")
        )
    if not 0 <= amount < 10**9:
        raise Wrong("a size cannot be negative" if amount < 0 else "is larger than any machine")
    return round(amount * _FACTORS[unit])


def _meant_size(value: Any) -> str:
    """`80G`, `80 gb`, `80GiB` and `80Gi` as we write it; "" where it is something else."""
    if not isinstance(value, str) or len(value) > _LONG_TEXT:
        return ""
    parts = re.fullmatch(r"\s*([0-9]+(?:\.[0-9]+)?)\s*([mgt])(?:i?b?)\s*", value.lower())
    return f"{parts[1]}{parts[2].upper()}B" if parts else ""


def count(value: Any) -> int:
    """A whole number of something; a fraction counts as the next whole (`2.5` needs 3)."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        number = math.ceil(value)
    elif isinstance(value, str) and len(value) <= _LONG_TEXT and re.fullmatch(_COUNT, value):
        number = int(value)
    else:
        raise Wrong(f"{kind_of(value)} is not a count: such as `2`, `2..`, `1..8`")
    if not 0 <= number < 10**9:
        raise Wrong("a count cannot be negative" if number < 0 else "is larger than any machine")
    return number


def size_span(value: Any) -> Span:
    return _span(value, size)


def count_span(value: Any) -> Span:
    return _span(value, count)


def _span(value: Any, read: Any) -> Span:
    if isinstance(value, dict):
        return _ordered(*_bounds(value, read))
    if isinstance(value, str) and ".." in value:
        low, _, high = value.partition("..")
        return _ordered(read(low) if low.strip() else None, read(high) if high.strip() else None)
    exact = read(value)
    return Span(min=exact, max=exact)


def _bounds(value: dict[str, Any], read: Any) -> tuple[int | None, int | None]:
    found = [
        ((key, "\0key"), f"unknown key `{key}` in a range: `min` and `max`")
        for key in value
        if key not in ("min", "max")
    ]
    if found:
        raise Wrong("", found=found)
    bounds: list[int | None] = []
    for key in ("min", "max"):
        try:
            bounds.append(None if value.get(key) is None else read(value[key]))
        except Wrong as wrong:
            raise Wrong(str(wrong), key) from None
    return bounds[0], bounds[1]


def _ordered(low: int | None, high: int | None) -> Span:
    if low is None and high is None:
        raise Wrong("the range is empty: such as `2..`, `..8`, `2..8`")
    if low is not None and high is not None and low > high:
        raise Wrong("the range ends before it begins")
    return Span(min=low, max=high)


def _span_schema(amount: str, number: Schema) -> Schema:
    scalar = {"anyOf": [number, {"type": "string", "pattern": f"^{amount}$"}]}
    ranges = f"^(?:{amount}|(?:{amount})?\\.\\.(?:{amount})|{amount}\\.\\. *)$"
    bound = {"anyOf": [*scalar["anyOf"], {"type": "null"}]}
    return {
        "anyOf": [
            number,
            {"type": "string", "pattern": ranges},
            {
                "type": "object",
                "properties": {"min": bound, "max": bound},
                "additionalProperties": False,
                "anyOf": [
                    {"required": [one], "properties": {one: {"not": {"type": "null"}}}} for one in ("min", "max")
                ],
            },
        ]
    }


_NUMBER: Schema = {"type": "number", "minimum": 0, "exclusiveMaximum": 10**9}
_DURATION_STRINGS: Schema = {"type": "string", "pattern": f"^ *(?:[0-9]{{1,10}}|{_DURATION}) *$"}
DURATION_SCHEMA: Schema = {"anyOf": [{"type": "number", "minimum": 0, "maximum": _LONGEST}, _DURATION_STRINGS]}
OFF_SCHEMA: Schema = {"anyOf": [*DURATION_SCHEMA["anyOf"], {"enum": [False, OFF, *_OFF_WORDS]}]}
UNSAID_SCHEMA: Schema = {"anyOf": [*OFF_SCHEMA["anyOf"], {"enum": [True, *_UNSAID_WORDS]}]}
SIZE_SCHEMA: Schema = {"anyOf": [_NUMBER, {"type": "string", "pattern": f"^{_SIZE}$"}]}
SIZE_SPAN_SCHEMA = _span_schema(_SIZE, _NUMBER)
COUNT_SPAN_SCHEMA = _span_schema(_COUNT, _NUMBER)

Duration = Annotated[int, Shape(duration, DURATION_SCHEMA)]
OffDuration = Annotated[int | None, Shape(off_duration, UNSAID_SCHEMA)]
Size = Annotated[int, Shape(size, SIZE_SCHEMA)]
SizeSpan = Annotated[Span, Shape(size_span, SIZE_SPAN_SCHEMA)]
CountSpan = Annotated[Span, Shape(count_span, COUNT_SPAN_SCHEMA)]
