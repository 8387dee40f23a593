"""The way to real OpenSSH servers: which keys are trusted, what login shells do to an answer, what counts as ours."""

from __future__ import annotations

import ast
import dataclasses
import re
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import fabric
import paramiko
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from reconciler.hosts.runner import Unreachable, Untrusted
from reconciler.hosts.ssh.config import Here, Hop
from reconciler.hosts.ssh.connections import Lines
from reconciler.hosts.ssh.pinned import Patience, Pinned
from reconciler.hosts.transport.ssh import SshTransport, _escaped
from schemas.host import Host, Jump, fingerprint
from tests.doubles.hosts.real_host import until
from tests.doubles.hosts.ssh_hosts import USER, Lab, SshHost, a_lab, declared, silent_server, why_not

pytestmark = pytest.mark.skipif(bool(why_not()), reason=why_not() or "-")

ROOT = Path(__file__).parents[2]
OTHER_KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIDKn1tMJaqkJ2oELlcE+FaIeBnvCrvhxNnUDzpfNB1l6"
HASTY = Patience(dial=10, banner=4, login=30, silence=5)


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    with a_lab(tmp_path_factory.mktemp("lab")) as made:
        yield made


@pytest.fixture(scope="module")
def host(lab: Lab) -> SshHost:
    return lab.host("plain")


@pytest.fixture
def lines(lab: Lab) -> Iterator[Lines]:
    made = Lines(Here(root=lab.root, home=lab.root), patience=HASTY)
    yield made
    made.close()


def way(lines: Lines, host: Host, *, folder: str = "") -> SshTransport:
    return SshTransport(lambda: lines.to(host), folder=folder)


# ---------------------------------------------------------------- any shell, any noise


NOISY = {"bash": ".bashrc", "tcsh": ".cshrc", "fish": ".config/fish/config.fish"}


@pytest.mark.parametrize("shell", ["/bin/sh", "/bin/bash", "/usr/bin/tcsh", "/usr/bin/fish"])
def test_every_login_shell_runs_the_same_program(lab: Lab, lines: Lines, shell: str) -> None:
    if not Path(shell).exists():
        pytest.skip(f"no {shell} here")
    name = Path(shell).name
    host = lab.host(f"shell-{name}", login_shell=shell)
    noise = b""
    if name in NOISY:
        rc = host.home / NOISY[name]
        rc.parent.mkdir(parents=True, exist_ok=True)
        rc.write_text("echo Welcome! 100%\n")
        noise = b"Welcome! 100%"
    program = "printf '%s|' \"$@\" 'it''s \"quoted\" \\n!'; cat; echo oops >&2; exit 3"
    heard = way(lines, declared(host)).hear(program, args=["a b", "$HOME `x` ü", ""], stdin=b"data\0\xff")
    assert heard.answer.code == 3
    assert heard.answer.out == 'a b|$HOME `x` ü||its "quoted" \\n!|'.encode() + b"data\0\xff"
    assert heard.answer.err == "oops"
    assert heard.noise.strip() == noise
    host.stop()


@given(st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"])))
def test_what_is_sent_has_nothing_that_a_shell_reads_otherwise(text: str) -> None:
    sent = _escaped(text)
    assert not set(sent) & set("'!\n\r\\") - {"\\"}
    assert sent.isascii()


def test_a_shell_that_floods_is_refused(lab: Lab, lines: Lines) -> None:
    host = lab.host("flood", login_shell="/bin/bash")
    (host.home / ".bashrc").write_text("yes\n")
    with pytest.raises(Unreachable, match="floods"):
        way(lines, declared(host)).run("true", timeout=120)
    host.stop()


FLOODS = {  # what the host does of its own -> what is said
    "answer": ("printf '\\n%s\\n' \"$mark\"; exec yes", r"floods the answer: more comes"),
    "errors": ("exec yes >&2", r"floods the answer: its errors"),
    "slow-errors": ("while :; do echo oops >&2; done", r"no answer in 3 s|floods"),
}


@pytest.mark.parametrize("what", FLOODS)
@pytest.mark.parametrize("to_file", [False, True])
def test_a_host_that_floods_costs_neither_memory_nor_a_thread(
    lab: Lab, lines: Lines, tmp_path: Path, what: str, to_file: bool
) -> None:
    does, says = FLOODS[what]
    host = lab.host(f"flood-{what}-{to_file:d}", login_shell="/bin/bash")
    # Read by a shell that sshd starts; it knows the command, and with it the mark.
    told = "mark=$(tr '\\0' '\\n' < /proc/$$/cmdline | grep -o 'dstack-[0-9a-f]*' | head -n 1)"
    (host.home / ".bashrc").write_text(f"{told}\n{does}\n")
    sink = tmp_path / "came" if to_file else None
    with pytest.raises(Unreachable, match=says):
        way(lines, declared(host)).run("true", to=sink, timeout=3 if what == "slow-errors" else 120, most=1_000_000)
    assert sink is None or sink.stat().st_size <= 1_000_000
    host.stop()


def test_an_answer_of_just_what_is_allowed_comes_whole(host: SshHost, lines: Lines) -> None:
    there = way(lines, declared(host))
    assert len(there.run("head -c 300000 /dev/zero", most=300_000).out) == 300_000
    with pytest.raises(Unreachable, match="floods the answer"):
        there.run("head -c 300001 /dev/zero", most=300_000)


def test_a_login_that_runs_nothing_says_so(lab: Lab, lines: Lines) -> None:
    host = lab.host("nologin", login_shell="/usr/sbin/nologin")
    with pytest.raises(Unreachable, match=r"ran nothing.*not available"):
        way(lines, declared(host)).run("true")
    host.stop()


def test_large_data_both_ways(lab: Lab, host: SshHost, lines: Lines, tmp_path: Path) -> None:
    sent, came = tmp_path / "sent", tmp_path / "came"
    sent.write_bytes(bytes(range(256)) * 50_000)
    assert way(lines, declared(host)).run("cat", stdin=sent, to=came).code == 0
    assert came.read_bytes() == sent.read_bytes()


def test_a_program_that_reads_nothing_is_no_error(host: SshHost, lines: Lines) -> None:
    assert way(lines, declared(host)).run("exit 5", stdin=b"x" * 4_000_000).code == 5


def test_no_answer_in_time(host: SshHost, lines: Lines) -> None:
    with pytest.raises(Unreachable, match=r"no answer in 0\.5 s"):
        way(lines, declared(host)).run("sleep 5", timeout=0.5)


def test_a_folder_that_is_gone_is_no_failed_program(host: SshHost, lines: Lines) -> None:
    with pytest.raises(Unreachable, match="folder there is gone"):
        way(lines, declared(host), folder="never/made").run("true")


def test_nothing_of_ours_is_in_the_process_list_but_the_program(host: SshHost, lines: Lines) -> None:
    there = way(lines, declared(host))
    assert b"s3cr3t" not in there.run("read -r secret; ps axww -o args", stdin=b"s3cr3t-value\n").out
    environment = there.run("env").out
    assert b"HOME=/home/ann" in environment
    assert b"SSH_" not in environment


# ---------------------------------------------------------------- trust


def test_an_unknown_key_is_refused_with_what_to_do(host: SshHost, lines: Lines) -> None:
    with pytest.raises(Untrusted, match="not known: `dstack pool add-ssh") as told:
        lines.to(declared(host, host_key=""))
    assert told.value.shown == host.key
    assert host.fingerprint in str(told.value)


def test_a_changed_key_is_refused_with_both(host: SshHost, lines: Lines) -> None:
    with pytest.raises(Untrusted, match="host key changed") as told:
        lines.to(declared(host, host_key=OTHER_KEY))
    assert host.fingerprint in str(told.value)
    assert fingerprint(OTHER_KEY) in str(told.value)


def test_a_key_of_another_type_than_the_pinned_one_is_a_changed_one(host: SshHost, lines: Lines) -> None:
    rsa = "ssh-rsa AAAAB3NzaC1yc2EAAAADAQABAAAAgQC0g+ZTxC7weoIJLUafOgrm+h3dAxuNQhMqqDhXD3sTQO9N7JH0Tb2BZ0FvYhB6rAaAqmmF9uTD6tB8LkeLZQ9FkhS7kNcFHZ3V9rRFnVQwUPTqG4GdtW9w7m3d9ORGAgS8mMJ5L1ZBvJ5j6QhP5b2k9GgQn7w8e2w0a0QXcQ=="  # noqa: E501
    with pytest.raises(Untrusted):
        lines.to(declared(host, host_key=rsa))


def test_the_servers_own_fingerprint_is_ours(host: SshHost) -> None:
    assert fingerprint(host.key) == host.fingerprint


def test_an_unknown_or_changed_jump_is_refused_too(lab: Lab, host: SshHost, lines: Lines) -> None:
    behind = lab.host("behind")
    for pin, says in (("", "not known"), (OTHER_KEY, "changed")):
        jump = Jump(hostname=host.address, port=host.port, user=USER, identity_file=str(lab.key), host_key=pin)
        with pytest.raises(Untrusted, match=rf"jump 127\.0\.0\.1: host key.*{says}"):
            lines.to(declared(behind, jumps=(jump,)))
    jump = replace(jump, host_key=host.key)
    assert way(lines, declared(behind, jumps=(jump,))).run("hostname").out == b"behind\n"
    with pytest.raises(Untrusted, match=r"^host key"):
        lines.to(declared(behind, jumps=(jump,), host_key=""))


def test_a_jump_of_the_users_own_configuration_is_pinned_by_the_users_own_keys(lab: Lab, host: SshHost) -> None:
    home = lab.root / "somebody"
    (home / ".ssh").mkdir(parents=True)
    behind = lab.host("beyond")
    (home / ".ssh/config").write_text(
        f"Host beyond-*\n  HostName {behind.address}\n  Port {behind.port}\n  User {USER}\n"
        f"  IdentityFile {lab.key}\n  ProxyJump {USER}@gate\n"
        f"Host gate\n  HostName {host.address}\n  Port {host.port}\n  IdentityFile {lab.key}\n"
    )
    there = Host(name="beyond", hostname="beyond-1", host_key=behind.key)
    with pytest.raises(Untrusted, match=r"jump gate: host key.*not known"):
        Lines(Here(root=lab.root, home=home)).to(there)
    (home / ".ssh/known_hosts").write_text(host.known)
    lines = Lines(Here(root=lab.root, home=home))
    assert way(lines, there).run("hostname").out == b"beyond\n"
    lines.close()


def test_two_jumps_in_a_row_are_each_pinned(lab: Lab, host: SshHost, lines: Lines) -> None:
    networks = [lab.network(), lab.network(routed=False), lab.network(routed=False)]
    outer = lab.host("outer", networks=(networks[0], networks[1]))
    inner = lab.host("inner", networks=(networks[1], networks[2]))
    deep = lab.host("deep", networks=(networks[2],))
    hosts = {"outer": outer, "inner": inner}
    login = {"user": USER, "identity_file": str(lab.key)}
    for wrong in ("outer", "inner", ""):
        pins = {name: OTHER_KEY if name == wrong else one.key for name, one in hosts.items()}
        jumps = tuple(Jump(hostname=one.addresses[0], host_key=pins[name], **login) for name, one in hosts.items())
        there = declared(deep, jumps=jumps)
        if wrong:
            with pytest.raises(Untrusted, match=rf"jump {re.escape(hosts[wrong].addresses[0])}: host key changed"):
                lines.to(there)
        else:
            assert way(lines, there).run("hostname").out == b"deep\n"
    with pytest.raises(Untrusted, match=r"^host key changed"):
        lines.to(declared(deep, jumps=jumps, host_key=OTHER_KEY))
    for one in (outer, inner, deep):
        one.stop()


def configured(lab: Lab, text: str, *, name: str) -> Here:
    home = lab.root / name
    (home / ".ssh").mkdir(parents=True)
    (home / ".ssh/config").write_text(text)
    return Here(root=lab.root, home=home)


RELAY = """\
import os, socket, sys, threading
print("relayed", *sys.argv[3:], file=open(sys.argv[3], "a"))
line = socket.create_connection((sys.argv[1], int(sys.argv[2])))
def up():
    while data := os.read(0, 65536): line.sendall(data)
    line.shutdown(socket.SHUT_WR)
threading.Thread(target=up, daemon=True).start()
while data := line.recv(65536): os.write(1, data)
"""


def test_a_proxy_command_of_the_users_own_leads_there_and_the_pin_holds(lab: Lab, host: SshHost) -> None:
    relay, told = lab.root / "relay.py", lab.root / "told"
    relay.write_text(RELAY)
    here = configured(
        lab,
        f"Host far\n  HostName {host.address}\n  Port 1\n  User nobody\n  IdentityFile {lab.key}\n"
        f"  ProxyCommand {sys.executable} {relay} %h %p {told} %r %n 100%% 2>&1 | cat\n  ProxyJump nowhere\n",
        name="relayed",
    )
    there = Host(name="far", hostname="far", port=host.port, user=USER, host_key=host.key)
    lines = Lines(here, patience=HASTY)
    assert way(lines, there).run("hostname").out == f"{host.name}\n".encode()
    assert told.read_text() == f"relayed {told} {USER} far 100%\n"
    with pytest.raises(Untrusted, match="host key changed"):
        lines.to(replace(there, host_key=OTHER_KEY))
    with pytest.raises(Untrusted, match="is not known"):
        lines.to(replace(there, host_key=""))
    behind = lab.host("behind-proxy")
    jump = Jump(hostname="far", port=host.port, user=USER, host_key=host.key)
    assert way(lines, declared(behind, jumps=(jump,))).run("hostname").out == b"behind-proxy\n"
    lines.close()
    until(lambda: str(relay) not in subprocess.run(["ps", "axww"], capture_output=True, text=True, check=True).stdout)


@pytest.mark.parametrize(
    ("command", "ours", "says"),
    [
        ("no-such-program-here %h", True, "its ProxyCommand ended with 127"),
        ("sh -c 'echo no way to %h >&2; exit 3'", False, "its ProxyCommand ended with 3: no way to far"),
        ("sleep 60", False, "accepts and says nothing: no SSH greeting in 1 s"),
        ("nc %x", True, r"has %x: known are %h, %n, %p, %r and %%"),
    ],
)
def test_a_proxy_command_that_leads_nowhere_says_why(lab: Lab, command: str, ours: bool, says: str) -> None:
    here = configured(lab, f"Host far\n  ProxyCommand {command}\n", name=f"nowhere-{abs(hash(command))}")
    lines = Lines(here, patience=Patience(dial=1, banner=1, login=1))
    with pytest.raises(Unreachable, match=re.escape(says)) as told:
        lines.to(Host(name="far", hostname="far", user="ann", host_key=OTHER_KEY))
    assert told.value.ours is ours
    lines.close()


@pytest.mark.parametrize(("hostname", "user"), [("$(id)", "ann"), ("far", "a;b"), ("-oops", "ann"), ("far", "a b")])
def test_what_documents_say_is_no_command(lab: Lab, hostname: str, user: str) -> None:
    """A ProxyCommand is the user's own; the names that a shell would read with it are a colleague's."""
    here = configured(lab, "Host *\n  ProxyCommand nc %h %p %r\n", name=f"told-{abs(hash((hostname, user)))}")
    with pytest.raises(Unreachable, match=r"is not a (host|login) name") as told:
        Lines(here).to(Host(name="far", hostname=hostname, user=user, host_key=OTHER_KEY))
    assert told.value.ours


def test_what_ssh_takes_and_a_shell_would_not_is_given_to_no_proxy_command(lab: Lab) -> None:
    here = configured(lab, "Host *\n  ProxyCommand nc %h %p %r\n", name="told-a-shell")
    with pytest.raises(Unreachable, match="a shell would read it otherwise"):
        Lines(here).to(Host(name="far", hostname="far", user="CORP\\ann", host_key=OTHER_KEY))


def test_jumps_of_the_users_own_that_lead_in_a_circle_are_told(lab: Lab) -> None:
    here = configured(lab, "Host a\n  ProxyJump b\nHost b\n  ProxyJump a\n", name="circle")
    with pytest.raises(Unreachable, match="more than 8 jumps lead to a: does one lead to itself"):
        Lines(here).to(Host(name="a", hostname="a", host_key=OTHER_KEY))


def test_what_the_document_says_wins_over_the_users_configuration(lab: Lab, host: SshHost) -> None:
    home = lab.root / "other"
    (home / ".ssh").mkdir(parents=True)
    (home / ".ssh/config").write_text("Host *\n  User nobody\n  Port 1\n  IdentityFile /nowhere\n  ProxyJump nowhere\n")
    (hop,) = Here(root=lab.root, home=home).hops(declared(host, jumps=()))[-1:]
    assert (hop.user, hop.port, hop.identities) == (USER, host.port, (lab.key,))


def test_no_policy_of_ours_accepts_a_key_that_nobody_pinned() -> None:
    """Read from the sources: who would be trusted, forwarded or shown must be ours to decide."""
    forbidden = {"AutoAddPolicy", "WarningPolicy", "load_system_host_keys", "forward_agent", "request_x11",
                 "AgentRequestHandler", "request_forward_agent"}  # fmt: skip
    found = []
    for path in [*ROOT.glob("reconciler/**/*.py"), *ROOT.glob("backends/**/*.py")]:
        for node in ast.walk(ast.parse(path.read_text())):
            name = getattr(node, "id", None) or getattr(node, "attr", None) or getattr(node, "arg", None)
            if name in forbidden and not (name == "forward_agent" and path.name == "pinned.py"):
                found.append(f"{path.name}: {name}")
            if isinstance(node, ast.keyword) and node.arg == "forward_agent":
                assert isinstance(node.value, ast.Constant)
                assert node.value.value is False
    assert found == []


# ---------------------------------------------------------------- whose fault it is


def test_what_is_missing_here_is_ours(lab: Lab, host: SshHost, lines: Lines) -> None:
    ours = {
        "no key": declared(host, identity_file="/nowhere/id"),
        "no address for": declared(host, hostname="nowhere.invalid"),
        "no key to log in with": replace(declared(host), identity_file=""),
        "jump gone": declared(
            host, jumps=(Jump(hostname="127.0.0.1", port=1, host_key=OTHER_KEY, identity_file=str(lab.key)),)
        ),
    }
    for says, way_there in ours.items():
        with pytest.raises(Unreachable, match=r"^not visible from here") as told:
            lines.to(way_there)
        assert told.value.ours, says


def test_a_locked_key_is_ours(lab: Lab, host: SshHost, lines: Lines, tmp_path: Path) -> None:
    import subprocess

    locked = tmp_path / "locked"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "secret", "-f", str(locked)], check=True)
    with pytest.raises(Unreachable, match="locked: `ssh-add`") as told:
        lines.to(declared(host, identity_file=str(locked)))
    assert told.value.ours


def test_what_is_refused_there_is_theirs(host: SshHost, lines: Lines) -> None:
    for way_there in (declared(host, port=1), declared(host, user="nosuchuser")):
        with pytest.raises(Unreachable) as told:
            lines.to(way_there)
        assert not told.value.ours


def test_a_server_that_accepts_and_is_silent_costs_its_own_time_alone(host: SshHost, lines: Lines) -> None:
    with silent_server() as port, ThreadPoolExecutor(2) as pool:
        began = time.monotonic()
        silent = pool.submit(lines.to, declared(host, port=port))
        assert way(lines, declared(host)).run("true").code == 0
        quick = time.monotonic() - began
        with pytest.raises(Unreachable, match="accepts and says nothing"):
            silent.result(timeout=240)
        assert quick < time.monotonic() - began


@contextmanager
def many_silent(host: SshHost, count: int, *, greeting: bytes = b"") -> Iterator[list[Host]]:
    """Servers that accept, and say the greeting alone."""
    with ExitStack() as opened:
        ports = [opened.enter_context(greeting_server(greeting)) for _ in range(count)]
        yield [declared(host, name=f"silent{port}", port=port) for port in ports]


@contextmanager
def greeting_server(greeting: bytes, accepted: list[socket.socket] | None = None) -> Iterator[int]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        held = [] if accepted is None else accepted

        def greet() -> None:
            with suppress(OSError):
                while True:
                    held.append(server.accept()[0])
                    held[-1].sendall(greeting)  # b"" is nothing

        threading.Thread(target=greet, daemon=True).start()
        try:
            yield server.getsockname()[1]
        finally:
            server.shutdown(socket.SHUT_RDWR)
            for one in held:
                one.close()


@pytest.mark.parametrize("through_jump", [False, True])
def test_silent_servers_take_no_turn_from_others(lab: Lab, host: SshHost, through_jump: bool) -> None:
    lines = Lines(Here(root=lab.root, home=lab.root), patience=hasty(banner=240), at_once=2)
    jump = Jump(hostname=host.address, port=host.port, user=USER, identity_file=str(lab.key), host_key=host.key)
    jumps = (jump,) if through_jump else ()
    with ThreadPoolExecutor(8) as pool:
        with many_silent(host, 8) as silent:
            asked = [pool.submit(lines.to, declared(host, name=one.name, port=one.port, jumps=jumps)) for one in silent]
            until(lambda: all(one.running() for one in asked))
            assert way(lines, declared(host, jumps=jumps)).run("true").code == 0
            assert not any(one.done() for one in asked)
        for one in asked:
            with pytest.raises(Unreachable) as told:
                one.result(timeout=240)
            assert not told.value.ours
    lines.close()


def test_no_turn_in_time_is_ours(lab: Lab, host: SshHost) -> None:
    patience = hasty(banner=240, turn=0.5)
    lines = Lines(Here(root=lab.root, home=lab.root), patience=patience, at_once=1)
    with ThreadPoolExecutor(1) as pool:
        with many_silent(host, 1, greeting=b"SSH-2.0-slow\r\n") as (slow,):
            asked = pool.submit(lines.to, slow)
            until(lambda: lines._logging_in._value == 0)
            with pytest.raises(Unreachable, match=r"^not visible.*too many logins.*no turn came in 0\.5 s") as told:
                lines.to(declared(host))
            assert told.value.ours
        with pytest.raises(Unreachable):
            asked.result(timeout=240)
    until(lambda: answers(lines, declared(host)))
    lines.close()


def answers(lines: Lines, host: Host) -> bool:
    try:
        return way(lines, host).run("true").code == 0
    except Unreachable:
        return False


def hasty(**changes: float) -> Patience:
    return dataclasses.replace(HASTY, **changes)


def test_one_outstanding_connection_a_host_and_a_failure_answers_for_whoever_asks(host: SshHost, lines: Lines) -> None:
    accepted: list[socket.socket] = []
    with greeting_server(b"", accepted) as port, ThreadPoolExecutor(8) as pool:
        asked = [pool.submit(lines.to, declared(host, port=port)) for _ in range(8)]
        for one in asked:
            with pytest.raises(Unreachable):
                one.result(timeout=240)
        assert len(accepted) == 1


def test_connections_are_reused_and_opened_anew_when_they_broke(host: SshHost, lines: Lines) -> None:
    there = declared(host)
    first = lines.to(there)
    with ThreadPoolExecutor(16) as pool:
        answers = list(pool.map(lambda n: way(lines, there).run(f"echo {n}").out, range(40)))
    assert answers == [f"{n}\n".encode() for n in range(40)]
    assert lines.to(there) is first
    first.transport.close()
    assert way(lines, there).run("echo again").out == b"again\n"
    assert lines.to(there) is not first


def test_a_line_that_is_cut_is_noticed(lab: Lab) -> None:
    network = lab.network()
    host = lab.host("far", networks=(network,))
    lines = Lines(Here(root=lab.root, home=lab.root), patience=HASTY)
    there = declared(host)
    assert way(lines, there).run("hostname").out == b"far\n"
    answers: list[str] = []

    def ask() -> None:
        try:
            way(lines, there).run("sleep 3; echo x", timeout=40)
        except Unreachable as error:
            answers.append(str(error))

    asking = threading.Thread(target=ask)
    asking.start()
    host.cut()
    began = time.monotonic()
    with pytest.raises(Unreachable):
        way(lines, there).run("true", timeout=240)
    assert time.monotonic() - began < 200
    host.mend()
    asking.join(timeout=240)
    assert not asking.is_alive()

    def back() -> bool:  # a failure answers for a while
        try:
            return way(lines, there).run("echo back").out == b"back\n"
        except Unreachable:
            return False

    until(back)
    lines.close()


def test_connections_that_are_made_at_once_take_nothing_from_each_other() -> None:
    """The library's settings are one object: it was built anew for each, under the eyes of the others."""
    config = fabric.Config(lazy=True, ssh_config=paramiko.SSHConfig())
    hop = Hop(name="", hostname="h", port=22, user="ann", identities=(), key="")
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)

    def make(number: int) -> Pinned:
        with socket.socket() as unused:
            return Pinned(hop, unused, config=config, patience=Patience())

    try:
        with ThreadPoolExecutor(16) as pool:
            assert len(list(pool.map(make, range(400)))) == 400
    finally:
        sys.setswitchinterval(before)
