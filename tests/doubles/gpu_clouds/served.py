"""Serve a double of a cloud's JSON interface on loopback, with what may go wrong on the way."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Protocol
from urllib.parse import urlsplit

from tests.doubles.gpu_clouds.openapi_judge import Judge


class Refusal(Exception):
    """An answer other than success. `text`: sent as it is, instead of JSON."""

    def __init__(self, status: int, body: Any = None, *, text: str = "", headers: dict[str, str] | None = None) -> None:
        self.status, self.body, self.text, self.headers = status, body, text, headers or {}


@dataclass
class Fault:
    """Of the next matching request. `after`: what it asks is done all the same, and the answer is lost.

    `answer` None cuts the connection. `then` is called before the answer goes out.
    """

    method: str
    path: str
    after: bool = True
    answer: Refusal | None = None
    then: Callable[[], None] | None = None


class Cloud(Protocol):
    """What is served."""

    key: str
    lock: threading.Lock
    requests: list[tuple[str, str, Any]]
    faults: list[Fault]
    wrong: list[str]

    def answer(self, method: str, path: str, query: str, body: Any) -> tuple[int, Any]: ...
    def unknown_key(self) -> Refusal: ...


def _fault(cloud: Cloud, method: str, path: str) -> Fault | None:
    for one in cloud.faults:
        if one.method == method and path.endswith(one.path):
            cloud.faults.remove(one)
            return one
    return None


@contextmanager
def served(cloud: Cloud, judge: Judge | None = None) -> Iterator[str]:
    """The address of `cloud`, until the block ends. What `judge` finds wrong is kept in `cloud.wrong`, and refused."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def handled(self) -> None:
            length = int(self.headers.get("Content-Length", 0))
            body = json.loads(self.rfile.read(length)) if length else None
            where = urlsplit(self.path)
            with cloud.lock:
                cloud.requests.append((self.command, where.path, body))
                fault = _fault(cloud, self.command, where.path)
                try:
                    if fault is not None and not fault.after and fault.answer is not None:
                        raise fault.answer
                    status, said = self.asked(where.path, where.query, body)
                    if fault is not None and fault.answer is not None:
                        raise fault.answer
                    found: tuple[int, Any, str, dict[str, str]] = status, said, "", {}
                except Refusal as refusal:
                    found = refusal.status, refusal.body, refusal.text, refusal.headers
            if fault is not None and fault.then is not None:
                fault.then()
            if fault is not None and fault.answer is None:
                self.close_connection = True
                return
            self.say(*found)

        def asked(self, path: str, query: str, body: Any) -> tuple[int, Any]:
            if self.headers.get("Authorization") != f"Bearer {cloud.key}":
                raise cloud.unknown_key()
            if judge is not None and (wrong := judge.request(self.command, path, body)):
                cloud.wrong.append(f"{self.command} {path}: {wrong}")
            status, said = cloud.answer(self.command, path, query, body)
            if judge is not None and (wrong := judge.answer(self.command, path, status, said)):
                cloud.wrong.append(f"our own answer to {self.command} {path}: {wrong}")
            return status, said

        def say(self, status: int, body: Any, text: str, headers: dict[str, str]) -> None:
            sent = text.encode() if text else b"" if body is None else json.dumps(body).encode()
            self.send_response(status)
            self.send_header("Content-Type", "text/html" if text else "application/json")
            for name, value in headers.items():
                self.send_header(name, value)
            if status != 204:
                self.send_header("Content-Length", str(len(sent)))
            self.end_headers()
            self.wfile.write(sent)

        do_GET: Callable[..., None] = handled
        do_POST: Callable[..., None] = handled
        do_PUT: Callable[..., None] = handled
        do_PATCH: Callable[..., None] = handled
        do_DELETE: Callable[..., None] = handled

        def log_message(self, format: str, *args: object) -> None:
            """Print nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
