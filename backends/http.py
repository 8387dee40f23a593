"""HTTP with JSON for clouds without a Python SDK: one request at a time, on urllib3, no hidden repeats.

A read is repeated here, within its deadline. A write is sent once: the caller decides what an answer that never came
means. `backends.http_answers` has the pure part: what an answer means.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlencode, urlsplit

import msgspec

from backends.errors import BackendError, TryLater
from backends.http_answers import Dialect, HttpAnswer, Raw, clean, inflate, judge
from schemas.base import Value
from schemas.endpoint import leads_here

if TYPE_CHECKING:
    from urllib3 import BaseHTTPResponse, PoolManager

MOST = 8 * 1024 * 1024
"""The largest answer, in bytes, before and after it is unpacked."""
ATTEMPTS = 3
CHUNK = 64 * 1024


class Call(Value, frozen=True, kw_only=True):
    """One request."""

    method: str
    path: str
    """Below the base address, with a leading slash. Ids in it go through `segment`."""
    query: tuple[tuple[str, str], ...] = ()
    """Never a secret: proxies write addresses to their logs."""
    body: Any = None
    """What is sent as JSON; `None` sends no body."""
    empty: bool = False
    """Whether a success without a body is a valid answer, as of a deletion."""
    array: bool = False
    """Whether the answer is a JSON array. It is then found as `items`."""


class Api:
    """The HTTP interface of one cloud. Thread-safe.

    Args:
        base: scheme, host and leading path of every address, from `http_answers.base_url`.
        headers: gives the headers that carry the credentials. It is called for each request, so that a token may be
            renewed; its values never enter a message.
        dialect: how this cloud says what went wrong.
        interval: seconds between two requests of this object.
        tls: gives what the connections are made with besides: an authority, a client's certificate. Asked once.
        clock, wait: monotonic seconds, and how to wait. Deadlines are on this clock.
    """

    def __init__(
        self,
        base: str,
        *,
        headers: Callable[[], Mapping[str, str]],
        dialect: Dialect,
        interval: float = 0,
        most: int = MOST,
        tls: Callable[[], Mapping[str, Any]] | None = None,
        clock: Callable[[], float] = time.monotonic,
        wait: Callable[[float], None] = time.sleep,
    ) -> None:
        self._base, self._headers, self._dialect = base.rstrip("/"), headers, dialect
        self._interval, self._most, self._clock, self._wait = interval, most, clock, wait
        self._next, self._lock = 0.0, threading.Lock()
        self._tls = tls
        self._tls_kept: Mapping[str, Any] | None = None
        self._pool: PoolManager | None = None

    def deadline(self, seconds: float) -> float:
        """The time on this object's clock that is so many seconds away."""
        return self._clock() + seconds

    def read(
        self, path: str, *, deadline: float, query: Mapping[str, str] | None = None, array: bool = False
    ) -> HttpAnswer:
        """Get `path`, repeated at most twice while the cloud is busy and the deadline allows it.

        Raises:
            TryLater: no answer that can be trusted.
            ApiError: the cloud refused, with the meaning that its table has for it.
        """
        call = Call(method="GET", path=path, query=tuple((query or {}).items()), array=array)
        for attempt in range(1, ATTEMPTS):
            try:
                return self._once(call, deadline)
            except TryLater as busy:
                pause = busy.retry_after or 2 ** (attempt - 1)
                if self._clock() + pause >= deadline:
                    raise
                self._wait(pause)
        return self._once(call, deadline)

    def write(self, method: str, path: str, body: Any = None, *, deadline: float, empty: bool = False) -> HttpAnswer:
        """Send a request that changes something, exactly once.

        Raises:
            TryLater: it may have been done.
            ApiError: the cloud refused. Only a meaning from its table promises that nothing was done.
        """
        return self._once(Call(method=method, path=path, body=body, empty=empty), deadline)

    def _once(self, call: Call, deadline: float) -> HttpAnswer:
        self._keep_pace(deadline)
        headers = self._all_headers(call)
        secrets = secrets_of(headers)
        where = f"{call.method} {self._base}{call.path}"
        try:
            raw = self._exchange(call, headers, deadline)
        except _transport_errors() as error:
            raise TryLater(f"{where}: {clean(_reason(error), secrets)}") from None
        return judge(raw, self._dialect, where=where, secrets=secrets, empty=call.empty, array=call.array)

    def _exchange(self, call: Call, headers: Mapping[str, str], deadline: float) -> Raw:
        """Send one request and read its answer. Raises what `_transport_errors` names."""
        from urllib3 import Timeout

        left = self._left(deadline)
        # A kept connection may be closed from afar just now, and a write that fails for that counts as unknown.
        manager = self._kept() if call.method == "GET" else _pool(self._base, self._connected_by())
        response = manager.request(
            call.method,
            self._base + call.path + (f"?{urlencode(call.query)}" if call.query else ""),
            body=None if call.body is None else msgspec.json.encode(call.body),
            headers=headers,
            retries=False,
            redirect=False,
            timeout=Timeout(total=left, connect=min(left, 10)),
            preload_content=False,
            decode_content=False,
        )
        try:
            body = self._body(response, deadline)
        finally:
            # A connection with an unread rest is not used again.
            response.close()
            if call.method != "GET":
                manager.clear()
        found = {name.lower(): text for name, text in response.headers.items()}
        return Raw(status=response.status, headers=found, body=inflate(body, found, self._most))

    def _body(self, response: BaseHTTPResponse, deadline: float) -> bytes:
        """All of the body, at most `most` bytes, read in pieces so that a slow server cannot outlast the deadline."""
        taken = bytearray()
        while piece := response.read1(CHUNK):
            taken += piece
            if len(taken) > self._most:
                raise ValueError(f"the answer is larger than {self._most} bytes")
            self._left(deadline)
        return bytes(taken)

    def _left(self, deadline: float) -> float:
        left = deadline - self._clock()
        if left <= 0:
            raise TimeoutError("no complete answer in time")
        return left

    def _keep_pace(self, deadline: float) -> None:
        """Wait for this request's turn, or raise `TryLater` where that would be past the deadline."""
        with self._lock:
            turn = max(self._next, self._clock())
            if turn >= deadline:
                raise TryLater(f"{self._base}: no time left for this request", retry_after=int(turn - deadline) + 1)
            self._next = turn + self._interval
        if (pause := turn - self._clock()) > 0:
            self._wait(pause)

    def _all_headers(self, call: Call) -> dict[str, str]:
        ours = {"Accept": "application/json", "Accept-Encoding": "identity", "User-Agent": "dstack-pools"}
        if call.body is not None:
            ours["Content-Type"] = "application/json"
        theirs = self._headers()
        for name, text in theirs.items():
            if not (text.isascii() and text.isprintable()):
                raise BackendError(
                    f"{self._base}: the credentials for {name} contain a character that HTTP does not allow. "
                    "Check for a line break or a quote at the end."
                )
        return {**ours, **theirs}

    def _kept(self) -> PoolManager:
        """The connections of reads, which are used again."""
        with self._lock:
            if self._pool is None:
                self._pool = _pool(self._base, self._connected_by())
            return self._pool

    def _connected_by(self) -> Mapping[str, Any]:
        if self._tls_kept is None and self._tls:
            self._tls_kept = self._tls()
        return self._tls_kept or {}


def secrets_of(headers: Mapping[str, str]) -> tuple[str, ...]:
    """Every value that a message must not show: the headers that are not ours, also without `Bearer` before them.

    A value of less than 6 characters, such as that of a version header, is no secret.
    """
    known = {"accept", "accept-encoding", "user-agent", "content-type"}
    texts = [text for name, text in headers.items() if name.lower() not in known]
    bare = [text.partition(" ")[2].strip() for text in texts]
    return tuple(sorted({text for text in (*texts, *bare) if len(text) >= 6}, key=len, reverse=True))


def _pool(base: str, own: Mapping[str, Any]) -> PoolManager:
    """Connections as the environment's proxies ask for. Loopback is never asked through a proxy."""
    from urllib.request import getproxies, proxy_bypass

    from urllib3 import PoolManager, ProxyManager, Timeout, make_headers

    address = urlsplit(base)
    host = address.hostname or ""
    proxies = getproxies()
    proxy = proxies.get(address.scheme) or proxies.get("all")
    shared: dict[str, Any] = {"maxsize": 8, "timeout": Timeout(total=60), "cert_reqs": "CERT_REQUIRED", **own}
    if not proxy or leads_here(f"{address.scheme}://{address.netloc}") or proxy_bypass(host):
        return PoolManager(**shared)
    via = urlsplit(proxy if "://" in proxy else f"http://{proxy}")
    if via.scheme not in ("http", "https"):
        raise BackendError(f"{base}: the proxy of the environment is {via.scheme}; use an HTTP proxy, or NO_PROXY")
    login = unquote(f"{via.username}:{via.password or ''}") if via.username else None
    at = f"{via.scheme}://{via.netloc.rpartition('@')[2]}"
    return ProxyManager(at, proxy_headers=make_headers(proxy_basic_auth=login) if login else None, **shared)


def _transport_errors() -> tuple[type[Exception], ...]:
    from urllib3.exceptions import HTTPError

    return (OSError, ValueError, HTTPError)


def _reason(error: Exception) -> str:
    """What went wrong on the way, without the address that urllib3 repeats."""
    from urllib3.exceptions import IncompleteRead, NameResolutionError, NewConnectionError, ProtocolError, SSLError
    from urllib3.exceptions import TimeoutError as TooSlow

    kinds: tuple[tuple[type[Exception], str], ...] = (
        (NameResolutionError, "its name was not found"),
        (NewConnectionError, "no connection"),
        (SSLError, f"TLS failed: {error}"),
        (TooSlow, "no complete answer in time"),
        (TimeoutError, "no complete answer in time"),
        (IncompleteRead, "the answer was cut"),
        (ProtocolError, "the connection broke"),
    )
    return next((words for kind, words in kinds if isinstance(error, kind)), f"{error}")
