"""What needs no server: destinations as `ssh` takes them, known_hosts files, servers in documents and edits of them."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reconciler.config.edit.hosts import add_hosts, said_of_all, with_hosts
from reconciler.config.edit.pools import create_pool
from reconciler.config.known_hosts import Known, name_of, with_keys
from reconciler.config.load import Invalid, load
from reconciler.hosts.ssh.config import read_jump
from reconciler.hosts.ssh.destination import NotADestination, read_destination
from schemas.host import Host, Jump
from schemas.resources import GpuNeed, Span

KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIDKn1tMJaqkJ2oELlcE+FaIeBnvCrvhxNnUDzpfNB1l6"
OTHER = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJ0wx3qoQoFhTmLJIv18Giyg2IHmB/3Us0lEmQxur6hp"


# ---------------------------------------------------------------- destinations


@pytest.mark.parametrize(
    ("text", "flags", "meant"),
    [
        ("node", {}, {"hostname": "node"}),
        ("me@node.lab", {}, {"hostname": "node.lab", "user": "me"}),
        ("me@node", {"login": "other"}, {"hostname": "node", "user": "me"}),
        ("ssh://me@node:2222", {}, {"hostname": "node", "user": "me", "port": 2222}),
        ("ssh://me@node:2222/", {"port": 22}, {"hostname": "node", "user": "me", "port": 2222}),
        ("[fe80::1]:2222", {}, {"hostname": "fe80::1", "port": 2222}),
        ("fe80::1", {"port": 22}, {"hostname": "fe80::1", "port": 22}),
        ("node", {"identity": "key", "port": 7}, {"hostname": "node", "identity_file": "key", "port": 7}),
        ("node", {"options": ["Port=7", "User me"]}, {"hostname": "node", "port": 7, "user": "me"}),
        ("node", {"options": ["Port=7"], "port": 8}, {"hostname": "node", "port": 8}),
        ("node", {"options": ["StrictHostKeyChecking=no"]}, {"hostname": "node"}),
    ],
)
def test_destinations(text: str, flags: dict[str, Any], meant: dict[str, Any]) -> None:
    assert read_destination(text, **flags).entry() == meant


@pytest.mark.parametrize(
    ("text", "flags", "says"),
    [
        ("", {}, "not a destination"),
        ("-oProxyCommand=evil", {}, "not a destination"),
        ("a b", {}, "not a destination"),
        ("node:99999", {}, "no port"),
        ("node:22", {"port": 23}, "say one of them"),
        ("node", {"options": ["ForwardAgent=yes"]}, "never forwarded"),
        ("node", {"options": ["ProxyCommand=evil"]}, "~/.ssh/config"),
        ("node", {"options": ["Port=x"]}, "not a port"),
        ("x;id", {}, "not a host name"),
        ("node", {"options": ["HostName=$(id)"]}, "not a host name"),
        ("a;b@node", {}, "not a login name"),
        ("node", {"login": "-l"}, "not a login name"),
        ("node", {"options": ["User=`id`"]}, "not a login name"),
        ("node", {"identity": "-x"}, "not the path of a key"),
    ],
)
def test_what_is_no_destination_says_why(text: str, flags: dict[str, Any], says: str) -> None:
    with pytest.raises(NotADestination, match=says):
        read_destination(text, **flags)


def test_jumps_as_ssh_takes_them() -> None:
    assert read_jump("me@gate:2222") == Jump(hostname="gate", port=2222, user="me")
    assert read_jump("[fe80::1]:22") == Jump(hostname="fe80::1", port=22)
    for wrong in ("a b", "a;b", "-oX=y", "u;v@a", "a:0", "a:70000", "$(id)", ""):
        with pytest.raises(ValueError, match="not a jump host"):
            read_jump(wrong)


# ---------------------------------------------------------------- known_hosts


def test_the_first_line_that_names_a_host_decides() -> None:
    known = Known(f"# note\nnode,10.0.0.7 {KEY} comment\nnode {OTHER}\n[node]:2222 {OTHER}\n")
    assert known.key_of("node") == known.key_of("NODE", 22) == known.key_of("10.0.0.7") == KEY
    assert known.keys_of("node") == (KEY, OTHER)
    assert known.key_of("node", 2222) == OTHER
    assert known.key_of("nobody") == ""


@pytest.mark.parametrize("names", ["node", "*", "n?de", "other,node", "{hashed}", "@port"])
@pytest.mark.parametrize("first", [True, False])
def test_a_revoked_key_is_no_key_of_its_host(names: str, first: bool) -> None:
    """Wherever the line stands, however it names the host, whatever the port and the comment."""
    port = 2222 if names == "@port" else None
    names = "[node]:2222" if port else names.replace("{hashed}", _hashed("node"))
    pinned = f"{name_of('node', port)} {KEY} comment\n"
    revoked = f"@revoked\t{names}  {KEY}=\n"
    known = Known(revoked + pinned if first else pinned + revoked)
    assert known.key_of("node", port) == ""
    assert known.revoked(KEY, "node", port) == (1 if first else 2)
    assert known.revoked(OTHER, "node", port) == 0


PARTS = st.sampled_from(["a", "b", "*", "?", "a.b", "[a]:7", "!a", "!*.b", "A", "*.b", "[*]:7", "a*"])


@pytest.mark.skipif(shutil.which("ssh-keygen") is None, reason="no ssh-keygen here")
@settings(deadline=None, max_examples=30)
@given(st.lists(st.tuples(st.sampled_from(["", "@revoked "]), st.lists(PARTS, min_size=1, max_size=3)), max_size=5))
def test_lines_are_found_as_by_openssh(lines: list[tuple[str, list[str]]]) -> None:
    text = "".join(
        f"{marker}{','.join(names)} {KEY if marker else OTHER} {n}\n" for n, (marker, names) in enumerate(lines)
    )
    known = Known(text)
    with tempfile.NamedTemporaryFile("w") as file:
        file.write(text)
        file.flush()
        for name, host, port in (("a", "a", None), ("a.b", "a.b", 22), ("[a]:7", "a", 7)):
            found = subprocess.run(
                ["ssh-keygen", "-F", name, "-f", file.name], capture_output=True, text=True, check=False
            )
            theirs = [line for line in found.stdout.splitlines() if not line.startswith("#")]
            assert len(known.keys_of(host, port)) == sum(not line.startswith("@") for line in theirs)
            if any(line.startswith("@") for line in theirs):
                assert known.revoked(KEY, host, port)


def test_a_line_that_revokes_reaches_only_whom_it_names() -> None:
    known = Known(f"@revoked *.lab,!gate.lab {KEY}\n@cert-authority *.lab {OTHER}\n")
    assert known.revoked(KEY, "a.lab") == 1
    assert known.revoked(KEY, "a.lab", 2222) == 1  # a line without the port is meant for the machine
    assert known.revoked(KEY, "gate.lab") == known.revoked(KEY, "b.other") == 0
    assert known.key_of("a.lab") == ""  # an authority is no key of a host
    assert (known.authority("a.lab"), known.authority("b.other")) == (2, 0)


def test_patterns_and_hashed_names() -> None:
    # `ssh-keygen -H` wrote this line for node-7
    hashed = _hashed("node-7")
    known = Known(f"*.lab,!gate.lab {KEY}\n{hashed} {OTHER}\n")
    assert known.key_of("a.lab") == KEY
    assert known.key_of("gate.lab") == ""
    assert known.key_of("node-7") == OTHER


def _hashed(name: str) -> str:
    import base64
    import hashlib
    import hmac

    salt = b"01234567890123456789"
    digest = hmac.new(salt, name.encode(), hashlib.sha1).digest()
    return f"|1|{base64.b64encode(salt).decode()}|{base64.b64encode(digest).decode()}"


def test_new_keys_leave_all_other_lines_as_they_are() -> None:
    before = f"# ours\nnode {OTHER}\nnode,other {OTHER}\n"
    assert with_keys(before, [("node", KEY), (name_of("Gate", 2222), KEY)]) == (
        f"# ours\nnode,other {OTHER}\nnode {KEY}\n[gate]:2222 {KEY}\n"
    )


# ---------------------------------------------------------------- in documents


def hosts_of(tmp_path: Path, ssh: str, *, pool: str = "", known: str = "") -> tuple[Host, ...]:
    folder = tmp_path / ".dstack"
    folder.mkdir(exist_ok=True)
    (folder / "pools.yml").write_text(f"pools:\n  - name: lab\n    default: true\n{pool}    ssh:\n{ssh}")
    if known:
        (folder / "known_hosts").write_text(known)
    return load(tmp_path, home=tmp_path / "nobody").desired.pools[0].hosts


def test_a_hosts_own_word_wins_over_its_pools(tmp_path: Path) -> None:
    ssh = (
        "      user: ubuntu\n      port: 2022\n      network: 10.0.0.0/24\n      identity_file: ~/.ssh/lab\n"
        "      proxy_jump: {hostname: gate, host_key: " + KEY + "}\n"
        "      hosts:\n        - 10.0.0.5\n"
        "        - {hostname: node.lab, port: 22, user: root, name: seven, price: 1.25, internal_ip: 10.0.0.7}\n"
    )
    pool = "    resources: {gpu: 1..}\n    disk_floor: 20GB\n"
    first, second = hosts_of(tmp_path, ssh, pool=pool, known=f"[10.0.0.5]:2022 {OTHER}\nnode.lab {KEY}\n")
    assert (first.name, first.user, first.port, first.host_key) == ("host-10-0-0-5-2022", "ubuntu", 2022, OTHER)
    assert (second.name, second.user, second.port, second.host_key) == ("seven", "root", 22, KEY)
    assert (second.price, second.internal_ip, second.network) == (second.price, "10.0.0.7", "10.0.0.0/24")
    assert str(second.price) == "1.25"
    assert first.jumps == (Jump(hostname="gate", host_key=KEY),)
    assert first.gpu == GpuNeed(count=Span(min=1))
    assert first.disk_floor == 20 * 1024


def test_several_jumps_are_a_list(tmp_path: Path) -> None:
    jumps = f"[{{hostname: gate, host_key: {KEY}}}, {{hostname: inner, port: 2222}}]"
    ssh = f"      proxy_jump: {jumps}\n      hosts: [a]\n"
    (host,) = hosts_of(tmp_path, ssh, known=f"[inner]:2222 {OTHER}\n")
    assert host.jumps == (Jump(hostname="gate", host_key=KEY), Jump(hostname="inner", port=2222, host_key=OTHER))


def test_pinned_keys_are_part_of_the_documents(tmp_path: Path) -> None:
    ssh = "      hosts: [node]\n"
    hosts_of(tmp_path, ssh)
    before = load(tmp_path, home=tmp_path).digest
    (host,) = hosts_of(tmp_path, ssh, known=f"node {KEY}\n")
    assert host.host_key == KEY
    after = load(tmp_path, home=tmp_path)
    assert after.digest != before
    assert load(tmp_path, home=tmp_path, known=(after.digest, after.desired)).desired == after.desired


def test_a_pin_that_the_project_revoked_is_refused(tmp_path: Path) -> None:
    known = f"node {OTHER}\n@revoked node {KEY}\n"
    with pytest.raises(Invalid) as told:
        hosts_of(tmp_path, f"      hosts: [{{hostname: node, host_key: {KEY}}}]\n", known=known)
    assert "the host_key of `node` is revoked by .dstack/known_hosts:2" in "\n".join(map(str, told.value.problems))
    (host,) = hosts_of(tmp_path, "      hosts: [node]\n", known=known + f"@revoked * {OTHER}\n")
    assert host.host_key == ""


def test_a_jump_to_bought_machines_is_a_name_too(tmp_path: Path) -> None:
    (tmp_path / ".dstack").mkdir()
    backends = "backends:\n  - {type: aws}\n  - {type: kubernetes, networking: {ssh_host: 'a b'}}\n"
    pool = "pools:\n  - name: p\n    connect: {jump: {hostname: 'a;b', user: -x}}\n"
    (tmp_path / ".dstack/pools.yml").write_text(backends + pool)
    with pytest.raises(Invalid) as told:
        load(tmp_path, home=tmp_path)
    said = "\n".join(map(str, told.value.problems))
    assert "backends[1].networking.ssh_host: 'a b' is not a host name" in said
    assert "pools.yml:6:32: pools[0].connect.jump.hostname: 'a;b' is not a host name" in said
    assert "pools[0].connect.jump.user: '-x' is not a login name" in said


@pytest.mark.parametrize(
    ("ssh", "says"),
    [
        ("      hosts: [a, a]\n", "host `a` (a) is declared already, in pool `lab`: a host is in one pool, once"),
        ("      hosts: [{hostname: a, name: x}, {hostname: b, name: x}]\n", "host `x` (b) is declared already"),
        ("      hosts: [{hostname: a, host_key: nonsense}]\n", "is no host key"),
        ("      hosts: [{hostname: a, name: Bad Name}]\n", "is not a name"),
        ("      hosts: [{hostname: a, network: nowhere}]\n", "is not a network"),
        (
            "      hosts: ['x;touch /tmp/pwn;#']\n",
            "pools.yml:5:15: pools[0].ssh.hosts[0]: 'x;touch /tmp/pwn;#' is",
        ),
        ("      hosts: [{hostname: '$(id)'}]\n", "'$(id)' is not a host name"),
        ("      hosts: [{hostname: -oProxyCommand=x}]\n", "is not a host name"),
        ("      hosts: [{hostname: a, user: 'a;b'}]\n", "'a;b' is not a login name"),
        ("      hosts: [{hostname: a, internal_ip: 'a b'}]\n", "'a b' is not a host name"),
        ("      hosts: [{hostname: a, identity_file: -x}]\n", "is not the path of a key"),
        ("      user: '`id`'\n      hosts: [a]\n", "'`id`' is not a login name"),
        ('      identity_file: "a\\0b"\n      hosts: [a]\n', "is not the path of a key"),
        ("      proxy_jump: {hostname: 'a|b'}\n      hosts: [a]\n", "'a|b' is not a host name"),
        ("      hosts: [{hostname: a, proxy_jump: [{hostname: b, user: -l}]}]\n", "'-l' is not a login name"),
        ("      hosts: []\n", "the list is empty"),
        ("      proxy_jump: []\n      hosts: [a]\n", "the list is empty"),
        ("      proxy_jump: [{hostname: b}, {port: 2}]\n      hosts: [a]\n", "`hostname` is missing"),
    ],
)
def test_servers_that_cannot_be_meant(tmp_path: Path, ssh: str, says: str) -> None:
    with pytest.raises(Invalid) as told:
        hosts_of(tmp_path, ssh)
    assert says in "\n".join(map(str, told.value.problems))


# ---------------------------------------------------------------- edits


BEFORE = """\
# the lab
pools:
  - name: cloud   # later
    nodes: 0..2
  - name: lab
    ssh:
      user: me        # everywhere
      hosts:
        - 10.0.0.1
        # the new ones
        - {hostname: node, port: 2222}   # odd port

runs: []
"""


def edit(tmp_path: Path, before: str, pool: str, *hosts: Any) -> str:
    (tmp_path / "pools.yml").write_text(before)
    return add_hosts(tmp_path, pool, hosts).after


def test_hosts_go_behind_the_last_one_and_nothing_else_changes(tmp_path: Path) -> None:
    jump = {"hostname": "gate"}
    after = edit(tmp_path, BEFORE, "lab", "10.0.0.9", {"hostname": "new", "host_key": KEY, "proxy_jump": jump})
    wanted = f'        - 10.0.0.9\n        - {{hostname: new, host_key: "{KEY}", proxy_jump: {{hostname: gate}}}}\n'
    assert after == BEFORE.replace("   # odd port\n", f"   # odd port\n{wanted}")
    assert said_of_all(tmp_path, "lab") == {"user": "me"}


def test_a_list_in_brackets_stays_one(tmp_path: Path) -> None:
    before = "pools:\n  - name: lab\n    ssh: {user: me}\n  - name: other\n    ssh:\n      hosts: [a, b]  # two\n"
    assert edit(tmp_path, before, "other", "c") == before.replace("[a, b]", "[a, b, c]")


def test_a_pool_without_servers_gets_the_key(tmp_path: Path) -> None:
    before = "pools:\n  - name: lab   # ours\n    default: true\n\n# end\n"
    after = edit(tmp_path, before, "lab", "n1")
    assert after == before.replace("true\n", "true\n    ssh:\n      hosts:\n        - n1\n", 1)


def test_a_new_pool_with_servers(tmp_path: Path) -> None:
    made = with_hosts(create_pool(tmp_path, "lab"), "lab", ["n1", {"hostname": "n2", "port": 7}])
    hosts = "        - n1\n        - {hostname: n2, port: 7}\n"
    assert made.after == f"pools:\n  - name: lab\n    ssh:\n      hosts:\n{hosts}"


@pytest.mark.parametrize("name", ["yes", "no", "1.5", "a: b", "#x", "10.0.0.1", "node-1.lab", "0x10", "1e3", "~"])
def test_what_is_written_is_read_back_as_text(tmp_path: Path, name: str) -> None:
    import yaml

    after = edit(tmp_path, "pools:\n  - name: lab\n", "lab", {"hostname": "n", "user": name})
    assert yaml.safe_load(after)["pools"][0]["ssh"]["hosts"] == [{"hostname": "n", "user": name}]
