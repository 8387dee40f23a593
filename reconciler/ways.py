"""How each bought machine is reached, as the documents have it now: its pool's `connect`, else its backend's. Pure."""

from __future__ import annotations

from msgspec.structs import replace

from reconciler.status import bought
from schemas.instance import Instance
from schemas.state import State
from schemas.way import Way, way_of


def with_ways(state: State) -> State:
    """The state with its living machines reached that way; the same state where nothing changes."""
    clouds = (place for place in state.places if place.config.type not in ("local", "ssh"))
    backends = {place.name: way_of(place.config.options) for place in clouds}
    if not backends:
        return state
    applied = state.applied.desired.pools if state.applied else ()
    pools = {pool.name: pool.connect for pool in applied if pool.connect is not None}
    instances = tuple(_reached(one, backends, pools) for one in state.instances)
    return state if instances == state.instances else replace(state, instances=instances)


def _reached(one: Instance, backends: dict[str, Way], pools: dict[str, Way]) -> Instance:
    if one.phase == "terminated" or one.place not in backends or not bought(one):
        return one
    way = backends[one.place]
    if one.pool in pools:
        way = replace(pools[one.pool], profile=way.profile)
    via = way.jump.hostname if way.jump else one.via
    return one if (way, via) == (one.way, one.via) else replace(one, way=way, via=via)
