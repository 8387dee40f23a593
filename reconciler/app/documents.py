"""Load a project's configuration, with the endpoints that its state has as applied."""

from __future__ import annotations

from pathlib import Path

from reconciler.app.site import Site, site_of
from reconciler.app.stores import store_of
from reconciler.config.endpoints import applied_endpoints
from reconciler.config.load import Documents as Documents
from reconciler.config.load import load as load
from reconciler.state.errors import StateRefused
from reconciler.store.objects.base import ObjectsError
from schemas.state import State


def documents_of(root: Path, *, home: Path, known: State | None = None) -> Documents:
    """As `reconciler.cli.project.documents_of`."""
    applied = known.applied if known else None
    compiled = (applied.revision.digest, applied.desired) if applied else None
    documents = load(root, home=home, known=compiled)
    if not documents.new_endpoints and not any(one.confirmed_endpoint for one in documents.desired.backends):
        return documents
    return load(root, home=home, endpoints=stored_endpoints(site_of(documents)))


def stored_endpoints(where: Site) -> dict[str, str]:
    """Backend -> endpoint, as applied. None where the state cannot be read: who needs it reads it again, and says why.

    The state is read anew, from where it belongs: what was read from elsewhere confirms no endpoint.
    """
    try:
        state = store_of(where).read()[0] if where.project else None
    except (ObjectsError, StateRefused):
        return {}
    return applied_endpoints(state.applied.desired if state and state.applied else None)
