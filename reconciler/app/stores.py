"""Open the stores of one project: state, blobs, artifacts, done-markers, ledger."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from reconciler.app.site import STATE, Site, location_of
from reconciler.store.base import Store
from reconciler.store.blobs.folder import Blobs, FolderBlobs
from reconciler.store.folder import FolderStore
from reconciler.store.ledger.folder import FolderLedger, Ledger
from reconciler.store.markers.folder import Markers
from schemas.location import Bucket

if TYPE_CHECKING:
    from reconciler.hosts.uploads import Deliveries
    from reconciler.store.blobs.bucket import Told
    from reconciler.store.markers.bucket import BucketMarkers


def store_of(site: Site, *, moving: bool = False) -> Store:
    """The project's state, wherever it lies. Nothing is read yet. `moving`: one in the checkout is no surprise."""
    where = site.location
    if isinstance(where, Bucket):
        from reconciler.app import bucket_parts as beside_bucket

        before = None if moving else site.root / STATE / f"{site.project}.yml"
        return beside_bucket.store(where, site, before=before)
    return FolderStore(site.folder, site.project)


def blobs_of(site: Site, *, told: Told | None = None) -> Blobs:
    """The files, logs and artifacts of runs. `told` hears of large transfers."""
    where = site.location
    if isinstance(where, Bucket):
        from reconciler.app import bucket_parts as beside_bucket

        return beside_bucket.blobs(where, site, cache=scratch_of(site), told=told)
    return FolderBlobs(scratch_of(site))


def artifacts_of(site: Site, *, told: Told | None = None) -> Blobs:
    """Where artifacts go: beside the state, or with a state in a folder to `artifact_store`."""
    beside = blobs_of(site, told=told)
    if not site.artifacts or isinstance(site.location, Bucket):
        return beside
    from reconciler.app import bucket_parts as beside_bucket

    where = location_of(site.artifacts, key="artifact_store")
    cache = scratch_of(site)
    return beside_bucket.apart(where, site, beside=beside, cache=cache, told=told)


def scratch_of(site: Site) -> Path:
    """Where temporary files lie: the folder of the blobs, which sweeps what a killed process left there."""
    return site.beside / "blobs"


def markers_of(site: Site) -> Markers | BucketMarkers:
    where = site.location
    if isinstance(where, Bucket):
        from reconciler.app import bucket_parts as beside_bucket

        return beside_bucket.markers(where, site)
    return Markers(site.beside / "done")


def ledger_of(site: Site) -> Ledger:
    """What happened and what it cost, by month."""
    where = site.location
    if isinstance(where, Bucket):
        from reconciler.app import bucket_parts as beside_bucket

        return beside_bucket.ledger(where, site)
    return FolderLedger(site.beside / "ledger")


def deliveries_of(site: Site) -> Deliveries | None:
    """How hosts put results themselves; with a state in a folder they cannot."""
    where = site.location
    if not isinstance(where, Bucket):
        return None
    from reconciler.app import bucket_parts as beside_bucket

    return beside_bucket.deliveries(where, site, scratch=scratch_of(site))
