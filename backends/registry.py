"""Import the module of a backend's type, as `TYPES` names it, only when such a backend is used.

A module has `connect`, and may have: `regions`, `probes` (backend check), `policy` (backend policy), `configure` (the
pieces of `dstack TYPE configure`), `parameter` (secrets that its accounts keep), `bucket_session` (its credentials, for
a state in a bucket), `access` (the programs of `connect`), `CATALOG` and `live_region` (offers).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from backends.base import Backend, Connect, Setting
from backends.checks import BackendCheck
from backends.errors import BackendError
from backends.scope import Kind, PolicyScope
from schemas.backend_types import TYPES, type_of
from schemas.desired import BackendConfig
from schemas.location import Bucket

if TYPE_CHECKING:
    from backends.catalog.offers import Layers
    from schemas.access import Access, Way
    from schemas.base import Seconds
    from schemas.catalog import LiveRegion
    from schemas.instance import Instance

Policy = Callable[[Kind, BackendConfig, PolicyScope], Mapping[str, Any]]


def _hook(type: str, name: str) -> Any:
    """What the module of that type has under that name, `None` where it has nothing; `BackendError` for no module."""
    traits = type_of(type)
    if not traits.available:
        there = ", ".join(sorted(one.name for one in TYPES.values() if one.available))
        raise BackendError(f"backend type {type}: not supported yet; there is {there}")
    return getattr(import_module(traits.module), name, None)


def _used(config: BackendConfig) -> str:
    """Its type. Raises `BackendError` where nothing may be sent to its endpoint."""
    if config.withheld:
        raise BackendError(f"{config.name}: nothing is sent to {config.endpoint}: {config.withheld}")
    return config.type


def connect(config: BackendConfig, region: str, setting: Setting) -> Backend:
    """The place of `config` in `region`. Raises `BackendError` for a type that does not work yet."""
    make: Connect = _hook(_used(config), "connect")
    return make(config, region, setting)


def regions(config: BackendConfig) -> Sequence[str]:
    """Every region of `config`, asked of its cloud; none for a type that has none. Raises `BackendError`."""
    if not config.traits.available:
        return ()
    ask: Callable[[BackendConfig], Sequence[str]] | None = _hook(_used(config), "regions")
    return ask(config) if ask is not None else ()


def policy_of(type: str) -> Policy | None:
    """What makes the least-privilege policies of that type; `None` where it has none."""
    found: Policy | None = _hook(type, "policy") if type_of(type).available else None
    return found


def configure_of(type: str) -> Any:
    """The pieces of `dstack TYPE configure`. Raises `BackendError` where that type has none."""
    found = _hook(type, "configure")
    if found is None:
        raise BackendError(f"backend type {type}: nothing configures it; declare it under `backends`")
    return found()


def parameter(kind: str, name: str, backends: Iterable[BackendConfig]) -> str:
    """The value that the account of the first backend keeps that has parameters of that kind. `BackendError`."""
    config = next((one for one in backends if kind in one.traits.parameters), None)
    if config is None:
        raise BackendError(f"no backend is declared whose account keeps parameters of {kind}")
    ask: Callable[[BackendConfig, str, str], str] = _hook(_used(config), "parameter")
    return ask(config, kind, name)


def access(way: Way, instance: Instance) -> Access:
    """The program that leads to an instance by `connect: NAME`. Raises `BackendError` where no type has that name."""
    type = next((one.name for one in TYPES.values() if one.available and way.name in one.access), "")
    if not type:
        raise BackendError(f"no backend can be reached by `connect: {way.name}`")
    make: Callable[[Way, Instance], Access] = _hook(type, "access")
    return make(way, instance)


def bucket_session(config: BackendConfig) -> Any:
    """The session of the vendor's SDK that opens buckets with the credentials of `config`. Raises `BackendError`."""
    make: Callable[[BackendConfig], Any] | None = _hook(_used(config), "bucket_session")
    if make is None:
        raise BackendError(f"backend {config.name}: credentials of type {config.type} open no bucket")
    return make(config)


def catalog_of(type: str) -> Path:
    """The file of prices that is shipped for a type whose offers come from a catalog."""
    found: Path = _hook(type, "CATALOG")
    return found


def live_region(config: BackendConfig, region: str, layers: Layers, *, now: Seconds) -> LiveRegion:
    """What the region of a cataloged cloud says that it sells now. Raises `BackendError`."""
    ask: Callable[..., LiveRegion] = _hook(_used(config), "live_region")
    return ask(config, region, layers, now=now)


def probes(
    config: BackendConfig, regions: tuple[str, ...], setting: Setting, *, buckets: tuple[Bucket, ...]
) -> Iterator[BackendCheck]:
    """What `dstack backend check` asks of it, in order."""
    if config.withheld:
        yield BackendCheck(name="endpoint", look=lambda: _used(config), then="`dstack apply` shows it and asks")
        return
    own: Callable[..., Iterator[BackendCheck]] | None
    own = _hook(config.type, "probes") if config.traits.available else None
    if own is not None:
        yield from own(config, regions, setting, buckets=buckets)
        return
    for region in regions or ("",):
        yield from _answers(config, region, setting)


def _answers(config: BackendConfig, region: str, setting: Setting) -> Iterator[BackendCheck]:
    """Of a place that needs no permissions: who it is, what it has, what it could give."""
    from functools import cache

    from schemas.resources import Where

    where = f"{region} " if region else ""
    place = cache(lambda: connect(config, region, setting))
    mend = "`dstack pool add-ssh` looks at it in detail" if config.is_server else "see the message"
    yield BackendCheck(name=f"{where}identity", look=lambda: place().identity(), then=mend)
    yield BackendCheck(name=f"{where}instances", look=lambda: f"{len(place().instances())} of this project", then=mend)
    yield BackendCheck(
        name=f"{where}offers", look=lambda: f"{len(place().offers((), Where(spot='auto')))} to be had", then=mend
    )
