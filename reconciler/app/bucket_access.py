"""Choose the backend whose credentials, role and endpoint open a bucket."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import msgspec
from msgspec.structs import replace

from reconciler.app.site import Site
from reconciler.config.endpoints import applied_endpoints
from reconciler.config.identity import backends
from reconciler.state.errors import StateRefused
from reconciler.store.folder import FolderStore
from reconciler.store.objects.base import BucketAccess
from schemas.desired import BackendConfig
from schemas.location import Bucket

CHAIN = {
    "s3": "AWS's default credentials (environment, AWS_PROFILE, role of this machine)",
    "gs": "Google's application default credentials",
    "az": "Azure's default credentials",
}


@dataclass(frozen=True)
class Hashed:
    """A backend that opens a bucket, as JSON, so that it can be a key of a cache."""

    text: str

    @property
    def config(self) -> BackendConfig:
        return msgspec.json.decode(self.text, type=BackendConfig)


@dataclass(frozen=True, kw_only=True)
class ChosenCredentials:
    """Whose credentials open a bucket, and why, as a sentence for people."""

    config: Hashed | None
    """`None`: the vendor's default chain."""
    backend: str
    """Name of the backend; "" for the default chain."""
    why: str


def chosen(where: Bucket, root: Path, *, backend: str) -> ChosenCredentials:
    """The named backend, else the only one of the bucket's cloud, else the vendor's default chain.

    Raises:
        StateRefused: the named backend is not declared, is of another cloud, or its credentials open no bucket.
    """
    known = {one.name: one for one in backends(root) if where.scheme in one.traits.buckets}
    usable = {name: one for name, one in known.items() if one.traits.available}
    if backend:
        if backend not in usable:
            raise StateRefused(f"{where.url}: {_unusable(backend, known, usable)}")
        return _with(usable[backend], f"backend {backend}, as the configuration says")
    if len(known) == 1 and usable:
        (only,) = usable.values()
        return _with(only, f"backend {only.name}, the only one of type {only.type}")
    several = f"; there are {len(known)} backends ({', '.join(known)}): name one, `{{url, backend}}`"
    return ChosenCredentials(config=None, backend="", why=f"{CHAIN[where.scheme]}{several if len(known) > 1 else ''}")


def _with(config: BackendConfig, why: str) -> ChosenCredentials:
    """A backend without credentials and endpoint of its own uses the default chain as well, which is faster asked."""
    if not config.options.get("creds") and not config.endpoint:
        return ChosenCredentials(config=None, backend=config.name, why=f"{why}, which uses the default credentials")
    text = json.dumps(msgspec.to_builtins(config), sort_keys=True)
    return ChosenCredentials(config=Hashed(text), backend=config.name, why=why)


def _unusable(name: str, known: dict[str, BackendConfig], usable: dict[str, BackendConfig]) -> str:
    if name in known:
        return f"backend {name} cannot open buckets yet. Leave `backend` out to use the default credentials"
    fits = ", ".join(usable) or "none"
    return f"backend {name} is not declared, or is of another cloud (there is {fits}). See `dstack validate`"


def with_endpoint(found: Hashed, site: Site) -> Hashed:
    """The same backend, with its endpoint confirmed where it is the applied one.

    A state in a bucket cannot say how it is reached: its endpoint is confirmed by each command that asks for it.
    """
    config = found.config
    if not config.withheld:
        return found
    known = dict(site.endpoints)
    if not known and site.project and not isinstance(site.location, Bucket):
        state, _ = FolderStore(site.folder, site.project).read()
        known = applied_endpoints(state.applied.desired if state and state.applied else None)
    if known.get(config.name) != config.endpoint:
        return found
    sure = replace(config, confirmed_endpoint=config.endpoint)
    return Hashed(json.dumps(msgspec.to_builtins(sure), sort_keys=True))


def access_of(found: Hashed) -> BucketAccess:
    """How its objects are asked for. No request is made yet."""
    from backends.errors import CallFailed
    from backends.registry import bucket_session

    config = found.config

    def session() -> object:
        try:
            return bucket_session(config)
        except CallFailed as error:
            raise StateRefused(f"backend {config.name}: {error}") from None

    return BucketAccess(session=session, endpoint=config.endpoint)
