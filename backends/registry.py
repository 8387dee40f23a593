"""Which module is which type of backend. Imported only when a configured backend is used."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from importlib import import_module

from backends.base import Backend, BackendError, Connect, Setting
from schemas.desired import BackendConfig

CONNECT = {
    "aws": "backends.aws",
    "local": "backends.local",
    "ssh": "backends.ssh",
}
CATALOGED = frozenset({"aws"})
"""Types whose offers come from a catalog, so that nobody has to be asked (`backends.catalog_layers.SHIPPED`)."""


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
