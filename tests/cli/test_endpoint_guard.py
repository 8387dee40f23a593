"""A new `endpoint` gets no credentials before a person confirms it: the command, behind a proxy that counts."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.doubles.commands.command import Folder, Ran, folder_at
from tests.doubles.commands.pseudo_terminal import at_terminal

ELSEWHERE = "https://ec2.example.invalid"
OTHER = "https://other.example.invalid"
POOLS = """\
project: {{name: demo, id: demo12345678}}
state: local
backends:
  - type: local
  - name: {name}
    type: aws
    regions: [eu-west-1]
    {endpoint}
pools:
  - name: bench
    default: true
    backends: [local]
    resources: {{cpu: 1.., memory: 0.1GB.., disk: 0.1GB..}}
  - name: cloud
    backends: [{name}]
    resources: {{cpu: 1.., memory: 0.1GB.., disk: 10GB..}}
"""
TASK = "type: task\nname: hello\npool_name: cloud\ncommands: [echo hi]\n"


class Proxy:
    """Refuses each connection through it, and keeps the host that was asked for."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            with connection:
                line = connection.recv(4096).split(b"\r\n")[0].decode()
                self.asked.append(line.split()[1].rpartition(":")[0])
                connection.sendall(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")

    def taken(self) -> set[str]:
        found, self.asked[:] = set(self.asked), []
        return found

    def close(self) -> None:
        self._listener.close()


class Project:
    def __init__(self, folder: Folder, proxy: Proxy) -> None:
        self.folder, self.proxy = folder, proxy
        at = f"http://127.0.0.1:{proxy.port}"
        self.env = {
            "HTTPS_PROXY": at,
            "https_proxy": at,
            "NO_PROXY": "",
            "no_proxy": "",
            "AWS_ACCESS_KEY_ID": "AKIAAAAAAAAAAAAAAAAA",
            "AWS_SECRET_ACCESS_KEY": "x" * 40,
            "AWS_MAX_ATTEMPTS": "1",
        }

    def declare(self, endpoint: str, name: str = "remote") -> None:
        line = f"endpoint: {endpoint}" if endpoint else ""
        self.folder.write(".dstack/pools.yml", POOLS.format(endpoint=line, name=name))

    def dstack(self, *args: str) -> Ran:
        return self.folder.dstack(*args, env=self.env)


@pytest.fixture
def project(tmp_path: Path) -> Iterator[Project]:
    """A project with a state, whose backend on AWS has just been given an endpoint on another machine."""
    folder, proxy = folder_at(tmp_path), Proxy()
    assert folder.dstack("apply", "-y", "--detach").code == 0
    made = Project(folder, proxy)
    made.declare(ELSEWHERE)
    folder.write("hello.dstack.yml", TASK)
    yield made
    proxy.close()


LINE = f"backend remote: endpoint default → {ELSEWHERE}; its credentials will be sent there"


def applied(project: Project, name: str = "remote") -> Ran:
    return project.dstack("apply", "-y", "--detach", "--allow-endpoint", name)


def test_nothing_is_sent_before_it_is_applied(project: Project, tmp_path: Path) -> None:
    comment = tmp_path / "comment.md"
    assert LINE in project.dstack("plan", "--markdown", str(comment)).out
    assert LINE in comment.read_text()
    assert json.loads(project.dstack("plan", "--json").out)["confirmations"] == [LINE]
    assert project.dstack("plan", "--detailed-exitcode").code == 2
    assert LINE in project.dstack("plan", "--refresh").out
    assert "endpoint is not applied yet: run `dstack apply`" in project.dstack("backend", "check", "remote").said
    project.dstack("offers", "--refresh")
    assert "endpoint is not applied yet" in project.dstack("run", ".", "-f", "hello.dstack.yml", "-y").said
    project.dstack("pool", "add", "--pool", "cloud", "-y")
    assert "valid" in project.dstack("validate").out
    assert project.proxy.taken() == set()


def test_yes_and_a_saved_plan_do_not_cover_it(project: Project) -> None:
    project.dstack("plan", "--out", "plan.json")
    for args in (("-y",), ("plan.json",)):
        refused = project.dstack("apply", *args, "--detach")
        assert refused.code == 1
        assert LINE in refused.err
        assert "add --allow-endpoint remote" in refused.err
    assert project.proxy.taken() == set()
    unknown = project.dstack("apply", "-y", "--allow-endpoint", "remot")
    assert unknown.code == 1
    assert "did you mean" in unknown.err.lower()


def test_what_was_confirmed_is_used_by_everything_and_not_asked_again(project: Project) -> None:
    assert "Failed to connect to proxy" in applied(project).err
    assert project.proxy.taken() == {"ec2.example.invalid"}
    assert json.loads(project.dstack("plan", "--json").out)["confirmations"] == []
    for args in (("backend", "check", "remote"), ("plan", "--refresh"), ("offers", "--refresh"), ("gc",)):
        project.dstack(*args)
        assert project.proxy.taken() == {"ec2.example.invalid"}, args
    assert "--allow-endpoint" not in project.dstack("apply", "-y", "--detach").said
    assert project.proxy.taken() == {"ec2.example.invalid"}


def test_another_one_is_asked_for_and_its_removal_is_not(project: Project) -> None:
    assert "Failed to connect to proxy" in applied(project).err
    project.proxy.taken()
    project.declare(OTHER)
    assert f"backend remote: endpoint {ELSEWHERE} → {OTHER}; " in project.dstack("plan").out
    assert project.dstack("apply", "-y", "--detach").code == 1
    project.dstack("backend", "check", "remote")
    assert project.proxy.taken() == set()
    project.declare(ELSEWHERE, name="renamed")
    assert "backend renamed: endpoint default" in project.dstack("apply", "-y", "--detach").err
    assert project.proxy.taken() == set()
    project.declare("")
    assert "--allow-endpoint" not in project.dstack("apply", "-y", "--detach").said
    assert "ec2.eu-west-1.amazonaws.com" in project.proxy.taken()


def test_a_lost_state_is_rebuilt_from_it_only_when_confirmed(project: Project) -> None:
    assert "Failed to connect to proxy" in applied(project).err
    project.proxy.taken()
    for file in (project.folder.root / ".dstack" / "state").glob("*.yml"):
        file.unlink()
    assert "--allow-endpoint remote" in project.dstack("state", "rebuild", "-y").err
    refused = project.dstack("pool", "add", "--pool", "bench", "-y")
    assert "cannot be asked whether this project has instances there" in refused.err
    assert project.proxy.taken() == set()
    project.dstack("state", "rebuild", "-y", "--allow-endpoint", "remote")
    assert project.proxy.taken() == {"ec2.example.invalid"}


def test_a_person_is_asked_before_anything_is_sent(project: Project) -> None:
    with at_terminal(project.folder, "apply", "-y", "--detach", env=project.env) as terminal:
        terminal.wait_for("Send the credentials of backend remote there? [y/n]: ")
        assert project.proxy.taken() == set()
        terminal.type("n\n")
        assert terminal.ends() == 1
        assert "Nothing was sent" in terminal.text
    assert project.proxy.taken() == set()
    with at_terminal(project.folder, "apply", "-y", "--detach", env=project.env) as terminal:
        terminal.wait_for("Send the credentials of backend remote there? [y/n]: ")
        terminal.type("y\n")
        terminal.ends()
    assert project.proxy.taken() == {"ec2.example.invalid"}
