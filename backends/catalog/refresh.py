"""Refresh the user's cache: gpuhunt's list, and each region's live offers.

Never done by a plan. Every failure leaves what was there as it was.
"""

from __future__ import annotations

from collections.abc import Mapping

from backends.catalog.cache import Cache, Spoiled
from backends.catalog.gpuhunt import URL, Fetch, download, published
from backends.catalog.layers import live_file, published_file, published_of, shipped
from backends.errors import CallFailed
from schemas.base import Seconds
from schemas.catalog import CATALOG_VERSION, Live, LiveRegion
from schemas.desired import BackendConfig

DAY, HOUR = 86400, 3600
ADDRESS = "DSTACK_CATALOG_URL"
"""Of a mirror of gpuhunt's catalogs; `off` asks nobody."""
TRIED = "gpuhunt-tried.json"


def refresh_published(
    provider: str,
    store: Cache,
    environ: Mapping[str, str],
    *,
    now: Seconds,
    force: bool = False,
    fetch: Fetch = download,
) -> str:
    """Why there is no newer list; "" where it was got or is not due.

    Due once a day, an hour after a failure; `force` asks now.
    """
    base = (environ.get(ADDRESS) or URL).rstrip("/")
    if base == "off":
        return f"{ADDRESS} is off" if force else ""
    known = published_of(provider, store, [])
    if not force and not _due(store, provider, checked_at=known.checked_at if known else 0, now=now):
        return ""
    try:
        found = published(provider, base=base, known=known, shipped=shipped(provider), now=now, fetch=fetch)
        store.write(published_file(provider), found)
    except (CallFailed, OSError) as error:
        _remember_failure(store, provider, now=now)
        return str(error)
    return ""


def _due(store: Cache, provider: str, *, checked_at: Seconds, now: Seconds) -> bool:
    if 0 <= now - checked_at < DAY:
        return False
    return not 0 <= now - _tried(store).get(provider, 0) < HOUR


def _tried(store: Cache) -> dict[str, int]:
    try:
        return store.read(TRIED, dict[str, int]) or {}
    except Spoiled:
        return {}


def _remember_failure(store: Cache, provider: str, *, now: Seconds) -> None:
    try:
        store.write(TRIED, _tried(store) | {provider: now})
    except OSError:
        return  # then it is tried again sooner: no harm, and the failure itself is told


def keep_regions(config: BackendConfig, store: Cache, told: Mapping[str, LiveRegion]) -> str:
    """Beside what other regions said before. Why it could not be kept, or ""."""
    if not told:
        return ""
    try:
        before = store.read(live_file(config), Live)
    except Spoiled:
        before = None
    kept = before.regions if before is not None and before.version == CATALOG_VERSION else {}
    try:
        store.write(live_file(config), Live(version=CATALOG_VERSION, regions=kept | dict(told)))
    except OSError as error:
        return f"{error.filename}: {error.strerror}"
    return ""
