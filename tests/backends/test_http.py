"""The HTTP client against real servers on loopback that cut, stall, redirect, lie and inflate."""

from __future__ import annotations

import gzip
import ssl
import threading
from base64 import b64decode
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from ipaddress import IPv4Address
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from backends.errors import BackendError, TryLater
from backends.http import Api, secrets_of
from backends.http_answers import ApiError, Dialect

KEY = "Bearer s3cr3t-key-of-ours"
DIALECT = Dialect(
    errors={(400, "sold-out"): "capacity"}, code=lambda said: said["code"], words=lambda said: said["message"]
)


@dataclass
class Heard:
    method: str
    path: str
    headers: dict[str, str]
    body: bytes


@dataclass
class Server:
    """Answers with `script`, one entry a request, the last one for ever: bytes as they go over the wire."""

    script: list[bytes | Callable[[BaseHTTPRequestHandler], None]]
    heard: list[Heard] = field(default_factory=list)
    address: str = ""


def wire(status: int, body: bytes = b"", **headers: str) -> bytes:
    others = {name.replace("_", "-"): text for name, text in headers.items()}
    given = {"Content-Length": str(len(body)), "Connection": "close", **others}
    lines = "".join(f"{name}: {text}\r\n" for name, text in given.items())
    return f"HTTP/1.1 {status} Said\r\n{lines}\r\n".encode() + body


@pytest.fixture
def serve() -> Iterator[Callable[..., Server]]:
    running: list[ThreadingHTTPServer] = []

    def start(*script: bytes | Callable[[BaseHTTPRequestHandler], None], tls: ssl.SSLContext | None = None) -> Server:
        server = Server(list(script))

        class Handler(BaseHTTPRequestHandler):
            def answer(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                server.heard.append(Heard(self.command, self.path, dict(self.headers), body))
                said = server.script[min(len(server.heard), len(server.script)) - 1]
                if callable(said):
                    said(self)
                else:
                    self.wfile.write(said)
                self.close_connection = True

            do_GET = do_POST = do_DELETE = do_CONNECT = answer

            def log_message(self, format: str, *args: object) -> None:
                """Print nothing."""

        http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        http.daemon_threads = True
        http.handle_error = lambda request, client: None  # type: ignore[method-assign]
        if tls:
            http.socket = tls.wrap_socket(http.socket, server_side=True)
        running.append(http)
        threading.Thread(target=http.serve_forever, args=(0.01,), daemon=True).start()
        server.address = f"{'https' if tls else 'http'}://127.0.0.1:{http.server_port}"
        return server

    yield start
    for http in running:
        http.shutdown()
        http.server_close()


class Hand:
    """A clock that only waiting moves."""

    def __init__(self) -> None:
        self.at = 1000.0
        self.waits: list[float] = []

    def now(self) -> float:
        return self.at

    def wait(self, seconds: float) -> None:
        self.waits.append(seconds)
        self.at += seconds


def api(server: Server, **options: object) -> Api:
    headers: Callable[[], Mapping[str, str]] = lambda: {"Authorization": KEY}  # noqa: E731
    return Api(server.address + "/v1", **{"headers": headers, "dialect": DIALECT, **options})  # type: ignore[arg-type]


def test_a_read_carries_the_key_and_gives_the_answer(serve: Callable[..., Server]) -> None:
    server = serve(wire(200, b'{"a": 1}', Date="Tue, 01 Dec 2026 01:00:00 GMT"))
    asked = api(server)
    answer = asked.read("/things", deadline=asked.deadline(10), query={"tag": "a b&c"})
    assert (answer.json, answer.clock) == ({"a": 1}, 1796086800)
    (heard,) = server.heard
    assert (heard.method, heard.path) == ("GET", "/v1/things?tag=a+b%26c")
    assert heard.headers["Authorization"] == KEY
    assert heard.headers["Accept-Encoding"] == "identity"


def test_a_write_sends_json_once(serve: Callable[..., Server]) -> None:
    server = serve(wire(200, b"{}"))
    asked = api(server)
    asked.write("POST", "/things", {"name": "x"}, deadline=asked.deadline(10))
    (heard,) = server.heard
    assert (heard.body, heard.headers["Content-Type"]) == (b'{"name":"x"}', "application/json")


def test_a_deletion_may_be_answered_with_nothing(serve: Callable[..., Server]) -> None:
    server = serve(b"HTTP/1.1 204 No Content\r\n\r\n")
    asked = api(server)
    assert asked.write("DELETE", "/things/1", deadline=asked.deadline(10), empty=True).json == {}


CUT_LENGTH = wire(200, b'{"a": 1}', Content_Length="50")
CUT_CHUNK = b'HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n20\r\n{"a": 1}'
CUT_HEADERS = b"HTTP/1.1 200 OK\r\nContent-Le"
CUT_OPEN = b'HTTP/1.1 200 OK\r\n\r\n{"instances": [{"id": '
NO_HTTP = b"SSH-2.0-OpenSSH_9.2\r\n"
HTML = wire(200, b"<html>Log in</html>", Content_Type="text/html")
BOMB = wire(200, gzip.compress(b" " * 50_000_000), Content_Encoding="gzip")
LARGE = wire(200, b'{"a": "' + b"x" * 2000 + b'"}')
FAULTS = {
    "cut body": CUT_LENGTH, "cut chunk": CUT_CHUNK, "cut headers": CUT_HEADERS, "cut without length": CUT_OPEN,
    "no HTTP": NO_HTTP, "nothing": b"", "portal": HTML, "gzip bomb": BOMB, "large": LARGE,
    "busy": wire(503, b"{}"), "gateway": wire(502, b"<html>Bad gateway</html>"), "throttled": wire(429, b"{}"),
}  # fmt: skip


@pytest.mark.parametrize("fault", FAULTS)
def test_a_write_that_is_not_plainly_answered_is_unknown_and_sent_once(
    serve: Callable[..., Server], fault: str
) -> None:
    server = serve(FAULTS[fault])
    asked = api(server, most=1000)
    with pytest.raises(TryLater) as found:
        asked.write("POST", "/things", {}, deadline=asked.deadline(20))
    assert len(server.heard) == 1
    assert "s3cr3t" not in str(found.value)


@pytest.mark.parametrize("fault", FAULTS)
def test_a_read_is_repeated_twice_and_never_means_nothing(serve: Callable[..., Server], fault: str) -> None:
    server, hand = serve(FAULTS[fault]), Hand()
    asked = api(server, most=1000, clock=hand.now, wait=hand.wait)
    with pytest.raises(TryLater):
        asked.read("/things", deadline=asked.deadline(60))
    assert (len(server.heard), hand.waits) == (3, [1, 2])


def test_a_read_recovers(serve: Callable[..., Server]) -> None:
    server, hand = serve(CUT_LENGTH, wire(429, b"{}", Retry_After="7"), wire(200, b'{"a": 1}')), Hand()
    asked = api(server, clock=hand.now, wait=hand.wait)
    assert asked.read("/things", deadline=asked.deadline(60)).json == {"a": 1}
    assert hand.waits == [1, 7]


def test_a_read_does_not_wait_past_its_deadline(serve: Callable[..., Server]) -> None:
    server, hand = serve(wire(429, b"{}", Retry_After="70")), Hand()
    asked = api(server, clock=hand.now, wait=hand.wait)
    with pytest.raises(TryLater) as busy:
        asked.read("/things", deadline=asked.deadline(60))
    assert (busy.value.retry_after, len(server.heard), hand.waits) == (70, 1, [])


def test_a_connection_that_was_closed_from_afar_fails_no_write(serve: Callable[..., Server]) -> None:
    server = serve(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}")
    asked = api(server)
    for number in range(5):
        asked.read("/things", deadline=asked.deadline(10))
        asked.write("POST", f"/things/{number}", {}, deadline=asked.deadline(10))
    assert [heard.path for heard in server.heard if heard.method == "POST"] == [f"/v1/things/{n}" for n in range(5)]


def test_a_refusal_is_not_repeated(serve: Callable[..., Server]) -> None:
    server = serve(wire(400, b'{"code": "sold-out", "message": "none of s3cr3t-key-of-ours"}'))
    asked = api(server)
    with pytest.raises(ApiError) as refused:
        asked.read("/things", deadline=asked.deadline(10))
    assert refused.value.meaning == "capacity"
    assert str(refused.value) == f"GET {server.address}/v1/things: sold-out: none of *** (HTTP 400)"
    assert len(server.heard) == 1


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_carries_the_key_nowhere(serve: Callable[..., Server], status: int) -> None:
    other = serve(wire(200, b"{}"))
    server, hand = serve(wire(status, b"{}", Location=f"{other.address}/v1/things")), Hand()
    asked = api(server, clock=hand.now, wait=hand.wait)
    for call in (
        lambda: asked.read("/things", deadline=asked.deadline(60)),
        lambda: asked.write("POST", "/things", {}, deadline=asked.deadline(60)),
    ):
        with pytest.raises(TryLater, match="redirects are not followed"):
            call()
    assert other.heard == []


def test_a_stalled_answer_ends_at_the_deadline(serve: Callable[..., Server]) -> None:
    gone = threading.Event()

    def stall(handler: BaseHTTPRequestHandler) -> None:
        handler.wfile.write(b'HTTP/1.1 200 OK\r\nContent-Length: 50\r\n\r\n{"a"')
        handler.wfile.flush()
        gone.wait(30)

    server = serve(stall)
    asked = api(server)
    with pytest.raises(TryLater, match="no complete answer in time"):
        asked.write("POST", "/things", {}, deadline=asked.deadline(0.3))
    gone.set()


def test_an_answer_that_drips_ends_at_the_deadline(serve: Callable[..., Server]) -> None:
    """Each piece comes in time; all of them do not."""
    hand = Hand()

    def drip(handler: BaseHTTPRequestHandler) -> None:
        handler.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: 5000000\r\n\r\n")
        try:
            for _ in range(5000):
                handler.wfile.write(b" " * 1000)
                hand.at += 1
        except OSError:
            return  # The client hung up, as it should.

    server = serve(drip)
    asked = api(server, clock=hand.now, wait=hand.wait)
    with pytest.raises(TryLater, match="no complete answer in time"):
        asked.write("POST", "/things", {}, deadline=asked.deadline(3))
    assert hand.at < 1000 + 5000


def test_a_closed_port_says_so_without_secrets(serve: Callable[..., Server]) -> None:
    server, hand = serve(b""), Hand()
    server.address = "http://127.0.0.1:1"
    asked = api(server, clock=hand.now, wait=hand.wait)
    with pytest.raises(TryLater) as found:
        asked.write("POST", "/things", {}, deadline=asked.deadline(10))
    assert str(found.value) == "POST http://127.0.0.1:1/v1/things: no connection"


def test_a_key_that_http_does_not_allow_is_not_shown(serve: Callable[..., Server]) -> None:
    server = serve(wire(200, b"{}"))
    for key in ("s3cr3t\n", "s3cr3t\r\nX: y", "schlüssel", "s3cr3t\x00"):
        asked = api(server, headers=lambda key=key: {"X-Key": key})
        with pytest.raises(BackendError, match="credentials for X-Key contain a character") as found:
            asked.read("/things", deadline=asked.deadline(10))
        assert key.strip() not in str(found.value)
    assert server.heard == []


def test_requests_keep_their_distance(serve: Callable[..., Server]) -> None:
    server, hand = serve(wire(200, b"{}")), Hand()
    asked = api(server, interval=5, clock=hand.now, wait=hand.wait)
    for _ in range(3):
        asked.read("/things", deadline=asked.deadline(60))
    assert hand.waits == [5, 5]
    with pytest.raises(TryLater, match="no time left") as busy:
        asked.write("POST", "/things", {}, deadline=asked.deadline(2))
    assert (busy.value.retry_after, len(server.heard)) == (4, 3)


def test_the_proxy_of_the_environment_is_used_and_never_for_loopback(
    serve: Callable[..., Server], monkeypatch: pytest.MonkeyPatch
) -> None:
    proxy, server = serve(wire(403, b"{}")), serve(wire(200, b"{}"))
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
        monkeypatch.setenv(name, f"http://me:pw@{proxy.address.removeprefix('http://')}")
    monkeypatch.setenv("no_proxy", "")
    asked = api(server)
    assert asked.read("/things", deadline=asked.deadline(10)).json == {}
    assert proxy.heard == []
    far = Api("https://cloud.invalid/v1", headers=lambda: {"Authorization": KEY}, dialect=DIALECT)
    with pytest.raises(TryLater) as found:
        far.write("POST", "/things", {}, deadline=far.deadline(10))
    (heard,) = proxy.heard
    assert (heard.method, heard.path) == ("CONNECT", "cloud.invalid:443")
    assert heard.headers["proxy-authorization"].startswith("Basic ")
    assert "Authorization" not in heard.headers
    assert "pw" not in str(found.value)


def self_signed(folder: Path) -> ssl.SSLContext:
    """A server's side of TLS, for the address 127.0.0.1, by a certificate that nobody vouches for."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "127.0.0.1")])
    address = x509.SubjectAlternativeName([x509.IPAddress(IPv4Address("127.0.0.1"))])
    years = (datetime(2020, 1, 1, tzinfo=UTC), datetime(2100, 1, 1, tzinfo=UTC))
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(years[0])
        .not_valid_after(years[1])
        .add_extension(address, critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, SHA256())
    )
    plain = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    (folder / "server.pem").write_bytes(plain + made.public_bytes(Encoding.PEM))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "server.pem")
    return context


def test_a_certificate_is_verified_and_the_environment_may_trust_one(
    serve: Callable[..., Server], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = serve(wire(200, b"{}"), tls=self_signed(tmp_path))
    asked = api(server)
    with pytest.raises(TryLater, match="TLS failed"):
        asked.write("POST", "/things", {}, deadline=asked.deadline(10))
    assert server.heard == []
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "server.pem"))
    assert asked.write("POST", "/things", {}, deadline=asked.deadline(10)).json == {}


def test_a_proxy_may_have_any_password_and_must_speak_http(
    serve: Callable[..., Server], monkeypatch: pytest.MonkeyPatch
) -> None:
    proxy = serve(wire(403, b"{}"))
    for name in ("http_proxy", "HTTP_PROXY", "HTTPS_PROXY", "no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("https_proxy", f"http://me:p%40w@{proxy.address.removeprefix('http://')}")
    far = Api("https://cloud.invalid/v1", headers=dict, dialect=DIALECT)
    with pytest.raises(TryLater):
        far.write("POST", "/things", {}, deadline=far.deadline(10))
    assert b64decode(proxy.heard[0].headers["proxy-authorization"].split()[1]) == b"me:p@w"
    monkeypatch.setenv("https_proxy", "socks5://127.0.0.1:1")
    other = Api("https://cloud.invalid/v1", headers=dict, dialect=DIALECT)
    with pytest.raises(BackendError, match="the proxy of the environment is socks5; use an HTTP proxy"):
        other.write("POST", "/things", {}, deadline=other.deadline(10))


def test_a_credential_is_a_secret_with_and_without_its_scheme() -> None:
    headers = {"Authorization": KEY, "Accept": "application/json", "X-Version": "2"}
    assert secrets_of(headers) == (KEY, "s3cr3t-key-of-ours")
