"""`Desired`: the documents, compiled: every value effective, ready to plan on and to remember."""

from __future__ import annotations

from typing import Any

from schemas.backend_type import BackendType
from schemas.backend_types import type_of
from schemas.base import Price, Seconds, Value
from schemas.pool import Pool
from schemas.profile import Profile
from schemas.run import RunSpec

COMPILER = "3"
"""Raise it with every change of what documents mean: those compiled before are then read again."""


class BackendConfig(Value, frozen=True, kw_only=True):
    """One entry of `backends`. `options` are its other keys, JSON-like, without secrets."""

    name: str
    type: str
    regions: tuple[str, ...] = ()
    options: dict[str, Any] = {}
    unsupported: tuple[str, ...] = ()

    @property
    def endpoint(self) -> str:
        """What replaces scheme, host and port of each of its addresses; "": the vendor's own."""
        return str(self.options.get("endpoint") or "")

    @property
    def traits(self) -> BackendType:
        """What its type is."""
        return type_of(self.type)

    @property
    def is_server(self) -> bool:
        """Whether it stands for a declared server: there before us, and never bought."""
        return self.traits.kind == "server"


class Cap(Value, frozen=True, kw_only=True):
    """An `autoscale` rule: at most `max` instances of a type in a region by purchase type.

    Without a `backend` or a `region` it counts those of all. An `instance_type` of "" is every one.
    """

    instance_type: str
    max: int
    backend: str = ""
    region: str = ""
    spot: bool = True


class Secret(Value, frozen=True, kw_only=True):
    """Where a secret's value is found at use: `env NAME`, `file PATH`, `command LINE`, `ssm NAME`."""

    name: str
    source: str
    reference: str


class Desired(Value, frozen=True, kw_only=True):
    """What the documents ask for. `project` is "" until one is minted.

    `ruled`: there is a list of autoscale rules, were it empty: spot instances are made only of the listed types.
    `autoscale_enabled` false forbids spot launches by rule but keeps the rules.
    `compiler` names the rules that compiled it, with the digest of the user's own profiles where there
    were any: the same documents under the same rules give the same value, so that they need not be read again.
    `hint`s (`warnings`) are contradictions found while compiling, each one sentence.
    """

    project: str = ""
    project_name: str = ""
    state: str = ""
    authority: str = ""
    backends: tuple[BackendConfig, ...] = ()
    pools: tuple[Pool, ...] = ()
    profiles: tuple[Profile, ...] = ()
    runs: tuple[RunSpec, ...] = ()
    caps: tuple[Cap, ...] = ()
    ruled: bool = False
    autoscale_enabled: bool = True
    secrets: tuple[Secret, ...] = ()
    authorized_keys: tuple[str, ...] = ()
    artifact_store: str = ""
    state_backend: str = ""
    """The backend whose credentials open the bucket of `state`, as written. "": the only one of that cloud."""
    artifact_backend: str = ""
    """The same of `artifact_store`."""
    keep: Seconds | None = None
    confirm_above: Price | None = None
    budget: Price | None = None
    requires: str = ""
    unsupported: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    compiler: str = ""
