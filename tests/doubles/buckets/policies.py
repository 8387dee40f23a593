"""The rights that docs/shared-state.md gives, read from it, and servers that let nobody do more.

A request that is none of those known here is an error: what it takes must be looked up first.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import yaml

from tests.doubles.buckets.fault_proxy import FaultProxy

PAGE = (Path(__file__).parents[3] / "docs/shared-state.md").read_text()
BUCKET, PREFIX = "team-states", "prod"


def blocks(heading: str, language: str) -> list[str]:
    """The fenced blocks below a heading of the page."""
    section = PAGE.split(f"\n{heading}\n", 1)[1]
    section = re.split(r"\n##", section, maxsplit=1)[0]
    return re.findall(rf"```{language}\n(.*?)```", section, re.S)


@dataclass(frozen=True)
class Asked:
    """What a request takes: an action on a resource. `context` is what conditions may look at."""

    action: str
    resource: str
    context: Mapping[str, str] = field(default_factory=dict)


Allows = Callable[[Asked], bool]
Shape = Callable[[str, str, Mapping[str, str]], Iterator[Asked]]


# ---------------------------------------------------------------- what each cloud calls a request


def s3_asked(method: str, path: str, headers: Mapping[str, str]) -> Iterator[Asked]:
    url = urlsplit(path)
    query = {name: values[0] for name, values in parse_qs(url.query, keep_blank_values=True).items()}
    bucket, _, key = unquote(url.path).lstrip("/").partition("/")
    listed = f"arn:aws:s3:::{bucket}"
    if not key:
        if (method, list(query)) == ("POST", ["delete"]):
            for name in headers["x-deleted"].split("\n"):
                yield Asked("s3:DeleteObject", f"{listed}/{name}")
            return
        prefix = {"s3:prefix": query["prefix"]} if "prefix" in query else {}
        assert method == "GET", (method, path)
        yield Asked("s3:ListBucketVersions" if "versions" in query else "s3:ListBucket", listed, prefix)
        return
    assert not {"uploads", "uploadId", "acl", "tagging"} & query.keys(), path
    action = {
        "GET": "s3:GetObjectVersion" if "versionId" in query else "s3:GetObject",
        "HEAD": "s3:GetObject", "PUT": "s3:PutObject", "DELETE": "s3:DeleteObject",
    }[method]  # fmt: skip
    conditions = {f"s3:{name}": headers[name] for name in ("if-match", "if-none-match") if name in headers}
    yield Asked(action, f"{listed}/{key}", conditions)


def google_asked(method: str, path: str, headers: Mapping[str, str]) -> Iterator[Asked]:
    url = urlsplit(path)
    query = {name: values[0] for name, values in parse_qs(url.query).items()}
    found = re.fullmatch(r"/(?:(?:upload|download)/)?storage/v1/b/([^/]+)/o(?:/([^/]+))?", url.path)
    assert found, f"{method} {path}: asks for something else than objects"
    bucket, key = f"projects/_/buckets/{found[1]}", unquote(found[2] or "")
    if method == "GET" and not key:
        prefix = {"storage.googleapis.com/objectListPrefix": query.get("prefix", "")}
        yield Asked("storage.objects.list", bucket, prefix)
    elif method == "POST":
        name = query["name"] if "name" in query else headers["x-object"]
        yield Asked("storage.objects.create", f"{bucket}/objects/{name}")
        if query.get("ifGenerationMatch") != "0":
            yield Asked("storage.objects.delete", f"{bucket}/objects/{name}")
    else:
        action = {"GET": "storage.objects.get", "DELETE": "storage.objects.delete"}[method]
        yield Asked(action, f"{bucket}/objects/{key}")


def azure_asked(method: str, path: str, headers: Mapping[str, str]) -> Iterator[Asked]:
    url = urlsplit(path)
    query = {name: values[0] for name, values in parse_qs(url.query).items()}
    _, container, key = [*unquote(url.path).lstrip("/").split("/", 2), "", ""][:3]
    if (method, query.get("comp")) == ("POST", "batch"):
        for each in headers["x-deleted"].split("\n"):
            yield from azure_asked("DELETE", each, {})
        return
    if not key:
        assert (method, query.get("restype"), query.get("comp")) == ("GET", "container", "list"), (method, path)
    assert "comp" not in query or not key, path
    what = {"GET": "read", "HEAD": "read", "PUT": "write", "DELETE": "delete"}[method]
    yield Asked(f"Microsoft.Storage/storageAccounts/blobServices/containers/blobs/{what}", f"{container}/{key}")


# ---------------------------------------------------------------- what a page's rights allow


def aws_allows(*policies: str) -> Allows:
    """Denied where a statement denies it or none allows it. Conditions that nobody wrote here yet are an error."""
    statements = [one for policy in policies for one in json.loads(policy)["Statement"]]

    def allows(asked: Asked) -> bool:
        effects = {one["Effect"] for one in statements if _speaks_of(one, asked)}
        return effects == {"Allow"}

    return allows


def _speaks_of(statement: dict[str, Any], asked: Asked) -> bool:
    assert set(statement) <= {"Sid", "Effect", "Principal", "Action", "Resource", "Condition"}, statement
    named = all(
        any(fnmatchcase(value, pattern) for pattern in _listed(statement[key]))
        for key, value in (("Action", asked.action), ("Resource", asked.resource))
    )
    return named and all(
        _holds(kind, key, _listed(values), asked.context)
        for kind, tests in statement.get("Condition", {}).items()
        for key, values in tests.items()
    )


def _holds(kind: str, key: str, values: list[str], context: Mapping[str, str]) -> bool:
    if kind == "Null":
        return (key not in context) == (values == ["true"])
    assert kind == "StringLike", kind
    return key in context and any(fnmatchcase(context[key], value) for value in values)


def _listed(value: str | list[str]) -> list[str]:
    return [value] if isinstance(value, str) else value


def google_allows(role: str, condition: str, *, without: tuple[str, ...] = ()) -> Allows:
    permissions = set(yaml.safe_load(role)["includedPermissions"]) - set(without)
    starts = re.fullmatch(
        r'resource\.name\.startsWith\("([^"]+)"\) \|\|\s+'
        r'api\.getAttribute\("([^"]+)", ""\)\.startsWith\("([^"]+)"\)\s*',
        condition,
    )
    assert starts, "a condition of another form: teach it to this test"
    name, attribute, prefix = starts.groups()

    def allows(asked: Asked) -> bool:
        holds = asked.resource.startswith(name) or asked.context.get(attribute, "").startswith(prefix)
        return asked.action in permissions and holds

    return allows


def azure_allows(role: str, *, only: str = "") -> Allows:
    actions = [one for one in json.loads(role)["DataActions"] if only in one]
    return lambda asked: asked.action in actions and asked.resource.startswith(f"{BUCKET}/")


# ---------------------------------------------------------------- a server that lets nobody do more


class Enforcing(FaultProxy):
    """`allows` decides about each request; `denied` and `allowed` are what it said.

    As S3 and Google do it, what is not there is denied, not missing, to whoever may not list all of the bucket.
    """

    def __init__(self, upstream: int, *, shape: Shape, allows: Allows) -> None:
        self.shape, self.allows = shape, allows
        self.denied: list[Asked] = []
        self.allowed: list[Asked] = []
        super().__init__(upstream)

    def answer(self, method: str, path: str, head: bytes, body: bytes) -> bytes:
        if method == "HEAD" and path == "/":
            return super().answer(method, path, head, body)
        asked = list(self.shape(method, path, _headers(head, body)))
        refused = [one for one in asked if not self.allows(one)]
        self.denied += refused
        if refused:
            return FORBIDDEN[self.shape](method)
        self.allowed += asked
        answer = super().answer(method, path, head.replace(b"versions=True", b"versions=true"), body)
        missing = b" 404 " in answer.split(b"\r\n", 1)[0] and method in ("GET", "HEAD", "DELETE")
        return FORBIDDEN[self.shape](method) if missing and self.shape is not azure_asked else answer


def _headers(head: bytes, body: bytes) -> dict[str, str]:
    """And what the body names."""
    lines = (line.partition(b":") for line in head.split(b"\r\n")[1:])
    found = {name.decode().lower(): value.decode("latin1").strip() for name, _, value in lines if name}
    named = re.search(rb'"name": ?"([^"]+)"', body[:2000])
    deleted = b"\n".join(s3 or azure for s3, azure in re.findall(rb"<Key>([^<]*)</Key>|^DELETE (\S+) HTTP", body, re.M))
    told = {"x-object": named[1].decode()} if named else {}
    return {**found, **told, **({"x-deleted": deleted.decode()} if deleted else {})}


def _xml(method: str) -> bytes:
    said = b"<Error><Code>AccessDenied</Code><Message>Access Denied</Message></Error>" if method != "HEAD" else b""
    return b"HTTP/1.1 403 Forbidden\r\nContent-Length: %d\r\n\r\n%s" % (len(said), said)


def _json(method: str) -> bytes:
    said = b'{"error":{"code":403,"message":"does not have storage.objects access"}}'
    head = b"HTTP/1.1 403 Forbidden\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"
    return head % len(said) + said


FORBIDDEN: dict[Shape, Callable[[str], bytes]] = {s3_asked: _xml, google_asked: _json, azure_asked: _xml}
