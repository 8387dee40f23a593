"""Sketch Cloud's server: a small strict double with a memory, on loopback.

Its listings have pages of two. Every request needs the account's key.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from backends.boot.spec import Boot

KEY = "sketch-key-0123456789"
PAGE = 2
SMALL = {
    "id": "t-1", "name": "small", "cpus": 2, "memory_gib": 8, "disk_gib": 100, "usd_per_hour": "0.50",
}  # fmt: skip
LARGE = {
    "id": "t-2", "name": "gpu-large", "cpus": 16, "memory_gib": 128, "disk_gib": 500, "usd_per_hour": "2.25",
    "gpu": {"name": "A100", "memory_gib": 80, "count": 1},
}  # fmt: skip
FIELDS = {"name": str, "type": str, "region": str, "image": str, "labels": dict, "user_data": str}


def a_boot(launch: str) -> Boot:
    """Of a machine that never runs: no key in it opens anything."""
    return Boot(host_key_private=f"private key of {launch}", host_key_public="ssh-ed25519 AAAA", authorized_keys=())


@dataclass(frozen=True, kw_only=True)
class Around:
    """A `Setting` for tests."""

    project: str = "project1"
    lineage: str = "lineage1"
    state_address: str = "/state"
    now: Callable[[], float] = time.time
    boot: Callable[[str], Boot] = a_boot


class Refusal(Exception):
    """An answer other than success."""

    def __init__(self, status: int, code: str, message: str, **more: str) -> None:
        self.status, self.body = status, {"error": {"code": code, "message": message, **more}}


@dataclass
class Sketch:
    """An account. `room` is how many machines of a type may live, `lost` how many creations lose their answer."""

    account: str = "acct-1"
    room: dict[str, int] = field(default_factory=lambda: {"t-1": 10, "t-2": 2})
    quota: int = 100
    lost: int = 0
    machines: dict[str, dict[str, Any]] = field(default_factory=dict)
    requests: list[tuple[str, str]] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def living(self) -> list[dict[str, Any]]:
        return [one for one in self.machines.values() if one["status"] != "deleted"]

    def free(self, kind: str) -> int:
        return self.room[kind] - sum(one["kind"] == kind for one in self.living())

    def answer(self, method: str, path: str, query: dict[str, list[str]], body: Any) -> tuple[int, Any]:
        match method, *path.strip("/").split("/"):
            case "GET", "v1", "account":
                return 200, {"id": self.account}
            case "GET", "v1", "types":
                return 200, {"types": [{**one, "available": {"r1": self.free(one["id"])}} for one in (SMALL, LARGE)]}
            case "GET", "v1", "machines":
                return 200, self.page(query)
            case "POST", "v1", "machines":
                return 201, self.create(body)
            case "DELETE", "v1", "machines", id:
                return self.delete(unquote(id))
        raise Refusal(404, "no-such-path", path)

    def page(self, query: dict[str, list[str]]) -> Any:
        there = [one for one in self.machines.values() if one["region"] in query.get("region", ["r1"])]
        begin = int(query.get("cursor", ["0"])[0] or 0)
        more = str(begin + PAGE) if begin + PAGE < len(there) else ""
        return {"machines": there[begin : begin + PAGE], "next": more}

    def create(self, body: Any) -> Any:
        """A new machine for every request: this cloud knows no tokens, and names need not be unique."""
        if {name: type(value) for name, value in body.items()} != FIELDS:
            raise Refusal(422, "invalid", f"the fields are {', '.join(FIELDS)}")
        if body["type"] not in self.room or body["region"] != "r1":
            raise Refusal(422, "invalid", "no such type or region")
        if len(self.living()) >= self.quota:
            raise Refusal(403, "quota-exceeded", f"at most {self.quota} machines", quota="machines")
        if self.free(body["type"]) <= 0:
            raise Refusal(409, "sold-out", f"no {body['type']} in r1 now")
        id = f"m-{len(self.machines) + 1}"
        kind = next(one for one in (SMALL, LARGE) if one["id"] == body["type"])
        self.machines[id] = {
            "id": id, "name": body["name"], "labels": body["labels"], "kind": body["type"], "type": kind["name"],
            "region": body["region"], "status": "active", "reason": "", "address": "", "created_at": int(time.time()),
        }  # fmt: skip
        return {"id": id}

    def delete(self, id: str) -> tuple[int, Any]:
        if id not in self.machines:
            raise Refusal(404, "not-found", f"there is no machine {id}")
        self.machines[id]["status"] = "deleted"
        return 204, None


@contextmanager
def served(sketch: Sketch) -> Iterator[str]:
    """The address of a server for `sketch`, until the block ends."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def handled(self) -> None:
            length = int(self.headers.get("Content-Length", 0))
            body = json.loads(self.rfile.read(length)) if length else None
            where = urlsplit(self.path)
            with sketch.lock:
                sketch.requests.append((self.command, where.path))
                try:
                    if self.headers.get("Authorization") != f"Bearer {KEY}":
                        raise Refusal(401, "unauthorized", "this key is not known")
                    status, said = sketch.answer(self.command, where.path, parse_qs(where.query), body)
                except Refusal as refusal:
                    status, said = refusal.status, refusal.body
                if self.command == "POST" and status == 201 and sketch.lost:
                    sketch.lost -= 1
                    self.close_connection = True
                    return
            text = b"" if said is None else json.dumps(said).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            if status != 204:
                self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text)

        do_GET: Callable[..., None] = handled
        do_POST: Callable[..., None] = handled
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
