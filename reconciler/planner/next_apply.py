"""Who applies at regular intervals, and how often, by the times of earlier applies. Pure."""

from __future__ import annotations

from collections.abc import Iterable

from schemas.base import Seconds
from schemas.state import Tick

OFTEN = 3600
"""Seconds between two applies, above which nobody would let a run wait for the next one."""


def regular(ticks: Iterable[Tick], *, now: int) -> list[Tick]:
    """The unattended ones that still come: not more than two are missing."""
    return [one for one in ticks if one.unattended and one.every and now < one.at + 3 * one.every]


def applies_often(ticks: Iterable[Tick], *, now: int, most: Seconds = OFTEN) -> bool:
    """Whether somebody will soon look again, whatever this apply leaves."""
    return any(one.every is not None and one.every <= most for one in regular(ticks, now=now))
