"""Ask every place and every host at once, each with a deadline. Changes nothing.

First the listings and the hosts known; then a look-up by id of what was missing, and the
hosts that were just seen for the first time.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from backends.errors import CallFailed
from reconciler.engine.account_listings import grouped, split
from reconciler.engine.ask_leftovers import LeftoverAnswer, questions, unanswered, with_leftovers
from reconciler.engine.ingress import allow_our_address, shut_out
from reconciler.engine.ports import Connections, Ports
from reconciler.state.access_modes import with_ways
from reconciler.state.leases import leases
from reconciler.state.observe.merge import absorb
from reconciler.state.status import bought
from reconciler.system.concurrent import awaited, gather
from schemas.instance import HostReport, Instance, Listing
from schemas.offer import Offer
from schemas.resources import Need, Where
from schemas.state import Place, State

PLACE_LIMIT = 60.0
HOST_LIMIT = 30.0


@dataclass(frozen=True, kw_only=True)
class Observed:
    """What was answered in time. A place that did not answer has a listing with an error."""

    listings: tuple[Listing, ...] = ()
    reports: tuple[HostReport, ...] = ()
    offers: tuple[Offer, ...] = ()
    warnings: tuple[str, ...] = ()


def observe(
    ports: Ports,
    state: State,
    connections: Connections,
    *,
    but: Container[str] = frozenset(),
    needs: Sequence[Need] = (),
    renew: bool = False,
    hasty: bool = False,
) -> Observed:
    """Every place of the state that is not forgotten, and every host with an instance that may answer.

    The places of `but` are not asked, nor the hosts there: they are as they were. With `renew` each bought machine
    that answers may live without us for as long as its lease has it from now on. `hasty`: nobody waits for servers and
    hosts longer than for clouds; those that have said nothing by then are as they were.
    """
    state = with_ways(state)
    places = [place for place in state.places if not place.forgotten and place.name not in but]
    known = [one for one in _asked(state) if one.place not in but]
    asker, groups = _Asker(ports=ports, state=state, hasty=hasty), grouped(places)
    first = asker.ask(
        {name: _listed(ports, group, connections, needs) for name, group in groups.items()},
        _looks(ports, state, known, renew=renew),
        failing=_failing(state),
        leftovers=questions(groups, connections, now=ports.now()) if renew and not hasty else {},
    ).split(groups, state)
    listings = [answer.listing for answer in first.places.values()]
    seen = absorb(state, listings=listings, reports=(), now=ports.now(), newest=False)
    looked = {one.id for one in known}
    new = [one for one in _asked(seen) if one.id not in looked and one.place not in but]
    missing = _missing(state, first.places)
    second = asker.ask(
        {
            name: _by_id(ports, group[0], ids, connections)
            for name, group in groups.items()
            if (ids := tuple(id for place in group for id in missing.get(place.name, ())))
        },
        _looks(ports, seen, new, renew=renew),
    ).split(groups, state)
    shut = shut_out(seen, (*first.reports, *second.reports), now=ports.now())
    again = allow_our_address(shut, places, connections) if renew and shut else []  # who only looks opens no door
    third = asker.ask({}, _looks(ports, seen, again, renew=renew))
    return Observed(
        listings=tuple(answer.listing for each in (first, second) for answer in each.places.values()),
        reports=_newest(*first.reports, *second.reports, *third.reports),
        offers=tuple(offer for answer in first.places.values() for offer in answer.offers),
        warnings=(
            *(answer.warning for answer in first.places.values() if answer.warning),
            *unanswered(first.leftovers),
        ),
    )


def _newest(*reports: HostReport) -> tuple[HostReport, ...]:
    """One of each host: the last."""
    return tuple({report.instance: report for report in reports}.values())


# ---------------------------------------------------------------- what is asked


@dataclass(frozen=True, kw_only=True)
class _Answer:
    listing: Listing
    offers: tuple[Offer, ...] = ()
    warning: str = ""


@dataclass(frozen=True, kw_only=True)
class _Wave:
    places: Mapping[str, _Answer]
    reports: tuple[HostReport, ...]
    leftovers: Mapping[str, LeftoverAnswer | str] = field(default_factory=dict)
    """What places answered when asked for leftovers, or why they did not."""

    def split(self, groups: Mapping[str, Sequence[Place]], state: State) -> _Wave:
        """With an answer for each place, where one was asked for several."""
        answers = {
            one.place: _Answer(listing=one, offers=answer.offers, warning=answer.warning)
            if one.place == name
            else _Answer(listing=one)
            for name, answer in self.places.items()
            for one in split(with_leftovers(answer.listing, self.leftovers), groups[name], state)
        }
        return _Wave(places=answers, reports=self.reports, leftovers=self.leftovers)


def _asked(state: State) -> Iterator[Instance]:
    """Hosts that may answer; one on its way out is asked while a job of it is not settled."""
    unsettled = {job.instance for attempt in state.attempts if attempt.live for job in attempt.jobs}
    for one in state.instances:
        if one.orphan or not one.external_id:
            continue
        if one.phase in ("provisioning", "ready") or (one.phase == "terminating" and one.id in unsettled):
            yield one


def _missing(state: State, answers: Mapping[str, _Answer]) -> dict[str, tuple[str, ...]]:
    """place -> external ids that ought to be in its good listing and are not."""
    found: dict[str, set[str]] = {}
    listed = {
        name: {seen.external_id for seen in answer.listing.instances}
        for name, answer in answers.items()
        if not answer.listing.error
    }
    for instance in state.instances:
        if instance.external_id and instance.phase != "terminated" and instance.place in listed:
            found.setdefault(instance.place, set()).add(instance.external_id)
    for intent in state.intents:
        found.setdefault(intent.request.place, set()).update(intent.hints)
    return {name: tuple(sorted(ids - listed[name])) for name, ids in found.items() if name in listed}


def _failing(state: State) -> dict[str, str]:
    """Declared servers with nothing of ours that could not be used last time: why. Nobody waits for them alone."""
    used = {one.place for one in state.instances if one.phase != "terminated"}
    return {
        place.name: place.error
        for place in state.places
        if place.config.is_server and place.error and place.name not in used
    }


@dataclass(frozen=True, kw_only=True)
class _Asker:
    ports: Ports
    state: State
    hasty: bool

    def ask(
        self,
        places: Mapping[str, Callable[[], _Answer]],
        hosts: Mapping[str, Callable[[], HostReport]],
        *,
        failing: Mapping[str, str] | None = None,
        leftovers: Mapping[str, Callable[[], LeftoverAnswer]] | None = None,
    ) -> _Wave:
        """`failing` places that do not answer at once are as they were."""
        known = failing or {}
        asked_too = leftovers or {}
        tasks: dict[tuple[str, str], Callable[[], _Answer | HostReport | LeftoverAnswer]] = {
            **{("place", name): task for name, task in places.items()},
            **{("host", id): task for id, task in hosts.items()},
            **{("leftovers", name): task for name, task in asked_too.items()},
        }
        at = self.ports.now()
        limit = PLACE_LIMIT if places else HOST_LIMIT
        late = f"no answer within {limit:.0f} s"
        spare = self._spare(tasks)
        answers = {
            name: _unanswered(self.ports, name, at=at, error=known.get(name) or late)
            for name in places
            if ("place", name) not in spare
        }
        reports = {id: HostReport(instance=id, at=at, error=late) for id in hosts if ("host", id) not in spare}
        left: dict[str, LeftoverAnswer | str] = dict.fromkeys(asked_too, late)
        spare |= {("place", name) for name in known}
        asked = gather(self.ports, tasks, limit=limit, width=max(32, len(places) + 16), spare=spare)
        for (kind, name), answer in awaited(asked, self._names(tasks), asking=self.ports.asking):
            match answer:
                case LeftoverAnswer():
                    left[name] = answer
                case _Answer():
                    answers[name] = answer
                case HostReport():
                    reports[name] = answer
                case _ if kind == "leftovers":
                    left[name] = _words(answer)
                case _ if kind == "place":
                    answers[name] = _unanswered(self.ports, name, at=at, error=_words(answer))
                case _:
                    reports[name] = HostReport(instance=name, at=at, error=_words(answer))
        return _Wave(places=answers, reports=tuple(reports.values()), leftovers=left)

    def _spare(self, keys: Iterable[tuple[str, str]]) -> set[tuple[str, str]]:
        """Those that are waited for no longer than the others, and are no failure."""
        if not self.hasty:
            return set()
        servers = {place.name for place in self.state.places if place.config.is_server}
        return {(kind, name) for kind, name in keys if kind == "host" or name in servers}

    def _names(self, keys: Iterable[tuple[str, str]]) -> dict[tuple[str, str], str]:
        hosts = {one.id: one.name for one in self.state.instances}
        return {(kind, name): hosts.get(name, name) if kind == "host" else name for kind, name in keys}


def _unanswered(ports: Ports, name: str, *, at: int, error: str) -> _Answer:
    return _Answer(listing=Listing(place=name, at=at, error=error, by=ports.who))


def _words(error: Exception) -> str:
    return str(error) if isinstance(error, CallFailed) else f"{type(error).__name__}: {error}"


def _listed(
    ports: Ports, places: Sequence[Place], connections: Connections, needs: Sequence[Need]
) -> Callable[[], _Answer]:
    """The listing of the first place, which answers for all of `places`, and the offers of each."""

    def ask() -> _Answer:
        place = places[0]
        at = ports.now()
        backend = connections.to(place)
        seen = tuple(backend.instances())
        ahead = backend.clock()
        listing = Listing(
            place=place.name,
            at=at,
            identity=backend.identity(),
            instances=seen,
            by=ports.who,
            clock=None if ahead is None else at - ahead,
        )
        offered = [_offers(one, connections, needs) for one in places]
        return _Answer(
            listing=listing,
            offers=tuple(offer for offers, _ in offered for offer in offers),
            warning="; ".join(warning for _, warning in offered if warning),
        )

    return ask


def _offers(place: Place, connections: Connections, needs: Sequence[Need]) -> tuple[tuple[Offer, ...], str]:
    """What a catalog knows is not asked for at places: there are offers where no place is yet."""
    if place.config.traits.offers == "catalog":
        return (), ""
    try:
        return tuple(connections.to(place).offers(needs, Where(spot="auto"))), ""
    except CallFailed as error:
        return (), f"{place.name}: no offers ({error})"


def _by_id(ports: Ports, place: Place, ids: tuple[str, ...], connections: Connections) -> Callable[[], _Answer]:
    def ask() -> _Answer:
        at = ports.now()
        backend = connections.to(place)
        seen = tuple(backend.instances(ids))
        return _Answer(
            listing=Listing(place=place.name, at=at, identity=backend.identity(), partial=True, instances=seen)
        )

    return ask


def _looks(
    ports: Ports, state: State, instances: Sequence[Instance], *, renew: bool
) -> dict[str, Callable[[], HostReport]]:
    """Whoever only looks is not the first to meet a bought machine: that replaces its host key."""
    lease = leases(state, now=ports.now()) if renew else {}
    met = [one for one in instances if renew or one.host_key or one.boot_id or not bought(one)]

    def look(instance: Instance) -> Callable[[], HostReport]:
        return lambda: ports.runner.look(instance, now=ports.now(), lease=lease.get(instance.id))

    return {one.id: look(one) for one in met}
