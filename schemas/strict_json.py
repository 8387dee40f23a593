"""Decode JSON and refuse an object that has the same key twice: readers differ in which of the two they take.

msgspec takes the last one without a word.
"""

from __future__ import annotations

import json
import re
from typing import TypeVar

import msgspec

T = TypeVar("T")

_TOKEN = re.compile(rb'"(?:[^"\\]|\\.)*"|[{}\[\],]', re.DOTALL)
_KEYS = b'":'


def decode_strictly(data: bytes, kind: type[T]) -> T:
    """`data` as a `kind`. Raises `msgspec.MsgspecError`, also for a key that is written twice, with its place."""
    value = msgspec.json.decode(data, type=kind)
    try:
        again = msgspec.json.encode(value)
    except UnicodeEncodeError:
        again = b""
    if why := duplicate_key(data, again=again):
        raise msgspec.ValidationError(why)
    return value


def duplicate_key(data: bytes, *, again: bytes) -> str:
    """The first key that an object of valid JSON has twice, with both places; "" where there is none.

    `again` is what was decoded, encoded again. Where it has as many keys and quotes as `data`, nothing was dropped, and
    `data` is not looked through. A default that was written out is dropped, too: of lines that hold one object each,
    only those that came out otherwise are looked at then.
    """
    if data == again:  # as the last command wrote it: counting would cost as much as decoding
        return ""
    if data.count(_KEYS) == again.count(_KEYS) and data.count(b'"') == again.count(b'"'):
        return ""
    if _only_objects_differ(data, again):
        return ""
    open_objects: list[dict[str, int] | None] = []
    expects_key = False
    for token in _TOKEN.finditer(data):
        word = token[0]
        if word in (b"{", b"["):
            open_objects.append({} if word == b"{" else None)
        elif word in (b"}", b"]"):
            open_objects.pop()
        keys = open_objects[-1] if open_objects else None
        if expects_key and keys is not None and word[:1] == b'"':
            key = str(json.loads(word))
            if key in keys:
                return (
                    f"key `{key}` at {_place(data, token.start())} is there twice, first at {_place(data, keys[key])}"
                )
            keys[key] = token.start()
        expects_key = word in (b"{", b",")
    return ""


def _only_objects_differ(data: bytes, again: bytes) -> bool:
    """Whether all lines that differ are whole objects on a line of their own, none of which has a key twice."""
    mine, theirs = data.split(b"\n"), again.split(b"\n")
    if [line for line in mine if line[:2] != b'{"'] != [line for line in theirs if line[:2] != b'{"']:
        return False
    same = set(theirs)
    return all(line in same or _is_plain_object(line) for line in mine)


def _is_plain_object(line: bytes) -> bool:
    text = line.removesuffix(b",")
    if not (text.startswith(b"{") and text.endswith(b"}")):
        return False
    try:
        json.loads(text, object_pairs_hook=_once_each)
    except ValueError:
        return False
    return True


def _once_each(pairs: list[tuple[str, object]]) -> dict[str, object]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a key is there twice")
    return found


def _place(data: bytes, at: int) -> str:
    """`line 3, column 14`, as people count."""
    before = data[:at]
    return f"line {before.count(10) + 1}, column {at - (before.rfind(10) + 1) + 1}"
