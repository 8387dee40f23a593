"""Open the state, blobs, markers and ledger of a project in a bucket."""

from __future__ import annotations

import os
from functools import cache
from pathlib import Path

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


@cache
def objects(where: Bucket) -> Objects:
    """One client a bucket and process: credentials are looked for once, connections kept."""
    return open_bucket(where, environ=os.environ)


def store(where: Bucket, project: str, *, before: Path | None) -> BucketStore:
    """`before` as in `BucketStore`."""
    return BucketStore(objects(where), project, before=before)


def blobs(where: Bucket, project: str, *, cache: Path, told: Told | None) -> BucketBlobs:
    """`cache` is a folder of this machine."""
    return BucketBlobs(objects(where), f"{project}/blobs", cache=FolderBlobs(cache), told=told)


def markers(where: Bucket, project: str) -> BucketMarkers:
    return BucketMarkers(objects(where), f"{project}/done")


def ledger(where: Bucket, project: str) -> BucketLedger:
    return BucketLedger(objects(where), f"{project}/ledger")


def deliveries(where: Bucket, project: str, *, scratch: Path) -> Deliveries:
    return Deliveries(objects(where), f"{project}/results", scratch=scratch)


def apart(where: Location, project: str, *, root: Path, beside: Blobs, cache: Path, told: Told | None) -> BlobsApart:
    """`artifact_store`: artifacts in a bucket or a folder of their own. A folder is named from `root`."""
    if isinstance(where, Bucket):
        return BlobsApart(blobs(where, project, cache=cache / "fetched", told=told), beside=beside)
    return BlobsApart(FolderBlobs(root / Path(where.path).expanduser() / project / "blobs"), beside=beside)
