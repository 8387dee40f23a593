"""The catalog layers at hand: shipped, and the user's cache. Asks no backend."""

from __future__ import annotations

from functools import cache
from hashlib import sha256
from typing import TypeVar

import msgspec

from backends.catalog.cache import Cache, Spoiled
from backends.catalog.offers import Layers
from backends.registry import catalog_of
from schemas.base import Seconds
from schemas.catalog import CATALOG_VERSION, Catalog, Live, flaw
from schemas.desired import BackendConfig

FRESH = 86400  # seconds that a region's own word counts: spot prices move within hours

T = TypeVar("T")


def layers_of(config: BackendConfig, store: Cache, *, now: Seconds) -> Layers:
    """A file of the cache that is no good is left out, with a word; what a region said a day ago, without one."""
    warnings: list[str] = []
    published = published_of(config.type, store, warnings)
    live = _read(store, live_file(config), Live, warnings)
    if live is not None and live.version != CATALOG_VERSION:
        warnings.append(f"{store.folder / live_file(config)} is left out: its format is {live.version}")
        live = None
    told = {name: said for name, said in live.regions.items() if now - said.at < FRESH} if live else {}
    return Layers(shipped=shipped(config.type), published=published, live=told, warnings=tuple(dict.fromkeys(warnings)))


def published_of(provider: str, store: Cache, warnings: list[str]) -> Catalog | None:
    found = _read(store, published_file(provider), Catalog, warnings)
    if found is not None and (why := flaw(found)):
        warnings.append(f"{store.folder / published_file(provider)} is left out: {why}")
        return None
    return found


def published_file(provider: str) -> str:
    return f"gpuhunt-{provider}.json"


def live_file(config: BackendConfig) -> str:
    """One for each way to log in: accounts have their own names of zones, and not all have every type."""
    login = msgspec.json.encode([config.name, config.options.get("creds")], order="sorted")
    return f"live-{config.type}-{sha256(login).hexdigest()[:12]}.json"


@cache
def shipped(provider: str) -> Catalog:
    return msgspec.json.decode(catalog_of(provider).read_bytes(), type=Catalog)


def _read(store: Cache, name: str, kind: type[T], warnings: list[str]) -> T | None:
    try:
        return store.read(name, kind)
    except Spoiled as error:
        warnings.append(str(error))
        return None
