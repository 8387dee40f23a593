"""Merge one observation, listings and host reports, into the state. Decides nothing. Pure.

Unknown is never empty: an error, a time-out, another identity change no instance. A fact
that says "it is there" always counts; one that says "it is not" counts only for a record
that did not change since before we looked (`before`), because another reconciler may have
made it meanwhile.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from msgspec.structs import replace

from reconciler.state.access_modes import with_ways
from reconciler.state.host_backoff import answered, failed
from reconciler.state.observe.clocks import SKEW, ClockReading, read_clocks
from reconciler.state.observe.generations import Doubts, distrust
from reconciler.state.observe.hosts import absorb_hosts
from reconciler.state.observe.listing_scope import homes
from reconciler.state.observe.listings import absorb_listings
from reconciler.state.observe.sightings import Answer
from reconciler.state.observe.type_facts import with_type_facts
from reconciler.state.observe.unowned_leftovers import absorb_leftovers
from reconciler.state.status import unheard
from reconciler.text.format import counted
from schemas.instance import HostReport, Listing, Seen
from schemas.offer import Offer
from schemas.state import Place, State


def absorb(
    state: State,
    *,
    listings: Sequence[Listing],
    reports: Sequence[HostReport],
    now: int,
    before: State | None = None,
    newest: bool = True,
    clocks: ClockReading | None = None,
    offers: Iterable[Offer] = (),
) -> State:
    """The state with what was observed. `before` is the state that the observers started from.

    `now` and what was observed are by our clock; what is stored is corrected by `clocks`: what the dates of these
    listings and the clocks of these hosts say of it, unless more is known. `offers` tell the resources of instances of
    which nothing but the type is known.

    Raises `StateRefused` where the world carries a generation above the state's; where only hosts say so to which jobs
    can write, those are quarantined (see `distrust`). Of a state that was read
    before the look (`newest` false) that proves nothing: another may have written and launched since.
    """
    was, said = state, reports
    if clocks is None:
        clocks = read_clocks(state, listings=listings, reports=reports, now=now)
    believed = {listing.place: listing for listing in listings if not listing.partial}
    state = replace(
        state,
        places=tuple(
            _place(_given_up(place, believed.get(place.name), state), believed.get(place.name), clocks=clocks, now=now)
            for place in state.places
        ),
    )
    answers = _answers(state, listings, clocks=clocks)
    reports = _of_known_places(state, reports)
    doubts = distrust(state, seen=_ours(state, answers), reports=reports) if newest else Doubts()
    if doubts.places:
        listings, reports = _disowned(was, listings, said, liars=doubts.places)
        return absorb(was, listings=listings, reports=reports, now=now, before=before, clocks=clocks, offers=offers)
    state = absorb_listings(state, answers=answers, before=before, now=now - clocks.off)
    reports = _in_stored_time(state, reports, clocks=clocks)
    state = absorb_hosts(state, reports=reports, before=before, now=now - clocks.off)
    state = absorb_leftovers(state, [_dated(one, clocks=clocks) for one in listings]) if newest else state
    return with_type_facts(with_ways(_quarantined(state, doubts.instances)), offers)


def _in_stored_time(state: State, reports: Sequence[HostReport], *, clocks: ClockReading) -> Sequence[HostReport]:
    """The reports by the clock that is stored: that of each one's place, where it has its own."""
    if not (clocks.off or clocks.shifts):
        return reports
    there = {instance.id: instance.place for instance in state.instances}
    found = []
    for one in reports:
        off = clocks.off + clocks.shifts.get(there.get(one.instance, ""), 0)
        ends = None if one.self_destruct_at is None else one.self_destruct_at - off
        found.append(replace(one, at=one.at - off, self_destruct_at=ends))
    return found


def _dated(listing: Listing, *, clocks: ClockReading) -> Listing:
    """The listing by the clock that is stored: its place's own date, where it tells that and is believed."""
    if listing.clock is not None and listing.place not in clocks.places:
        return replace(listing, at=listing.clock)
    off = clocks.off + clocks.shifts.get(listing.place, 0)
    return replace(listing, at=listing.at - off) if off else listing


def strangers(state: State, listings: Sequence[Listing]) -> tuple[str, ...]:
    """One sentence for each other lineage of this project that was seen: it is left alone."""
    counts: dict[tuple[str, str], int] = {}
    home, told = homes(state.places), set()
    for listing in listings:
        for seen in listing.instances:
            machine = home.get(listing.place, listing.place), seen.external_id
            if seen.lineage and seen.lineage != state.lineage and seen.phase != "ended" and machine not in told:
                told.add(machine)
                counts[listing.place, seen.lineage] = counts.get((listing.place, seen.lineage), 0) + 1
    return tuple(
        f"{place} has {counted(count, 'instance')} of another lineage ({lineage}) of this project; "
        "another copy of its state owns them, they are left alone"
        for (place, lineage), count in sorted(counts.items())
    )


def never_heard_of(state: State) -> tuple[str, ...]:
    """One sentence for each place with machines that another copy of this state may own."""
    theirs: dict[str, list[str]] = {}
    for one in state.instances:
        if unheard(one) and one.phase != "terminated":
            theirs.setdefault(one.place, []).append(one.external_id)
    return tuple(
        f"{place} has {len(ids)} instance{'s' if len(ids) > 1 else ''} of this project ({', '.join(sorted(ids)[:3])}"
        f"{', …' if len(ids) > 3 else ''}) made by a launch that this state has never heard of: another copy of this "
        "state is in use, or was put aside. Counted and left alone: go on with one copy (`state:` in a bucket is one "
        "for all), `dstack gc` ends what nobody needs"
        for place, ids in sorted(theirs.items())
    )


def untagged(state: State, listings: Sequence[Listing]) -> tuple[str, ...]:
    """One sentence for each of our living machines that somebody took tags off."""
    owned = (one for one in state.instances if one.phase != "terminated" and not one.orphan)
    ours = {(one.place, one.external_id): one for one in owned}
    lacking = {
        (listing.place, seen.external_id): seen.untagged
        for listing in listings
        for seen in listing.instances
        if seen.untagged and seen.phase != "ended" and (listing.place, seen.external_id) in ours
    }
    return tuple(
        f"{ours[key].name} ({key[1]}) lacks its tag {', '.join(names)}: somebody took that off. It stays ours by its "
        "id; put it back, or a lost state cannot be rebuilt with it"
        for key, names in sorted(lacking.items())
    )


def changed_hosts(was: State, state: State) -> tuple[str, ...]:
    """One sentence for each declared server that is not as it was when we last looked."""
    before = {one.id: one for one in was.instances if one.host is not None}
    found = []
    for one in state.instances:
        old = before.get(one.id)
        if old is None or old.seen_at is None or one.phase == "terminated":
            continue
        if old.kernel and one.kernel != old.kernel:
            found.append(f"{one.name}: the kernel changed from {old.kernel} to {one.kernel}")
        for what, then, now in (
            ("CPUs", old.resources.cpus, one.resources.cpus),
            ("MB of memory", old.resources.memory, one.resources.memory),
        ):
            if then != now:
                found.append(f"{one.name}: {now} {what} now, {then} before")
    return tuple(found)


def _given_up(place: Place, listing: Listing | None, state: State) -> Place:
    """Bound to nobody who answers, where the account that answers first is one that was forgotten there."""
    if place.identity or place.forgotten or listing is None or listing.error:
        return place
    same = (one for one in state.places if one.forgotten and one.config.name == place.config.name)
    if any(one.identity == listing.identity and one.region == place.region for one in same):
        return replace(place, answered_by=listing.identity)
    return replace(place, answered_by="")


def _place(place: Place, listing: Listing | None, *, clocks: ClockReading, now: int) -> Place:
    """`now` and `listing` are by our clock."""
    if listing is None:
        return place
    own = None if listing.clock is None else listing.at - listing.clock
    skew = clocks.places.get(place.name, 0) if own is None else own
    listing, now = _dated(listing, clocks=clocks), now - clocks.off
    if listing.error:
        return failed(replace(place, error=listing.error, failing_since=place.failing_since or now), listing)
    if not place.identity and place.answered_by:
        why = (
            f"{place.answered_by} answers, which a person forgot here: no apply counts what it has. Use another "
            "account, or end it with `dstack destroy`"
        )
        return failed(replace(place, error=why, failing_since=place.failing_since or now), listing)
    if place.identity and listing.identity != place.identity:
        other = listing.identity or "nobody"
        why = _stranger(place, other=other)
        place = replace(place, error=why, failing_since=place.failing_since or now, answered_by=other)
        return failed(place, listing)
    return replace(
        answered(place),
        identity=listing.identity,
        observed_at=listing.at,
        error="",
        failing_since=None,
        answered_by="",
        skew=skew if abs(skew) > SKEW else 0,
    )


def another_account(place: Place, other: str) -> str:
    """Why a region that nobody has looked at yet is not used with the credentials of `other`, and what to do."""
    return (
        f"{place.name} is to belong to {place.identity}, as all of {place.config.name}, and these are credentials of "
        f"{other}: use those of {place.identity}, or declare a backend with a `name` of its own for {other}"
    )


def _other_home(was: str, now: str) -> tuple[str, str] | None:
    """(folder that keeps its jobs, ours) where the same machine and state answer from another user's folder."""
    ours, _, folder = was.partition(" in ")
    theirs, _, other = now.partition(" in ")
    return (folder, other) if folder and other and ours == theirs else None


def _stranger(place: Place, *, other: str) -> str:
    what = f"answers as {other}, not as {place.identity}: nothing that it says is believed; "
    if place.config.is_server:
        return (
            f"another machine answers there: {what}if it took the place of the old one for good, "
            "`dstack state forget NAME` gives that one up, and the next apply attaches this one"
        )
    if place.observed_at is None:
        return another_account(place, other)
    if (homes := _other_home(place.identity, other)) is not None:
        was, now = homes
        return (
            f"its jobs on this machine belong to another home: they are kept in {was}, "
            f"and this command looks in {now}. Run it as the user, and with the HOME, that started them; "
            f"or, if that home is gone for good, `dstack state forget {place.name}`"
        )
    if_gone = f"`dstack state forget {place.name}` if that never returns"
    return f"{what}use the account, machine or home of before, or {if_gone}"


def _answers(state: State, listings: Sequence[Listing], *, clocks: ClockReading) -> dict[str, Answer]:
    """The places that answered, and are who they were; at which time, by the clock that is stored."""
    good = {place.name: place for place in state.places if not place.error and not place.forgotten}
    full = {one.place: one for one in listings if not one.partial and not one.error and one.place in good}
    by_id = {
        one.place: one
        for one in listings
        if one.partial and not one.error and one.place in full and one.identity == good[one.place].identity
    }
    return {
        name: Answer(
            place=good[name],
            at=_dated(listing, clocks=clocks).at,
            timed=not good[name].skew and not clocks.whose,
            seen=(*listing.instances, *(by_id[name].instances if name in by_id else ())),
            asked_by_id=name in by_id,
        )
        for name, listing in full.items()
    }


def _of_known_places(state: State, reports: Sequence[HostReport]) -> Sequence[HostReport]:
    """On another machine, a path or an address of ours leads to something that only looks like ours."""
    # A declared server's own machine id tells that by itself, and it then counts as unreachable.
    others = {place.name for place in state.places if place.answered_by and not place.config.is_server}
    if not others:
        return reports
    there = {instance.id for instance in state.instances if instance.place in others}
    return [report for report in reports if report.instance not in there]


def _ours(state: State, answers: Mapping[str, Answer]) -> Mapping[str, Sequence[Seen]]:
    return {name: [one for one in answer.seen if one.lineage == state.lineage] for name, answer in answers.items()}


def _quarantined(state: State, doubts: Mapping[str, str]) -> State:
    """They get no more work. What they say of their jobs is believed: results are collected before they go."""
    if not doubts:
        return state
    return replace(
        state,
        instances=tuple(
            replace(one, quarantined=one.quarantined or doubts[one.id]) if one.id in doubts else one
            for one in state.instances
        ),
    )


def _disowned(
    state: State, listings: Sequence[Listing], reports: Sequence[HostReport], *, liars: Mapping[str, str]
) -> tuple[list[Listing], list[HostReport]]:
    """What those places said is no answer: it changes, starts and ends nothing."""
    there = {instance.id: liars[instance.place] for instance in state.instances if instance.place in liars}
    return (
        [
            replace(one, error=f"quarantined: {liars[one.place]}", instances=()) if one.place in liars else one
            for one in listings
        ],
        [
            HostReport(instance=one.instance, at=one.at, error=there[one.instance], untrusted=True)
            if one.instance in there and not one.error
            else one
            for one in reports
        ],
    )
