"""Index offers by price, sorted only as far as they are read. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from reconciler.planner.placement.blocks import suffices
from reconciler.planner.placement.fit import CLOUD_ARCH, asked, shortage
from reconciler.state.blocks import blocks_of
from schemas.base import Price
from schemas.offer import Offer
from schemas.resources import Need, Resources

FEW = 64  # a shelf looks no further ahead than that


class Aisle:
    """Offers, cheapest first (an unpriced one last); among equals without a GPU, then the smallest."""

    def __init__(self, by_price: list[dict[Price, list[Offer]]], *, kinds: dict[tuple[Resources, bool], int]) -> None:
        self.offers: list[Offer] = []
        self.kinds: list[int] = []  # of each offer, the number of its kind of resources
        self.size = sum(len(offers) for each in by_price for offers in each.values())
        self._by_price, self._numbers = by_price, kinds
        self._prices: Iterator[Price] = iter(sorted({price for each in by_price for price in each}))
        self._tally: list[tuple[int, int, Offer]] | None = None

    def more(self) -> bool:
        """Whether there were any at a higher price: they are then in `offers` too."""
        price = next(self._prices, None)
        if price is None:
            return False
        alike = [offer for each in self._by_price for offer in each.get(price, ())]
        if len(alike) > 1:
            alike.sort(key=_by_size)
        numbers = self._numbers
        self.offers += alike
        self.kinds += [numbers.setdefault((offer.resources, offer.cloud), len(numbers)) for offer in alike]
        return True

    def tally(self) -> list[tuple[int, int, Offer]]:
        """(kind, how many of it, the first) of all offers, in the order of the first ones; counted once."""
        if self._tally is None:
            while self.more():
                pass
            first: dict[int, Offer] = {}
            for kind, offer in zip(self.kinds, self.offers, strict=True):
                first.setdefault(kind, offer)
            self._tally = [(kind, n, first[kind]) for kind, n in Counter(self.kinds).items()]
        return self._tally


def _by_size(offer: Offer) -> tuple[object, ...]:
    """All of it, for determinism. At the same price, what may cost less goes before what will not."""
    has = offer.resources
    return (
        has.gpu.count if has.gpu else 0,
        has.cpus,
        has.memory,
        not offer.at_most,
        offer.backend,
        offer.region,
        offer.zone,
        offer.instance_type,
        offer.spot,
        has.disk,
    )


class Shelf:
    """The offers whose resources suffice, by price, looked for no further than somebody asked."""

    def __init__(self, aisle: Aisle, *, needs: tuple[Need, Need], market: int, blocks: int) -> None:
        self.offers: list[Offer] = []
        self.first_lost: dict[str, Offer] = {}
        self._needs, self._blocks = needs, blocks
        self._aisle = aisle
        self._at = 0
        self._short: dict[int, str] = {}
        self._elsewhere = market - aisle.size
        # Nobody asked for a processor, nor for a GPU by its name, which brings its own.
        self._usual_cpu = not any(need.cpu_arch or (need.gpu and need.gpu.names) for need in needs)

    def more(self) -> bool:
        """Whether there were others: they are then in `offers`, a few at a time."""
        short, aisle = self._short, self._aisle
        while self._at < len(aisle.offers) or aisle.more():
            some = slice(self._at, self._at + FEW)
            offers, kinds = aisle.offers[some], aisle.kinds[some]
            self._at += len(offers)
            for kind, offer in zip(kinds, offers, strict=True):
                if kind not in short:
                    short[kind] = self._shortage(offer)
            found = [offer for kind, offer in zip(kinds, offers, strict=True) if not short[kind]]
            self.offers += found
            if found:
                return True
        return False

    def each(self) -> Iterator[Offer]:
        """All that suffice, by price; no more are looked for than are taken."""
        at = 0
        while at < len(self.offers) or self.more():
            yield self.offers[at]
            at += 1

    def lost(self) -> Counter[str]:
        """How many of all offers have too little, by the kind of resource."""
        found = Counter({"gpu": self._elsewhere} if self._elsewhere else {})
        for kind, n, first in self._aisle.tally():
            if kind not in self._short:
                self._short[kind] = self._shortage(first)
            if why := self._short[kind]:
                found[why] += n
                self.first_lost.setdefault(why, first)
        return found

    def _shortage(self, offer: Offer) -> str:
        need, pool_need = self._needs
        of = blocks_of(self._blocks, offer.resources)
        short = suffices(need, offer.resources, of=of, cloud=offer.cloud)
        short = short or shortage(pool_need, offer.resources, cloud=offer.cloud)
        unusual = offer.cloud and self._usual_cpu and offer.resources.cpu_arch != CLOUD_ARCH
        return short or ("cpu architecture" if unusual else "")

    def label(self, stage: str) -> str:
        """What was asked of a kind of resource that some had too little of."""
        offer = self.first_lost.get(stage)
        if offer is None:  # left out by the name of their GPU
            return asked(next(need for need in self._needs if need.gpu is not None), kind=stage)
        for need in self._needs:
            if shortage(need, offer.resources, cloud=offer.cloud) == stage:
                return asked(need, kind=stage, cloud=offer.cloud)
        return asked(Need(), kind=stage, cloud=True) if stage == "cpu architecture" else stage
