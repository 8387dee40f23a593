"""A real registry of images on loopback, that asks for a login; paused and continued at will."""

from __future__ import annotations

import base64
import http.client
import json
import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.doubles.hosts.real_engine import IMAGE, Engine
from tests.doubles.hosts.real_host import until
from tests.worlds.own_ports import free_port

USER, PASSWORD = "puller", "pass-4471"
_HASHED = "$2b$04$436VpSi0CruzsA8fJFfdGeKkEIeQljpwTkLC9UoL.6GP4M9Ruc5gq"
_SETTINGS = """\
version: 0.1
log: {{level: error, accesslog: {{disabled: true}}}}
storage: {{filesystem: {{rootdirectory: {folder}/images}}}}
http: {{addr: "127.0.0.1:{port}"}}
auth: {{htpasswd: {{realm: tests, path: {folder}/users}}}}
"""


@contextmanager
def registry_at(folder: Path) -> Iterator[Registry]:
    """Below that folder; the test is skipped where there is none."""
    if not shutil.which("docker-registry"):
        pytest.skip("docker-registry is not installed")
    (folder / "registry").mkdir()
    registry = Registry(folder / "registry")
    try:
        yield registry
    finally:
        registry.end()


class Registry:
    def __init__(self, folder: Path) -> None:
        self.port = free_port()
        self.folder = folder
        (folder / "users").write_text(f"{USER}:{_HASHED}\n")
        (folder / "config.yml").write_text(_SETTINGS.format(folder=folder, port=self.port))
        program = shutil.which("docker-registry") or ""
        self._process = subprocess.Popen(
            [program, "serve", str(folder / "config.yml")],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        until(self._answers, patience=120)

    def _answers(self) -> bool:
        try:
            line = http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
            line.request("GET", "/v2/")
            return line.getresponse().status == 401
        except OSError:
            return False

    def push(self, engine: Engine, name: str) -> str:
        """The tests' image under that name here; the engine then has it no longer under that name."""
        image = f"127.0.0.1:{self.port}/{name}"
        told = base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
        (self.folder / "config.json").write_text(json.dumps({"auths": {f"127.0.0.1:{self.port}": {"auth": told}}}))
        engine.run("tag", IMAGE, image)
        if engine.name == "docker":
            engine.run("--config", str(self.folder), "push", image)
        else:
            engine.run("push", "--authfile", str(self.folder / "config.json"), image)
        engine.run("rmi", image)
        return image

    def pause(self) -> None:
        os.kill(self._process.pid, signal.SIGSTOP)

    def go_on(self) -> None:
        os.kill(self._process.pid, signal.SIGCONT)

    def end(self) -> None:
        self.go_on()
        self._process.terminate()
        self._process.wait(120)
