"""`dstack pool add`: request instances. A flag that is not given never overrides the profile or the pool."""

from __future__ import annotations

import os
from dataclasses import dataclass

from msgspec.structs import replace

from reconciler.cli.commands.offers.rows import OfferQuery, browsed, offer_rows, show_offers
from reconciler.cli.commands.plan.approval import above_limit, price_flag
from reconciler.cli.commands.plan.basis import stored_offers
from reconciler.cli.commands.plan.revision import identified
from reconciler.cli.commands.plan.scoped_tick import Wished, fulfil
from reconciler.cli.did_you_mean import near
from reconciler.cli.exits import Fail
from reconciler.cli.project import project_root, site_of
from reconciler.cli.terminal.progress import Progress
from reconciler.cli.terminal.streams import NoTerminal, ask, out, say
from reconciler.config.options import parse_duration, read_option, resolve_need
from reconciler.engine.refresh_catalog import freshen
from reconciler.engine.until import launches_settled
from reconciler.planner.confirmed_price import confirmed, unpriced
from reconciler.state.requests import add_instances, carry
from reconciler.system.process import nonce, now, who
from reconciler.text.format import counted, hourly
from schemas.base import Price, Seconds
from schemas.desired import Desired
from schemas.documents.scalars import NAME_SHAPE
from schemas.offer import Offer
from schemas.plan import Launch, Plan
from schemas.pool import ADDED_IDLE, Pool, pool_named
from schemas.profile import Profile, Retry
from schemas.resources import SpotPolicy, Where
from schemas.state import Capacity, State, Wish

MOST_OFFERS = 10
FEW = 3


@dataclass(frozen=True, kw_only=True)
class AddAsk:
    """The flags, as typed."""

    pool: str | None
    name: str
    count: int
    gpu: str | None
    cpu: str | None
    memory: str | None
    shared_memory: str | None
    disk: str | None
    spot: SpotPolicy | None
    retry: bool | None
    retry_duration: str | None
    max_price: str | None
    backends: tuple[str, ...]
    regions: tuple[str, ...]
    instance_types: tuple[str, ...]
    profile: str | None
    idle_duration: str | None
    dont_destroy: bool
    yes: bool
    yes_above: str
    deadline: str = ""


def add_to_pool(asked: AddAsk) -> int:
    """0 once every instance is there."""
    documents = identified(project_root())
    desired, where = documents.desired, site_of(documents)
    pool = _pool(asked.pool, desired)
    profile = _profile(asked.profile, desired)
    wish = _wish(asked, pool=pool, profile=profile)
    with Progress() as progress:
        freshen(desired, os.environ, now=now(), asking=progress.asking)
    offers = tuple(stored_offers(where, desired, None))

    def wished(state: State) -> State:
        carried = carry(state, pool=pool.name, desired=desired, by=who(), now=now())
        return add_instances(
            carried, replace(wish, at=now(), confirmed_price=confirm.price, confirmed_unpriced=confirm.unpriced)
        )

    confirm = _Confirm(asked=asked, wish=wish, pool=pool, offers=offers, desired=desired, limit=desired.confirm_above)
    last = fulfil(
        where,
        Wished(
            wish=wished,
            scope=(wish.id,),
            carried=desired,
            confirm=confirm,
            prompted=not asked.yes,
            waits=f"{counted(asked.count, 'instance')} of pool {pool.name}",
            within=parse_duration(asked.deadline, option="--deadline") if asked.deadline else None,
        ),
        until=launches_settled,
    )
    return _report(last.state, wish=wish, before=confirm.known)


@dataclass(kw_only=True)
class _Confirm:
    """Offers, then the question. What no place could ever give is refused before it is written."""

    asked: AddAsk
    wish: Wish
    pool: Pool
    offers: tuple[Offer, ...]
    desired: Desired
    limit: Price | None
    known: frozenset[str] = frozenset()
    price: Price | None = None
    unpriced: tuple[str, ...] = ()

    def __call__(self, plan: Plan, state: State) -> Plan | None:
        self.known = frozenset(one.id for one in state.instances)
        asked = OfferQuery(
            need=self.wish.need, where=self.wish.where, pool=self.pool, existing=False, desired=self.desired, now=now()
        )
        rows = offer_rows(asked, state=state, offers=self.offers)
        show_offers(rows, most=MOST_OFFERS, now=asked.now)
        launches = [one for one in plan.actions if isinstance(one, Launch)]
        missing = self.asked.count - sum(len(one.ids) for one in launches)
        if missing and not self.wish.retry.no_capacity:
            why = "; ".join(one.why for one in plan.unmet) or "no offer fits"
            why = why if rows else browsed(asked, state=state, offers=self.offers).funnel
            raise Fail(f"{missing} of {self.asked.count} cannot be had now: {why}; --retry waits for them")
        self.price, self.unpriced = confirmed(plan, self.wish.need), unpriced(plan)
        each = ", ".join(dict.fromkeys(hourly(one.offer.price) for one in launches))
        say(f"pool {self.pool.name}: {counted(self.asked.count, 'instance')}{f' at {each}' if each else ''}")
        return plan if self._agreed(plan) else None

    def _agreed(self, plan: Plan) -> bool:
        bound = price_flag(self.asked.yes_above, flag="--yes-above")
        above = above_limit(plan, limit=self.limit, yes_above=bound)
        if self.asked.yes and not above:
            return True
        try:
            if above:
                say(above.words)
            return ask("Continue?")
        except NoTerminal as error:
            raise Fail(
                f"there is no terminal to ask at; nothing was done; {above.remedy if above else 'add -y'}"
            ) from error


def _pool(name: str | None, desired: Desired) -> Pool:
    names = [pool.name for pool in desired.pools]
    if name is None:
        default = next((pool for pool in desired.pools if pool.default), None)
        if default is None:
            raise Fail(f"no pool is the default one: give --pool ({', '.join(names)})")
        return default
    found = pool_named(name, desired.pools)
    if found is None:
        raise Fail(f"--pool {name}: no such pool; {near(name, names)}")
    return found


def _profile(name: str | None, desired: Desired) -> Profile:
    if name is None:
        return next((one for one in desired.profiles if one.default), Profile(name=""))
    found = next((one for one in desired.profiles if one.name == name), None)
    if found is None:
        known = [one.name for one in desired.profiles]
        raise Fail(f"--profile {name}: no such profile; {near(name, known, there='there are:')}")
    return found


def _wish(asked: AddAsk, *, pool: Pool, profile: Profile) -> Wish:
    need = resolve_need(
        gpu=asked.gpu, cpu=asked.cpu, memory=asked.memory, disk=asked.disk, shared_memory=asked.shared_memory
    )
    idle, source = _idle(asked, pool=pool, profile=profile)
    return Wish(
        id=f"{nonce()}w",
        pool=pool.name,
        name=_name(asked.name) or profile.instance_name,
        count=asked.count,
        need=need,
        where=_where(asked, pool=pool, profile=profile),
        idle_duration=idle,
        idle_source=source,
        retry=_retry(asked, pool=pool, profile=profile),
        by=who(),
        at=now(),
    )


def _name(text: str) -> str:
    return str(read_option(NAME_SHAPE.read, text, "--name")) if text else ""


def _where(asked: AddAsk, *, pool: Pool, profile: Profile) -> Where:
    spot = asked.spot or profile.spot or pool.where.spot
    price = price_flag(asked.max_price or "", flag="--max-price")
    return Where(
        backends=asked.backends or profile.backends or pool.where.backends,
        regions=asked.regions or profile.regions or pool.where.regions,
        zones=profile.zones or pool.where.zones,
        instance_types=asked.instance_types or profile.instance_types or pool.where.instance_types,
        spot=spot,
        max_price=price if price is not None else profile.max_price or pool.where.max_price,
        reservation=profile.reservation or pool.where.reservation,
    )


def _idle(asked: AddAsk, *, pool: Pool, profile: Profile) -> tuple[Seconds | None, str]:
    """flag > profile > pool > 72h, with where it came from."""
    if asked.dont_destroy:
        return None, "--dont-destroy"
    if asked.idle_duration is not None:
        return parse_duration(asked.idle_duration, option="--idle-duration"), "--idle-duration"
    if profile.idle_off or profile.idle_duration is not None:
        return (None if profile.idle_off else profile.idle_duration), f"profile {profile.name}"
    source = dict(pool.sources).get("idle_duration", "default")
    if source != "default":
        return pool.idle_duration, source
    return ADDED_IDLE, "pool add"


def _retry(asked: AddAsk, *, pool: Pool, profile: Profile) -> Retry:
    if asked.retry is False:
        return Retry()
    duration = None
    if asked.retry_duration is not None:
        duration = parse_duration(asked.retry_duration, option="--retry-duration")
    if asked.retry or asked.retry_duration is not None:
        hour = Retry(no_capacity=True, interruption=True, error=True)
        return hour if asked.retry_duration is None else replace(hour, duration=duration)
    return profile.retry or pool.retry


def _report(state: State | None, *, wish: Wish, before: frozenset[str]) -> int:
    """0 where every instance is there or is still asked for; 1 where the request is over without one of them."""
    new = [one for one in state.instances if one.id not in before] if state else []
    there = [one.name for one in new if one.phase == "ready"]
    if there:
        out(f"added {', '.join(there)}\n")
    if state is not None and any(each.id == wish.id for each in state.wishes):
        out("asked for; the next `dstack apply` goes on with it\n")
        return 0
    if len(there) >= wish.count:
        return 0
    why = dict.fromkeys(one.reason for one in new if one.phase in ("terminating", "terminated") and one.reason)
    refused = dict.fromkeys(one.why for one in state.capacity if one.why and _is_asked(one, wish)) if state else {}
    told = "; ".join([*why, *list(refused)[:FEW]]) or "no offer fits"
    raise Fail(f"{wish.count - len(there)} of {wish.count} not added: {told}")


def _is_asked(refusal: Capacity, wish: Wish) -> bool:
    """Whether it is of what the request could have had, and still in force."""
    region, where = refusal.place.partition("/")[2], wish.where
    fits = (not where.regions or region in where.regions) and (
        not where.instance_types or refusal.instance_type in ("", *where.instance_types)
    )
    return fits and refusal.until > now()
