"""Rows of `dstack backend list`: declared backends, their last refresh, instances and cost. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from reconciler.state.status import alive
from schemas.backend_types import SSH
from schemas.base import Price
from schemas.desired import BackendConfig, Desired
from schemas.instance import Instance
from schemas.state import Place, State

SERVERS = BackendConfig(name=SSH.name, type=SSH.name)
"""All declared servers in one row: each is a place of its own."""


@dataclass(frozen=True, kw_only=True)
class BackendRow:
    """`declared` false: it is not configured any more, and something of it still runs. `hourly` of what has a price.

    `unpriced`: instances in no sum, as no price of theirs is known. `unseen`: places that were asked and never said
    what they have; both make `hourly` the least that it may be.

    `identities` as last seen; `errors` of its places, each with the name and why it is.
    """

    name: str
    type: str
    regions: tuple[str, ...]
    identities: tuple[str, ...]
    instances: int
    hourly: Price
    unpriced: int
    unseen: int
    errors: tuple[str, ...]
    declared: bool = True


def explain_backends(desired: Desired, state: State | None) -> tuple[BackendRow, ...]:
    """Those of the documents, the servers that pools declare as one, then those that only live instances know."""
    hosts = any(pool.hosts for pool in desired.pools)
    known = {config.name for config in desired.backends}
    rows = [_row(config, state, declared=True) for config in desired.backends]
    if hosts:
        rows.append(_row(SERVERS, state, declared=True))
    for place in state.places if state else ():
        gone = place.config.name not in known and not (hosts and place.config.is_server)
        if gone and any(one.place == place.name and alive(one) for one in _all(state)):
            known.add(place.config.name)
            rows.append(_row(place.config, state, declared=False))
    return tuple(rows)


def _row(config: BackendConfig, state: State | None, *, declared: bool) -> BackendRow:
    places = [one for one in (state.places if state else ()) if _of(one, config)]
    living = [one for one in _all(state) if alive(one) and one.place in {each.name for each in places}]
    seen = dict.fromkeys(one.region for one in places if one.region)
    return BackendRow(
        name=config.name,
        type=config.type,
        regions=config.regions or tuple(seen),
        identities=tuple(dict.fromkeys(one.identity for one in places if one.identity)),
        instances=len(living),
        hourly=sum((one.price for one in living if one.price is not None), Price(0)),
        unpriced=sum(one.price is None for one in living) if config.traits.bought else 0,
        unseen=sum(bool(one.error) and one.observed_at is None for one in places) if config.traits.bought else 0,
        errors=tuple(_errors(config, places)),
        declared=declared,
    )


def _all(state: State | None) -> tuple[Instance, ...]:
    return state.instances if state else ()


def _of(place: Place, config: BackendConfig) -> bool:
    return (place.config.is_server and config.is_server) or place.config.name == config.name


def _errors(config: BackendConfig, places: list[Place]) -> Iterable[str]:
    yield from config.unsupported
    for one in places:
        if one.answered_by:
            not_by = f", not by {one.identity}" if one.identity else ""
            yield f"{one.name}: answered by {one.answered_by}{not_by}: nothing of it is believed"
        elif one.error:
            yield f"{one.name}: {one.error}"
