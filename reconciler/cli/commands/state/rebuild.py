"""Ask every place and host for what a rebuild of the state needs."""

from __future__ import annotations

from collections.abc import Sequence

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


def rebuilt(ports: Ports, *, desired: Desired, revision: Revision, above: int) -> State:
    """A state in memory. Raises `RebuildRefused` where a place is silent."""
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
            above=above,
            offers=offers,
        )

    first = made(_whole(observe(ports, bare, Connections(ports, ""))), ())
    # With the lineage known, a place shows all of it, and not only what lost its state.
    observed = observe(ports, bare, Connections(ports, first.lineage), needs=needs_of(desired))
    listings, offers = _whole(observed), joined(observed.offers, ports.catalog(desired))
    found = made(listings, ())
    reports = tuple(ports.runner.look(one, now=ports.now()) for one in found.instances if one.phase != "terminated")
    return made(listings, reports)


def _whole(observed: Observed) -> tuple[Listing, ...]:
    return tuple(listing for listing in observed.listings if not listing.partial)
