"""A document: the keys that any file of `.dstack` may hold, but pools, profiles, runs and backends."""

from __future__ import annotations

import re
from typing import Annotated, Any

from schemas.documents.scalars import TEXT_SCHEMA, FilledText, Flag, Money, ProjectId, Text, matching, text, whole
from schemas.documents.shape import Form, Shape, Wrong, each, form, inlined, kind_of
from schemas.documents.span import DURATION_SCHEMA, duration
from schemas.location import Bucket, location

# What `packaging` reads, less what nobody needs here: `~=1` says nothing, so it wants two numbers.
REQUIRES = r"\s*(?:(?:>=|<=|==|!=|<|>)\s*[0-9]+(?:\.[0-9]+){0,3}|~=\s*[0-9]+(?:\.[0-9]+){1,3})\s*"
PROJECT_NAME = matching(r"[A-Za-z0-9][A-Za-z0-9 ._-]{0,99}", what="a project's name: letters, digits, space, . _ -")


class ProjectForm(Form):
    name: Annotated[str, PROJECT_NAME] | None = None
    id: ProjectId | None = None


class CapForm(Form):
    """At most `max` instances of a type, in a region, by purchase type."""

    instance_type: FilledText
    max: Annotated[int, whole(0, 100_000)]
    backend: Text | None = None
    region: Text | None = None
    spot: Flag | None = None


class AutoscaleForm(Form):
    enabled: Flag | None = None
    rules: (
        Annotated[
            tuple[CapForm, ...], Shape(lambda value: caps(value), lambda: {"type": "array", "items": inlined(CapForm)})
        ]
        | None
    ) = None


def caps(value: Any) -> tuple[CapForm, ...]:
    if not isinstance(value, list | tuple):
        raise Wrong(f"should be a list of rules, not {kind_of(value)}")
    found: list[tuple[tuple[str | int, ...], str]] = []
    read: list[CapForm] = []
    for index, item in enumerate(value):
        try:
            read.append(form(CapForm, item))
        except Wrong as wrong:
            found += [((index, *path), message) for path, message in wrong.found]
    if found:
        raise Wrong("", found=found)
    return tuple(read)


def autoscale(value: Any) -> AutoscaleForm:
    """`{enabled, rules}`, or the rules alone."""
    return form(AutoscaleForm, {"rules": value} if isinstance(value, list) else value)


class SecretForm(Form):
    """Where a secret is found: exactly one."""

    env: Text | None = None
    file: Text | None = None
    command: Text | None = None
    ssm: Text | None = None


def secrets(value: Any) -> tuple[tuple[str, str, str], ...]:
    """(name, source, reference) of each."""
    if not isinstance(value, dict):
        raise Wrong(f"should be a mapping of names, not {kind_of(value)}")
    found: list[tuple[tuple[str | int, ...], str]] = []
    read = []
    for name, item in value.items():
        try:
            read.append((_secret_name(name), *_secret(item)))
        except Wrong as wrong:
            found += [((name, *path), message) for path, message in wrong.found]
    if found:
        raise Wrong("", found=found)
    return tuple(read)


def _secret_name(name: str) -> str:
    if re.fullmatch("[A-Za-z_][A-Za-z0-9_]*", name):
        return name
    raise Wrong(f"`{name}` cannot name a secret: letters, digits and _")


def _secret(item: Any) -> tuple[str, str]:
    if isinstance(item, str):
        raise Wrong(
            "a secret's value is not written here, but where it is found: `{env: NAME}`, `{file: PATH}`, "
            "`{command: …}` or `{ssm: NAME}`"
        )
    given = [(source, text) for source, text in form(SecretForm, item) if text is not None]
    if len(given) != 1:
        raise Wrong("exactly one of `env`, `file`, `command` and `ssm` says where it is found")
    source, text = given[0]
    return source, str(text)


def _secrets_schema() -> dict[str, Any]:
    one = [
        {"required": [source], "properties": {source: {"type": ["string", "number", "boolean"]}}}
        for source in ("env", "file", "command", "ssm")
    ]
    return {
        "type": "object",
        "propertyNames": {"pattern": "^[A-Za-z_][A-Za-z0-9_]*$"},
        "additionalProperties": {**inlined(SecretForm), "oneOf": one},
    }


def requires(value: Any) -> str:
    """`>=0.4,<0.5`."""
    if isinstance(value, str) and all(re.fullmatch(REQUIRES, part) for part in value.split(",")):
        return value.replace(" ", "")
    raise Wrong(f"{kind_of(value)} is not a version requirement: such as `>=0.4,<0.5`")


PUBLIC_KEY = r"(sk-)?(ssh|ecdsa)-[a-z0-9@.-]+ [A-Za-z0-9+/]+=*( [^\x00-\x1f\x7f]*)?"
PUBLIC_KEY_SCHEMA: dict[str, Any] = {"type": "string", "pattern": f"^{PUBLIC_KEY}$"}


def public_key(value: Any) -> str:
    """One line of an `authorized_keys`, without options."""
    written = text(value).strip()
    if not re.fullmatch(PUBLIC_KEY, written):
        secret = "PRIVATE KEY" in written
        raise Wrong(
            "is a private key: remove it from the documents, and make another one"
            if secret
            else f"{kind_of(value)} is no public key: `ssh-ed25519 AAAA… NAME`, as in `~/.ssh/id_ed25519.pub`"
        )
    return written


class ProjectBudgetForm(Form):
    max_hourly: Money


def budget(value: Any) -> Any:
    return form(ProjectBudgetForm, value).max_hourly


def place(value: Any) -> str:
    """Where a state or artifacts lie: a folder, or a prefix in a bucket."""
    written = text(value)
    try:
        location(written)
    except ValueError as error:
        raise Wrong(str(error)) from None
    return written


class StoreForm(Form):
    """Where a state or artifacts lie, and whose credentials open it."""

    url: Annotated[str, Shape(place, TEXT_SCHEMA)]
    backend: Text | None = None


def store(value: Any) -> StoreForm:
    """A URL or a folder alone, or `{url, backend}`."""
    if isinstance(value, dict):
        read = form(StoreForm, value)
        if read.backend and not isinstance(location(read.url), Bucket):
            raise Wrong("a folder needs no credentials: only a bucket has a backend", "backend")
        return read
    return StoreForm.model_construct(url=place(value), backend=None)


Store = Annotated[StoreForm, Shape(store, lambda: {"anyOf": [dict(TEXT_SCHEMA), inlined(StoreForm)]})]


class SingleKeys(Form):
    """Keys that a project says once, in whichever file."""

    project: (
        Annotated[ProjectForm, Shape(lambda value: form(ProjectForm, value), lambda: inlined(ProjectForm))] | None
    ) = None
    state: Store | None = None
    authority: Text | None = None
    autoscale: (
        Annotated[
            AutoscaleForm,
            Shape(
                lambda value: autoscale(value),
                lambda: {"anyOf": [{"type": "array", "items": inlined(CapForm)}, inlined(AutoscaleForm)]},
            ),
        ]
        | None
    ) = None
    secrets: (
        Annotated[tuple[tuple[str, str, str], ...], Shape(lambda value: secrets(value), _secrets_schema)] | None
    ) = None
    authorized_keys: Annotated[tuple[str, ...], each(public_key, lambda: PUBLIC_KEY_SCHEMA)] | None = None
    artifact_store: Store | None = None
    keep: Annotated[int, Shape(lambda value: duration(value), DURATION_SCHEMA)] | None = None
    confirm_above: Money | None = None
    budget: Annotated[Any, Shape(lambda value: budget(value), lambda: inlined(ProjectBudgetForm))] | None = None
    requires: (
        Annotated[
            str, Shape(lambda value: requires(value), {"type": "string", "pattern": f"^{REQUIRES}(,{REQUIRES})*$"})
        ]
        | None
    ) = None


LISTS = ("backends", "pools", "profiles", "runs")
MERGED = ("authorized_keys", "secrets")
"""Singles that may stand in several files: lists concatenate, mappings join (a name once)."""
DOCUMENT_KEYS = (*SingleKeys.model_fields, *LISTS)
