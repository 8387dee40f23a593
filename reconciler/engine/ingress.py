"""Detect that our address changed, or that the rule which admits it expired, and admit it again."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from backends.errors import CallFailed
from reconciler.engine.ports import Connections
from schemas.instance import HostReport, Instance
from schemas.state import Place, State

BOOT = 90  # seconds in which a new machine may be silent for its own reasons


def shut_out(state: State, reports: Iterable[HostReport], *, now: int) -> list[Instance]:
    """Bought machines that do not answer, of places where none does: a door that is shut keeps all of them from us.

    Only those that we come to by their address: a tunnel and a jump come from elsewhere, and tell nothing of our door.
    """
    known = {one.id: one for one in state.instances if one.host is None and one.way.mode == "direct"}
    heard = [(known[report.instance], report) for report in reports if report.instance in known]
    open_places = {one.place for one, report in heard if not report.error or report.untrusted}
    return [
        one
        for one, report in heard
        if report.error
        and one.place not in open_places
        and (one.ready_at is not None or now >= (one.seen_at or now) + BOOT)
    ]


def allow_our_address(shut: Sequence[Instance], places: Iterable[Place], connections: Connections) -> list[Instance]:
    """Those of `shut` whose place lets us in now and did not before: they are worth another look."""
    needed = {one.place for one in shut}
    opened = {place.name for place in places if place.name in needed and _opened(place, connections)}
    return [one for one in shut if one.place in opened]


def _opened(place: Place, connections: Connections) -> bool:
    try:
        return connections.to(place).allow_our_address()
    except CallFailed:
        return False  # its listing has said why
