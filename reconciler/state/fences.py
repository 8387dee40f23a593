"""The generations that a host was told, and which of them only this project can have told it. Pure.

A host keeps each as the name of an empty file: `120`, or `120.SEAL` where whoever told it had the project's key. Its
jobs are the same login and may make a file of any name; a seal they cannot make, nor carry one to another host.
"""

from __future__ import annotations

import hmac
import re
from collections.abc import Callable, Iterable
from hashlib import sha256

from schemas.base import Value

_MARK = re.compile(r"(\d{1,15})(?:\.([0-9a-f.]{1,250}))?\Z", re.ASCII)
MANY = 64  # so many marks no host of ours has: those of one are removed by the next


class Fences(Value, frozen=True, kw_only=True):
    """`told`: the highest that is proven, `claimed`: the highest that is not. `unproven` are the names of those."""

    told: int = 0
    claimed: int = 0
    unproven: tuple[str, ...] = ()


def fences(marks: Iterable[str], *, seal: Callable[[int], str] | None) -> Fences:
    """`seal` of a generation, "" where the key is not at hand; None where whoever may write there is ourselves."""
    found: list[tuple[int, str, bool]] = []
    for mark in sorted(marks)[:MANY]:
        if (read := _MARK.match(mark)) is None:
            continue
        number = int(read[1])
        proven = seal is None or bool(read[2] and hmac.compare_digest(seal(number), read[2]))
        found.append((number, mark, proven))
    return Fences(
        told=max((number for number, _, proven in found if proven), default=0),
        claimed=max((number for number, _, proven in found if not proven), default=0),
        unproven=tuple(mark for _, mark, proven in found if not proven),
    )


def seal_of(secret: bytes, *, instance: str, generation: int) -> str:
    """32 digits. `secret` is derived from the project's key."""
    return hmac.new(secret, f"{instance}\n{generation}".encode(), sha256).hexdigest()[:32]
