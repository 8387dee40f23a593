"""Plan on the state as it is stored: no cloud and no host is asked."""

from __future__ import annotations

from msgspec.structs import replace

from reconciler.app.site import Site
from reconciler.app.stores import markers_of, store_of
from reconciler.cli.commands.plan.authority import Judged, judged
from reconciler.cli.commands.plan.basis import Basis, _planned, world_on
from reconciler.cli.project import site_of, tell
from reconciler.config.load import Documents
from reconciler.planner.local_state_guard import told_alone
from reconciler.planner.world import World
from reconciler.store.format_upgrade import older
from reconciler.store.markers.folder import markers_needed
from reconciler.system.process import nonce, now
from schemas.plan import Permissions, Plan
from schemas.state import VERSION, Applied, State


def stored(
    documents: Documents, permissions: Permissions, *, known: State | None = None, priced: bool = False
) -> tuple[Plan, State]:
    """A plan on the state as it is stored (`known`, where it was read already): no cloud and no host is asked.

    `priced`: the cost of each pool is computed although nothing changes.
    """
    basis, found, was = _stored(documents, known=known, priced=priced)
    allowed = replace(permissions, may_end=found.may_end)
    made, state = _planned(basis, documents.desired, allowed, was=was)
    warnings = (*format_warnings(state), *told_alone(documents.desired), *found.warnings, *made.warnings)
    return replace(made, warnings=warnings), state


def world_here(documents: Documents) -> World:
    """What a plan of these documents is made on, as it is stored."""
    basis, found, was = _stored(documents)
    return world_on(basis, documents.desired, Permissions(may_end=found.may_end), was=was)


def _stored(
    documents: Documents, *, known: State | None = None, priced: bool = False
) -> tuple[Basis, Judged, Applied | None]:
    site = site_of(documents)
    stored = _remembered(site, known)
    moment = now()
    found = judged(stored, documents, now=moment)
    done = markers_needed(markers_of(site), found.state, documents.desired) if site.project else frozenset()
    basis = Basis(site=site, state=found.state, done=done, moment=moment, nonce=nonce(), priced=priced)
    return basis, found, stored.applied


def format_warnings(state: State) -> tuple[str, ...]:
    """What apply asks for first, where the state is of an older format."""
    why = older(state.version)
    return (why,) if why else ()


def _remembered(site: Site, known: State | None) -> State:
    if not site.project:
        return empty_state("")
    if known is not None and known.project == site.project and not site.state:
        return known
    store = store_of(site)
    state, _ = store.read()
    tell(store.notes)
    return state or empty_state(site.project)


def empty_state(project: str) -> State:
    return State(version=VERSION, project=project, lineage="")
