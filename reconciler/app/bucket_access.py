"""Choose the backend whose credentials, role and endpoint open a bucket."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import msgspec

from reconciler.config.identity import backends
from reconciler.state.errors import StateRefused
from reconciler.store.objects.base import Access
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
class Chosen:
    """Whose credentials open a bucket, and why, as a sentence for people."""

    config: Hashed | None
    """`None`: the vendor's default chain."""
    backend: str
    """Name of the backend; "" for the default chain."""
    why: str


def chosen(where: Bucket, root: Path, *, backend: str) -> Chosen:
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
    return Chosen(config=None, backend="", why=f"{CHAIN[where.scheme]}{several if len(known) > 1 else ''}")


def _with(config: BackendConfig, why: str) -> Chosen:
    """A backend without credentials and endpoint of its own uses the default chain as well, which is faster asked."""
    if not config.options.get("creds") and not config.endpoint:
        return Chosen(config=None, backend=config.name, why=f"{why}, which uses the default credentials")
    text = json.dumps(msgspec.to_builtins(config), sort_keys=True)
    return Chosen(config=Hashed(text), backend=config.name, why=why)


def _unusable(name: str, known: dict[str, BackendConfig], usable: dict[str, BackendConfig]) -> str:
    if name in known:
        return f"backend {name} cannot open buckets yet. Leave `backend` out to use the default credentials"
    fits = ", ".join(usable) or "none"
    return f"backend {name} is not declared, or is of another cloud (there is {fits}). See `dstack validate`"


def access_of(found: Hashed) -> Access:
    """How its objects are asked for. No request is made yet."""
    from backends.errors import CallFailed
    from backends.registry import bucket_session

    config = found.config

    def session() -> object:
        try:
            return bucket_session(config)
        except CallFailed as error:
            raise StateRefused(f"backend {config.name}: {error}") from None

    return Access(session=session, endpoint=config.endpoint)
