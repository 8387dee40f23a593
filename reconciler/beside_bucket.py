"""A state and what lies beside it in a bucket: each opened by where the bucket is and whose project it is."""

from __future__ import annotations

import os
from functools import cache
from pathlib import Path

from reconciler.blobs import Blobs, FolderBlobs
from reconciler.blobs_apart import BlobsApart
from reconciler.blobs_bucket import BucketBlobs, Told
from reconciler.deliveries import Deliveries
from reconciler.ledger_bucket import BucketLedger
from reconciler.markers_bucket import BucketMarkers
from reconciler.objects import Objects
from reconciler.open_bucket import open_bucket
from reconciler.store_bucket import BucketStore
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
