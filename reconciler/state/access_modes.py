"""How each cloud instance is reached: its pool's `connect`, else its backend's. Pure."""

from __future__ import annotations

from collections.abc import Mapping

from msgspec.structs import replace

from reconciler.state.status import bought
from schemas.access import Way, way_of
from schemas.desired import BackendConfig, Desired
from schemas.instance import Instance
from schemas.pool import Pool
from schemas.state import State


def with_ways(state: State) -> State:
    """The state with its living machines reached that way; the same state where nothing changes.

    One whose pool was removed from the configuration is reached as before: it may be busy yet.
    """
    clouds = (place for place in state.places if place.config.traits.bought)
    backends = {place.name: way_of(place.config.options) for place in clouds}
    if not backends:
        return state
    pools = _pools(state)
    instances = tuple(_reached(one, backends, pools) for one in state.instances)
    return state if instances == state.instances else replace(state, instances=instances)


def way_to(state: State, *, place: str, pool: str) -> Way:
    """How a machine of that pool, made there now, is to be reached."""
    config = next((known.config for known in state.places if known.name == place), None)
    own = way_of(config.options) if config else Way()
    return _way(_pools(state).get(pool), own)


def modes_of(desired: Desired, config: BackendConfig) -> tuple[str, ...]:
    """The label of every way that machines of this backend may be reached by; its own where no pool may use it."""
    own = way_of(config.options)
    clouds = (pool for pool in desired.pools if not pool.hosts)
    using = (pool for pool in clouds if not pool.where.backends or config.name in pool.where.backends)
    return tuple(sorted({_way(pool, own).label for pool in using})) or (own.label,)


def via_of(way: Way) -> str:
    """As an instance has it: the server that it is reached over."""
    return way.jump.hostname if way.jump else ""


def _pools(state: State) -> Mapping[str, Pool]:
    return {pool.name: pool for pool in state.applied.desired.pools} if state.applied else {}


def _way(pool: Pool | None, own: Way) -> Way:
    """Whose credentials the cloud's own program takes is the backend's to say."""
    return own if pool is None or pool.connect is None else replace(pool.connect, profile=own.profile)


def _reached(one: Instance, backends: Mapping[str, Way], pools: Mapping[str, Pool]) -> Instance:
    if one.phase == "terminated" or one.place not in backends or not bought(one):
        return one
    own, pool = backends[one.place], pools.get(one.pool)
    way = replace(one.way, profile=own.profile) if pool is None else _way(pool, own)
    via = via_of(way) or one.via
    return one if (way, via) == (one.way, one.via) else replace(one, way=way, via=via)
