"""Scalars of the documents: texts, names, flags, whole numbers, prices."""

from __future__ import annotations

import re
from collections.abc import Callable
from decimal import Decimal
from typing import Annotated, Any

from schemas.base import NAME, PROJECT_ID
from schemas.documents.shape import MOST_TEXT, Schema, Shape, Wrong, each, kind_of
from schemas.ssh_names import HOST_NAME, KEY_PATH, LOGIN, host_name_fault, key_path_fault, login_fault

_YES = ("true", "yes", "on", "y", "t", "1")
_NO = ("false", "no", "off", "n", "f", "0")
_SPELLED = {
    word: said
    for words, said in ((_YES, True), (_NO, False))
    for base in words
    for word in (base, base.capitalize(), base.upper())
}

TEXT_SCHEMA: Schema = {"type": ["string", "number", "boolean"]}
FLAG_SCHEMA: Schema = {"anyOf": [{"type": "boolean"}, {"enum": [0, 1, *_SPELLED]}]}


def text(value: Any) -> str:
    """A scalar as written: `3.10` stays `3.10`, `true` is the text `true`."""
    if isinstance(value, str):
        return value
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return str(getattr(value, "text", value))
    raise Wrong(f"should be text, not {kind_of(value)}{_unquoted(value)}")


def _unquoted(value: Any) -> str:
    """`- echo hi: there` is a mapping to YAML: what to write instead, or ""."""
    match value:
        case dict() if len(value) == 1:
            ((key, rest),) = value.items()
            if isinstance(key, str) and isinstance(rest, str | int | float) and len(f"{key}{rest}") <= MOST_TEXT:
                quoted = f"{key}: {rest}".replace("'", "''")
                return f": a colon makes it one; quote the line: `'{quoted}'`"
            return ": a colon makes it one; quote the whole line"
    return ""


def string(value: Any) -> str:
    """Text that was text in YAML: where a number could only be a mistake."""
    if isinstance(value, str):
        return value
    raise Wrong(f"should be text, not {kind_of(value)}")


def flag(value: Any) -> bool:
    if isinstance(value, bool):
        return value
    if isinstance(value, str) and value in _SPELLED:
        return _SPELLED[value]
    if isinstance(value, int) and value in (0, 1):
        return bool(value)
    raise Wrong(f"should be true or false, not {kind_of(value)}")


def whole(least: int, most: int = 10**9) -> Shape:
    """A whole number in a range; `"3"` is 3, since older files quote numbers."""

    def read(value: Any) -> int:
        number = _integer(value)
        if number is None:
            raise Wrong(f"should be a whole number, not {kind_of(value)}")
        if not least <= number <= most:
            raise Wrong(
                f"should be at least {least}, not {number}"
                if number < least
                else f"should be at most {most}, not {number}"
            )
        return number

    return Shape(
        read,
        {
            "anyOf": [
                {"type": "integer", "minimum": least, "maximum": most},
                {"type": "string", "pattern": "^(0|[1-9][0-9]{0,8})$"},
            ]
        },
    )


def _integer(value: Any) -> int | None:
    if isinstance(value, bool):
        return None
    if isinstance(value, int):
        return value
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, str) and re.fullmatch("0|[1-9][0-9]{0,8}", value):
        return int(value)
    return None


def price(value: Any) -> Decimal:
    """Dollars an hour, exactly as written."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        number = Decimal(str(getattr(value, "text", value)))
    elif isinstance(value, str) and re.fullmatch(r"[0-9]{1,9}(\.[0-9]{1,9})?", value):
        number = Decimal(value)
    else:
        raise Wrong(f"should be a price in $/h, not {kind_of(value)}")
    if not 0 < number < 10**9:
        raise Wrong("should be more than 0 $/h" if number <= 0 else "is no price that anyone pays")
    return number


def free_price(value: Any) -> Decimal:
    """Like `price`; 0 is allowed: nothing may cost anything."""
    return Decimal(0) if not isinstance(value, bool) and value in (0, "0") else price(value)


def matching(pattern: str, *, what: str) -> Shape:
    regex = re.compile(pattern)

    def read(value: Any) -> str:
        if isinstance(value, str) and regex.fullmatch(value):
            return value
        raise Wrong(f"{kind_of(value)} is not {what}")

    return Shape(read, {"type": "string", "pattern": f"^(?:{pattern})$"})


def _told_ssh(pattern: str, fault: Callable[[str], str]) -> Shape:
    """Text that ssh is given: refused here, where it has a line and a column."""

    def read(value: Any) -> str:
        said = text(value)
        if why := fault(said):
            raise Wrong(why)
        return said

    word = {"type": "string", "pattern": f"^(?:{pattern})(?![\\s\\S])"}
    return Shape(read, {"anyOf": [word, {"type": "number", "minimum": 0}, {"type": "boolean"}]})


HOST_NAME_SHAPE = _told_ssh(HOST_NAME, host_name_fault)


_PRICES: list[Schema] = [{"type": "string", "pattern": r"^[0-9]{1,9}(\.[0-9]{1,9})?$"}]
NAME_SHAPE = matching(NAME, what="a name: a-z, then up to 40 of a-z, 0-9 and -")


def _filled(value: Any) -> str:
    found = text(value)
    if not found.strip():
        raise Wrong("should not be empty")
    return found


Text = Annotated[str, Shape(text, TEXT_SCHEMA)]
FilledText = Annotated[str, Shape(_filled, {**TEXT_SCHEMA, "minLength": 1})]
HostName = Annotated[str, HOST_NAME_SHAPE]
Login = Annotated[str, _told_ssh(LOGIN, login_fault)]
KeyPath = Annotated[str, _told_ssh(KEY_PATH, key_path_fault)]
Texts = Annotated[tuple[str, ...], each(text, TEXT_SCHEMA)]
Flag = Annotated[bool, Shape(flag, FLAG_SCHEMA)]
Name = Annotated[str, NAME_SHAPE]
Names = Annotated[tuple[str, ...], each(NAME_SHAPE.read, NAME_SHAPE.schema)]
ProjectId = Annotated[str, matching(PROJECT_ID, what="a project id: 8 to 32 of a-z and 0-9")]
Positive = Annotated[
    Decimal, Shape(price, {"anyOf": [{"type": "number", "exclusiveMinimum": 0, "exclusiveMaximum": 10**9}, *_PRICES]})
]
Money = Annotated[
    Decimal, Shape(free_price, {"anyOf": [{"type": "number", "minimum": 0, "exclusiveMaximum": 10**9}, *_PRICES]})
]
Port = Annotated[int, whole(1, 65535)]
