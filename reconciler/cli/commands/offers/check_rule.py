"""Check that an autoscale rule names a type that the account offers."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches

from reconciler.app.site import Site
from reconciler.cli.commands.plan.basis import stored_offers
from reconciler.cli.exits import Fail
from reconciler.state.autoscale_rules import covers, kind
from reconciler.text.format import few
from schemas.base import place_of
from schemas.desired import Cap, Desired
from schemas.offer import Offer
from schemas.state import State


def check_offered(cap: Cap, desired: Desired, *, site: Site, state: State | None) -> None:
    """`Fail` with near names where nothing that is offered is covered by the rule."""
    known = [one.name for one in desired.backends]
    if cap.backend and cap.backend not in known:
        raise Fail(f"--backend {cap.backend}: no such backend; there are {', '.join(known)}")
    why = not_offered(cap, tuple(stored_offers(site, desired, state)))
    if why:
        raise Fail(why)


def not_offered(cap: Cap, offers: Iterable[Offer]) -> str:
    """Why no offer is covered by the rule, with what is near; "" where one is."""
    offers = [one for one in offers if one.cloud and cap.backend in ("", one.backend)]
    if any(covers(cap, one) for one in offers):
        return ""
    if not offers:
        by = f" by {cap.backend}" if cap.backend else " by any backend"
        return f"nothing is offered{by}: no rule can be about {cap.instance_type}"
    alike = [one for one in offers if one.instance_type == cap.instance_type]
    if not alike:
        return f"{cap.instance_type} is not offered{_near(cap.instance_type, offers)}"
    there = [one for one in alike if cap.region in ("", one.region)]
    if not there:
        regions = sorted({place_of(one.backend, one.region) for one in alike})
        return f"{cap.instance_type} is not offered in {cap.region}; it is in {few(regions, most=8)}"
    other = kind(there[0])
    return f"{cap.instance_type} is not offered as {kind(cap)} there, only as {other}"


def _near(name: str, offers: Iterable[Offer]) -> str:
    names = sorted({one.instance_type for one in offers})
    close = get_close_matches(name, names, n=3, cutoff=0.7)
    if not close:
        family = name.split(".")[0]
        close = [one for one in names if one.split(".")[0] == family][:3]
    return f"; did you mean {' or '.join(close)}?" if close else f"; offered are {few(names, most=8)}"
