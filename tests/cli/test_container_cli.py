"""Runs in containers by the real command, on this machine, with a real engine."""

from __future__ import annotations

import json
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.doubles.commands.command import DSTACK, Folder, Ran, folder_at
from tests.doubles.hosts.real_engine import IMAGE, Engine
from tests.doubles.hosts.real_host import until
from tests.doubles.hosts.real_registry import PASSWORD, USER, registry_at

DOCUMENTS = """\
project: {name: demo, id: demo12345678}
backends: [{type: local, instances: 150}]
pools:
  - name: boxes
    default: true
    nodes: 0..2
    idle_duration: 30m
"""
RUN = f"type: task\nname: boxed\nimage: {IMAGE}\n"


class Project:
    """A project whose commands reach the engine."""

    def __init__(self, folder: Folder, engine: Engine) -> None:
        self.folder, self.engine = folder, engine

    def dstack(self, *args: str, **env: str) -> Ran:
        return self.folder.dstack(*args, env={**self.engine.env, **env})

    def run(self, text: str, *args: str, **env: str) -> Ran:
        self.folder.write("run.yml", text)
        return self.dstack("run", ".", "-f", "run.yml", "-y", *args, **env)

    def row(self, name: str) -> dict[str, object]:
        rows = json.loads(self.dstack("ps", "-a", "--json").out)
        found = [row for row in rows if row["name"] == name]
        return dict(found[0]) if found else {}


@pytest.fixture
def project(tmp_path: Path, engine: Engine) -> Iterator[Project]:
    made = Project(folder_at(tmp_path, documents=DOCUMENTS), engine)
    yield made
    if not (made.folder.root / ".dstack" / "state").exists():
        return
    ended = made.dstack("destroy", "--confirm", "demo")
    assert ended.code == 0, ended.said
    assert engine.containers() == []


def test_a_run_in_a_container_from_its_files_to_its_artifacts(project: Project, engine: Engine) -> None:
    project.folder.write("in.txt", "hello\n")
    text = RUN + "commands:\n- cat in.txt\n- echo $DSTACK_RUN_NAME > out.txt\n- ls /bin/busybox\nartifacts: [out.txt]\n"
    ran = project.run(text)
    assert (ran.code, ran.said.count("hello")) == (0, 1), ran.said
    assert "/bin/busybox" in ran.out
    assert project.dstack("artifacts", "boxed").code == 0
    assert next(project.folder.root.rglob("out.txt")).read_text() == "boxed\n"
    assert engine.containers() == []


def test_a_secret_reaches_the_container_alone(project: Project) -> None:
    text = RUN + "env: [TOKEN]\ncommands:\n- printf '%s' \"$TOKEN\" | wc -c\n- touch seen\n"
    ran = project.run(text, TOKEN="two\nlines-991")
    assert "13" in ran.out, ran.said
    kept = [path for path in project.folder.root.parent.rglob("*") if path.is_file()]
    assert [path for path in kept if b"lines-991" in path.read_bytes()] == []


def test_more_memory_than_its_share_is_told(project: Project) -> None:
    greedy = "x=$(dd if=/dev/zero bs=1M count=600 | tr '\\0' x); echo ${#x}"
    ran = project.run(RUN + f"commands: [{json.dumps(greedy)}]\n")
    assert ran.code == 1
    assert str(project.row("boxed")["reason"]).startswith("out of memory: more than "), ran.said


def test_a_stop_leaves_no_container(project: Project, engine: Engine) -> None:
    ran = project.run(RUN + "commands: [echo ready; sleep 600]\n", "--detach")
    assert ran.code == 0, ran.said
    until(lambda: "ready" in project.dstack("logs", "boxed").out)
    assert len(engine.containers()) == 1
    assert project.dstack("stop", "boxed", "-y").code == 0
    assert engine.containers() == []
    assert project.row("boxed")["status"] == "terminated"


def test_ssh_and_copies_enter_the_container(project: Project, tmp_path: Path) -> None:
    project.folder.write("in.txt", "hello\n")
    ran = project.run(
        f"type: dev-environment\nname: boxed\nide: vscode\nimage: {IMAGE}\nenv: {{COLOUR: green}}\n", "--detach"
    )
    assert ran.code == 0, ran.said
    until(lambda: "ready" in project.dstack("logs", "boxed").out)
    home, where = tmp_path / "home", {**project.folder.env, **project.engine.env}
    attached = subprocess.Popen(
        [*DSTACK, "attach", "boxed"],
        cwd=project.folder.root,
        env=where,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )
    assert attached.stderr is not None
    said = b""
    while b"vscode://" not in said:
        line = attached.stderr.readline()
        assert line, said
        said += line
    attached.send_signal(signal.SIGINT)
    attached.communicate(timeout=240)
    assert b"then it opens vscode://vscode-remote/ssh-remote+boxed/workflow\n" in said
    ssh = ["ssh", "-F", str(home / ".dstack/ssh/config")]
    seen = subprocess.run(
        [*ssh, "boxed", "pwd; cat in.txt; echo $COLOUR; ls /bin/busybox; echo mine > /tmp/only-inside; exit 6"],
        env=where,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=60,
        check=False,
    )
    assert (seen.returncode, seen.stdout) == (6, b"/workflow\nhello\ngreen\n/bin/busybox\n"), seen.stderr
    shell = subprocess.run([*ssh, "-tt", "boxed"], env=where, input=b"tty; exit 5\n", capture_output=True, check=False)
    assert shell.returncode == 5
    assert b"/dev/pts/" in shell.stdout
    assert project.dstack("cp", "boxed:/tmp/only-inside", "inside").code == 0
    assert (project.folder.root / "inside").read_text() == "mine\n"
    assert project.dstack("cp", "boxed:in.txt", "again").code == 0
    assert (project.folder.root / "again").read_text() == "hello\n"
    assert "no file or folder nothing there" in project.dstack("cp", "boxed:nothing", "x").err


def test_an_image_that_cannot_be_pulled(project: Project) -> None:
    ran = project.run("type: task\nname: boxed\nimage: 127.0.0.1:9/none:1\ncommands: [true]\n")
    assert ran.code == 1
    row = project.row("boxed")
    assert row["status"] == "failed"
    assert "127.0.0.1:9/none:1" in str(row["reason"])
    assert "refused" in str(row["reason"]), row


def test_without_an_engine_the_plan_says_what_is_missing(project: Project) -> None:
    project.folder.write(".dstack/runs/boxed.yml", RUN + "commands: [true]\n")
    nothing = project.folder.root.parent / "bin"
    nothing.mkdir()
    for tool in ("git", "sh", "env"):
        (nothing / tool).symlink_to(f"/usr/bin/{tool}")
    said = project.dstack("plan", PATH=str(nothing)).out
    assert "0 with a container runtime" in said
    assert "launch" not in said


def test_a_pool_that_runs_containers_only(project: Project) -> None:
    project.folder.write(".dstack/pools.yml", DOCUMENTS + "    isolation: container\n")
    project.folder.write(".dstack/runs/bare.yml", "type: task\nname: bare\ncommands: [true]\n")
    assert "isolation: container" in project.dstack("plan").out
    project.folder.write(".dstack/pools.yml", DOCUMENTS + f"    isolation: container\n    default_image: {IMAGE}\n")
    ran = project.dstack("apply", "-y")
    assert ran.code == 0, ran.said
    until(lambda: project.dstack("apply", "-y").code == 0 and project.row("bare")["status"] == "done")


def test_the_end_of_an_instance_ends_its_container(project: Project, engine: Engine) -> None:
    project.run(RUN + "commands: [\"trap '' TERM; echo ready; sleep 600\"]\n", "--detach")
    until(lambda: "ready" in project.dstack("logs", "boxed").out)
    assert project.dstack("destroy", "--confirm", "demo").code == 0
    assert engine.containers() == []


def test_a_password_in_the_file_enters_no_state(project: Project) -> None:
    text = RUN + "registry_auth: {username: me, password: plain-6621}\ncommands: [echo ready; sleep 600]\n"
    assert project.run(text, "--detach").code == 0
    until(lambda: "ready" in project.dstack("logs", "boxed").out)
    kept = [path for path in (project.folder.root / ".dstack").rglob("*") if path.is_file()]
    assert [path for path in kept if b"plain-6621" in path.read_bytes()] == []
    assert project.dstack("stop", "boxed", "-y").code == 0


def test_a_dev_environment_in_a_container_keeps_what_was_changed(project: Project, engine: Engine) -> None:
    project.folder.write("in.txt", "one\n")
    text = f"type: dev-environment\nname: boxed\nide: vscode\nimage: {IMAGE}\ninit: [echo two >> in.txt]\n"
    assert project.run(text, "--detach").code == 0
    until(lambda: "[dstack] ready" in project.dstack("logs", "boxed").out)
    assert project.dstack("stop", "boxed", "-y").code == 0
    assert project.dstack("artifacts", "boxed").code == 0
    patch = next(project.folder.root.rglob("changes.patch")).read_text()
    assert "+two" in patch
    assert engine.containers() == []


def test_a_pull_is_shown(project: Project, tmp_path: Path) -> None:
    with registry_at(tmp_path) as registry:
        image = registry.push(project.engine, "team/tiny:1")
        registry.pause()
        auth = f'registry_auth: {{username: {USER}, password: "${{{{ env.REGISTRY }}}}"}}\n'
        text = f"type: task\nname: boxed\nimage: {image}\n{auth}commands: [echo it runs]\n"
        assert project.run(text, "--detach", REGISTRY=PASSWORD).code == 0
        until(lambda: project.dstack("apply", "-y", "--deadline", "2s") and project.row("boxed")["status"] == "pulling")
        assert "pulling" in project.dstack("ps").out
        registry.go_on()
        until(lambda: project.dstack("apply", "-y").code == 0 and project.row("boxed")["status"] == "done")
    assert "it runs" in project.dstack("logs", "boxed").out


def test_files_go_into_a_container(project: Project) -> None:
    """Where there is no `scp`: what it needs is `tar`."""
    waits = "commands: ['until [ -f /tmp/go ]; do sleep 0.1; done', 'cat /tmp/go tree/a']\n"
    project.folder.write("go", "from here\n")
    project.folder.write("tree/a", "a\n")
    assert project.run(RUN + "files: []\n" + waits, "-d").code == 0
    until(lambda: project.dstack("cp", "tree", "boxed:tree").code == 0)
    assert project.dstack("cp", "go", "boxed:/tmp/go").code == 0
    until(lambda: project.dstack("apply", "-y").code or project.row("boxed")["status"] == "done")
    assert project.dstack("logs", "boxed").out == "from here\na\n"
