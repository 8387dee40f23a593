"""Read gpuhunt's published catalog: `URL/PROVIDER/version`, `URL/PROVIDER/VERSION/catalog.zip`.

Read as its documented columns say, never imported: https://github.com/dstackai/gpuhunt (MPL-2.0). What came is
believed only as a whole, and only where it is nothing but a younger account of the same things.
"""

from __future__ import annotations

import csv
import io
import re
import zipfile
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime
from statistics import median
from typing import Literal

from msgspec.structs import replace

from backends.catalog.gpus import gpu_memory, gpu_name
from backends.errors import BackendError, TryLater
from schemas.base import Seconds
from schemas.catalog import CATALOG_VERSION, Catalog, CatalogRegion, CatalogSource, CatalogType, flaw

URL = "https://dstack-gpu-pricing.s3.eu-west-1.amazonaws.com/v3"
LARGEST_ZIP, LARGEST_CSV = 32 * 2**20, 256 * 2**20  # bytes
TIMEOUT, DEADLINE = 5.0, 30.0  # seconds, of one wait and of a download
FEWEST = 100  # offers; a file with less was cut off or is of something else
ASTRAY = 3.0  # no price list moves as a whole by that factor
REGION = re.compile(r"[a-z0-9][a-z0-9-]{1,40}")

Fetch = Callable[[str, int], bytes]


def published(
    provider: str, *, base: str, known: Catalog | None, shipped: Catalog, now: Seconds, fetch: Fetch
) -> Catalog:
    """The newest edition; `known` checked again where that is it.

    `fetch(url, most)` reads no more than so many bytes. Raises `TryLater` where it cannot be had, `BackendError`
    where what came is not to be believed.
    """
    edition = fetch(f"{base}/{provider}/version", 200).decode("ascii", "replace").strip()
    if not re.fullmatch(r"[A-Za-z0-9][\w.-]{0,60}", edition):
        raise BackendError(f"{base}: no catalog of {provider}: it does not say its version")
    if known is not None and known.edition == edition:
        return replace(known, checked_at=now)
    data = fetch(f"{base}/{provider}/{edition}/catalog.zip", LARGEST_ZIP)
    found = _catalog(provider, _rows(data, provider), edition=edition, url=base, now=now)
    if why := flaw(found) or _doubt(found, known=known, shipped=shipped):
        raise BackendError(f"{base}: the catalog {edition} of {provider} is not used: {why}")
    return found


def _rows(data: bytes, provider: str) -> Iterable[Mapping[str, str]]:
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as whole, whole.open(f"{provider}.csv") as file:
            text = file.read(LARGEST_CSV + 1)
    except (zipfile.BadZipFile, KeyError, OSError, NotImplementedError, RuntimeError, EOFError) as error:
        raise BackendError(f"the catalog of {provider} cannot be unpacked: {error}") from None
    if len(text) > LARGEST_CSV:
        raise BackendError(f"the catalog of {provider} is larger than {LARGEST_CSV // 2**20} MiB")
    return csv.DictReader(io.StringIO(text.decode("utf-8", "replace"), newline=""))


def _catalog(provider: str, rows: Iterable[Mapping[str, str]], *, edition: str, url: str, now: Seconds) -> Catalog:
    types: dict[str, CatalogType] = {}
    sold: dict[str, dict[str, dict[bool, int]]] = defaultdict(dict)
    try:
        for row in rows:
            kind = _type(row)
            region = row["location"]
            if row.get("flags") or kind is None or not REGION.fullmatch(region):
                continue
            spot = row["spot"] == "True"
            first = types.setdefault(kind.name, kind)
            if first != kind:
                continue
            sold[region].setdefault(kind.name, {})[spot] = _micro(row["price"])
    except (KeyError, TypeError, ValueError, OverflowError, csv.Error) as error:
        raise BackendError(f"the catalog {edition} of {provider} has another shape: {error!r}") from None
    spots = {name for here in sold.values() for name, each in here.items() if True in each}
    ordered = tuple(replace(kind, spot=name in spots) for name, kind in sorted(types.items()))
    rank = {kind.name: at for at, kind in enumerate(ordered)}
    return Catalog(
        version=CATALOG_VERSION,
        name="gpuhunt",
        provider=provider,
        priced_at=_day(edition) or now,
        checked_at=now,
        edition=edition,
        types=ordered,
        regions={name: _region(here, rank) for name, here in sorted(sold.items())},
        sources=(CatalogSource(name="gpuhunt", version=edition, licence="MPL-2.0", what="types and prices", url=url),),
    )


def _type(row: Mapping[str, str]) -> CatalogType | None:
    """`None` where its GPU is not told."""
    count, memory = int(row["gpu_count"]), row.get("gpu_memory") or ""
    name = gpu_name(row.get("gpu_name") or "") if count else ""
    if count and not (name and memory):
        return None
    arch: Literal["x86", "arm"] = "arm" if row.get("cpu_arch") == "arm" else "x86"
    return CatalogType(
        name=row["instance_name"],
        cpus=int(row["cpu"]),
        memory=round(float(row["memory"]) * 1024),
        arch=arch,
        gpu=name,
        gpu_count=count,
        gpu_memory=gpu_memory(name, round(float(memory) * 1024)) if count else 0,
        vendor=(row.get("gpu_vendor") or "nvidia").lower() if count else "",
    )


def _micro(text: str) -> int:
    price = float(text)
    if not 0 < price < 1e6:
        raise ValueError(f"{text} is no price")
    return round(price * 1_000_000)


def _region(here: Mapping[str, Mapping[bool, int]], rank: Mapping[str, int]) -> CatalogRegion:
    names = sorted(here, key=lambda name: rank[name])
    spot = tuple(here[name].get(True, 0) for name in names)
    return CatalogRegion(
        types=tuple(rank[name] for name in names),
        on_demand=tuple(here[name].get(False, 0) for name in names),
        spot=spot if any(spot) else (),
    )


def _day(edition: str) -> Seconds | None:
    """Editions begin with their day: `20261020-1423`."""
    try:
        return int(datetime.strptime(edition[:8], "%Y%m%d").replace(tzinfo=UTC).timestamp())
    except ValueError:
        return None


def _doubt(found: Catalog, *, known: Catalog | None, shipped: Catalog) -> str:
    """Why it is hardly what it should be; "" where nothing speaks against it."""
    count = _size(found)
    if count < FEWEST or (known is not None and count < _size(known) // 4):
        return f"it has {count} offer{'' if count == 1 else 's'}"
    ours = _on_demand(shipped)
    ratios = [price / ours[key] for key, price in _on_demand(found).items() if key in ours]
    if len(ratios) >= 20 and not 1 / ASTRAY < median(ratios) < ASTRAY:
        return f"its prices are {median(ratios):.2g} times those that are shipped"
    return ""


def _size(catalog: Catalog) -> int:
    return sum(len(here.types) + sum(map(bool, here.spot)) for here in catalog.regions.values())


def _on_demand(catalog: Catalog) -> dict[tuple[str, str], int]:
    return {
        (region, catalog.types[kind].name): price
        for region, here in catalog.regions.items()
        for kind, price in zip(here.types, here.on_demand, strict=True)
        if price
    }


# ---------------------------------------------------------------- the network


def download(url: str, most: int) -> bytes:
    """Over http(s) only, proxies as the environment says. Raises `TryLater`, `BackendError` where it is too large."""
    import time
    from http.client import HTTPException
    from urllib.error import URLError
    from urllib.request import urlopen

    if not url.startswith(("https://", "http://")):
        raise BackendError(f"{url}: no http(s) address")
    ends = time.monotonic() + DEADLINE
    data = bytearray()
    try:
        with urlopen(url, timeout=TIMEOUT) as answer:  # noqa: S310 - the scheme was looked at
            while chunk := answer.read1(2**16):
                data += chunk
                if len(data) > most:
                    raise BackendError(f"{url}: larger than {most} bytes")
                if time.monotonic() > ends:
                    raise TryLater(f"{url}: not here after {DEADLINE:.0f} s")
    except (URLError, HTTPException, OSError, ValueError) as error:
        why = getattr(error, "reason", None) or error
        raise TryLater(f"{url}: {why}") from None
    return bytes(data)
