"""Offers by price, and one requirement's walk through them, which counts what it passes by. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

from reconciler.limits import Room
from reconciler.place import accepted, asked, refusal, shortage
from reconciler.stock import Shape
from reconciler.world import Draft
from schemas.base import Price
from schemas.offer import Offer
from schemas.pool import Pool
from schemas.resources import Resources
from schemas.state import Capacity

_DEAR = Price("Infinity")


class Market:
    """Every offer, cheapest first (an unpriced one last), by the name of its GPU."""

    def __init__(self, draft: Draft) -> None:
        self.draft = draft
        self._left: dict[Offer, int] = {}
        self._kinds: dict[Resources, int] = {}
        self._by_gpu: dict[str, list[tuple[int, int, Offer]]] = {}
        self._merged: dict[tuple[str, ...], list[tuple[int, int, Offer]]] = {}
        self._capacity = _capacity(draft)
        self._unsupported = {config.name for config in draft.backends.values() if config.unsupported}
        self.size = len(draft.world.offers)
        for rank, offer in enumerate(sorted(draft.world.offers, key=_by_price)):
            kind = self._kinds.setdefault(offer.resources, len(self._kinds))
            gpu = offer.resources.gpu.name.lower() if offer.resources.gpu else ""
            self._by_gpu.setdefault(gpu, []).append((rank, kind, offer))

    def shelf(self, shape: Shape, pool: Pool) -> list[tuple[int, int, Offer]]:
        """Those that the asked GPU names leave, by price: (rank, kind of resources, offer)."""
        names: set[str] = set(self._by_gpu)
        for need in (shape.need.gpu, pool.need.gpu):
            if need is not None and need.names and not need.count.holds(0):
                names &= set(need.names)
            elif need is not None and not need.count.holds(0):
                names -= {""}
        key = tuple(sorted(names))
        if key not in self._merged:
            self._merged[key] = sorted(entry for name in key for entry in self._by_gpu[name])
        return self._merged[key]

    def unavailable(self, offer: Offer, *, n: int) -> str:
        """Why it cannot be had now, as far as we know."""
        if offer.backend in self._unsupported:
            return f"backend {offer.backend} is not supported yet"
        if offer.place in self.draft.unknown:
            return f"{offer.place} is unknown: {self.draft.unknown[offer.place]}"
        if offer.availability in ("no-capacity", "no-quota"):
            return offer.availability.replace("-", " ")
        for zone in (offer.zone, ""):
            memory = self._capacity.get((offer.place, offer.instance_type, zone, offer.spot))
            if memory is not None:
                return memory.why or "no capacity a moment ago"
        if offer.free is not None and self._free(offer) < n:
            return "all in use"
        return ""

    def _free(self, offer: Offer) -> int:
        """What the place said, less those that are asked for and not seen there yet."""
        if offer not in self._left:
            waiting = sum(
                each.phase == "pending"
                and (each.place, each.instance_type, each.spot) == (offer.place, offer.instance_type, offer.spot)
                for each in self.draft.living.values()
            )
            self._left[offer] = max(0, (offer.free or 0) - waiting)
        return self._left[offer]

    def take(self, offer: Offer, *, n: int) -> None:
        if offer.free is not None:
            self._left[offer] = self._free(offer) - n


def _by_price(offer: Offer) -> tuple[object, ...]:
    """Cheapest first; among equals without a GPU, then the smallest; the rest is for determinism."""
    has = offer.resources
    return (
        _DEAR if offer.price is None else offer.price, has.gpu.count if has.gpu else 0, has.cpus, has.memory,
        offer.backend, offer.region, offer.zone, offer.instance_type, offer.spot, has.disk,
    )  # fmt: skip


def _capacity(draft: Draft) -> dict[tuple[str, str, str, bool], Capacity]:
    return {
        (each.place, each.instance_type, each.zone, each.spot): each
        for each in draft.world.state.capacity
        if each.until > draft.now
    }


# ---------------------------------------------------------------- one walk


class Search:
    """One shape's walk, once per plan: what it passed by can only become less possible."""

    def __init__(self, market: Market, room: Room, *, shape: Shape, pool: Pool) -> None:
        self._market, self._room, self._shape, self._pool = market, room, shape, pool
        self._shelf: Sequence[tuple[int, int, Offer]] = market.shelf(shape, pool)
        self._at = 0
        self._suiting: list[Offer] = []
        self._hindered: Counter[str] = Counter()
        self._short: dict[int, str] = {}
        self._lost: Counter[str] = Counter()
        self._first_lost: dict[str, Offer] = {}
        self._labels: dict[str, str] = {}
        elsewhere = market.size - len(self._shelf)
        if elsewhere:
            gpu = shape.need if shape.need.gpu is not None else pool.need
            self._lost["gpu"] += elsewhere
            self._labels["gpu"] = asked(gpu, kind="gpu")

    def offer(self) -> Offer | None:
        """The cheapest that one machine may be launched of now."""
        while self._at < len(self._shelf):
            _, kind, offer = self._shelf[self._at]
            short = self._short.get(kind)
            if short:
                self._lost[short] += 1
            elif self._suits(offer, kind=kind):
                stage = self._hindrance(offer, n=1)
                if not stage:
                    return offer
                self._pass(offer, stage=stage)
            self._at += 1
        return None

    def gang_offer(self, *, have: Mapping[tuple[str, str], int], only: tuple[str, str] | None) -> Offer | None:
        """The cheapest that all nodes missing in its region may be launched of now; `have`: nodes by region."""
        self._hindered.clear()
        index = 0
        while (offer := self._suiting_at(index)) is not None:
            index += 1
            region = (offer.backend, offer.region)
            if only is not None and region != only:
                stage = "elsewhere"
                self._labels[stage] = f"its other nodes in {only[1] or only[0]}"
            else:
                stage = self._hindrance(offer, n=self._shape.nodes - have.get(region, 0))
            if not stage:
                return offer
            self._hindered[stage] += 1
            self._first_lost.setdefault(stage, offer)
        return None

    def _suiting_at(self, index: int) -> Offer | None:
        """The index-th offer that suits, whatever the limits say; the shelf is walked once for all gangs."""
        while index >= len(self._suiting) and self._at < len(self._shelf):
            _, kind, offer = self._shelf[self._at]
            self._at += 1
            if self._suits(offer, kind=kind):
                self._suiting.append(offer)
        return self._suiting[index] if index < len(self._suiting) else None

    def _suits(self, offer: Offer, *, kind: int) -> bool:
        short = self._short.get(kind)
        if short is None:
            short = self._short[kind] = self._shortage(offer)
        if short:
            return self._pass(offer, stage=short)
        where = self._shape.where
        refused = refusal(
            where, backend=offer.backend, region=offer.region, zone=offer.zone,
            instance_type=offer.instance_type, spot=offer.spot, price=offer.price,
        )  # fmt: skip
        if refused:
            if refused not in self._labels:
                self._labels[refused] = accepted(where, kind=refused)
            return self._pass(offer, stage=refused)
        ceiling = self._shape.ceiling
        if ceiling is not None and (offer.price is None or offer.price > ceiling):
            self._labels["ceiling"] = f"1.5 × the confirmed price, ${ceiling:.2f}"
            return self._pass(offer, stage="ceiling")
        return True

    def _shortage(self, offer: Offer) -> str:
        for need in (self._shape.need, self._pool.need):
            short = shortage(need, offer.resources, cloud=offer.cloud)
            if short:
                self._labels.setdefault(short, asked(need, kind=short, cloud=offer.cloud))
                return short
        return ""

    def _hindrance(self, offer: Offer, *, n: int) -> str:
        """What keeps `n` of a suiting offer from being launched: a stage, or ""."""
        for stage, why in (
            ("available", self._market.unavailable(offer, n=n)),
            ("budget", self._room.unaffordable(self._pool, offer, n=n)),
            ("autoscale", self._room.capped(offer, n=n)),
        ):
            if why:
                self._labels.setdefault(stage, f"{_WORDS[stage]} ({why})")
                return stage
        return ""

    def _pass(self, offer: Offer, *, stage: str) -> bool:
        self._lost[stage] += 1
        self._first_lost.setdefault(stage, offer)
        return False

    def funnel(self) -> str:
        """`812 offers → 120 with gpu 1xA100 → 0 with max_price ≤ $1.00, the cheapest left out: p4de $1.21`."""
        left = self._market.size
        if not left:
            return "there are no offers"
        text = f"{left} offer{'s' if left > 1 else ''}"
        for stage in _STAGES:
            lost = self._lost[stage] + self._hindered[stage]
            if lost:
                left -= lost
                text += f" → {left} with {self._labels[stage]}"
                if left == 0:
                    return text + _cheapest(self._first_lost.get(stage))
        return text


_STAGES = (
    "gpu", "cpu architecture", "cpu", "memory", "disk", "spot", "backend", "region", "zone", "instance type",
    "price", "ceiling", "elsewhere", "available", "budget", "autoscale",
)  # fmt: skip
_WORDS = {"available": "capacity now", "budget": "budget left", "autoscale": "an autoscale rule left"}


def _cheapest(offer: Offer | None) -> str:
    if offer is None:
        return ""
    price = "no known price" if offer.price is None else f"${offer.price:.2f}"
    return f", the cheapest left out: {offer.instance_type} {price}"
