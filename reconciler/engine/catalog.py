"""Offers of cataloged clouds: no network, no credentials, read only when needed.

A plan that launches nothing never reads a catalog: the offers are made when first counted or walked through.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from schemas.desired import BackendConfig, Desired
from schemas.offer import Offer
from schemas.resources import Need, Where

if TYPE_CHECKING:
    from backends.catalog.offers import Layers


class Later(Sequence[Offer]):
    """Offers that are made when somebody first looks. A value all the same: everybody is given the same."""

    def __init__(self, make: Callable[[], Iterable[Offer]]) -> None:
        self._make = make
        self._made: tuple[Offer, ...] | None = None

    def _all(self) -> tuple[Offer, ...]:
        if self._made is None:
            self._made = tuple(self._make())
        return self._made

    def __len__(self) -> int:
        return len(self._all())

    def __getitem__(self, index: Any) -> Any:
        return self._all()[index]

    def __iter__(self) -> Iterator[Offer]:
        return iter(self._all())


def joined(first: Sequence[Offer], second: Sequence[Offer]) -> Sequence[Offer]:
    """Both, as late as possible."""
    return Later(lambda: (*first, *second)) if isinstance(second, Later) else (*first, *second)


def catalog_of(
    desired: Desired, environ: Mapping[str, str], *, now: int, told: Callable[[str], object] | None = None
) -> Sequence[Offer]:
    """Of every declared backend with a catalog, in the zones that the documents name, too.

    Nothing is read before somebody looks, and nothing at all where no backend has one. `told` hears what is wrong
    with the cache.
    """
    configs = cataloged(desired)

    def made() -> Iterator[Offer]:
        for config in configs:
            known = layers(config, environ, now=now)
            if told is not None:
                for why in known.warnings:
                    told(why)
                for why in _unknown(config, known.regions()):
                    told(why)
            yield from offers_of(config, known, need=Need(), where=Where(spot="auto", zones=zones_of(desired)))

    return Later(made) if configs else ()


def _unknown(config: BackendConfig, known: Sequence[str]) -> Iterator[str]:
    """Regions that the catalog has nothing in: a slip of the pen, or younger than the catalog."""
    from difflib import get_close_matches

    for region in sorted(set(config.regions) - set(known)):
        close = get_close_matches(region, known, n=1)
        hint = f"did you mean {close[0]}?" if close else "`dstack offers --refresh` asks what there is"
        yield f"{config.name}: no offer is known in region {region}; {hint}"


def cataloged(desired: Desired) -> tuple[BackendConfig, ...]:
    return tuple(one for one in desired.backends if one.traits.offers == "catalog" and not one.unsupported)


def offers_of(config: BackendConfig, known: Layers, *, need: Need, where: Where) -> Iterator[Offer]:
    """Those without a zone, and those of each zone that `where` names."""
    from msgspec.structs import replace

    from backends.catalog.offers import offers

    priced = set()
    for offer in offers(config, known, need, replace(where, zones=())):
        if offer.zone:
            priced.add((offer.zone, offer.instance_type))  # spot, at a price of its own
        yield offer
    for offer in offers(config, known, need, where) if where.zones else ():
        if not offer.spot or (offer.zone, offer.instance_type) not in priced:
            yield offer


def layers(config: BackendConfig, environ: Mapping[str, str], *, now: int) -> Layers:
    from backends.catalog.cache import cache_of
    from backends.catalog.layers import layers_of

    return layers_of(config, cache_of(environ), now=now)


def zones_of(desired: Desired) -> tuple[str, ...]:
    """Those that pools, profiles and runs ask for."""
    wheres = (*(pool.where for pool in desired.pools), *(run.where for run in desired.runs))
    asked = (zone for where in wheres for zone in where.zones)
    return tuple(dict.fromkeys((*asked, *(zone for one in desired.profiles for zone in one.zones))))
