"""Where a state lies: a folder of this machine, or a prefix in a bucket of one of three clouds. Pure."""

from __future__ import annotations

import re
from typing import Literal

from schemas.base import Value

Scheme = Literal["s3", "gs", "az"]
BUCKET = r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]"
BUCKETS = {
    "s3": (BUCKET, "3 to 63 of a-z, 0-9, `.` and `-`"),
    "gs": (r"[a-z0-9][a-z0-9._-]{1,220}[a-z0-9]", "3 to 63 of a-z, 0-9, `_` and `-`, longer with dots"),
    "az": (r"[a-z0-9](?:-?[a-z0-9]){2,62}", "3 to 63 of a-z, 0-9 and single `-`"),
}
ACCOUNT = "[a-z0-9]{3,24}"
SEGMENT = r"[A-Za-z0-9._=+@,-]{1,200}"
FORMS = "`s3://BUCKET/PREFIX`, `gs://BUCKET/PREFIX`, `az://ACCOUNT/CONTAINER/PREFIX` or a folder"
LOCAL = "local"
"""As a state: the folder of the checkout, said on purpose."""


class Bucket(Value, frozen=True, kw_only=True):
    """`prefix` is "" or segments joined by "/". `account` is Azure's."""

    scheme: Scheme
    bucket: str
    prefix: str = ""
    account: str = ""

    @property
    def url(self) -> str:
        """As a person writes it; holds no credential."""
        parts = (self.account, self.bucket, self.prefix)
        return f"{self.scheme}://{'/'.join(part for part in parts if part)}"


class Folder(Value, frozen=True, kw_only=True):
    """`path` as written; "" is the folder of the checkout. `chosen`: somebody wrote it, it is no mere default."""

    path: str = ""
    chosen: bool = False


Location = Bucket | Folder


def location(text: str) -> Location:
    """Of `state:`. `ValueError` says in one sentence what is wrong with it."""
    if not text or text == LOCAL:
        return Folder(chosen=bool(text))
    scheme, found, rest = text.partition("://")
    if not found:
        if re.match("(?:s3|gs|az|azure|gcs|file):", text):
            raise ValueError(f"`{_shown(text)}` is neither a folder nor a bucket: {FORMS}")
        return Folder(path=text, chosen=True)
    match scheme:
        case "s3" | "gs":
            return _bucket(scheme, *_parts(text, rest))
        case "az":
            account, *parts = _parts(text, rest)
            if not re.fullmatch(ACCOUNT, account):
                raise ValueError(f"`{account}` is not a storage account: 3 to 24 of a-z and 0-9, as in {FORMS}")
            if not parts:
                raise ValueError(f"names no container: `az://{account}/CONTAINER/PREFIX`")
            return _bucket(scheme, *parts, account=account)
    raise ValueError(f"`{_shown(scheme)}://` is not a place for it: {FORMS}")


def _parts(text: str, rest: str) -> list[str]:
    if "@" in rest.split("/", 1)[0] or "?" in rest or "#" in rest:
        raise ValueError(
            f"`{_shown(text)}`: a bucket and a prefix, nothing else: credentials and options come from the environment"
        )
    return rest.removesuffix("/").split("/")


def _bucket(scheme: Scheme, bucket: str, *prefix: str, account: str = "") -> Bucket:
    pattern, what = BUCKETS[scheme]
    if not bucket:
        raise ValueError(f"names no bucket: {FORMS}")
    if not re.fullmatch(pattern, bucket) or ".." in bucket:
        raise ValueError(f"`{bucket}` is not the name of a {'container' if scheme == 'az' else 'bucket'}: {what}")
    for segment in prefix:
        if not re.fullmatch(SEGMENT, segment) or segment in (".", ".."):
            raise ValueError(f"`{segment}` cannot be part of a prefix: letters, digits and ._=+@,- between single `/`")
    return Bucket(scheme=scheme, bucket=bucket, prefix="/".join(prefix), account=account)


def _shown(text: str) -> str:
    """Without what may be a password."""
    return re.sub(r"//[^/]*@", "//…@", text.split("?")[0])[:80]
