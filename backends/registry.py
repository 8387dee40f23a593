"""Which module is which type of backend. Imported only when a configured backend is used."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from importlib import import_module

from backends.base import Backend, Connect, Setting
from backends.checks import Probe
from backends.errors import BackendError
from schemas.desired import BackendConfig
from schemas.location import Bucket

CONNECT = {
    "aws": "backends.aws.backend",
    "local": "backends.local.backend",
    "ssh": "backends.ssh.backend",
}
CATALOGED = frozenset({"aws"})
"""Types whose offers come from a catalog, so that nobody has to be asked (`backends.catalog.layers.SHIPPED`)."""


def regions(config: BackendConfig) -> Sequence[str]:
    """Every region of `config`, asked of its cloud; none for a type that has none. Raises `BackendError`."""
    module = import_module(CONNECT[config.type]) if config.type in CONNECT else None
    ask: Callable[[BackendConfig], Sequence[str]] | None = getattr(module, "regions", None)
    return ask(config) if ask is not None else ()


def connect(config: BackendConfig, region: str, setting: Setting) -> Backend:
    """The place of `config` in `region`. Raises `BackendError` for a type that does not work yet."""
    if config.type not in CONNECT:
        raise BackendError(f"backend type {config.type}: not supported yet; there is {', '.join(sorted(CONNECT))}")
    make: Connect = import_module(CONNECT[config.type]).connect
    return make(config, region, setting)


def probes(
    config: BackendConfig, regions: tuple[str, ...], setting: Setting, *, buckets: tuple[Bucket, ...]
) -> Iterator[Probe]:
    """What `dstack backend check` asks of it, in order."""
    if config.type == "aws":
        from backends.aws.checks import probes as of_aws

        yield from of_aws(config, project=setting.project, buckets=buckets, now=setting.now)
        return
    for region in regions or ("",):
        yield from _answers(config, region, setting)


def _answers(config: BackendConfig, region: str, setting: Setting) -> Iterator[Probe]:
    """Of a place that needs no permissions: who it is, what it has, what it could give."""
    from functools import cache

    from schemas.resources import Need, Where

    where = f"{region} " if region else ""
    place = cache(lambda: connect(config, region, setting))
    mend = "`dstack pool add-ssh` looks at it in detail" if config.type == "ssh" else "see the message"
    yield Probe(name=f"{where}identity", look=lambda: place().identity(), then=mend)
    yield Probe(name=f"{where}instances", look=lambda: f"{len(place().instances())} of this project", then=mend)
    yield Probe(
        name=f"{where}offers", look=lambda: f"{len(place().offers(Need(), Where(spot='auto')))} to be had", then=mend
    )
