"""Logins at real OpenSSH servers with the keys that `~/.ssh/config` names, and keys of servers that are revoked."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from reconciler.hosts.runner import Unreachable, Untrusted
from reconciler.hosts.ssh.config import Here
from reconciler.hosts.ssh.connections import Lines
from reconciler.hosts.ssh.pinned import Patience
from reconciler.hosts.transport.ssh import SshTransport
from schemas.host import Host, Jump, fingerprint
from tests.doubles.hosts.real_host import until
from tests.doubles.hosts.ssh_hosts import USER, Lab, SshHost, a_lab, declared, why_not

pytestmark = pytest.mark.skipif(bool(why_not()), reason=why_not() or "-")
HASTY = Patience(dial=10, banner=8, login=30, silence=5)


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    with a_lab(tmp_path_factory.mktemp("lab")) as made:
        yield made


@pytest.fixture(scope="module")
def server(lab: Lab) -> SshHost:
    return lab.host("server")


@pytest.fixture
def home(tmp_path: Path) -> Path:
    (tmp_path / "home/.ssh").mkdir(parents=True)
    return tmp_path / "home"


def says(home: Path, server: SshHost, text: str) -> bytes:
    """What the server calls itself, reached by its alias alone."""
    where = f"Host gpu\n  HostName {server.address}\n  Port {server.port}\n  User {USER}\n"
    (home / ".ssh/config").write_text(where + text)
    lines = Lines(Here(root=home, home=home), patience=HASTY)
    try:
        host = Host(name="gpu", hostname="gpu", host_key=server.key)
        return SshTransport(lambda: lines.to(host), folder="").run("hostname").out
    finally:
        lines.close()


@contextmanager
def agent(folder: Path, *keys: Path) -> Iterator[Path]:
    path = folder / "agent"
    process = subprocess.Popen(["ssh-agent", "-D", "-a", str(path)], stdout=subprocess.DEVNULL)
    try:
        until(path.exists)
        env = {**os.environ, "SSH_AUTH_SOCK": str(path)}
        subprocess.run(["ssh-add", "-q", *map(str, keys)], env=env, check=True, capture_output=True)
        yield path
    finally:
        process.terminate()
        process.wait()


def new_key(path: Path, *, words: str = "") -> Path:
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", words, "-f", str(path)], check=True)
    return path


# ---------------------------------------------------------------- whose keys


def test_a_key_by_its_variable(home: Path, lab: Lab, server: SshHost, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LAB_KEYS", str(lab.key.parent))
    assert says(home, server, f"  IdentityFile ${{LAB_KEYS}}/{lab.key.name} # ours\n") == b"server\n"


def test_an_agent_of_ones_own_and_only_the_keys_that_are_named(home: Path, lab: Lab, server: SshHost) -> None:
    public = home / ".ssh/lab.pub"
    public.write_bytes(subprocess.run(["ssh-keygen", "-y", "-f", lab.key], check=True, capture_output=True).stdout)
    other = new_key(home / "other")
    with agent(home, lab.key, other) as path:
        assert says(home, server, f"  IdentityAgent {path}\n") == b"server\n"
        assert says(home, server, f"  IdentityAgent {path}\n  IdentitiesOnly yes\n  IdentityFile {public}\n")
        with pytest.raises(Unreachable, match="refused"):
            says(home, server, f"  IdentityAgent {path}\n  IdentitiesOnly yes\n  IdentityFile {other}\n")
        with pytest.raises(Unreachable, match="no key to log in with"):
            says(home, server, "  IdentityAgent none\n")


def test_many_keys_of_an_agent_come_behind_the_named_file(home: Path, lab: Lab, server: SshHost) -> None:
    """A server hangs up after six."""
    keys = [new_key(home / f"key-{number}") for number in range(7)]
    with agent(home, *keys) as path:
        assert says(home, server, f"  IdentityAgent {path}\n  IdentityFile {lab.key}\n") == b"server\n"


def test_a_locked_key_is_told_and_its_agent_opens_it(home: Path, lab: Lab, server: SshHost) -> None:
    locked = home / "locked"
    locked.write_bytes(lab.key.read_bytes())
    locked.chmod(0o600)
    subprocess.run(["ssh-keygen", "-q", "-p", "-P", "", "-N", "secret", "-f", locked], check=True, capture_output=True)
    with pytest.raises(Unreachable, match="the key is locked: `ssh-add` it"):
        says(home, server, f"  IdentityAgent none\n  IdentityFile {locked}\n")
    with agent(home, lab.key) as path:
        text = f"  IdentityAgent {path}\n  IdentitiesOnly yes\n  IdentityFile {locked}\n"
        assert says(home, server, text) == b"server\n"


def test_a_certificate(home: Path, lab: Lab) -> None:
    authority, mine = new_key(home / "authority"), new_key(home / "mine")
    server = lab.host("certified", start=False)
    (server.root / "etc/authorized_keys").write_text(f"cert-authority {authority.with_suffix('.pub').read_text()}")
    server.start()
    with pytest.raises(Unreachable, match="refused"):
        says(home, server, f"  IdentityFile {mine}\n")
    sign = ["ssh-keygen", "-q", "-s", str(authority), "-I", "me", "-n", USER, "-V", "+1h", f"{mine}.pub"]
    subprocess.run(sign, check=True, capture_output=True)
    assert says(home, server, f"  IdentityFile {mine}\n") == b"certified\n"
    elsewhere = Path(f"{mine}-cert.pub").rename(home / "elsewhere.pub")
    assert says(home, server, f"  IdentityFile {mine}\n  CertificateFile {elsewhere}\n") == b"certified\n"
    with agent(home, mine) as path:
        by_agent = f"  IdentityFile {mine}\n  IdentityAgent {path}\n  CertificateFile {elsewhere}\n"
        assert says(home, server, by_agent) == b"certified\n"
    server.stop()


# ---------------------------------------------------------------- which way


def test_families_and_addresses_of_ones_own(home: Path, lab: Lab, server: SshHost) -> None:
    login = f"  IdentityFile {lab.key}\n"
    assert says(home, server, f"{login}  AddressFamily inet\n  BindAddress 127.0.0.1\n") == b"server\n"
    with pytest.raises(Unreachable, match="no address for"):
        says(home, server, f"{login}  AddressFamily inet6\n")
    with pytest.raises(Unreachable, match=r"not visible from here.*annot assign requested address"):
        says(home, server, f"{login}  BindAddress 192.0.2.77\n")
    assert says(home, server, f"{login}  BindInterface lo\n") == b"server\n"


def test_algorithms_that_are_left_out_are_not_offered(home: Path, lab: Lab, server: SshHost) -> None:
    login = f"  IdentityFile {lab.key}\n"
    assert says(home, server, f"{login}  Ciphers aes256-ctr\n") == b"server\n"
    with pytest.raises(Unreachable, match=r"(?i)incompatible|no acceptable|negotiat"):
        says(home, server, f"{login}  Ciphers aes128-cbc\n")


# ---------------------------------------------------------------- revoked keys of servers


@pytest.mark.parametrize("where", ["user", "project", "listed", "global", "port", "alias", "unreadable"])
def test_a_revoked_key_is_refused_although_it_is_pinned(home: Path, lab: Lab, server: SshHost, where: str) -> None:
    config = f"  IdentityFile {lab.key}\n"
    line = (
        f"@revoked {'gpu' if where == 'alias' else f'[{server.address}]:*' if where == 'port' else '*'} {server.key}\n"
    )
    (home / ".dstack").mkdir()
    file = home / ".ssh/known_hosts"
    if where == "project":
        file = home / ".dstack/known_hosts"
    elif where == "listed":
        file, line = home / ".ssh/revoked", f"{server.key} somebody\n"
        config += "  RevokedHostKeys ~/.ssh/revoked\n"
    elif where == "global":
        file = home / "all"
        config += f"  UserKnownHostsFile none\n  GlobalKnownHostsFile {file}\n"
    elif where == "unreadable":
        file, line = home / "krl", ""
        config += f"  RevokedHostKeys {file}.absent\n"
    file.write_text(f"# note\n{server.known}{line}")
    with pytest.raises(Untrusted, match=r"is revoked|nobody knows") as told:
        says(home, server, config)
    assert fingerprint(server.key) in str(told.value)
    file.write_text("")
    if where != "unreadable":
        assert says(home, server, config) == b"server\n"


def test_a_revoked_jump_is_refused(home: Path, lab: Lab, server: SshHost) -> None:
    behind = lab.host("behind")
    jump = Jump(hostname=server.address, port=server.port, user=USER, identity_file=str(lab.key), host_key=server.key)
    (home / ".ssh/known_hosts").write_text(f"@revoked * {server.key}\n")
    lines = Lines(Here(root=home, home=home), patience=HASTY)
    with pytest.raises(Untrusted, match=r"jump 127\.0\.0\.1: host key .* is revoked"):
        lines.to(declared(behind, jumps=(jump,)))
    lines.close()
    behind.stop()


def test_an_authority_trusts_nobody_and_is_named(home: Path, lab: Lab, server: SshHost) -> None:
    (home / ".ssh/known_hosts").write_text(f"@cert-authority * {server.key}\n")
    lines = Lines(Here(root=home, home=home), patience=HASTY)
    with pytest.raises(Untrusted, match=r"known_hosts:1 trusts an authority of certificates, which is not supported"):
        lines.to(declared(server, host_key=""))
    lines.close()


# ---------------------------------------------------------------- wherever a name comes from


@pytest.mark.parametrize("name", ["x;touch pwned", "-oProxyCommand=x", "a b", "x\ny"])
def test_an_address_that_is_no_name_is_dialled_by_nobody(home: Path, name: str) -> None:
    """Of a cloud's listing, or of a state that somebody wrote into."""
    from reconciler.hosts.ssh.config import Hop

    lines = Lines(Here(root=home, home=home), patience=HASTY)
    hop = Hop(name="", hostname=name, port=22, user="ubuntu", identities=(), key="", login="x")
    with pytest.raises(Unreachable, match="is not a host name") as told:
        lines.through((hop,))
    assert told.value.ours
