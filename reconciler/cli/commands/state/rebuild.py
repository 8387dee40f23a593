"""Ask every place and host for what a rebuild of the state needs."""

from __future__ import annotations

from collections.abc import Sequence

from msgspec.structs import replace

from reconciler.engine.begin import everywhere, with_places
from reconciler.engine.catalog import joined
from reconciler.engine.observe import Observed, observe
from reconciler.engine.ports import Connections, Ports
from reconciler.planner.world import needs_of
from reconciler.state.rebuild import rebuild
from schemas.desired import Desired
from schemas.instance import HostReport, Listing
from schemas.offer import Offer
from schemas.state import VERSION, Revision, State


def rebuilt(ports: Ports, *, desired: Desired, revision: Revision, old: State | None) -> State:
    """A state in memory. Raises `RebuildRefused` where a place is silent.

    `old` is the state that it takes the place of, where that can be read: of a destroyed project, so is the new one.
    """
    bare = with_places(State(version=VERSION, project=desired.project, lineage=""), desired)
    bare = everywhere(ports, bare, desired)
    nonce = ports.nonce() + ports.nonce()

    offers: Sequence[Offer] = ()

    def made(listings: tuple[Listing, ...], reports: tuple[HostReport, ...]) -> State:
        return rebuild(
            project=desired.project,
            listings=listings,
            reports=reports,
            places=bare.places,
            desired=desired,
            revision=revision,
            by=ports.who,
            now=ports.now(),
            nonce=nonce,
            done=ports.markers.all(),
            above=old.generation if old else 0,
            offers=offers,
        )

    first = made(_whole(observe(ports, bare, Connections(ports, ""))), ())
    # With the lineage known, a place shows all of it, and not only what lost its state.
    observed = observe(ports, bare, Connections(ports, first.lineage), needs=needs_of(desired))
    listings, offers = _whole(observed), joined(observed.offers, ports.catalog(desired))
    found = made(listings, ())
    reports = tuple(ports.runner.look(one, now=ports.now()) for one in found.instances if one.phase != "terminated")
    state = made(listings, reports)
    return replace(state, destroyed=old.destroyed) if old is not None else state


def _whole(observed: Observed) -> tuple[Listing, ...]:
    return tuple(listing for listing in observed.listings if not listing.partial)
