"""Buckets that keep versions, before servers that keep none or tell of them in another way than the cloud does."""

from __future__ import annotations

import base64
import re
import time
from email.utils import formatdate
from urllib.parse import parse_qs, unquote, urlsplit
from xml.sax.saxutils import escape

from tests.doubles.buckets.fault_proxy import FaultProxy

LEAST = "2019-12-12"  # the version of Azure's interface that brought versions of blobs


class GoogleVersions(FaultProxy):
    """fake-gcs-server keeps versions, and takes `versions=true` alone; the client says `True`, which Google takes."""

    def answer(self, method: str, path: str, head: bytes, body: bytes) -> bytes:
        return super().answer(method, path, head.replace(b"versions=True", b"versions=true"), body)


class AzureVersions(FaultProxy):
    """azurite keeps none. What is put through it gets a version, by Azure's own words for the requests about them.

    Strict: a request of an older interface, without an authorization, or for a version that never was, is refused.
    """

    def __post_init__(self) -> None:
        self.kept: dict[str, list[tuple[str, bytes]]] = {}
        super().__post_init__()

    def answer(self, method: str, path: str, head: bytes, body: bytes) -> bytes:
        url = urlsplit(path)
        asked, key = parse_qs(url.query), unquote(url.path).split("/", 3)[-1]
        versions = "versionid" in asked or "versions" in asked.get("include", [""])[0].split(",")
        if versions and (why := _refused(head)):
            return _said(400, _error(why))
        if "versionid" in asked:
            found = next((data for id, data in self.kept.get(key, []) if id == asked["versionid"][0]), None)
            return _said(404, _error("BlobNotFound")) if found is None else _part(found, head)
        if versions:
            return _said(200, self._listed(asked["prefix"][0]))
        answer = super().answer(method, path, head, body)
        if method == "PUT" and "comp" not in asked and b" 201 " in answer.split(b"\r\n")[0]:
            moment = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime()) + f".{time.time_ns() % 10**9 // 100:07d}Z"
            self.kept.setdefault(key, []).append((moment, body))
        return answer

    def _listed(self, prefix: str) -> bytes:
        blobs = "".join(
            f"<Blob><Name>{escape(key)}</Name><VersionId>{id}</VersionId>"
            + ("<IsCurrentVersion>true</IsCurrentVersion>" if (id, data) == kept[-1] else "")
            + f"<Properties><Last-Modified>{formatdate(usegmt=True)}</Last-Modified><Etag>0x1</Etag>"
            f"<Content-Length>{len(data)}</Content-Length><BlobType>BlockBlob</BlobType></Properties></Blob>"
            for key, kept in self.kept.items()
            if key.startswith(prefix)
            for id, data in kept
        )
        results = f"<EnumerationResults><Blobs>{blobs}</Blobs><NextMarker/></EnumerationResults>"
        return f'<?xml version="1.0"?>{results}'.encode()


def _refused(head: bytes) -> str:
    version = re.search(rb"(?im)^x-ms-version: *([0-9-]+)", head)
    if not version or version[1].decode() < LEAST:
        return "InvalidHeaderValue"
    return "" if re.search(rb"(?im)^authorization: *(SharedKey|Bearer) ", head) else "NoAuthenticationInformation"


def _error(code: str) -> bytes:
    return f'<?xml version="1.0"?><Error><Code>{code}</Code><Message>{code}</Message></Error>'.encode()


def _part(data: bytes, head: bytes) -> bytes:
    """The range that is asked for, as Azure's client always does."""
    asked = re.search(rb"(?im)^(?:x-ms-)?range: *bytes=(\d+)-(\d+)", head)
    if not asked:
        return _said(200, data)
    first, last = int(asked[1]), min(int(asked[2]), len(data) - 1)
    return _said(206, data[first : last + 1], f"Content-Range: bytes {first}-{last}/{len(data)}")


def _said(status: int, body: bytes, *headers: str) -> bytes:
    words = {200: "OK", 206: "Partial Content", 400: "Bad Request", 404: "Not Found"}[status]
    kind = "application/xml" if body.startswith(b"<?xml") else "application/octet-stream"
    lines = (
        f"HTTP/1.1 {status} {words}",
        f"Content-Length: {len(body)}",
        f"Content-Type: {kind}",
        'ETag: "0x1"',
        f"Last-Modified: {formatdate(usegmt=True)}",
        "x-ms-blob-type: BlockBlob",
        f"x-ms-request-id: {base64.b16encode(body[:4]).decode()}",
        *headers,
    )
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body
