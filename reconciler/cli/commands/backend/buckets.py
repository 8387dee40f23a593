"""List the buckets that the configuration names, and say whose credentials open each."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import partial

from backends.checks import BackendCheck
from reconciler.app.bucket_access import ChosenCredentials, chosen
from reconciler.app.site import Site
from schemas.desired import BackendConfig
from schemas.location import Bucket, location


def opened_by(where: Site) -> dict[Bucket, ChosenCredentials]:
    """Whose credentials open each bucket of S3 that the configuration names."""
    said = ((where.state, where.state_backend), (where.artifacts, where.artifact_backend))
    named = [(location(text), backend) for text, backend in said if text]
    return {
        bucket: chosen(bucket, where.root, backend=backend)
        for bucket, backend in reversed(named)  # one bucket for both is opened as the state's
        if isinstance(bucket, Bucket) and bucket.scheme == "s3"
    }


def credentials_said(config: BackendConfig, opened: Mapping[Bucket, ChosenCredentials]) -> Iterator[BackendCheck]:
    """What opens each bucket, where that is this backend or could be."""
    for bucket, by in opened.items():
        if bucket.scheme in config.traits.buckets and by.backend in ("", config.name):
            yield BackendCheck(name=f"credentials of {bucket.url}", look=partial(str, by.why), then="")


def buckets_of(where: Site) -> tuple[Bucket, ...]:
    """Those of S3 that the documents name."""
    found = (location(text) for text in (where.state, where.artifacts) if text)
    return tuple(dict.fromkeys(one for one in found if isinstance(one, Bucket) and one.scheme == "s3"))
