"""Open a bucket with the client of its cloud."""

from __future__ import annotations

from collections.abc import Mapping

from reconciler.state.errors import StateRefused
from reconciler.store.objects.base import BucketAccess, Objects, ObjectsError
from schemas.location import Bucket

EXTRAS = {
    "s3": ("aws", "boto3 obstore"),
    "gs": ("gcp", "google-cloud-storage"),
    "az": ("azure", "azure-identity azure-storage-blob obstore"),
}
"""By scheme: the extra of this package, and what it installs for a bucket."""


def open_bucket(where: Bucket, *, environ: Mapping[str, str], access: BucketAccess | None = None) -> Objects:
    """Objects below its prefix. Nothing is asked yet. `access`: of a backend, else the vendor's default chain.

    Raises:
        StateRefused: the client or the credentials are not here.
    """
    try:
        return _opened(where, environ, access)
    except ImportError as error:
        extra, packages = EXTRAS[where.scheme]
        raise StateRefused(
            f"{where.url}: no module {error.name} here: `pip install {packages}` (the extra `{extra}`)"
        ) from None
    except ObjectsError as error:
        raise StateRefused(str(error)) from None


def _opened(where: Bucket, environ: Mapping[str, str], access: BucketAccess | None) -> Objects:
    match where.scheme:
        case "s3":
            from reconciler.store.objects.s3 import s3_objects

            return s3_objects(where, environ=environ, access=access)
        case "gs":
            from reconciler.store.objects.gcs import gcs_objects

            return gcs_objects(where, environ=environ)
        case "az":
            from reconciler.store.objects.azure import azure_objects

            return azure_objects(where, environ=environ)
