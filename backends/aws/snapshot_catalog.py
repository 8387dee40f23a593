"""Make the shipped catalog: `python -m backends.aws.snapshot_catalog --prices FILE`.

From openly licensed package data only: moto's copy of EC2's instance types and of what each region offers, and the
price list of apache-libcloud (`FILE` is its `pricing.json`, or the wheel that has it).

That list was read off AWS's offer file, one row for each type and region whatever row came last: most are the price
of shared Linux machines, some 0 (a reservation's), some the 4-10 % dearer price of dedicated ones. Within a family
one region is dearer than another by the same factor for all sizes, so such rows are told apart and put right by
their family; what is so derived is marked.
"""

from __future__ import annotations

import argparse
import gzip
import json
import zipfile
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from importlib.metadata import version
from itertools import pairwise
from pathlib import Path
from typing import Any

import msgspec

from backends.aws.instance_types import type_of
from schemas.catalog import CATALOG_VERSION, Catalog, CatalogRegion, CatalogSource, CatalogType, flaw

SHIPPED = Path(__file__).with_name("catalog.json")
MICRO = 1_000_000
ALIKE = 0.004  # two rows of one factor differ by what prices are rounded to
DEDICATED = 0.16  # no dedicated machine costs more than that above a shared one
TURNS = 3
TWINS = ("us-east-1", "us-east-2", "us-west-2")  # AWS's oldest regions, all of one price list

Prices = dict[str, dict[str, float]]


def snapshot(*, types: Mapping[str, Any], offered: Mapping[str, Iterable[str]], prices: Mapping[str, Any],
             sources: tuple[CatalogSource, ...]) -> Catalog:  # fmt: skip
    """`types` by name as EC2 tells them, `offered` by region, `prices` as libcloud's file has them."""
    made = [kind for _, told in sorted(types.items()) if (kind := type_of(told)) is not None]
    rank = {kind.name: at for at, kind in enumerate(made)}
    known, derived = mended(prices["compute"]["ec2_linux"], offered)
    regions = {
        region: _region(sorted(rank[name] for name in set(names) if name in rank), made, region, known, derived)
        for region, names in sorted(offered.items())
    }
    catalog = Catalog(
        version=CATALOG_VERSION,
        name="snapshot",
        provider="aws",
        priced_at=int(prices["updated"]),
        sources=sources,
        types=tuple(made),
        regions=regions,
    )
    if why := flaw(catalog):
        raise SystemExit(f"not written: {why}")
    return catalog


def _region(
    here: list[int], types: list[CatalogType], region: str, known: Prices, derived: set[tuple[str, str]]
) -> CatalogRegion:
    names = [types[at].name for at in here]
    return CatalogRegion(
        types=tuple(here),
        on_demand=tuple(round(known.get(name, {}).get(region, 0) * MICRO) for name in names),
        derived=tuple(at for at, name in enumerate(names) if (name, region) in derived),
    )


# ---------------------------------------------------------------- rows that are not what they seem


def mended(listed: Prices, offered: Mapping[str, Iterable[str]]) -> tuple[Prices, set[tuple[str, str]]]:
    """type -> region -> $/h, and which (type, region) of them are derived from their family."""
    families: dict[str, Prices] = defaultdict(dict)
    for name, rows in listed.items():
        families[name.partition(".")[0]][name] = {region: price for region, price in rows.items() if price > 0}
    sold = {region: set(names) for region, names in offered.items()}
    known: Prices = {}
    derived: set[tuple[str, str]] = set()
    for family in families.values():
        factors = _factors(family)
        for name, rows in family.items():
            known[name] = dict(rows)
            base = _base(rows, factors)
            for region, factor in factors.items():
                if name in sold.get(region, ()) and not _agrees(rows.get(region, 0), base * factor):
                    known[name][region] = round(base * factor, 6)
                    derived.add((name, region))
    return {name: rows for name, rows in known.items() if rows}, derived


def _agrees(price: float, expected: float) -> bool:
    """A listed price stays, but where it is missing or looks dedicated."""
    return not expected or (price > 0 and not ALIKE < price / expected - 1 < DEDICATED)


def _factors(family: Prices) -> dict[str, float]:
    """region -> how much dearer than the reference region, where two types or more agree on it.

    First against the reference's own rows; then against what each type costs by then. Rows err upwards only, so
    that the second time the lowest factor that has support is the right one.
    """
    counts = Counter(region for rows in family.values() for region in rows)
    if not counts:
        return {}
    reference = max(counts, key=lambda region: (counts[region], region == "us-east-1", region))
    against = {name: rows[reference] for name, rows in family.items() if reference in rows}
    found = {region: factor for region in counts if (factor := _most_common(_ratios(family, region, against)))}
    for _ in range(TURNS):
        against = {name: base for name, rows in family.items() if (base := _base(rows, found))}
        found = {region: factor for region in counts if (factor := _lowest(_ratios(family, region, against)))}
    return found | _of_twins(found)


def _ratios(family: Prices, region: str, against: Mapping[str, float]) -> list[float]:
    return sorted(rows[region] / against[name] for name, rows in family.items() if region in rows and name in against)


def _of_twins(found: Mapping[str, float]) -> dict[str, float]:
    """Regions of one price list, where the family is too small to show it."""
    factor = min((found[region] for region in TWINS if region in found), default=1.0 if not found else 0.0)
    return {region: factor for region in TWINS if region not in found} if factor else {}


def _base(rows: Mapping[str, float], factors: Mapping[str, float]) -> float:
    """What it costs where the factor is 1: the lowest that two regions agree on, else the lowest; 0 is unknown."""
    levels = sorted(price / factors[region] for region, price in rows.items() if region in factors)
    agreed = (low for low, high in pairwise(levels) if high / low - 1 <= ALIKE)
    return next(agreed, levels[0] if levels else 0.0)


def _groups(ordered: list[float]) -> list[list[float]]:
    """Ratios that are alike; those that only one row has are no group."""
    groups = [[ratio for ratio in ordered[at:] if ratio / low - 1 <= ALIKE] for at, low in enumerate(ordered)]
    return [group for group in groups if len(group) > 1]


def _most_common(ordered: list[float]) -> float:
    best = max(_groups(ordered), key=len, default=[])
    return best[len(best) // 2] if best else 0.0


def _lowest(ordered: list[float]) -> float:
    """Of the lowest group with some support: a sixth of the rows."""
    supported = (group for group in _groups(ordered) if 6 * len(group) >= len(ordered))
    group = next(supported, [])
    return group[len(group) // 2] if group else 0.0


# ---------------------------------------------------------------- where the data lies


def _moto() -> tuple[Mapping[str, Any], dict[str, list[str]]]:
    import moto.ec2

    folder = Path(moto.ec2.__path__[0]) / "resources"
    offered = {
        file.name.partition(".")[0]: [row["InstanceType"] for row in _unzipped(file)]
        for file in (folder / "instance_type_offerings" / "region").glob("*.json.gz")
    }
    return _unzipped(folder / "instance_types.json.gz"), offered


def _unzipped(file: Path) -> Any:
    return json.loads(gzip.decompress(file.read_bytes()))


def _prices(file: Path) -> tuple[Any, str]:
    """The list, and the version of libcloud where the file is its wheel."""
    if file.suffix != ".whl":
        return json.loads(file.read_bytes()), ""
    with zipfile.ZipFile(file) as wheel:
        return json.loads(wheel.read("libcloud/data/pricing.json")), file.name.split("-")[1]


def main() -> None:
    parser = argparse.ArgumentParser(description="Make the catalog that is shipped with the package.")
    parser.add_argument("--prices", type=Path, required=True, help="libcloud's wheel, or its pricing.json")
    parser.add_argument("--out", type=Path, default=SHIPPED)
    asked = parser.parse_args()
    types, offered = _moto()
    prices, edition = _prices(asked.prices)
    sources = (
        CatalogSource(
            name="moto",
            version=version("moto"),
            licence="Apache-2.0",
            url="https://github.com/getmoto/moto",
            what="instance types, and which region offers them",
        ),
        CatalogSource(
            name="apache-libcloud",
            version=edition,
            licence="Apache-2.0",
            url="https://github.com/apache/libcloud",
            what="on-demand prices of Linux machines",
        ),
    )
    made = snapshot(types=types, offered=offered, prices=prices, sources=sources)
    asked.out.write_bytes(msgspec.json.encode(made) + b"\n")


if __name__ == "__main__":
    main()
