"""Pools."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from schemas.backend_types import TYPES
from schemas.documents.profile import TAGS, RetryKey, SpotPolicy
from schemas.documents.resources import Resources
from schemas.documents.scalars import (
    HOST_NAME_SHAPE,
    NAME_SHAPE,
    Flag,
    HostName,
    KeyPath,
    Login,
    Money,
    Name,
    Names,
    Port,
    Positive,
    Text,
    Texts,
    string,
    whole,
)
from schemas.documents.shape import Form, Schema, Shape, Wrong, each, form, inlined, kind_of, one_of
from schemas.documents.span import COUNT_SPAN_SCHEMA, Duration, OffDuration, Size, count_span
from schemas.host import fingerprint

Nodes = tuple[int, int | None, int | None]


class NodesForm(Form):
    min: Annotated[int, whole(0, 100_000)] | None = None
    target: Annotated[int, whole(0, 100_000)] | None = None
    max: Annotated[int, whole(0, 100_000)] | None = None


def read_nodes(value: Any) -> Nodes:
    """(min, target, max): `2` holds 2, `0..4` grows for runs, `{min, target, max}`."""
    if isinstance(value, dict):
        asked = form(NodesForm, value)
        low, target, high = asked.min or 0, asked.target, asked.max
    else:
        span = count_span(value)
        fixed = isinstance(value, int | float) or ".." not in str(value)
        low, high = span.min or 0, span.max
        target = span.max if fixed else None
    _in_order(low, target, high)
    return low, target, high


def _in_order(low: int, target: int | None, high: int | None) -> None:
    if high is not None and high < low:
        raise Wrong(f"the maximum {high} is below the minimum {low}")
    if target is not None and (target < low or (high is not None and target > high)):
        raise Wrong(f"the target {target} is outside of {low}..{'' if high is None else high}")


def _nodes_schema() -> Schema:
    number, string, _ = COUNT_SPAN_SCHEMA["anyOf"]
    return {"anyOf": [number, string, inlined(NodesForm)]}


class BudgetForm(Form):
    max_hourly: Money


def _host_key(value: Any) -> str:
    """As `ssh-keyscan` prints it, with or without a comment."""
    key = " ".join(string(value).split()[:2])
    try:
        fingerprint(key)
    except ValueError:
        raise Wrong("is no host key: `ssh-ed25519 AAAA…`, as `ssh-keyscan HOST` prints it behind the name") from None
    return key


HostKey = Annotated[str, Shape(_host_key, {"type": "string"})]


class ProxyForm(Form):
    hostname: HostName
    port: Port | None = None
    user: Login | None = None
    identity_file: KeyPath | None = None
    host_key: HostKey | None = None


def _proxy(value: Any) -> tuple[ProxyForm, ...]:
    """One jump, or several, the nearest to us first."""
    if isinstance(value, list):
        jumps: tuple[ProxyForm, ...] = PROXIES.read(value)
        return jumps
    return (form(ProxyForm, value),)


PROXIES = each(lambda value: form(ProxyForm, value), lambda: inlined(ProxyForm), least=1)
PROXY = Shape(_proxy, lambda: {"anyOf": [inlined(ProxyForm), PROXIES.schema()]})  # type: ignore[operator]


def _blocks(value: Any) -> int:
    """`auto` is 0."""
    read: int = 0 if value == "auto" else whole(1, 1000).read(value)
    return read


BLOCKS = Shape(_blocks, {"anyOf": [{"const": "auto"}, *whole(1, 1000).schema["anyOf"]]})  # type: ignore[index]


def _network(value: Any) -> str:
    import ipaddress

    network = string(value)
    try:
        ipaddress.ip_network(network, strict=False)
    except ValueError:
        raise Wrong(f"{kind_of(value)} is not a network: such as `10.0.0.0/24`") from None
    return network


NETWORK = Shape(_network, {"type": "string"})


class HostForm(Form):
    hostname: HostName
    port: Port | None = None
    user: Login | None = None
    identity_file: KeyPath | None = None
    host_key: HostKey | None = None
    proxy_jump: Annotated[tuple[ProxyForm, ...], PROXY] | None = None
    network: Annotated[str, NETWORK] | None = None
    internal_ip: HostName | None = None
    name: Annotated[str, NAME_SHAPE] | None = None
    region: Text | None = None
    price: Money | None = None
    blocks: Annotated[int, BLOCKS] | None = None


def _host(value: Any) -> Any:
    return form(HostForm, value) if isinstance(value, dict) else HOST_NAME_SHAPE.read(string(value))


def _host_schema() -> Schema:
    name, _, _ = HOST_NAME_SHAPE.schema["anyOf"]  # type: ignore[index]
    return {"anyOf": [name, inlined(HostForm)]}


class SshForm(Form):
    """Hosts that are there already."""

    user: Login | None = None
    port: Port | None = None
    identity_file: KeyPath | None = None
    proxy_jump: Annotated[tuple[ProxyForm, ...], PROXY] | None = None
    hosts: Annotated[tuple[Any, ...], each(_host, _host_schema, least=1)]
    network: Annotated[str, NETWORK] | None = None
    region: Text | None = None


PROGRAMS = tuple(dict.fromkeys(name for one in TYPES.values() for name in one.access))
"""Names of the programs by which instances can be reached, of every type of backend."""


def _connect(value: Any) -> dict[str, Any]:
    """A `schemas.access.Way`, JSON-like."""
    if isinstance(value, dict):
        if set(value) != {"jump"}:
            raise Wrong(f"is {', '.join(f'`{name}`' for name in ('direct', *PROGRAMS))} or `{{jump: {{hostname: …}}}}`")
        try:
            given = form(ProxyForm, value["jump"]).model_dump()
        except Wrong as wrong:
            raise Wrong("", found=[(("jump", *path), message) for path, message in wrong.found]) from wrong
        return {"mode": "jump", "jump": {key: item for key, item in given.items() if item is not None}}
    name: str = one_of("direct", *PROGRAMS, what="a way to connect").read(value)
    return {"mode": "direct"} if name == "direct" else {"mode": "program", "name": name}


def _connect_schema() -> Schema:
    jump = {"type": "object", "properties": {"jump": inlined(ProxyForm)}, "required": ["jump"]}
    return {"anyOf": [{"enum": ["direct", *PROGRAMS]}, {**jump, "additionalProperties": False}]}


CONNECT = Shape(_connect, _connect_schema)


class PoolForm(Form):
    """A named set of instances."""

    name: Name
    formerly: Names | None = None
    default: Flag | None = None
    profile: Text | None = None
    nodes: Annotated[Nodes, Shape(read_nodes, _nodes_schema)] | None = None
    resources: Resources | None = None
    backends: Texts | None = None
    regions: Texts | None = None
    availability_zones: Texts | None = None
    instance_types: Texts | None = None
    spot_policy: SpotPolicy | None = None
    max_price: Positive | None = None
    idle_duration: OffDuration | None = None
    retry: RetryKey | None = None
    reservation: Text | None = None
    placement: Annotated[Literal["any", "cluster"], one_of("any", "cluster", what="a placement")] | None = None
    blocks: Annotated[int, BLOCKS] | None = None
    tags: Annotated[tuple[tuple[str, str], ...], TAGS] | None = None
    ssh: Annotated[SshForm, Shape(lambda value: form(SshForm, value), lambda: inlined(SshForm))] | None = None
    connect: Annotated[dict[str, Any], CONNECT] | None = None
    max_lifetime: OffDuration | None = None
    hold: Duration | None = None
    unattended: OffDuration | None = None
    unreachable_grace: Duration | None = None
    budget: Annotated[BudgetForm, Shape(lambda value: form(BudgetForm, value), lambda: inlined(BudgetForm))] | None = (
        None
    )
    paused: Flag | None = None
    prevent_destroy: Flag | None = None
    allow_foreign: Flag | None = None
    default_image: Text | None = None
    isolation: (
        Annotated[Literal["process", "container"], one_of("process", "container", what="an isolation")] | None
    ) = None
    disk_floor: Size | None = None
    self_termination: (
        Annotated[Literal["required", "preferred"], one_of("required", "preferred", what="a rule of self-termination")]
        | None
    ) = None
