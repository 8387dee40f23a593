"""`dstack pool add-ssh` on real servers: what is shown, asked, trusted and written."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.doubles.commands.command import Folder, Ran, folder_at
from tests.doubles.commands.pseudo_terminal import at_terminal
from tests.doubles.hosts.ssh_hosts import Lab, SshHost, a_lab, give_gpus, why_not

pytestmark = pytest.mark.skipif(bool(why_not()), reason=why_not() or "-")

POOLS = """\
project: {name: demo, id: demo12345678}
pools:
  - name: lab   # ours
    default: true
    disk_floor: 0GB
"""


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    with a_lab(tmp_path_factory.mktemp("lab")) as made:
        yield made


@pytest.fixture(scope="module")
def server(lab: Lab) -> SshHost:
    made = lab.host("server")
    give_gpus(made, count=2, apps="GPU-00000001, 77, 2048\n")
    return made


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    return folder_at(tmp_path, documents=POOLS)


def add(folder: Folder, lab: Lab, *words: str) -> Ran:
    return folder.dstack("pool", "add-ssh", "-l", "ann", "-i", str(lab.key), *words)


def known(folder: Folder) -> str:
    path = folder.root / ".dstack/known_hosts"
    return path.read_text() if path.exists() else ""


def pools(folder: Folder) -> str:
    return (folder.root / ".dstack/pools.yml").read_text()


def trust(folder: Folder, text: str) -> None:
    """In the user's own file."""
    home = folder.root.parent / "home/.ssh"
    home.mkdir(parents=True, exist_ok=True)
    (home / "known_hosts").write_text(text)


def test_a_new_key_is_shown_and_not_trusted_by_yes_alone(folder: Folder, lab: Lab, server: SshHost) -> None:
    ran = add(folder, lab, "-y", "-p", str(server.port), server.address)
    assert ran.code == 1
    assert server.fingerprint in ran.out
    assert "-y does not trust a key that nobody has seen" in ran.err
    assert pools(folder) == POOLS
    assert known(folder) == ""


def test_every_check_is_shown_by_name_with_its_time(folder: Folder, lab: Lab, server: SshHost) -> None:
    said = add(folder, lab, "-p", str(server.port), server.address).out
    for name in ("reachable", "host-key", "login", "shell", "machine-id", "tools", "home", "cpus", "memory", "disk",
                 "nvidia-driver", "gpus", "clock", "network", "owner"):  # fmt: skip
        assert name in said, name
    assert re.search(r"login \d+ms", said)
    assert "2xA100 (80GB)" in said
    assert "gpu-processes: gpu 1: pid 77, 2 GB" in said


def test_a_given_key_is_trusted_and_another_one_is_not(folder: Folder, lab: Lab, server: SshHost) -> None:
    other = lab.host("other")
    wrong = add(folder, lab, "-y", "--host-key", other.key, "-p", str(server.port), server.address)
    assert wrong.code == 1
    assert "CHANGED: pinned is " + other.fingerprint in wrong.out
    assert pools(folder) == POOLS
    right = add(folder, lab, "-y", "--host-key", server.key, "--name", "one", f"ssh://{server.address}:{server.port}")
    assert right.code == 0, right.said
    assert pools(folder) == POOLS + (
        "    ssh:\n      hosts:\n"
        f"        - {{hostname: {server.address}, port: {server.port}, user: ann, identity_file: {lab.key}, "
        "name: one}\n"
    )
    assert known(folder) == server.known
    assert "commit this, or main undoes it" in right.err
    assert folder.dstack("validate").code == 0
    other.stop()


def test_several_at_once_one_of_which_is_down(folder: Folder, lab: Lab, server: SshHost) -> None:
    network = lab.network()
    hosts = [lab.host(f"n{number}", networks=(network,)) for number in range(3)]
    trust(folder, "".join(host.known for host in hosts))
    ran = add(folder, lab, "-y", *(host.address for host in hosts), f"{network.prefix}.222")
    assert ran.code == 1, "one was not reached"
    assert f"{network.prefix}.222: No route to host" in ran.out
    assert all(host.address in pools(folder) and host.known in known(folder) for host in hosts)
    assert f"{network.prefix}.222" not in pools(folder)
    again = add(folder, lab, "-y", hosts[0].address)
    assert again.code == 0, again.said
    assert pools(folder).count(f"hostname: {hosts[0].address},") == 1
    for host in hosts:
        host.stop()


def test_a_person_is_asked_and_a_changed_key_is_told(folder: Folder, lab: Lab) -> None:
    host = lab.host("asked")
    words = ("pool", "add-ssh", "-l", "ann", "-i", str(lab.key), "-p", str(host.port), host.address)
    with at_terminal(folder, *words) as seen:
        seen.wait_for("Trust this key and declare 1 host in pool lab? [y/n]")
        seen.type("n\n")
        assert seen.ends() == 1
    assert pools(folder) == POOLS
    with at_terminal(folder, *words) as seen:
        seen.wait_for("[y/n]")
        seen.type("y\n")
        assert seen.ends() == 0
    before = pools(folder)
    assert host.known in known(folder)
    host.new_key()
    host.restart()
    refused = folder.dstack(*words, "-y")
    assert refused.code == 1
    with at_terminal(folder, *words) as seen:
        seen.wait_for("[y/n]")
        assert "CHANGED" in seen.text
        assert "is somebody between" in seen.text
        seen.type("y\n")
        assert seen.ends() == 0
    assert pools(folder) == before, "it was declared already"
    assert known(folder) == host.known
    host.stop()


def test_a_jump_is_shown_asked_about_and_pinned_too(folder: Folder, lab: Lab) -> None:
    outer, inner = lab.network(), lab.network(routed=False)
    jump = lab.host("jump", networks=(outer, inner))
    node = lab.host("node", networks=(inner,))
    trust(folder, node.known)
    ran = add(folder, lab, "-y", "-J", f"ann@{jump.address}", node.address)
    assert ran.code == 1
    assert f"jump {jump.address}" in ran.out
    assert jump.fingerprint in ran.out
    trust(folder, node.known + jump.known)
    ran = add(folder, lab, "-y", "-J", f"ann@{jump.address}", node.address)
    assert ran.code == 0, ran.said
    assert f"proxy_jump: {{hostname: {jump.address}, user: ann}}" in pools(folder)
    assert known(folder) == jump.known + node.known
    applied = folder.dstack("apply", "-y")
    assert applied.code == 0, applied.said
    assert "Done: 1 server attached." in applied.out
    jump.stop()
    node.stop()


def test_what_its_pool_says_of_all_is_not_said_again(folder: Folder, lab: Lab, server: SshHost) -> None:
    shared = f"      user: ann\n      identity_file: {lab.key}\n      port: {server.port}\n"
    text = f"{POOLS}    ssh:\n{shared}      hosts:\n"
    folder.write(".dstack/pools.yml", text + "        - {hostname: 127.0.0.9, port: 1}\n")
    ran = folder.dstack("pool", "add-ssh", "-y", "--host-key", server.key, server.address)
    assert ran.code == 0, ran.said
    assert pools(folder) == text + f"        - {{hostname: 127.0.0.9, port: 1}}\n        - {server.address}\n"


def test_options_as_ssh_has_them_and_what_is_never_forwarded(folder: Folder, lab: Lab, server: SshHost) -> None:
    options = ("-o", f"Port={server.port}", "-o", "User=ann", "-o", f"IdentityFile={lab.key}")
    quiet = ("-o", "StrictHostKeyChecking=no")
    ran = folder.dstack("pool", "add-ssh", "-y", *options, *quiet, server.address)
    assert ran.code == 1
    assert "-o StrictHostKeyChecking changes nothing here" in ran.err
    assert "-y does not trust" in ran.err
    assert "never forwarded" in folder.dstack("pool", "add-ssh", "-o", "ForwardAgent=yes", server.address).err


def test_a_configuration_of_ones_own(folder: Folder, lab: Lab, server: SshHost, tmp_path: Path) -> None:
    config = tmp_path / "config"
    config.write_text(
        f"Host short\n  HostName {server.address}\n  Port {server.port}\n  User ann\n  IdentityFile {lab.key}\n"
    )
    ran = folder.dstack("pool", "add-ssh", "-F", str(config), "--host-key", server.key, "-y", "short")
    assert ran.code == 0, ran.said
    assert f"hostname: {server.address}, port: {server.port}, user: ann, identity_file: {lab.key}" in pools(folder)
    assert folder.dstack("apply", "-y").code == 0, "it needs that configuration no more"


def test_a_key_in_the_documents_is_changed_there(folder: Folder, lab: Lab) -> None:
    host = lab.host("pinned")
    hosts = f"[{{hostname: {host.address}, port: {host.port}, host_key: {host.key}}}]"
    folder.write(".dstack/pools.yml", POOLS + f"    ssh:\n      hosts: {hosts}\n")
    host.new_key()
    host.restart()
    ran = add(folder, lab, "-p", str(host.port), host.address)
    assert ran.code == 1
    assert f"`host_key` in the documents pins another key; if it was set up anew, write there {host.key}" in ran.err
    assert known(folder) == ""
    host.stop()


def test_flags_of_ssh_are_taken_and_named(folder: Folder, lab: Lab, server: SshHost) -> None:
    ran = add(folder, lab, "-v", "-4", "-A", "-q", "-tt", "-p", str(server.port), "--host-key", server.key, "-y",
              server.address)  # fmt: skip
    assert ran.code == 0, ran.said
    assert "note: -4 holds for this command; `AddressFamily` in ~/.ssh/config" in ran.err
    assert "note: -v, -A, -q, -t: no effect here, connections are dstack's own and nothing is forwarded" in ran.err
    refused = add(folder, lab, "-6", "-p", str(server.port), server.address)
    assert refused.code == 1
    assert f"no address for {server.address}" in refused.out


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("x;id",), "'x;id' is not a host name"),
        (("-l", "a$(id)", "h"), "'a$(id)' is not a login name"),
        (("-J", "gate,`id`", "h"), "not a jump host: '`id`' is not a host name"),
        (("-o", "HostName=a|b", "h"), "'a|b' is not a host name"),
        (("--network", "x;y", "h"), "--network 'x;y': not a network"),
        (("--name", "X Y", "h"), "--name 'X Y': not a name"),
    ],
)
def test_what_ssh_would_refuse_is_refused(folder: Folder, words: tuple[str, ...], says: str) -> None:
    home = folder.root.parent / "home/.ssh"
    home.mkdir(parents=True, exist_ok=True)
    (home / "config").write_text('Match exec "test %h = vpn"\n  User x\nMatch exec "test %r = vpn"\n  User x\n')
    ran = folder.dstack("pool", "add-ssh", *words)
    assert ran.code == 1
    assert says in ran.err
    assert not (folder.root / "pwned").exists()


def test_no_fingerprint_is_cut_at_80_columns(folder: Folder, lab: Lab, server: SshHost) -> None:
    words = ("pool", "add-ssh", "-l", "ann", "-i", str(lab.key), "-p", str(server.port), server.address)
    with at_terminal(folder, *words) as seen:
        seen.wait_for("[y/n]")
        assert f"\n  {server.fingerprint}\n" in seen.text
        assert "new: compare it on the server" in seen.text
        seen.type("n\n")
        assert seen.ends() == 1


def test_a_revoked_key_is_shown_and_not_asked_about(folder: Folder, lab: Lab, server: SshHost) -> None:
    trust(folder, f"{server.known}@revoked * {server.key}\n")
    ran = add(folder, lab, "-y", "--host-key", server.key, "-p", str(server.port), server.address)
    assert ran.code == 1
    assert "REVOKED in " in ran.out
    assert "known_hosts:2): it is not used" in ran.out
    assert pools(folder) == POOLS
    assert known(folder) == ""


def test_an_authority_settles_no_key_and_is_named(folder: Folder, lab: Lab, server: SshHost) -> None:
    trust(folder, f"@cert-authority * {server.key}\n")
    ran = add(folder, lab, "-y", "-p", str(server.port), server.address)
    assert ran.code == 1
    assert "known_hosts:1 trusts a certificate authority, which is not supported" in ran.err
    assert "-y does not trust a key" in ran.err


def test_the_users_own_file_is_looked_into_as_ssh_does(folder: Folder, lab: Lab) -> None:
    """By the name that the configuration gives, in the file that it names; what is not supported is said."""
    server = lab.host("own")  # the shared one is another test's by now
    home = folder.root.parent / "home/.ssh"
    home.mkdir(parents=True)
    (home / "config").write_text("Include conf.d/*\n")
    (home / "conf.d").mkdir()
    (home / "conf.d/lab").write_text(
        f"Host short\n  HostName {server.address}\n  Port {server.port}\n  UserKnownHostsFile ~/.ssh/lab\n"
        "  VerifyHostKeyDNS yes\n"
    )
    (home / "lab").write_text(server.known)
    ran = add(folder, lab, "-y", "short")
    assert ran.code == 0, ran.said
    assert "in your known_hosts" in ran.out
    assert "note  ssh-config: verifyhostkeydns: met there, and not supported" in ran.out
    applied = folder.dstack("apply", "-y")
    assert applied.code == 0, applied.said
