"""What a host may put into a bucket by itself: one object for each part of a job's result, for a time."""

from __future__ import annotations

from typing import Literal

from schemas.base import Value

Part = Literal["end", "log", "artifacts"]
PARTS: tuple[Part, ...] = ("end", "log", "artifacts")


class Delivery(Value, frozen=True, kw_only=True):
    """`url` is a presigned PUT of that one object: a secret, as long as it holds. Never written into a state."""

    part: Part
    url: str
    headers: tuple[tuple[str, str], ...] = ()
