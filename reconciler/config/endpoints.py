"""Find backends whose endpoint must be confirmed before credentials are sent there. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from schemas.base import Value
from schemas.desired import Desired


class NewEndpoint(Value, frozen=True, kw_only=True):
    """An endpoint on another machine that must be confirmed before anything is sent to it."""

    backend: str
    old: str
    """The applied one. "": the vendor's own address, or a backend that is not applied yet."""
    new: str

    def __str__(self) -> str:
        change = f"endpoint {self.old or 'default'} → {self.new}"
        return f"backend {self.backend}: {change}; its credentials will be sent there"


def applied_endpoints(applied: Desired | None) -> dict[str, str]:
    """Backend -> its applied endpoint, of those that may be used."""
    configs = applied.backends if applied else ()
    return {one.name: one.endpoint for one in configs if one.endpoint and not one.withheld}


def new_endpoints(desired: Desired, applied: Mapping[str, str]) -> Iterator[NewEndpoint]:
    """Of the backends that are not used for that reason alone. `applied` is backend -> endpoint."""
    for one in desired.backends:
        if one.withheld and one.traits.available:
            yield NewEndpoint(backend=one.name, old=applied.get(one.name, ""), new=one.endpoint)
