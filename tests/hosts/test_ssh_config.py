"""What `~/.ssh/config` says, as ssh itself answers it: each directive holds, or is named as not supported."""

from __future__ import annotations

import getpass
import os
import re
import shutil
import socket
import subprocess
from pathlib import Path

import pytest
from msgspec.structs import replace

from reconciler.hosts.ssh.aliases import Alias, Aliases, AliasRefused
from reconciler.hosts.ssh.ask_ssh import NoWay, SshProgram
from reconciler.hosts.ssh.config import Here, Hop
from schemas.host import Host, Jump

pytestmark = pytest.mark.skipif(shutil.which("ssh") is None, reason="no ssh program here")

KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIDKn1tMJaqkJ2oELlcE+FaIeBnvCrvhxNnUDzpfNB1l6"
OTHER = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJ0wx3qoQoFhTmLJIv18Giyg2IHmB/3Us0lEmQxur6hp"


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What a name runs where it is a command after all, is run here."""
    (tmp_path / "home/.ssh").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "home")
    return tmp_path / "home"


def here(home: Path, text: str | bytes = "", **files: str) -> Here:
    for name, content in files.items():
        (home / ".ssh" / name.replace("__", "/")).parent.mkdir(exist_ok=True)
        (home / ".ssh" / name.replace("__", "/")).write_text(content)
    if text:
        (home / ".ssh/config").write_bytes(text if isinstance(text, bytes) else text.encode())
    return Here(root=home.parent, home=home)


def last(home: Path, text: str | bytes = "", *, host: Host | None = None, **files: str) -> Hop:
    return here(home, text, **files).hops(host or Host(name="gpu", hostname="gpu", host_key=KEY))[-1]


# ---------------------------------------------------------------- where it leads


def test_includes_are_read_also_nested_ones_and_those_with_tilde(home: Path) -> None:
    hop = last(
        home,
        "Include conf/*\nHost other\n  User x\n",
        conf__lab="Include ~/.ssh/deep  # a comment\n",
        deep="Host gpu\n  HostName 127.0.0.7\n  Port 2222\n  User you\n",
    )
    assert (hop.hostname, hop.port, hop.user) == ("127.0.0.7", 2222, "you")


def test_an_include_in_a_block_holds_for_that_block(home: Path) -> None:
    text = "Host gpu\n  Include inner\nHost other\n  Include inner\n"
    assert last(home, text, inner="User you\n").user == "you"
    other = last(home, host=Host(name="a", hostname="a", host_key=KEY))
    assert other.user == getpass.getuser()


def test_a_byte_that_is_no_utf_8_and_trailing_comments(home: Path) -> None:
    hop = last(home, b"# caf\xe9 server\nHost gpu  # the big one\n  HostName 127.0.0.7 # there\n  Port 2222 # odd\n")
    assert (hop.hostname, hop.port) == ("127.0.0.7", 2222)


def test_paths_of_keys_have_tokens_and_variables(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(home))
    text = (
        "Host gpu\n  HostName node.lab\n  IdentityFile ${HOME}/.ssh/%n_%h_%r\n  IdentityFile ~/.ssh/%p\n"
        "  IdentityFile %d/k%%\n  User you\n  CertificateFile ~/.ssh/%k-cert.pub\n  HostKeyAlias big\n"
    )
    hop = last(home, text)
    assert hop.identities == (home / ".ssh/gpu_node.lab_you", home / ".ssh/22", home / "k%")
    assert hop.own.certificates == (home / ".ssh/big-cert.pub",)


def test_a_variable_that_is_not_set_is_named(home: Path) -> None:
    with pytest.raises(NoWay, match="NO_SUCH_VARIABLE_HERE is not set"):
        last(home, "IdentityFile ${NO_SUCH_VARIABLE_HERE}/key\n")


def test_match_blocks_hold(home: Path) -> None:
    text = (
        'Match originalhost gpu exec "test %n = gpu"\n  User exec\nMatch user exec\n  Port 77\n'
        'Match exec "false"\n  HostName nowhere\n'
    )
    hop = last(home, text)
    assert (hop.user, hop.port, hop.hostname) == ("exec", 77, "gpu")


def test_a_match_that_this_ssh_does_not_know_is_refused_in_its_words(home: Path) -> None:
    """`localnetwork` came with OpenSSH 9.4."""
    text = "Match localnetwork 127.0.0.0/8\n  HostName 127.0.0.9\n"
    if _version() >= (9, 4):
        assert last(home, text).hostname == "127.0.0.9"
    else:
        with pytest.raises(NoWay, match=rf"Unsupported Match attribute localnetwork {re.escape(str(home))}.* line 1"):
            last(home, text)


def _version() -> tuple[int, int]:
    said = subprocess.run(["ssh", "-V"], capture_output=True, text=True, check=True).stderr
    found = re.match(r"OpenSSH_(\d+)\.(\d+)", said)
    return (int(found[1]), int(found[2])) if found else (0, 0)


def test_what_is_declared_wins_and_matches(home: Path) -> None:
    text = "Match user ann\n  IdentityFile ~/.ssh/ann\nHost *\n  User nobody\n  Port 1\n"
    hop = last(home, text, host=Host(name="gpu", hostname="gpu", user="ann", port=22, host_key=KEY))
    assert (hop.user, hop.port, hop.identities) == ("ann", 22, (home / ".ssh/ann",))


def test_how_a_connection_is_made(home: Path) -> None:
    text = "AddressFamily inet6\nBindAddress 127.0.0.1\nBindInterface lo\nConnectTimeout 33\nIdentitiesOnly yes\n"
    own = last(home, text).own
    assert (own.family, own.bind, own.interface, own.timeout, own.only) == (
        socket.AF_INET6, "127.0.0.1", "lo", 33.0, True,
    )  # fmt: skip


def test_agents(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SSH_AUTH_SOCK", "/run/usual")
    monkeypatch.setenv("OTHER_AGENT", "/run/other")
    assert last(home).own.agent == "/run/usual"
    said = {"none": "", "SSH_AUTH_SOCK": "/run/usual", "$OTHER_AGENT": "/run/other", "~/agent": f"{home}/agent"}
    for written, path in said.items():
        assert last(home, f"IdentityAgent {written}\n").own.agent == path


def test_algorithms_that_the_user_leaves_out(home: Path) -> None:
    assert last(home).own.algorithms == ()
    own = last(home, "Ciphers aes256-ctr\nHostKeyAlgorithms ssh-ed25519\n").own
    assert dict(own.algorithms) == {"ciphers": {"aes256-ctr"}, "keys": {"ssh-ed25519"}}


def test_chains_of_jumps(home: Path) -> None:
    text = (
        "Host gpu\n  ProxyJump me@a.%h:2222,b\nHost a.*\n  HostName 10.0.0.1\n  ProxyJump outer\n"
        "Host b\n  User bob\nHost outer\n  ProxyCommand nc %h %p\n"
    )
    hops = here(home, text).hops(Host(name="gpu", hostname="gpu", host_key=KEY))
    assert [(hop.written, hop.hostname, hop.port) for hop in hops] == [
        ("outer", "outer", 22), ("a.gpu", "10.0.0.1", 2222), ("b", "b", 22), ("gpu", "gpu", 22),
    ]  # fmt: skip
    assert hops[0].proxy == "nc outer 22"
    assert [hop.user for hop in hops][1:3] == ["me", "bob"]


def test_the_way_to_a_jump_of_a_bought_machine_is_the_users_too(home: Path) -> None:
    hops = here(home, "Host gate\n  ProxyJump outer\n").jump(Jump(hostname="gate", host_key=KEY))
    assert [hop.name for hop in hops] == ["jump outer", "jump gate"]


def test_a_jump_is_looked_up_in_the_files_that_the_configuration_names(home: Path) -> None:
    text = "Host gpu\n  ProxyJump gate\nHost gate\n  HostName 10.0.0.1\n  UserKnownHostsFile ~/.ssh/lab ~/.ssh/b\n"
    jump = here(home, text, lab=f"other {KEY}\n", b=f"10.0.0.1 {OTHER}\n").hops(Host(name="g", hostname="gpu"))[0]
    assert jump.key == OTHER
    text = "Host gpu\n  ProxyJump gate\nHost gate\n  HostName 10.0.0.1\n  HostKeyAlias tower\n  Port 7\n"
    jump = here(home, text, known_hosts=f"[10.0.0.1]:7 {OTHER}\ntower {KEY}\n").hops(Host(name="g", hostname="gpu"))[0]
    assert jump.key == KEY


def test_another_file_takes_the_place_of_all(home: Path) -> None:
    given = home.parent / "given"
    given.write_text("Host gpu\n  User given\n")
    (home / ".ssh/config").write_text("Host gpu\n  User mine\n  Port 5\n")
    (hop,) = Here(root=home.parent, home=home, config=given).hops(Host(name="g", hostname="gpu"))
    assert (hop.user, hop.port) == ("given", 22)


# ---------------------------------------------------------------- what is not supported, and what cannot be asked


MET = ["KnownHostsCommand /bin/true", "VerifyHostKeyDNS yes", "HostbasedAuthentication yes", "RequiredRSASize 3072"]


@pytest.mark.parametrize("directive", MET)
def test_what_is_not_supported_is_named_when_it_is_met(home: Path, directive: str) -> None:
    name = directive.split()[0].lower()
    assert last(home, f"Host gpu\n  {directive}\n").own.unsupported == (name,)
    assert last(home, f"Host other\n  {directive}\n").own.unsupported == ()


@pytest.mark.parametrize(
    ("directive", "says"),
    [
        ("PKCS11Provider /lib/x.so", "pkcs11provider in the ssh_config is not supported"),
        ("PubkeyAuthentication no", "allows no login with a key"),
        ("PreferredAuthentications password", "allows no login with a key"),
        ("ProxyUseFdpass yes", "hands over its socket"),
        ("NoSuchDirective x", r"`ssh -G gpu` failed: .*[Bb]ad configuration option"),
        ("Include loop", "[Tt]oo many recursive"),
    ],
)
def test_what_nothing_can_be_done_with_is_refused(home: Path, directive: str, says: str) -> None:
    with pytest.raises(NoWay, match=says):
        last(home, f"{directive}\n", loop="Include loop\n")


def test_what_belongs_to_a_session_is_no_matter(home: Path) -> None:
    text = "ForwardAgent yes\nLocalForward 1 localhost:2\nSendEnv X\nControlMaster auto\nCompression yes\nTag x\n"
    assert last(home, text.replace("Tag x\n", "")).own.unsupported == ()


def test_a_file_that_others_may_write_is_refused_as_by_ssh(home: Path) -> None:
    ours = here(home, "Host gpu\n  User x\n")
    (home / ".ssh/config").chmod(0o666)
    with pytest.raises(NoWay, match="Bad owner or permissions"):
        ours.hops(Host(name="g", hostname="gpu"))


def test_without_the_program_a_configuration_cannot_be_read(home: Path) -> None:
    absent = SshProgram(home=home, program="no-such-ssh")
    (hop,) = Here(root=home, home=home, ssh=absent).hops(Host(name="g", hostname="gpu", host_key=KEY))
    assert (hop.hostname, hop.port, hop.user) == ("gpu", 22, getpass.getuser())
    assert home / ".ssh/id_ed25519" in hop.own.usual
    (home / ".ssh/config").write_text("Host gpu\n  Port 7\n")
    absent = SshProgram(home=home, program="no-such-ssh")
    with pytest.raises(NoWay, match=r"no `no-such-ssh` on this machine to read .*config: install the OpenSSH client"):
        Here(root=home, home=home, ssh=absent).hops(Host(name="g", hostname="gpu", host_key=KEY))


def test_an_answer_is_kept_for_a_minute(home: Path) -> None:
    clock = [0.0]
    ssh = SshProgram(home=home, now=lambda: clock[0])
    asked = home / "asked"
    (home / ".ssh/config").write_text(f'Match exec "echo %h >> {asked}"\n  Port 7\n')
    for at, times in ((0.0, 1), (59.0, 1), (61.0, 2)):
        clock[0] = at
        assert ssh.of("gpu")["port"] == ("7",)
        assert len(asked.read_text().splitlines()) == times


# ---------------------------------------------------------------- names are no commands

BAD_HOSTS = [
    "x;touch {pwned};#", "$(touch {pwned})", "`touch {pwned}`", "x|touch {pwned}", "x&touch {pwned}",
    "-oProxyCommand=x",
    "x\ntouch {pwned}", "x touch", "x>{pwned}", "'x", '"x', "a{b,c}", "x\\y", "~", "x\0", "",
]  # fmt: skip
BAD_USERS = [*BAD_HOSTS[:6], "-l", "a b", "x\ny", "a'b", "a\\"]


@pytest.mark.parametrize(
    ("where", "bad"),
    [
        (where, bad)
        for where in ("host", "jump", "config-host", "config-jump")
        for bad in BAD_HOSTS
        if where in ("host", "jump") or (bad and not set(bad) & set("\n\0 "))  # else no word of a configuration
    ],
)
def test_a_host_name_is_never_read_by_a_shell(home: Path, where: str, bad: str) -> None:
    pwned = home / "pwned"
    name = bad.replace("{pwned}", str(pwned))
    text = (
        'Match exec "test %h = vpn"\n  User x\nMatch exec "test %n = vpn"\n  User x\nHost far\n  ProxyCommand nc %h\n'
    )
    host = Host(name="gpu", hostname="gpu", host_key=KEY)
    if where == "host":
        host = replace(host, hostname=name)
    elif where == "jump":
        host = replace(host, jumps=(Jump(hostname=name, host_key=KEY),))
    else:
        key = {"config-host": "HostName", "config-jump": "ProxyJump"}[where]
        text = f"Host gpu\n  {key} {name}\n{text}"
    with pytest.raises(NoWay):
        here(home, text).hops(host)
    # A `HostName` of the user's own beside a `Match exec` of theirs is between them and ssh.
    assert where == "config-host" or sorted(one.name for one in home.iterdir()) == [".ssh"]


@pytest.mark.parametrize(
    ("where", "bad"),
    [(where, bad) for where in ("host", "jump", "config") for bad in BAD_USERS if where != "config" or "\n" not in bad],
)
def test_a_login_is_never_read_by_a_shell(home: Path, where: str, bad: str) -> None:
    pwned = home / "pwned"
    name = bad.replace("{pwned}", str(pwned))
    text = 'Match exec "test %r = vpn"\n  Port 7\n'
    host = Host(name="gpu", hostname="gpu", host_key=KEY)
    if where == "host":
        host = replace(host, user=name)
    elif where == "jump":
        host = replace(host, jumps=(Jump(hostname="gate", user=name, host_key=KEY),))
    else:
        text = f"Host gpu\n  User {name}\n"
    with pytest.raises(NoWay):
        here(home, text).hops(host)
    assert sorted(one.name for one in home.iterdir()) == [".ssh"]


@pytest.mark.parametrize(
    "hostname", ["gpu-1.lab", "10.0.0.1", "fe80::1%eth0", "::1", "a_b", "lab/gpu1", "größe.example", "x."]
)
@pytest.mark.parametrize("user", ["ann", "CORP\\ann", "ann@corp.example", "svc$", "a.b-c_d", "ec2-user"])
def test_names_that_people_have_are_taken(home: Path, hostname: str, user: str) -> None:
    host = Host(name="gpu", hostname=hostname, user=user, host_key=KEY)
    assert last(home, 'Match exec "test %h"\n  Port 7\n', host=host).user == user


def test_the_system_s_own_home_needs_no_copy() -> None:
    """Where `$HOME` is the password database's, ssh reads its files itself."""
    import pwd

    ssh = SshProgram(home=Path(pwd.getpwuid(os.getuid()).pw_dir))
    assert ssh.of("some-host-nobody-has")["port"] == ("22",)


# ---------------------------------------------------------------- our own entries there


@pytest.mark.parametrize(
    ("config", "inner", "taken"),
    [
        ("Host train # ours\n  User x\n", "", True),
        ("Host=train\n  User x\n", "", True),
        ("Include conf/*\n", "Host tra*\n  Port 7\n", True),
        ("Host *\n  User x\n  Port 7\n  UserKnownHostsFile ~/.ssh/%n\n", "", False),
        ("Host other # not train\n  User x\n", "", False),
        ("Include conf/*\n", "# Host train\n", False),
        ("", "", False),
    ],
)
def test_a_name_that_the_user_has_given_gets_no_alias(home: Path, config: str, inner: str, taken: bool) -> None:
    here(home, config, conf__lab=inner)
    aliases = Aliases(home)
    alias = Alias(name="train", project="p1", run="r1", folder=home)
    if taken:
        with pytest.raises(AliasRefused, match="has a `Host train` of its own"):
            aliases.write(alias)
    else:
        aliases.write(alias)
        aliases.include()
        aliases.write(alias)  # its own entry is in nobody's way
