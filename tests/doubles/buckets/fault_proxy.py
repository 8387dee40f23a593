"""A proxy before a server that counts, delays, cuts and loses: what a network does. It takes requests whole."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

Fault = Literal["", "refuse", "lose answer", "reset", "late", "503", "slow"]
Choose = Callable[[str, str, int], Fault]
"""(method, path, number of the request) -> what happens to it."""


def nothing(method: str, path: str, number: int) -> Fault:
    return ""


@dataclass
class FaultProxy:
    """`refuse`: cut before the server hears of it. `lose answer`: it is done, and its answer is not told.
    `reset`: cut within the answer. `late`: cut, and done all the same when `arrive` is called.
    `503`: answered in the server's place. `slow`: as ever, but `delay()` seconds later on its way there, and back.
    """

    upstream: int
    choose: Choose = nothing
    delay: Callable[[], float] = lambda: 0.2
    seen: list[tuple[str, str]] = field(default_factory=list)
    port: int = 0

    def __post_init__(self) -> None:
        self._lock = threading.Lock()
        self._late: list[tuple[bytes, str]] = []
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=256)
        self.port = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        self._listener.close()

    def arrive(self) -> list[bytes]:
        """What came late comes now; the first line of each answer, which nobody waits for any more."""
        late, self._late = self._late, []
        return [_forward(self.upstream, request, method).split(b"\r\n", 1)[0] for request, method in late]

    def methods(self) -> list[str]:
        with self._lock:
            return [method for method, _ in self.seen]

    def answer(self, method: str, path: str, head: bytes, body: bytes) -> bytes:
        """The server's own; a double of one that has more overrides it."""
        return _forward(self.upstream, head + body, method)

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        try:
            with client, client.makefile("rb") as reader:
                while self._one(client, reader):
                    pass
        except (OSError, ValueError):
            return

    def _one(self, client: socket.socket, reader) -> bool:  # type: ignore[no-untyped-def]
        head, length = _head(reader)
        if not head:
            return False
        method, path, _ = head.split(b"\r\n", 1)[0].decode("latin1").split(" ", 2)
        if b"100-continue" in head.lower():
            client.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
            head = b"\r\n".join(line for line in head.split(b"\r\n") if not line.lower().startswith(b"expect:"))
        body = reader.read(length)
        with self._lock:
            self.seen.append((method, path))
            fault = self.choose(method, path, len(self.seen))
        if fault == "refuse":
            return False
        if fault == "503":
            client.sendall(b"HTTP/1.1 503 Slow Down\r\ncontent-length: 0\r\n\r\n")
            return True
        if fault == "late":
            self._late.append((head + body, method))
            return False
        if fault == "slow":
            time.sleep(self.delay())
        answer = self.answer(method, path, head, body)
        if fault == "slow":
            time.sleep(self.delay())
        if fault == "lose answer":
            return False
        client.sendall(answer[: len(answer) // 2] if fault == "reset" else answer)
        return fault != "reset"


def _head(reader) -> tuple[bytes, int]:  # type: ignore[no-untyped-def]
    """The request's head, with its end, and the length of its body."""
    lines: list[bytes] = []
    length = 0
    while True:
        line = reader.readline(65536)
        if not line:
            return b"", 0
        lines.append(line)
        if line.lower().startswith(b"content-length:"):
            length = int(line.split(b":")[1])
        if line in (b"\r\n", b"\n"):
            return b"".join(lines), length


def _forward(port: int, request: bytes, method: str) -> bytes:
    """The whole answer, of a connection of its own."""
    head, _, body = request.partition(b"\r\n\r\n")
    kept = [line for line in head.split(b"\r\n") if not line.lower().startswith(b"connection:")]
    with socket.create_connection(("127.0.0.1", port), timeout=60) as server:
        server.sendall(b"\r\n".join([*kept, b"Connection: close"]) + b"\r\n\r\n" + body)
        parts = []
        while data := server.recv(1 << 16):
            parts.append(data)
    answer = b"".join(parts)
    head, found, body = answer.partition(b"\r\n\r\n")
    lines = [
        line for line in head.split(b"\r\n") if not line.lower().startswith((b"connection:", b"transfer-encoding:"))
    ]
    if b"transfer-encoding: chunked" in head.lower():
        body = _joined(body)
    lines = [line for line in lines if method == "HEAD" or not line.lower().startswith(b"content-length:")]
    if method != "HEAD" and b" 204 " not in lines[0] and b" 304 " not in lines[0]:
        lines.append(b"Content-Length: %d" % len(body))
    return b"\r\n".join(lines) + found + body


def _joined(body: bytes) -> bytes:
    found = b""
    while body:
        size, _, rest = body.partition(b"\r\n")
        length = int(size.split(b";")[0] or b"0", 16)
        if not length:
            return found
        found += rest[:length]
        body = rest[length + 2 :]
    return found
