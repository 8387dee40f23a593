"""What an HTTP answer of a cloud means. Pure.

A page of a portal, a proxy's HTML, a cut or a too large answer never means "there is nothing": each is `TryLater`.
"""

from __future__ import annotations

import unicodedata
import zlib
from collections.abc import Callable, Collection, Mapping, Sequence
from datetime import UTC
from email.utils import parsedate_to_datetime
from typing import Any, Literal
from urllib.parse import quote, urlsplit, urlunsplit

import msgspec

from backends.errors import BackendError, CallFailed, TryLater
from schemas.base import Value
from schemas.endpoint import leads_here
from schemas.launch import LaunchAnswer, Refused, Unknown

Meaning = Literal["capacity", "quota", "permanent", "missing", "later"]
"""`missing`: the thing that was named does not exist. `later`: busy; the request may have been done."""
LONGEST_WAIT = 3600
"""Seconds that a `Retry-After` may ask for; more is taken as this."""
BUSY = frozenset({408, 425, 429})
CUT = 300
"""Characters of a vendor's message that are kept."""
LOOKED_AT = 20 * CUT


class Raw(Value, frozen=True, kw_only=True):
    """An answer as it came."""

    status: int
    headers: Mapping[str, str] = {}
    """Names in lower case."""
    body: bytes = b""


class HttpAnswer(Value, frozen=True, kw_only=True):
    """A success."""

    json: dict[str, Any]
    clock: int | None = None
    """Unix time of the cloud itself, from the `Date` header; `None` where it has none."""


def _no_code(error: Mapping[str, Any]) -> str:
    return ""


class Dialect(Value, frozen=True, kw_only=True):
    """How one cloud says what went wrong."""

    errors: Mapping[tuple[int, str], Meaning]
    """(status, code) to meaning. The code "" stands for any code of that status."""
    code: Callable[[Mapping[str, Any]], str] = _no_code
    """The error code in the body of an error, "" where there is none."""
    words: Callable[[Mapping[str, Any]], str] = _no_code
    """The vendor's message in the body of an error."""
    quota: Callable[[Mapping[str, Any]], str] = _no_code
    """Which quota an error names, for the meaning `quota`."""
    made: Callable[[Mapping[str, Any]], str] = _no_code
    """The vendor's id of what a refused creation made all the same, "" for nothing."""


class ApiError(CallFailed):
    """The cloud refused a request. Raised by a launch it promises nothing: `launch_answer` says what it means.

    `meaning` is the table's, "" where the table does not have this error. `made`: what was made all the same.
    """

    def __init__(
        self, message: str, *, meaning: Meaning | Literal[""], after: int = 0, quota: str = "", made: str = ""
    ) -> None:
        super().__init__(message)
        self.meaning, self.retry_after, self.quota, self.made = meaning, after, quota, made


def judge(
    raw: Raw, dialect: Dialect, *, where: str, secrets: Sequence[str] = (), empty: bool = False, array: bool = False
) -> HttpAnswer:
    """The content of a success.

    Raises:
        TryLater: the answer cannot be trusted, or the cloud is busy.
        ApiError: the cloud refused.
    """
    clock = date_of(raw.headers.get("date", ""))
    after = retry_after(raw.headers.get("retry-after", ""), now=clock)
    if raw.status // 100 == 3:
        host = urlsplit(raw.headers.get("location", "")).hostname or "another address"
        raise TryLater(f"{where}: redirected to {clean(host, secrets)}; redirects are not followed", retry_after=after)
    if raw.status // 100 != 2:
        raise _failure(raw, dialect, where=where, secrets=secrets, after=after)
    if empty and not raw.body.strip():
        return HttpAnswer(json={}, clock=clock)
    content = _content(raw)
    if array and isinstance(content, list):
        return HttpAnswer(json={"items": content}, clock=clock)
    if array or not isinstance(content, dict):
        kind = raw.headers.get("content-type", "no content type").partition(";")[0]
        wanted = "a JSON array" if array else "a JSON object"
        raise TryLater(f"{where}: answered {raw.status} without {wanted} ({clean(kind, secrets)})", retry_after=after)
    return HttpAnswer(json=content, clock=clock)


def _failure(raw: Raw, dialect: Dialect, *, where: str, secrets: Sequence[str], after: int) -> TryLater | ApiError:
    content = _content(raw)
    if not isinstance(content, dict):
        kind = raw.headers.get("content-type", "no content type").partition(";")[0]
        return TryLater(f"{where}: answered {raw.status} without JSON ({clean(kind, secrets)})", retry_after=after)
    code, words, quota = (_said(ask, content) for ask in (dialect.code, dialect.words, dialect.quota))
    named = clean(f"{code}: {words}" if code and words else code or words or "no reason given", secrets)
    message = f"{where}: {named} (HTTP {raw.status})"
    meaning = dialect.errors.get((raw.status, code)) or dialect.errors.get((raw.status, ""))
    busy = raw.status >= 500 or raw.status in BUSY
    if meaning == "later" or (meaning is None and busy):
        return TryLater(message, retry_after=after)
    left = clean(_said(dialect.made, content), secrets, most=60)
    return ApiError(message, meaning=meaning or "", after=after, quota=clean(quota, secrets, most=60), made=left)


def _said(ask: Callable[[Mapping[str, Any]], str], content: Mapping[str, Any]) -> str:
    """The parts of an error answer whose shape no document promises."""
    try:
        found = ask(content)
    except (KeyError, TypeError, AttributeError, IndexError):
        return ""
    return found if isinstance(found, str) else ""


def _content(raw: Raw) -> Any:
    try:
        return msgspec.json.decode(raw.body)
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return None


def launch_answer(error: Exception) -> LaunchAnswer:
    """What a launch whose request failed answers for its machine. Only a meaning of the table is a refusal."""
    why, after = str(error), getattr(error, "retry_after", 0)
    if isinstance(error, ApiError) and error.meaning in ("capacity", "quota", "permanent") and not error.made:
        return Refused(meaning=error.meaning, why=why, retry_after=after, quota=error.quota)
    return Unknown(why=why, retry_after=after)


def rows(answer: HttpAnswer, key: str, *, where: str) -> list[dict[str, Any]]:
    """The list of objects under `key`. Raises `TryLater` where it is not there: that is not an empty list."""
    found = answer.json.get(key)
    if not isinstance(found, list) or not all(isinstance(one, dict) for one in found):
        raise TryLater(f"{where}: the answer has no list of objects named {key}")
    return found


def retry_after(text: str, *, now: int | None = None) -> int:
    """Seconds that a `Retry-After` header asks for: a number, or an HTTP date seen from `now`. 0 for none."""
    text = text.strip()
    if text.isascii() and text.isdigit():
        return min(int(text[:9]), LONGEST_WAIT)
    at = date_of(text)
    return 0 if at is None or now is None else max(0, min(at - now, LONGEST_WAIT))


def date_of(text: str) -> int | None:
    """Unix time of an HTTP date, `None` where it is none."""
    try:
        found = parsedate_to_datetime(text.strip())
        return int((found if found.tzinfo else found.replace(tzinfo=UTC)).timestamp())
    except (ValueError, TypeError, IndexError, OverflowError):
        return None


def clean(text: str, secrets: Collection[str] = (), *, most: int = CUT) -> str:
    """A vendor's words on one line, without control characters and `secrets`, at most `most` characters."""
    taken = text[:LOOKED_AT]
    shown = "".join(" " if one.isspace() or unicodedata.category(one)[0] == "C" else one for one in taken)
    dense = "".join(one for one in taken if unicodedata.category(one)[0] != "C")
    for secret in secrets:
        if secret in dense and secret not in shown:
            # It was split by characters that are not shown: nothing of this text is safe to show.
            return "(a message that repeats a secret)"
        shown = shown.replace(secret, "***")
    if len(text) > LOOKED_AT:
        # The rest may end with a part of a secret.
        shown = shown[: -max(map(len, secrets), default=1)]
    line = " ".join(shown.split())
    return line if len(line) <= most else f"{line[: most - 1]}…"


def inflate(body: bytes, headers: Mapping[str, str], most: int) -> bytes:
    """The body, unpacked to at most `most` bytes. Raises `ValueError` where it is larger, cut or packed otherwise."""
    coding = headers.get("content-encoding", "").strip().lower()
    if coding in ("", "identity"):
        return body
    if coding not in ("gzip", "x-gzip", "deflate"):
        raise ValueError(f"the answer is packed as {clean(coding, most=20)}")
    unpacker = zlib.decompressobj(47)
    try:
        plain = unpacker.decompress(body, most + 1)
    except zlib.error:
        raise ValueError("the answer cannot be unpacked") from None
    if len(plain) > most:
        raise ValueError(f"the answer is larger than {most} bytes")
    if not unpacker.eof:
        raise ValueError("the answer was cut")
    return plain


def base_url(default: str, endpoint: str = "") -> str:
    """`default`, with scheme, host and port of `endpoint` where one is configured; the path stays.

    Raises:
        BackendError: `endpoint` is neither https nor http to loopback, or has a path, a login or a query.
    """
    if not endpoint:
        return default.rstrip("/")
    try:
        given = urlsplit(endpoint)
        host, _ = given.hostname or "", given.port
    except ValueError:
        raise BackendError("endpoint: not an address. Write https://HOST or https://HOST:PORT.") from None
    if not host or given.username or given.password or given.query or given.fragment or given.path not in ("", "/"):
        raise BackendError("endpoint: only scheme, host and port are allowed. Write https://HOST or https://HOST:PORT.")
    if given.scheme != "https" and not leads_here(f"{given.scheme}://{given.netloc}"):
        raise BackendError(f"endpoint: {host} must be https. http is allowed to this machine only.")
    return urlunsplit((given.scheme, given.netloc, urlsplit(default).path, "", "")).rstrip("/")


def segment(text: str) -> str:
    """`text` as one part of a path. Raises `BackendError` for what would name another path."""
    if text in ("", ".", ".."):
        raise BackendError(f"an id that is {text!r} names no resource")
    return quote(text, safe="")
