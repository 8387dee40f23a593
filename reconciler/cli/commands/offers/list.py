"""`dstack offers`: list offers, cheapest first, or explain why there is none."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path

from msgspec.structs import replace

from reconciler.app.site import Site
from reconciler.app.stores import store_of
from reconciler.cli.commands.offers.rows import OfferQuery, browsed, row_of, show_offers
from reconciler.cli.commands.plan.approval import price_flag
from reconciler.cli.commands.plan.basis import stored_offers
from reconciler.cli.did_you_mean import near
from reconciler.cli.exits import Fail
from reconciler.cli.project import documents_of, project_root, site_of
from reconciler.cli.terminal.streams import out, say, show, width
from reconciler.config.options import BadOption, resolve_need
from reconciler.report.json import dump
from reconciler.report.offers import OfferRow, group_table, grouped, groups_json, offers_json
from reconciler.state.errors import StateRefused
from reconciler.store.objects.base import ObjectsError
from reconciler.system.process import OwnThreads, now
from reconciler.text.format import counted
from schemas.backend_types import TYPES
from schemas.desired import BackendConfig, Desired
from schemas.offer import Offer
from schemas.pool import Pool
from schemas.resources import Need, SpotPolicy, Where
from schemas.state import VERSION, State

MOST = 10
GROUPS = ("gpu", "region", "backend")
CATALOGED = tuple(one.name for one in TYPES.values() if one.offers == "catalog" and one.available)
"""Types whose offers anybody may see, without credentials and without a project."""


@dataclass(frozen=True, kw_only=True)
class OffersFlags:
    """As typed; what is "" or empty was not."""

    gpu: str | None = None
    cpu: str | None = None
    memory: str | None = None
    disk: str | None = None
    spot: SpotPolicy | None = None
    backends: tuple[str, ...] = ()
    regions: tuple[str, ...] = ()
    instance_types: tuple[str, ...] = ()
    max_price: str = ""
    most: int | None = None
    pool: str = ""
    group_by: str = ""
    as_json: bool = False
    refresh: bool = False


@dataclass(kw_only=True)
class _Basis:
    """The project, where there is one: its backends, limits, and what was lately refused."""

    site: Site
    desired: Desired
    state: State
    warnings: list[str] = field(default_factory=list)


def show_offer_list(flags: OffersFlags) -> int:
    """1 where nothing fits; then how many offers each thing that was asked left is on stderr."""
    if flags.group_by and flags.group_by not in GROUPS:
        raise Fail(f"--group-by {flags.group_by}: must be {', '.join(GROUPS[:-1])} or {GROUPS[-1]}")
    need = _need(flags)
    basis = _basis(flags.backends)
    basis.warnings += _refreshed(basis.desired, flags)
    offers = tuple(stored_offers(basis.site, basis.desired, basis.state))
    asked = OfferQuery(
        need=need,
        where=_where(flags, offers, basis.desired),
        pool=_pool(flags.pool, basis.desired),
        desired=basis.desired,
        now=now(),
    )
    found = browsed(asked, state=basis.state, offers=offers)
    rows = [row_of(one) for one in found.found]
    if flags.as_json:
        out(dump(_json(flags, rows, funnel=found.funnel, warnings=basis.warnings)))
        return 0 if rows else 1
    for why in basis.warnings:
        say(f"warning: {why}")
    if not rows:
        say(f"no offer fits: {found.funnel}{_hint(found.funnel, flags, basis.desired)}")
        return 1
    _show(flags, rows, moment=asked.now)
    return 0


def _refreshed(desired: Desired, flags: OffersFlags) -> list[str]:
    """A published list once a day in any case, and then without a word where it cannot be had."""
    from reconciler.cli.terminal.progress import Progress
    from reconciler.engine.refresh_catalog import freshen, refresh

    with Progress() as progress:
        asking = progress.asking
        if flags.refresh:
            return refresh(desired, os.environ, threads=OwnThreads(), now=now, regions=flags.regions, asking=asking)
        freshen(desired, os.environ, now=now(), asking=asking)
    return []


def _json(flags: OffersFlags, rows: Sequence[OfferRow], *, funnel: str, warnings: Sequence[str]) -> object:
    groups = groups_json(grouped(rows, by=flags.group_by), by=flags.group_by) if flags.group_by else ()
    some = () if groups else rows[: flags.most]
    return offers_json(some, total=len(rows), funnel=funnel, warnings=warnings, groups=groups)


def _show(flags: OffersFlags, rows: Sequence[OfferRow], *, moment: int) -> None:
    most = flags.most or MOST
    if flags.group_by:
        groups = grouped(rows, by=flags.group_by)
        show(group_table(groups[:most], by=flags.group_by, width=width(sys.stdout)))
        out(f"Shown {len(groups[:most])} of {counted(len(groups), 'group')}, of {counted(len(rows), 'offer')}\n")
    else:
        show_offers(rows, most=most, now=moment)
    if any(row.at_most for row in rows[:most]):
        say("≤: no spot price is known, it is never above on-demand; `dstack offers --refresh` asks for it")
    sys.stdout.flush()


def _hint(funnel: str, flags: OffersFlags, desired: Desired) -> str:
    """Where no cloud was asked, or only an unknown spot price was too high."""
    if not any(config.traits.offers == "catalog" for config in desired.backends):
        named = " or ".join(f"`--backend {one}`" for one in CATALOGED)
        return f"; the documents have no cloud: {named} shows what one has"
    asked, _, cheapest = funnel.rpartition(", the cheapest left out:")
    if "max_price" not in asked.rpartition("→ 0 ")[2] or " ≤ $" not in cheapest or flags.refresh:
        return ""
    return "; no spot price is known of it: `dstack offers --refresh` asks"


def _basis(backends: Sequence[str]) -> _Basis:
    """Outside of a project, and for a cloud that it does not declare: what anybody could have."""
    try:
        documents = documents_of(project_root())
    except Fail as error:
        if "no .dstack folder" not in str(error):
            raise
        desired, site = _anybodys(), Site(root=Path.cwd(), project="")
    else:
        desired, site = documents.desired, site_of(documents)
    state, why = _stored(site)
    return _Basis(
        site=site,
        desired=_with(desired, backends),
        warnings=[why] if why else [],
        state=state or State(version=VERSION, project=site.project, lineage=""),
    )


def _anybodys() -> Desired:
    return Desired(backends=tuple(BackendConfig(name=one, type=one) for one in CATALOGED))


def _stored(site: Site) -> tuple[State | None, str]:
    """What is on sale is no secret: whoever may not read the state is told what it cannot see of it."""
    if not site.project:
        return None, ""
    try:
        return store_of(site).read()[0], ""
    except (ObjectsError, StateRefused) as error:
        return None, f"{error}; the project's own servers, and what was lately refused, are not shown"


def _with(desired: Desired, backends: Sequence[str]) -> Desired:
    known = {config.name for config in desired.backends}
    more = tuple(BackendConfig(name=name, type=name) for name in backends if name in {*CATALOGED} - known)
    known |= {config.name for config in more}
    _known(backends, known, flag="--backend", what="backend")
    return replace(desired, backends=(*desired.backends, *more))


def _need(flags: OffersFlags) -> Need:
    try:
        return resolve_need(gpu=flags.gpu, cpu=flags.cpu, memory=flags.memory, disk=flags.disk)
    except BadOption as error:
        raise Fail(str(error)) from None


def _where(flags: OffersFlags, offers: Sequence[Offer], desired: Desired) -> Where:
    """Of the flags, else of the pool. A region or a type may be a pattern: `eu-*`, `p4*`."""
    base = _pool(flags.pool, desired).where if flags.pool else Where(spot="auto")
    price = price_flag(flags.max_price, flag="--max-price")
    regions = _matching(flags.regions, {one.region for one in offers}, flag="--region", what="region")
    types = _matching(
        flags.instance_types, {one.instance_type for one in offers}, flag="--instance-type", what="instance type"
    )
    return replace(
        base,
        backends=flags.backends or base.backends,
        regions=regions or base.regions,
        instance_types=types or base.instance_types,
        spot=flags.spot or base.spot,
        max_price=base.max_price if price is None else price,
    )


def _matching(asked: Iterable[str], known: set[str], *, flag: str, what: str) -> tuple[str, ...]:
    found: list[str] = []
    for pattern in asked:
        names = sorted(name for name in known if fnmatchcase(name, pattern)) if set("*?[") & set(pattern) else [pattern]
        _known(names or [pattern], known, flag=flag, what=what)
        found += names
    return tuple(dict.fromkeys(found))


def _known(names: Iterable[str], known: set[str], *, flag: str, what: str) -> None:
    known = known - {""}
    for name in names:
        if name not in known:
            meant = near(name, sorted(known), most=3)
            raise Fail(f"{flag} {name}: no such {what} is known here; {meant}")


def _pool(name: str, desired: Desired) -> Pool:
    if not name:
        return Pool(name="")
    _known([name], {pool.name for pool in desired.pools}, flag="--pool", what="pool")
    return next(pool for pool in desired.pools if pool.name == name)
