"""Attaching on this machine with the real OpenSSH clients: the alias, its programs, ports, what a copy may touch."""

from __future__ import annotations

import http.client
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from reconciler.cli.commands.run.attach import editor_words
from tests.doubles.commands import warm
from tests.doubles.commands.command import Folder, folder_at
from tests.doubles.commands.pseudo_terminal import at_terminal
from tests.doubles.hosts.real_host import until
from tests.worlds.own_ports import free_port

pytestmark = pytest.mark.skipif(not shutil.which("ssh"), reason="no OpenSSH client here")

POOLS = """\
project: {name: demo, id: demo12345678}
pools:
  - {name: bench, default: true, nodes: 0..1, idle_duration: 30m}
"""
NEEDS = "resources: {cpu: 1.., memory: 0.1GB.., disk: 0GB..}\n"


class Attached:
    """`dstack attach` beside a test: what it has said so far, on stdout and stderr."""

    def __init__(self, folder: Folder, *args: str, command: str = "attach", flags: tuple[str, ...] = ()) -> None:
        self.out, self.err = bytearray(), bytearray()
        self.process = warm.start([command, *args, *flags], cwd=folder.root, env=folder.env)
        self._readers = [
            threading.Thread(target=self._read, args=(stream, into), daemon=True)
            for stream, into in ((self.process.stdout, self.out), (self.process.stderr, self.err))
        ]
        for reader in self._readers:
            reader.start()

    def _read(self, stream: object, into: bytearray) -> None:
        while data := os.read(stream.fileno(), 65536):  # type: ignore[attr-defined]
            into.extend(data)

    def says(self, words: str) -> None:
        def said() -> bool:
            assert self.process.poll() is None or words.encode() in self.err + self.out, bytes(self.err + self.out)
            return words.encode() in self.err + self.out

        until(said)

    def ends(self) -> int:
        code = self.process.wait(timeout=240)
        for reader in self._readers:
            reader.join(240)
        return code

    def detach(self) -> None:
        """Ctrl-C."""
        self.process.send_signal(signal.SIGINT)
        # CPython dies of the signal itself where it came inside an `exec`, as an import of dataclasses does, though it
        # was caught. A shell reads 130 of both.
        assert self.ends() in (130, -signal.SIGINT), bytes(self.err)

    def local_port(self, remote: int) -> int:
        self.says(f"leads to port {remote} of")
        found = re.search(rb"127\.0\.0\.1:(\d+) leads to port %d of" % remote, bytes(self.err))
        assert found
        return int(found[1])


@contextmanager
def attached(folder: Folder, *args: str) -> Iterator[Attached]:
    made = Attached(folder, *args)
    try:
        yield made
    finally:
        if made.process.poll() is None:
            made.process.kill()
        made.process.wait()


def ssh(home: Path, *args: str, program: str = "ssh", **options: object) -> subprocess.CompletedProcess[bytes]:
    """With our file alone as its configuration."""
    given: dict[str, object] = {"stdin": subprocess.DEVNULL, **options}
    if "input" in options:
        del given["stdin"]
    return subprocess.run(  # type: ignore[call-overload,no-any-return]
        [program, "-F", str(home / ".dstack/ssh/config"), *args],
        capture_output=True,
        timeout=60,
        check=False,
        env=_at(home),
        **given,
    )


def begin_ssh(home: Path, *args: str) -> subprocess.Popen[bytes]:
    """The same, begun: it has what it is given, and ends, with its standard input."""
    return subprocess.Popen(
        ["ssh", "-F", str(home / ".dstack/ssh/config"), *args],
        env=_at(home),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


def _at(home: Path) -> dict[str, str]:
    root = str(Path(__file__).parents[2])
    return {**os.environ, "PYTHONPATH": root, "HOME": str(home), "XDG_STATE_HOME": str(home / "state")}


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path / "home"


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Folder]:
    """A dev environment that runs on this machine, with a file."""
    folder = folder_at(tmp_path, documents=POOLS)
    folder.write("notes.txt", "first\n")
    folder.write(
        "dev.yml",
        "type: dev-environment\nname: desk\nide: vscode\nfiles: [notes.txt]\nenv: {COLOUR: green}\n"
        f"init: [echo set up]\n{NEEDS}",
    )
    ran = folder.dstack("run", ".", "-f", "dev.yml", "-y", "-d")
    assert ran.code == 0, ran.said
    yield folder
    folder.dstack("destroy", "--confirm", "demo")


def test_ssh_enters_the_run_as_if_it_were_a_host(desk: Folder, home: Path, tmp_path: Path) -> None:
    with attached(desk, "desk") as here:
        here.says("set up\n")
        here.says("then it opens vscode://vscode-remote/ssh-remote+desk/")
        here.detach()
    assert f"vscode does not know desk yet: `-y` lets {home}/.ssh/config include".encode() in here.err
    folder = re.search(rb"ssh-remote\+desk(/\S+)", bytes(here.err))
    assert folder
    assert Path(os.fsdecode(folder[1])).is_dir()
    assert b"the run goes on" in here.err
    ran = ssh(home, "desk", 'echo "$COLOUR" "$DSTACK_RUN_NAME"; cat notes.txt; echo bad >&2; exit 7')
    assert (ran.returncode, ran.stdout, ran.stderr) == (7, b"green desk\nfirst\n", b"bad\n")
    assert ssh(home, "desk", "true").returncode == 0
    given = ssh(home, "desk", "wc -c", input=b"x" * 300_000)
    assert given.stdout.split() == [b"300000"]
    shell = ssh(home, "-tt", "desk", input=b"tty; stty size; exit 5\n")
    assert shell.returncode == 5
    assert b"/dev/pts/" in shell.stdout
    assert ssh(home, "-tt", "desk", "test -t 0 && echo a terminal").stdout.strip() == b"a terminal"
    piped = ssh(home, "-T", "desk", input=b"cat notes.txt\n")
    assert piped.stdout == b"first\n"
    upload = tmp_path / "up load.bin"
    upload.write_bytes(os.urandom(200_000))
    for program in (("scp",), ("scp", "-O")):
        sent = ssh(home, *program[1:], str(upload), "desk:copied.bin", program="scp")
        assert sent.returncode == 0, sent.stderr
        fetched = ssh(home, *program[1:], "desk:copied.bin", str(tmp_path / "back.bin"), program="scp")
        assert fetched.returncode == 0, fetched.stderr
        assert (tmp_path / "back.bin").read_bytes() == upload.read_bytes()
    listed = ssh(home, "-b", "-", "desk", program="sftp", input=b"ls\n")
    assert b"notes.txt" in listed.stdout


def test_an_alias_goes_with_its_run(desk: Folder, home: Path) -> None:
    with attached(desk, "desk") as here:
        here.says("enters it")
        here.detach()
    entry = home / ".dstack/ssh/runs/desk.conf"
    assert entry.exists()
    assert entry.stat().st_mode & 0o777 == 0o600
    assert desk.dstack("ps").code == 0
    assert entry.exists()
    assert desk.dstack("stop", "desk", "-y").code == 0
    assert not entry.exists()
    gone = desk.dstack("attach", "desk")
    assert gone.code == 1
    assert "has ended" in gone.err


MINE = b"# mine\nHost *\n    User bob\n    ForwardAgent yes\n"


def test_the_users_own_configuration_gets_one_line_when_asked_for(desk: Folder, home: Path) -> None:
    config = home / ".ssh/config"
    config.parent.mkdir(mode=0o700)
    real = home / "dotfiles"
    real.write_bytes(MINE)
    real.chmod(0o640)
    config.symlink_to(real)
    with attached(desk, "desk") as here:
        here.says("lets")
        here.detach()
    assert real.read_bytes() == MINE
    with at_terminal(desk, "attach", "desk") as terminal:
        terminal.wait_for("add that line at its top?")
        terminal.type("y\n")
        terminal.wait_for("`ssh desk` enters it")
        terminal.wait_for("set up")
        terminal.interrupt()
        assert terminal.ends() == 130
    for _ in range(2):
        with attached(desk, "desk", "-y") as here:
            here.says("`ssh desk` enters it")
            here.says("\nopen vscode://vscode-remote/ssh-remote+desk/")
            here.detach()
    text = real.read_bytes()
    assert config.is_symlink()
    assert text.endswith(b"\n" + MINE)
    assert text.count(b"Include") == 1
    assert real.stat().st_mode & 0o777 == 0o640
    env = {**desk.env, "HOME": str(home)}
    done = subprocess.run(["ssh", "-F", str(config), "desk", "echo $COLOUR"], capture_output=True, env=env, check=False)
    assert (done.returncode, done.stdout) == (0, b"green\n"), done.stderr
    told = subprocess.run(["ssh", "-G", "-F", str(config), "desk"], capture_output=True, text=True, check=True).stdout
    assert "forwardagent no\n" in told
    assert "user dstack\n" in told
    elsewhere = subprocess.run(["ssh", "-G", "-F", str(config), "other"], capture_output=True, text=True, check=True)
    assert "user bob\n" in elsewhere.stdout
    assert "proxycommand" not in elsewhere.stdout


def test_a_host_of_the_same_name_keeps_it(desk: Folder, home: Path) -> None:
    config = home / ".ssh/config"
    config.parent.mkdir(mode=0o700)
    config.write_text("Host lab desk\n    HostName desk.example\n")
    with attached(desk, "desk", "-y") as here:
        here.says("has a `Host desk` of its own")
        here.detach()
    assert config.read_text().startswith("Host lab")
    assert not (home / ".dstack/ssh/runs/desk.conf").exists()
    with attached(desk, "desk", "--no-ssh-config") as here:
        here.says("set up")
        here.says("vscode cannot open /")
        here.detach()
    assert b"ssh desk" not in here.err
    assert b"vscode://" not in here.err


@pytest.mark.parametrize(
    ("alias", "missing", "words"),
    [
        ("desk.2", "", "open cursor://vscode-remote/ssh-remote+desk.2/work/a%20b"),
        ("web.r1", "", "open cursor://vscode-remote/ssh-remote+web.r1/work/a%20b"),
        ("desk", "do X", "cursor does not know desk yet: do X; then it opens cursor://vscode-remote/ssh-remote+desk/"),
        ("", "", "cursor cannot open /work/a b: it enters as `ssh` does, and this run has no alias"),
    ],
)
def test_an_editor_enters_by_the_alias_that_ssh_knows(alias: str, missing: str, words: str) -> None:
    assert editor_words("cursor", "/work/a b", alias=alias, missing=missing).startswith(words)


def test_ports_on_this_machine(desk: Folder, home: Path) -> None:
    port, taken = free_port(), socket.create_server(("127.0.0.1", 0))
    serve = f"exec {sys.executable} -m http.server --bind 127.0.0.1 {port} 2>/dev/null"
    assert desk.dstack("attach", "desk", "-p", "80:http").err.startswith("error: -p 80:http: not LOCAL:REMOTE")
    wanted = taken.getsockname()[1]
    with taken, attached(desk, "desk", "-p", str(port), "-p", f"{wanted}:{port}") as here:
        here.says(f"port {port} is on this machine: 127.0.0.1:{port}")
        here.says(f"127.0.0.1:{wanted} is taken here: ")
        local = here.local_port(port)
        with socket.create_connection(("127.0.0.1", local)) as early:
            assert early.recv(1) == b""
        here.says(f"port {port}: ")
        until((home / ".dstack/ssh/config").exists)
        server = subprocess.Popen(
            ["ssh", "-F", str(home / ".dstack/ssh/config"), "-tt", "desk", serve],
            env=desk.env,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
        )
        try:
            until(lambda: _fetched(local))
            tunnel = free_port()
            through = subprocess.Popen(
                ["ssh", "-F", str(home / ".dstack/ssh/config"), "-N", "-L", f"{tunnel}:127.0.0.1:{port}", "desk"],
                env=desk.env,
                stdin=subprocess.DEVNULL,
            )
            try:
                until(lambda: _fetched(tunnel))
            finally:
                through.terminate()
                through.wait()
        finally:
            server.terminate()
            server.wait()
        here.detach()


def _fetched(port: int) -> bool:
    try:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        connection.request("GET", "/notes.txt")
        return connection.getresponse().read() == b"first\n"
    except (OSError, http.client.HTTPException):
        return False


def test_a_copy_of_what_lives_and_of_what_was_kept(tmp_path: Path) -> None:
    folder = folder_at(tmp_path, documents=POOLS)
    folder.write(
        "job.yml",
        "type: task\nname: job\nfiles: []\nworking_dir: sub\nartifacts: ['sub/out/**']\ncommands:\n"
        "  - mkdir -p out/deep; echo one > out/a; echo two > 'out/deep/b c'; ln -s a out/link; ln -s /etc out/away\n"
        "  - ln -s out/a top; echo ready; sleep 600\n" + NEEDS,
    )
    assert folder.dstack("run", ".", "-f", "job.yml", "-y", "-d").code == 0
    until(lambda: "ready" in folder.dstack("logs", "job").out)
    copied = folder.dstack("cp", "job:out", "here")
    assert copied.code == 1, copied.said
    assert "left out, a link that leaves the folder: away -> /etc" in copied.err
    here = folder.root / "here"
    assert (here / "a").read_text() == "one\n"
    assert (here / "deep/b c").read_text() == "two\n"
    assert os.readlink(here / "link") == "a"
    assert not os.path.lexists(here / "away")
    assert folder.dstack("cp", "job:out/deep", "here").code == 0
    assert (here / "deep/b c").read_text() == "two\n"
    assert folder.dstack("cp", "job:top", "file").code == 0
    assert (folder.root / "file").read_text() == "one\n"
    assert folder.dstack("cp", "job:out/a", "here").code == 0
    assert "no file or folder nothing there" in folder.dstack("cp", "job:nothing", "x").err
    assert folder.dstack("cp", "file", "job:x").code == 0
    assert folder.dstack("cp", "job:x", "there-and-back").code == 0
    assert (folder.root / "there-and-back").read_text() == "one\n"
    assert folder.dstack("stop", "job", "-y").code == 0
    kept = folder.dstack("cp", "job:out", "kept")
    assert kept.code == 0, kept.said
    assert (folder.root / "kept/deep/b c").read_text() == "two\n"
    assert folder.dstack("cp", "job:out/a", "kept/again").code == 0
    assert (folder.root / "kept/again").read_text() == "one\n"
    assert "is not among the artifacts" in folder.dstack("cp", "job:other", "x").err
    folder.dstack("destroy", "--confirm", "demo")
