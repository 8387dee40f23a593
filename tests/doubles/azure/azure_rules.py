"""What Azure takes, read from the installed official clients: routes, and the fields of a virtual machine."""

from __future__ import annotations

import inspect
import re
import typing
from collections.abc import Iterator
from functools import cache
from typing import Any

METHODS = ("GET", "PUT", "POST", "DELETE", "PATCH", "HEAD")
OPEN = {"vmSize"}  # its enum is of 2017, and any size is taken
FURTHER = (
    ("GET", r"/subscriptions/[^/]+"),
    ("GET", r"/subscriptions/[^/]+/locations"),
    ("GET", r"/subscriptions/[^/]+/resource[Gg]roups/[^/]+"),
    ("PUT", r"/subscriptions/[^/]+/resource[Gg]roups/[^/]+"),
    ("GET", r"/subscriptions/[^/]+/providers/Microsoft\.Compute/skus"),
    ("GET", r"/operations/[^/]+"),
)
"""Of clients that are not installed: Azure's documentation of Resource Manager."""


@cache
def routes() -> tuple[tuple[str, re.Pattern[str]], ...]:
    from azure.mgmt.compute.operations import _operations as compute
    from azure.mgmt.network.operations import _operations as network

    found = list(_routes(inspect.getsource(compute))) + list(_routes(inspect.getsource(network)))
    return (*found, *((method, re.compile(pattern)) for method, pattern in FURTHER))


def _routes(source: str) -> Iterator[tuple[str, re.Pattern[str]]]:
    for block in re.split(r"^def build_", source, flags=re.MULTILINE)[1:]:
        path = re.search(r"_url = \(?\s*((?:\"[^\"]*\"\s*)+)", block)
        method = re.search(r"method=\"([A-Z]+)\"", block)
        if path and method:
            text = "".join(re.findall(r"\"([^\"]*)\"", path[1]))
            parts = re.split(r"\{[^}]*\}", text)
            yield method[1], re.compile("[^/]+".join(re.escape(part) for part in parts), re.IGNORECASE)


def known_route(method: str, path: str) -> bool:
    return any(known == method and pattern.fullmatch(path) for known, pattern in routes())


def wrong_in_machine(body: Any) -> list[str]:
    """What the client's own model of a virtual machine does not have, or has otherwise."""
    from azure.mgmt.compute import models

    if "location" not in body:
        return ["location: missing"]
    return list(_wrong(body, models.VirtualMachine, at=""))


def _wrong(value: Any, kind: Any, *, at: str) -> Iterator[str]:
    origin, inner = typing.get_origin(kind), typing.get_args(kind)
    if kind is Any:
        return
    if origin is typing.Union:
        options = [one for one in inner if one is not type(None)]
        options = [one for one in options if hasattr(one, "__members__")] or options
        found = [list(_wrong(value, one, at=at)) for one in options]
        if all(found):
            yield from min(found, key=len)
    elif origin is list:
        if not isinstance(value, list):
            yield f"{at}: no list"
        else:
            for number, one in enumerate(value):
                yield from _wrong(one, inner[0], at=f"{at}[{number}]")
    elif origin is dict:
        for key, one in value.items():
            yield from _wrong(one, inner[1], at=f"{at}.{key}")
    elif str(getattr(kind, "__module__", "")).endswith("models._models"):
        yield from _wrong_model(value, kind, at=at)
    elif isinstance(kind, type) and issubclass(kind, str) and hasattr(kind, "__members__"):
        if at.rpartition(".")[2] not in OPEN and value not in [one.value for one in kind]:
            yield f"{at}: {value!r} is none of its values"
    elif kind is float:
        if not isinstance(value, int | float):
            yield f"{at}: {value!r} is no number"
    elif isinstance(kind, type) and kind in (str, int, bool) and type(value) is not kind:
        yield f"{at}: {value!r} is no {kind.__name__}"


def _wrong_model(value: Any, kind: Any, *, at: str) -> Iterator[str]:
    from azure.mgmt.compute import models

    if not isinstance(value, dict):
        yield f"{at}: no object"
        return
    made = kind({})  # fills its table of fields
    fields = {field._rest_name: (name, field) for name, field in made._attr_to_rest_field.items()}
    hints: dict[str, Any] = {}
    for base in reversed(kind.__mro__):
        for name, text in getattr(base, "__annotations__", {}).items():
            hints[name] = text
    space = {**vars(typing), **vars(models), "_models": models, "_types": None, "datetime": __import__("datetime")}
    for key, one in value.items():
        if key not in fields:
            yield f"{at}.{key}: there is no such field"
            continue
        name, field = fields[key]
        if field._visibility == ["read"]:
            yield f"{at}.{key}: read-only"
            continue
        hint = hints.get(name, Any)
        if isinstance(hint, str):
            hint = eval(hint, space)  # noqa: S307 - the client's own annotations
        if isinstance(hint, str | typing.ForwardRef):
            hint = Any
        yield from _wrong(one, _resolved(hint, space), at=f"{at}.{key}")


def _resolved(hint: Any, space: dict[str, Any]) -> Any:
    """With the names of models in place of their texts."""
    if isinstance(hint, typing.ForwardRef):
        return eval(hint.__forward_arg__, space)  # noqa: S307 - the client's own annotations
    inner = typing.get_args(hint)
    if not inner or typing.get_origin(hint) is typing.Literal:
        return hint
    made = tuple(_resolved(typing.ForwardRef(one) if isinstance(one, str) else one, space) for one in inner)
    origin = typing.get_origin(hint)
    return typing.Union[made] if origin is typing.Union else origin[made]  # noqa: UP007 - made at run time
