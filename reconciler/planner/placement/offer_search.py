"""Search offers by price for one requirement, counting why the others do not match. Pure."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from functools import cached_property
from itertools import chain

from reconciler.planner.draft import Draft
from reconciler.planner.placement.blocks import share_of_offer
from reconciler.planner.placement.fit import accepted, fits, refusal
from reconciler.planner.placement.idle_pool import Requirement
from reconciler.planner.placement.known_refusals import capacity_now, strangers_of
from reconciler.planner.placement.limits import Room
from reconciler.planner.placement.machine_image import NOT_MADE_OF_IT, imageless, lacks_container
from reconciler.planner.placement.offer_index import Aisle, Shelf
from reconciler.planner.placement.offer_stages import HELD_BACK, LACKS, STAGE_WORDS, STAGES, cheapest_of
from reconciler.planner.self_termination import ends_by_itself
from reconciler.state.sending import type_for
from reconciler.text.format import counted
from schemas.base import Price
from schemas.offer import Offer
from schemas.pool import Pool
from schemas.resources import Need, Resources, SpotPolicy

_DEAR = Price("Infinity")


class Market:
    """Every offer, by the name of its GPU, spot or not, and its price; sorted no further than somebody looks."""

    def __init__(self, draft: Draft) -> None:
        self.draft = draft
        self.bound = {name: draft.nearest(name) for name, pool in draft.pools.items() if pool.placement == "cluster"}
        self._left: dict[Offer, int] = {}
        self._pending: Counter[tuple[str, str, bool]] | None = None
        self._aisles: dict[tuple[tuple[str, bool], ...], Aisle] = {}
        self._shelves: dict[tuple[Need, Need, SpotPolicy, int], Shelf] = {}
        self._kinds: dict[tuple[Resources, bool], int] = {}
        self._capacity = capacity_now(draft)
        self._unsupported = {
            config.name: config.unsupported[0] for config in draft.backends.values() if config.unsupported
        }
        self._strangers = strangers_of(draft)

    @property
    def size(self) -> int:
        return len(self.draft.world.offers)

    @cached_property
    def _by_gpu(self) -> dict[tuple[str, bool], dict[Price, list[Offer]]]:
        """Made when first needed: a plan that launches nothing looks at no offer."""
        found: dict[tuple[str, bool], dict[Price, list[Offer]]] = defaultdict(lambda: defaultdict(list))
        for offer in self.draft.world.offers:
            gpu, price = offer.resources.gpu, _DEAR if offer.price is None else offer.price
            found[gpu.name.lower() if gpu else "", offer.spot][price].append(offer)
        return found

    def shelf(self, need: Need, pool_need: Need, *, spot: SpotPolicy, blocks: int = 1) -> Shelf:
        """The offers that suffice for both (in some of their blocks for the first): spot, on-demand, or all of them."""
        key = (need, pool_need, spot, blocks)
        found = self._shelves.get(key)
        if found is None:
            needs = (need, pool_need)
            found = self._shelves[key] = Shelf(
                self._aisle(needs, spot=spot), needs=needs, market=self.size, blocks=blocks
            )
        return found

    def _aisle(self, needs: tuple[Need, ...], *, spot: SpotPolicy) -> Aisle:
        """Those that the asked GPU names leave."""
        names = {name for name, _ in self._by_gpu}
        for need in (each.gpu for each in needs):
            if need is not None and need.names and not need.count.holds(0):
                names &= set(need.names)
            elif need is not None and not need.count.holds(0):
                names -= {""}
        key = tuple(
            (name, is_spot)
            for name, is_spot in sorted(self._by_gpu)
            if name in names and (spot == "auto" or is_spot == (spot == "spot"))
        )
        if key not in self._aisles:
            self._aisles[key] = Aisle([self._by_gpu[each] for each in key], kinds=self._kinds)
        return self._aisles[key]

    def unavailable(self, offer: Offer, *, n: int, reservation: str = "") -> tuple[str, str]:
        """What keeps it from being had now, as far as we know: a stage and why, or twice ""."""
        if why := self._unasked(offer, reservation):
            return "place", why
        if offer.availability in ("no-capacity", "no-quota"):
            return LACKS[offer.availability == "no-quota"], offer.availability.replace("-", " ")
        for zone in (offer.zone, "") if self._capacity else ():
            memory = self._capacity.get((offer.place, offer.instance_type, zone, offer.spot, reservation))
            if memory is not None:
                return LACKS[bool(memory.quota)], memory.why or "no capacity a moment ago"
        if offer.free is not None and self._free(offer) < n:
            return "available", "all in use"
        return "", ""

    def _unasked(self, offer: Offer, reservation: str) -> str:
        """Why its place is asked for nothing now."""
        place = offer.place
        if offer.backend in self._unsupported:
            return self._unsupported[offer.backend]
        if place in self.draft.unknown:
            return f"{place} is unknown: {self.draft.unknown[place]}"
        if other := self._strangers.get(offer.backend):
            return f"{place} is not asked: {other}"
        refused = (self._capacity.get((place, "", "", False, one)) for one in {"", reservation} if self._capacity)
        return next((one.why or "it was refused a moment ago" for one in refused if one is not None), "")

    def _free(self, offer: Offer) -> int:
        """What the place said, less those that are asked for and not seen there yet."""
        if offer not in self._left:
            if self._pending is None:
                living = self.draft.living.values()
                pending = (one for one in living if one.phase == "pending")
                self._pending = Counter((one.place, one.instance_type, one.spot) for one in pending)
            waiting = self._pending[offer.place, offer.instance_type, offer.spot]
            self._left[offer] = max(0, (offer.free or 0) - waiting)
        return self._left[offer]

    def take(self, pool: str, offer: Offer, *, n: int) -> None:
        if pool in self.bound:
            self.bound[pool] = self.bound[pool] or (offer.backend, offer.region, "")
        if offer.free is not None:
            self._left[offer] = self._free(offer) - n


# ---------------------------------------------------------------- one walk


class Search:
    """One shape's walk, once per plan: what it passed by can only become less possible."""

    def __init__(self, market: Market, room: Room, *, shape: Requirement, pool: Pool) -> None:
        self._market, self._room, self._shape, self._pool = market, room, shape, pool
        self._need = imageless(shape.need)
        self._shelf = market.shelf(self._need, pool.need, spot=shape.where.spot, blocks=pool.blocks)
        self._at = 0
        self._dear = False  # whatever is left costs more than it may
        self._over: Offer | None = None  # the cheapest that suits, where a budget refuses it and so all that cost more
        self._suiting: list[Offer] = []
        self._have: Mapping[tuple[str, str], int] = {}
        self._only: tuple[str, str] | None = None

    def offer(self) -> Offer | None:
        """The cheapest that one machine may be launched of now."""
        for offer in self._walk():
            stage, _ = self._hindrance(offer)
            if not stage:
                self._at -= 1  # the next machine of this shape may be another of it
                return offer
            if stage == "budget":  # what it refuses once, it refuses of all that cost as much
                self._dear, self._over = True, offer
        return None

    def gang_offer(self, *, have: Mapping[tuple[str, str], int], only: tuple[str, str] | None) -> Offer | None:
        """The cheapest that all nodes missing in its region may be launched of now; `have`: nodes by region."""
        self._have, self._only, self._over = have, only, None
        for offer in chain(self._suiting, self._walk_on()):
            stage, _ = self._hindrance(offer)
            if not stage:
                return offer
            if stage == "budget" and self._unaffordable(offer):
                self._over = offer
                break
        return None

    def _walk_on(self) -> Iterator[Offer]:
        for offer in self._walk():
            self._suiting.append(offer)
            yield offer

    def may_fit(self) -> bool:
        """Whether waiting may help: what the pool has, busy or not, or could have suits; or no offers are known."""
        draft, shape = self._market.draft, self._shape
        mine = (one for one in draft.living.values() if draft.pool_name(one.pool) == self._pool.name)
        if not self._market.size or any(fits(shape.need, shape.where, one, cloud=False) for one in mine):
            return True
        shelf = self._market.shelf(self._need, self._pool.need, spot=self._shape.where.spot, blocks=self._pool.blocks)
        return any(not self._unsuited(offer) for offer in shelf.each())

    def suiting(self) -> Iterator[tuple[Offer, str]]:
        """Every one that suits, by price, and what keeps one machine from being launched of it now."""
        for offer in self._walk():
            stage, why = self._hindrance(offer)
            yield offer, why if stage in ("place", "quota", "available") else HELD_BACK.get(stage, stage)

    def _walk(self) -> Iterator[Offer]:
        """Those that suit, whatever the limits say, from where the last walk stopped."""
        shelf = self._shelf
        while not self._dear and (self._at < len(shelf.offers) or shelf.more()):
            offer = shelf.offers[self._at]
            self._at += 1
            unsuited = self._unsuited(offer)
            if not unsuited:
                yield offer
            elif self._pool.blocks == 1 and (
                unsuited == "price" or (unsuited == "ceiling" and not self._shape.unpriced)
            ):
                self._dear = True  # a share of a dearer one may cost less, and what has no price comes last

    def _unsuited(self, offer: Offer) -> str:
        """Which rule of the shape leaves it out: a stage, or ""."""
        if self._need.container and (
            lacks := lacks_container(type_for(self._market.draft.backends, offer.backend), self._shape.need)
        ):
            return lacks
        if self._pool.blocks != 1:
            offer = share_of_offer(self._shape.need, offer, blocks=self._pool.blocks)
        where = self._shape.where
        refused = refusal(where, offer) or ("spot" if where.reservation and offer.spot else "")
        if not refused and self._unconfirmed(offer):
            return "ceiling"
        required = self._pool.self_termination == "required"
        if not refused and required and not ends_by_itself(self._market.draft, self._pool, offer):
            return "self-termination"
        return refused

    def _unconfirmed(self, offer: Offer) -> bool:
        """It costs more than what was confirmed covers, or nobody knows whether it does."""
        ceiling, unpriced = self._shape.ceiling, self._shape.unpriced
        if (ceiling is None and not unpriced) or offer.purchase in unpriced:
            return False
        return ceiling is None or offer.price is None or offer.price > ceiling

    def _hindrance(self, offer: Offer) -> tuple[str, str]:
        """What keeps the machines missing from being launched of a suiting offer: a stage and why, or twice ""."""
        region = (offer.backend, offer.region)
        if any(region != one for one in (self._only, self._bound) if one is not None):
            return "elsewhere", ""
        if self._shape.nodes > 1 and not self._market.draft.joins_nodes(offer.backend):
            return "nodes", ""
        if self._shape.ports and (why := self._room.port_taken(offer, self._shape.ports)):
            return "port", why
        n = self._shape.nodes - self._have.get(region, 0)
        stage, why = self._market.unavailable(offer, n=n, reservation=self._shape.where.reservation)
        if stage:
            return stage, why
        why = self._room.unaffordable(self._pool, offer, n=n)
        if why:
            return "budget", why
        why = self._room.capped(offer, n=n)
        return ("autoscale", why) if why else ("", "")

    @property
    def _bound(self) -> tuple[str, str] | None:
        """The region that a pool's machines are in which are all to be near each other."""
        bound = self._market.bound.get(self._pool.name)
        return bound[:2] if bound else None

    def _unaffordable(self, offer: Offer) -> str:
        """Why a budget forbids it wherever it is: for as few machines as are missing where most nodes are."""
        return self._room.unaffordable(self._pool, offer, n=self._shape.nodes - max(self._have.values(), default=0))

    def funnel(self) -> str:
        """`812 offers → 120 with gpu 1xA100 → 0 with max_price ≤ $1.00, the cheapest left out: p4de $1.21`."""
        left = self._market.size
        if not left:
            return "there are no offers"
        shelf = self._market.shelf(self._need, self._pool.need, spot="auto", blocks=self._pool.blocks)
        lost = shelf.lost()
        short, first = set(lost), dict(shelf.first_lost)
        for offer in shelf.each():
            if self._over is not None and self._unaffordable(offer):
                break  # it is the budget's, and so are all that are left: nobody has to look at them
            stage = self._unsuited(offer) or self._hindrance(offer)[0]
            lost[stage] += 1
            first.setdefault(stage, offer)
        text = counted(left, "offer")
        if self._over is not None:
            lost["over"], first["over"] = left - lost.total(), self._over
        for stage in STAGES:
            if lost[stage]:
                left -= lost[stage]
                label = shelf.label(stage) if stage in short else self._label(stage, first[stage])
                text += f" → {left} with {label}"
                if left == 0:
                    return text + self._cheapest(stage, first)
        return text

    def _cheapest(self, stage: str, first: Mapping[str, Offer]) -> str:
        """The one that the last stage left out; where a budget did before it, the one that it refused."""
        what = "left out" if self._over is None or stage == "over" else "that suits"
        offer = self._over or first.get(stage)
        if offer is not None and self._pool.blocks != 1:
            offer = share_of_offer(self._shape.need, offer, blocks=self._pool.blocks)
        return cheapest_of(what, offer, now=self._market.draft.now)

    def _label(self, stage: str, first: Offer) -> str:
        if stage == "ceiling":
            if self._shape.ceiling is None:
                return f"what was confirmed without a known price: {', '.join(self._shape.unpriced)}"
            return f"1.5 × the confirmed price, ${self._shape.ceiling:.2f}"
        if stage in ("container runtime", "image"):
            return "a container runtime" if stage == "container runtime" else NOT_MADE_OF_IT
        if stage == "self-termination":
            return "self_termination: required"
        if stage == "over":
            return f"{STAGE_WORDS['budget']} ({self._unaffordable(first)})"
        if stage == "elsewhere" and (only := self._only or self._bound):
            return f"{'its other nodes' if self._only else 'the rest of its pool'} in {only[1] or only[0]}"
        if stage == "nodes":
            return f"{self._shape.nodes} nodes of one run"
        if stage == "spot" and self._shape.where.reservation:
            return "on-demand, as reserved ones are"
        if stage in STAGE_WORDS:
            return f"{STAGE_WORDS[stage]} ({self._hindrance(first)[1]})"
        return accepted(self._shape.where, kind=stage)
