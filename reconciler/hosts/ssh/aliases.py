"""`ssh RUN`: write an ssh_config entry for each attached run, in a file that the user's ssh_config includes.

`~/.dstack/ssh/` holds `config` (what is included), `runs/NAME.conf` (an entry each), and the key of the server that
`dstack enter` is for its one client, with the `known_hosts` that pins it. An entry goes when its run has ended.
"""

from __future__ import annotations

import os
import re
import secrets
import shlex
import sys
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from reconciler.hosts.ssh.ask_ssh import NoWay, SshProgram
from reconciler.system.private_folder import make_private
from schemas.base import NAME

NOBODY = "dstack-nobody-is-called-so"
SERVER = "dstack-enter"  # what the client calls the server, whatever the run's name
_HEADER = re.compile(r"# dstack: project (\S+) run (\S+)\n")
_AWKWARD = re.compile(r'["%*?\\[\n\r\0]|\$\{')  # in a file's name there: quotes, tokens, patterns


class AliasRefused(Exception):
    """No entry can be written; the message is one line for people."""


@dataclass(frozen=True, kw_only=True)
class Alias:
    """An entry to write: for a run by its name and id, of the project in `folder`."""

    name: str
    project: str
    run: str
    folder: Path
    rank: int = 0
    replica: int = 0

    @property
    def typed(self) -> str:
        """`train`; node 2 is `train.2`, replica 1 of a service `web.r1`: no run has a name with a dot."""
        return self.name + (f".r{self.replica}" if self.replica else "") + (f".{self.rank}" if self.rank else "")


class Aliases:
    """Of this user. `home` is where `.dstack` and `.ssh` lie."""

    def __init__(self, home: Path) -> None:
        self.folder = home / ".dstack" / "ssh"
        self.user_config = home / ".ssh" / "config"

    @property
    def config(self) -> Path:
        """The file that is included; `ssh -F` takes it too."""
        return self.folder / "config"

    @property
    def key(self) -> Path:
        return self.folder / "enter_key"

    def write(self, alias: Alias) -> None:
        """The run's entry, instead of any older one of that name. Raises `AliasRefused`."""
        if not re.fullmatch(NAME, alias.name, re.ASCII):
            raise AliasRefused(f"not a run's name: {alias.name!r}")
        if self._taken(alias.typed):
            raise AliasRefused(f"{self.user_config} has a `Host {alias.typed}` of its own: no alias is made")
        if _AWKWARD.search(str(self.folder)) or "\n" in str(alias.folder):
            raise AliasRefused(f"{str(alias.folder)!a} or {str(self.folder)!a} cannot stand in an ssh_config")
        make_private(self.folder / "runs")
        self._make_key()
        _replace(self.config, f'Include "{self.folder}/runs/*.conf"\n'.encode())
        _replace(self._entry(alias.typed), self._text(alias).encode("utf-8", "surrogateescape"))

    def included(self) -> bool:
        """Whether the user's own configuration includes ours."""
        return self._include in _lines(self.user_config)

    def include(self) -> None:
        """One line at the top of the user's configuration: further down it could belong to a `Host` block."""
        if self.included():
            return
        target = Path(os.path.realpath(self.user_config))  # a link into somebody's dotfiles stays one
        if not target.parent.is_dir():
            target.parent.mkdir(mode=0o700, parents=True)
        before = target.read_bytes() if target.exists() else b""
        ours = f"# The runs that `dstack attach` made an alias for.\n{self._include}\n".encode()
        _replace(target, ours + (b"\n" + before if before else b""), like=target if target.exists() else None)

    def forget(self, *, project: str, living: frozenset[str]) -> None:
        """Remove the entries of that project's runs that are not among the living, by their ids."""
        with suppress(FileNotFoundError, NotADirectoryError):
            for path in list((self.folder / "runs").iterdir()):
                found = _HEADER.match(_head(path)) if path.suffix == ".conf" else None
                if found and found[1] == project and found[2] not in living:
                    path.unlink(missing_ok=True)

    @property
    def _include(self) -> str:
        return f"Include {_quoted(self.config)}"

    def _entry(self, name: str) -> Path:
        return self.folder / "runs" / f"{name}.conf"

    def _taken(self, name: str) -> bool:
        """Whether the user's configuration says of that name what it does not say of any other."""
        ssh = SshProgram(home=self.user_config.parent.parent)
        try:
            said, usual = ssh.of(name), ssh.of(NOBODY)
        except NoWay:
            return False  # it leads nowhere, to this name or another
        if said.get("hostkeyalias") == (SERVER,):  # an older entry of ours
            return False
        same = {key: tuple(value.replace(NOBODY, name) for value in values) for key, values in usual.items()}
        return said != same

    def _text(self, alias: Alias) -> str:
        """Nothing of the user's is taken over: neither who logs in, nor what is forwarded, nor a shared connection."""
        python = [sys.executable, "-P", "-m", "reconciler.cli.main"]
        where = ["--job", str(alias.rank), "--replica", str(alias.replica)]
        words = [*python, "enter", "--project", str(alias.folder), *where, alias.name]
        return (
            f"# dstack: project {alias.project} run {alias.run}\n"
            f"Host {alias.typed}\n"
            f"    HostName {alias.typed}\n"
            "    User dstack\n"
            f"    HostKeyAlias {SERVER}\n"
            f"    UserKnownHostsFile {_quoted(self.folder / 'known_hosts')}\n"
            "    GlobalKnownHostsFile /dev/null\n"
            "    StrictHostKeyChecking yes\n"
            "    UpdateHostKeys no\n"
            "    PreferredAuthentications none\n"
            "    CanonicalizeHostname no\n"
            "    ForwardAgent no\n"
            "    ForwardX11 no\n"
            "    ControlMaster no\n"
            "    ControlPath none\n"
            "    RemoteCommand none\n"
            f"    ProxyCommand {shlex.join(words).replace('%', '%%')}\n"
        )

    def _make_key(self) -> None:
        """Once; whoever comes second takes the first one's."""
        if not self.key.exists():
            from cryptography.hazmat.primitives import serialization as forms
            from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

            made = Ed25519PrivateKey.generate().private_bytes(
                forms.Encoding.PEM, forms.PrivateFormat.OpenSSH, forms.NoEncryption()
            )
            temporary = self.folder / f".key-{secrets.token_hex(8)}"
            _write(temporary, made, mode=0o600)
            with suppress(FileExistsError):
                os.link(temporary, self.key)
            temporary.unlink()
        _replace(self.folder / "known_hosts", f"{SERVER} {_public(self.key)}\n".encode())


def _public(key: Path) -> str:
    from cryptography.hazmat.primitives import serialization as forms

    private = forms.load_ssh_private_key(key.read_bytes(), password=None)
    return private.public_key().public_bytes(forms.Encoding.OpenSSH, forms.PublicFormat.OpenSSH).decode()


def _quoted(path: Path) -> str:
    return f'"{path}"'


def _lines(path: Path) -> Iterator[str]:
    try:
        text = path.read_bytes().decode("utf-8", "replace")
    except FileNotFoundError:
        return
    yield from (line.strip() for line in text.splitlines())


def _head(path: Path) -> str:
    with path.open("rb") as file:
        return file.read(300).decode("utf-8", "replace")


def _replace(path: Path, data: bytes, *, like: Path | None = None) -> None:
    """Atomically; with the mode and owner of `like`, else 0600."""
    if path.exists() and path.read_bytes() == data:
        return
    temporary = path.with_name(f".{path.name}-{secrets.token_hex(8)}")
    try:
        _write(temporary, data, mode=0o600)
        if like is not None:
            info = like.stat()
            if info.st_uid != os.geteuid():
                os.chown(temporary, info.st_uid, info.st_gid)
            temporary.chmod(info.st_mode & 0o7777)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def _write(path: Path, data: bytes, *, mode: int) -> None:
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    with os.fdopen(handle, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
