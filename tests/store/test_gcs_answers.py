"""What answers for Google Cloud Storage and is not it, or not whole, is no answer: never an empty bucket."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import pytest

from reconciler.store.objects.base import Unsure
from reconciler.store.objects.gcs import GcsObjects, gcs_objects
from schemas.location import Bucket

WHOLE = {"name": "prod/a", "size": "3", "updated": "2026-12-01T00:00:00Z", "generation": "7"}


class Portal(HTTPServer):
    body = b""


class Answer(BaseHTTPRequestHandler):
    server: Portal

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(self.server.body)))
        self.end_headers()
        self.wfile.write(self.server.body)

    def log_message(self, format: str, *args: Any) -> None:
        pass


@pytest.fixture
def portal() -> Iterator[Portal]:
    server = Portal(("127.0.0.1", 0), Answer)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


def objects(portal: Portal) -> GcsObjects:
    where = Bucket(scheme="gs", bucket="team", prefix="prod")
    return gcs_objects(where, environ={"STORAGE_EMULATOR_HOST": f"http://127.0.0.1:{portal.server_port}"})


def listing(*items: dict[str, str], kind: str = "storage#objects") -> bytes:
    return json.dumps({"kind": kind, "items": items}).encode()


@pytest.mark.parametrize(
    "body",
    [
        b"<html>please log in</html>",
        b"{}",
        b'{"ok": true}',
        listing(WHOLE)[:40],
        listing({"name": "prod/a"}),
        *(listing({key: value for key, value in WHOLE.items() if key != left}) for left in WHOLE),
    ],
)
def test_what_is_no_listing_is_told(portal: Portal, body: bytes) -> None:
    portal.body = body
    with pytest.raises(Unsure):
        list(objects(portal).items(""))
    with pytest.raises(Unsure):
        objects(portal).versions("a")


@pytest.mark.parametrize("left", ["size", "updated"])
def test_what_describes_no_object_is_told(portal: Portal, left: str) -> None:
    portal.body = json.dumps({key: value for key, value in WHOLE.items() if key != left}).encode()
    with pytest.raises(Unsure, match="not whole"):
        objects(portal).stat("a")


def test_a_listing_is_read(portal: Portal) -> None:
    portal.body = listing(WHOLE)
    assert [one.key for one in objects(portal).items("")] == ["a"]
    portal.body = json.dumps({"kind": "storage#objects"}).encode()
    assert list(objects(portal).items("")) == []
