"""Open the state, blobs, markers and ledger of a project in a bucket."""

from __future__ import annotations

import os
from functools import cache
from pathlib import Path

from reconciler.app.bucket_access import Hashed, access_of, chosen
from reconciler.app.site import Site
from reconciler.hosts.uploads import Deliveries
from reconciler.store.blobs.bucket import BucketBlobs, Told
from reconciler.store.blobs.folder import Blobs, FolderBlobs
from reconciler.store.blobs.split import BlobsApart
from reconciler.store.bucket import BucketStore
from reconciler.store.ledger.bucket import BucketLedger
from reconciler.store.markers.bucket import BucketMarkers
from reconciler.store.objects.base import Objects
from reconciler.store.objects.open import open_bucket
from schemas.location import Bucket, Location


def objects(where: Bucket, site: Site, *, backend: str) -> Objects:
    """One client per bucket, credentials and process: credentials are looked up once, connections are kept."""
    return _objects(where, chosen(where, site.root, backend=backend).config)


@cache
def _objects(where: Bucket, config: Hashed | None) -> Objects:
    return open_bucket(where, environ=os.environ, access=access_of(config) if config else None)


def _beside(where: Bucket, site: Site) -> Objects:
    """Of the bucket that the state lies in."""
    return objects(where, site, backend=site.state_backend)


def store(where: Bucket, site: Site, *, before: Path | None) -> BucketStore:
    """`before` as in `BucketStore`."""
    return BucketStore(_beside(where, site), site.project, before=before)


def blobs(where: Bucket, site: Site, *, cache: Path, told: Told | None) -> BucketBlobs:
    """`cache` is a folder of this machine."""
    return _blobs(_beside(where, site), site.project, cache=cache, told=told)


def _blobs(opened: Objects, project: str, *, cache: Path, told: Told | None) -> BucketBlobs:
    return BucketBlobs(opened, f"{project}/blobs", cache=FolderBlobs(cache), told=told)


def markers(where: Bucket, site: Site) -> BucketMarkers:
    return BucketMarkers(_beside(where, site), f"{site.project}/done")


def ledger(where: Bucket, site: Site) -> BucketLedger:
    return BucketLedger(_beside(where, site), f"{site.project}/ledger")


def deliveries(where: Bucket, site: Site, *, scratch: Path) -> Deliveries:
    return Deliveries(_beside(where, site), f"{site.project}/results", scratch=scratch)


def apart(where: Location, site: Site, *, beside: Blobs, cache: Path, told: Told | None) -> BlobsApart:
    """`artifact_store`: artifacts in a bucket or a folder of their own. A folder is named from the project's root."""
    if isinstance(where, Bucket):
        opened = objects(where, site, backend=site.artifact_backend)
        return BlobsApart(_blobs(opened, site.project, cache=cache / "fetched", told=told), beside=beside)
    return BlobsApart(FolderBlobs(site.root / Path(where.path).expanduser() / site.project / "blobs"), beside=beside)
