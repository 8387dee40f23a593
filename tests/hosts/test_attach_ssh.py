"""Attached to real servers with real OpenSSH clients: behind a jump, across a cut, several nodes, dev environments."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cli.test_attach import Attached, attached, begin_ssh, ssh
from tests.doubles.commands.command import DSTACK, Folder
from tests.doubles.hosts.real_host import until
from tests.doubles.hosts.ssh_hosts import SshHost, a_lab, document, why_not
from tests.hosts.test_ssh_runs import Shop
from tests.worlds.own_ports import free_port

pytestmark = pytest.mark.skipif(bool(why_not()) or not shutil.which("ssh"), reason=why_not() or "no ssh here")


@pytest.fixture
def shop(tmp_path: Path) -> Iterator[Shop]:
    with a_lab(tmp_path / "lab") as lab:
        yield Shop(lab, Folder(tmp_path / "project"))


@pytest.fixture
def home(tmp_path: Path) -> Path:
    made = tmp_path / "home"
    made.mkdir()
    return made


def dev(shop: Shop, *, more: str = "") -> None:
    shop.folder.write("notes.txt", "first\n")
    shop.folder.write(".gitignore", "*.log\n")
    shop.folder.write(
        ".dstack/runs/desk.yml",
        "type: dev-environment\nname: desk\nide: cursor\nfiles: [notes.txt, .gitignore]\nworking_dir: src\n"
        f"resources: {{cpu: 1.., memory: 0.1GB.., disk: 0GB..}}\ninit: [echo set up]\n{more}",
    )


def test_attach_behind_a_jump(shop: Shop, home: Path, tmp_path: Path) -> None:
    outer, inner = shop.lab.network(), shop.lab.network(routed=False)
    jump = shop.lab.host("jump", networks=(outer, inner))
    host = shop.lab.host("node", networks=(inner,), login_shell="/bin/bash")
    (host.home / ".bashrc").write_text("echo Welcome to node\n")
    via = f"proxy_jump: {{hostname: {jump.address}, user: ann, host_key: {jump.key}}}"
    shop.folder.write(".dstack/pools.yml", document(shop.lab, host).replace("    ssh:\n", f"    ssh:\n      {via}\n"))
    port = free_port()
    dev(shop, more=f"ports: ['{port}:8000']")
    shop.apply()
    shop.comes_to("desk", "running")
    with attached(shop.folder, "desk", "-p", "*:8000") as here:
        here.says("set up\n")
        here.says("then it opens cursor://vscode-remote/ssh-remote+desk/home/ann/.dstack-hosts/")
        local = here.local_port(8000)
        assert local == port
        ran = ssh(home, "desk", "hostname; pwd; cat ../notes.txt; echo $DSTACK_RUN_NAME >&2; exit 3")
        assert (ran.returncode, ran.stderr) == (3, b"desk\n")
        name, folder, notes = ran.stdout.decode().splitlines()
        assert (name, notes) == ("node", "first")
        assert folder.endswith("/work/src")
        # A program that listens there, begun by ssh, seen through the forwarded port.
        given = "cd ..; /usr/bin/python3 -m http.server --bind 127.0.0.1 8000 > server.log 2>&1 & echo $!"
        started = ssh(home, "desk", given)
        assert started.returncode == 0, started.stderr
        until(lambda: b"first" in _fetch(local))
        sent = tmp_path / "sent.bin"
        sent.write_bytes(os.urandom(300_000))
        assert ssh(home, str(sent), "desk:data.bin", program="scp").returncode == 0
        assert ssh(home, "desk:data.bin", str(tmp_path / "back.bin"), program="scp").returncode == 0
        assert (tmp_path / "back.bin").read_bytes() == sent.read_bytes()
        terminal = ssh(home, "-tt", "desk", input=b"tty; exit 4\n")
        assert terminal.returncode == 4
        assert b"/dev/pts/" in terminal.stdout
        shop.dstack("cp", "desk:data.bin", "copied.bin")
        assert (shop.folder.root / "copied.bin").read_bytes() == sent.read_bytes()
        here.detach()
    assert shop.runs()["desk"]["status"] == "running"
    known = "".join(path.read_text() for path in (home / ".dstack/ssh").rglob("*.conf"))
    assert "ProxyCommand" in known
    assert str(shop.lab.key) not in known


def _fetch(port: int) -> bytes:
    import http.client

    try:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        connection.request("GET", "/notes.txt")
        return connection.getresponse().read()
    except (OSError, http.client.HTTPException):
        return b""


def test_no_byte_of_a_log_is_lost_or_doubled_across_a_cut(shop: Shop) -> None:
    network = shop.lab.network()
    host = shop.lab.host("far", networks=(network,))
    shop.documents(host)
    shop.run_file(
        "count", "i=0; until [ -f ~/enough ]; do i=$((i+1)); echo line $i; sleep 0.1; done; echo $i > ~/said", "exit 5"
    )
    shop.apply()
    shop.comes_to("count", "running")
    followers = [
        Attached(shop.folder, "count", "--no-ssh-config"),
        Attached(shop.folder, "count", command="logs", flags=("-f",)),
    ]
    for one in followers:
        one.says("line 3\n")
    host.cut()
    for one in followers:
        one.says("the run goes on, trying again")
    host.mend()
    for one in followers:
        one.says("answers again")
    (host.home / "enough").write_text("")
    for one in followers:
        assert one.ends() == 0, bytes(one.err)
    last = int((host.home / "said").read_text())
    for one in followers:
        assert one.out.decode() == "".join(f"line {number}\n" for number in range(1, last + 1))
        assert one.err.count(b"trying again") == 1
        assert one.err.count(b"answers again") == 1
    shop.comes_to("count", "failed")
    assert shop.runs()["count"]["exit_code"] == 5
    assert shop.dstack("logs", "count").out.splitlines()[-1] == f"line {last}"


def test_each_node_is_followed_entered_and_copied_from(shop: Shop, home: Path) -> None:
    network = shop.lab.network()
    hosts = [shop.lab.host(f"n{number}", networks=(network,)) for number in range(2)]
    shop.documents(*hosts)
    shop.run_file("pair", "echo I am $DSTACK_NODE_RANK | tee mine", "sleep 600", more="nodes: 2\nfiles: []")
    shop.apply()
    shop.comes_to("pair", "running")
    for rank in range(2):
        with attached(shop.folder, "pair", "--job", str(rank)) as here:
            here.says(f"I am {rank}\n")
            here.detach()
        alias = "pair" + (f".{rank}" if rank else "")
        assert ssh(home, alias, "cat mine; hostname").stdout.decode().split() == ["I", "am", str(rank), f"n{rank}"]
        shop.dstack("cp", "pair:mine", f"from{rank}", "--job", str(rank))
        assert (shop.folder.root / f"from{rank}").read_text() == f"I am {rank}\n"
        assert shop.dstack("logs", "pair", "--job", str(rank)).out == f"I am {rank}\n"
    shop.dstack("stop", "pair", "-y")
    shop.dstack("ps")
    assert list((home / ".dstack/ssh/runs").iterdir()) == []


def it_looks(host: SshHost) -> None:
    """The supervisor sleeps between its looks: there is one between two new sleeps."""
    before, since = host.pids("sleep"), set()

    def often() -> bool:
        since.update(host.pids("sleep") - before)
        return len(since) > 1

    until(often)


def test_a_dev_environment_ends_for_inactivity_and_its_changes_are_kept(shop: Shop, home: Path) -> None:
    host = shop.lab.host("node", start=False)
    host.pass_time(0)
    host.start()
    shop.documents(host)
    dev(shop, more="inactivity_duration: 20s")
    shop.apply()
    shop.comes_to("desk", "running")
    with attached(shop.folder, "desk") as here:
        here.says("`ssh -F")
        edit = "echo second >> ../notes.txt; echo new > made.txt; echo no > x.log; cat; echo awake"
        inside = begin_ssh(home, "desk", edit)
        until(lambda: any(host.home.rglob("work/src/x.log")))
        host.pass_time(21)
        it_looks(host)
        assert inside.communicate(timeout=240)[0] == b"awake\n", "a session without a terminal keeps it alive"
        it_looks(host)
        host.pass_time(11)
        here.says("nobody has been active for 11 s: this ends in 9 s")
        host.pass_time(10)
        assert here.ends() == 0
        assert "[dstack] ended: inactivity:20" in here.out.decode()
    assert (home / ".dstack/ssh/runs/desk.conf").exists()
    shop.comes_to("desk", "terminated")
    assert not (home / ".dstack/ssh/runs/desk.conf").exists(), "whoever applies sees the end"
    assert shop.runs()["desk"]["reason"] == "inactive for 20s"
    shop.dstack("artifacts", "desk", "kept")
    kept = shop.folder.root / "kept/dstack-changes"
    assert "+second" in (kept / "changes.patch").read_text()
    assert (kept / "untracked/src/made.txt").read_text() == "new\n"
    assert not (kept / "untracked/src/x.log").exists()
    shop.folder.write("notes.txt", "first\n")
    subprocess.run(["git", "apply", str(kept / "changes.patch")], cwd=shop.folder.root, check=True)
    assert (shop.folder.root / "notes.txt").read_text() == "first\nsecond\n"


def test_artifacts_come_while_it_runs_and_with_its_end(shop: Shop) -> None:
    host = shop.lab.host("node")
    shop.documents(host)
    shop.run_file(
        "train",
        "mkdir out; echo 1 > out/step; until [ -f ~/go ]; do sleep 0.1; done; echo 2 > out/step",
        "exit 9",
        more="files: []\nartifacts: ['out/**']\nartifacts_every: 1s",
    )
    shop.apply()
    shop.comes_to("train", "running")

    def saved() -> bool:
        shop.apply()
        return shop.dstack("artifacts", "train", "early", ok=False).code == 0

    until(saved)
    assert (shop.folder.root / "early/out/step").read_text() == "1\n"
    (host.home / "go").write_text("")
    shop.comes_to("train", "failed")
    assert shop.runs()["train"]["exit_code"] == 9
    shop.dstack("artifacts", "train", "late")
    assert (shop.folder.root / "late/out/step").read_text() == "2\n"
    shop.dstack("cp", "train:out/step", "copied")
    assert (shop.folder.root / "copied").read_text() == "2\n"
    assert not (host.home / ".dstack-hosts").exists() or not list(host.home.glob(".dstack-hosts/*/host/jobs/*/log"))


def test_a_copy_over_a_connection_that_breaks_says_so(shop: Shop) -> None:
    network = shop.lab.network()
    host = shop.lab.host("far", networks=(network,))
    shop.documents(host)
    shop.run_file("big", "head -c 900M /dev/zero > big; echo ready; sleep 600", more="files: []")
    shop.apply()
    shop.comes_to("big", "running")
    until(lambda: "ready" in shop.dstack("logs", "big").out)
    copying = subprocess.Popen(
        [*DSTACK, "cp", "big:big", "here"],
        cwd=shop.folder.root,
        env=shop.folder.env,
        stderr=subprocess.PIPE,
        stdin=subprocess.DEVNULL,
    )
    until(lambda: any(path.stat().st_size for path in shop.folder.root.glob(".*.part")))
    host.cut()
    _, said = copying.communicate(timeout=240)
    assert copying.returncode == 1
    assert b"error: " in said
    assert not (shop.folder.root / "here").exists()
    assert not list(shop.folder.root.glob(".*.part"))
