"""Log in with the keys that the user's configuration names: files, certificates, and an agent's.

In the order of ssh, but that files come before those of an agent's keys that no file names: a server that allows six
tries is not told ten keys first.
"""

from __future__ import annotations

import base64
import os
import socket
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path

import paramiko
from paramiko.agent import AgentSSH

from reconciler.hosts.ssh.config import Hop

_PRIVATE = (paramiko.Ed25519Key, paramiko.ECDSAKey, paramiko.RSAKey)
_MAGIC = b"openssh-key-v1\0"
_PATIENCE = 15.0  # seconds for an agent, which may ask its user


class LoginKeys:
    """What the library asks for logins (`auth_strategy`). Nothing is forwarded, no password is tried."""

    def __init__(self, hop: Hop) -> None:
        self._hop = hop
        self._locked: list[Path] = []

    def authenticate(self, transport: paramiko.Transport) -> None:
        """Raises `AuthenticationException`, `PasswordRequiredException`, `SSHException`."""
        refusal: paramiko.SSHException | None = None
        agent = _Agent(self._hop.own.agent)
        try:
            for key in self._keys(agent.get_keys()):
                try:
                    further = transport.auth_publickey(self._hop.user, key)
                except paramiko.AuthenticationException as error:
                    refusal = error
                    continue
                except paramiko.SSHException as error:  # a kind of key that it cannot offer: the next one may do
                    if not transport.is_active():
                        raise
                    refusal = refusal or error
                    continue
                if not further:
                    return
                refusal = paramiko.AuthenticationException(f"after the key it asks for {', '.join(further)}")
        finally:
            agent.close()
        if self._locked:
            raise paramiko.PasswordRequiredException(f"{self._locked[0]} is locked")
        raise refusal or paramiko.SSHException("No authentication methods available")

    def _keys(self, held: Sequence[paramiko.PKey]) -> Iterator[paramiko.PKey]:
        own = self._hop.own
        named = [path for path in self._hop.identities or own.usual if path.is_file()]
        by_blob = {key.asbytes(): key for key in held}
        tried = set()
        for path in named:
            blob = public_blob(path)
            key = by_blob.get(blob) if blob else None
            key = key or self._loaded(path)
            if key is None:
                continue
            tried.add(key.asbytes())
            for certificate in (*own.certificates, path.with_name(f"{path.name}-cert.pub")):
                if _certified(key, certificate):
                    yield key
                    key.public_blob = None
            yield key
        if not own.only:
            yield from (key for key in held if key.asbytes() not in tried)

    def _loaded(self, path: Path) -> paramiko.PKey | None:
        """`None` for what holds no private key of a kind that the library knows: an agent may have it."""
        for kind in _PRIVATE:
            try:
                return kind.from_private_key_file(str(path))
            except paramiko.PasswordRequiredException:
                self._locked.append(path)
                return None
            except (paramiko.SSHException, OSError, ValueError, IndexError):
                continue
        return None


class _Agent(AgentSSH):  # type: ignore[misc]
    """The one that listens at `path`; one that does not answer, or "", holds no keys."""

    def __init__(self, path: str) -> None:
        super().__init__()
        if path:
            with suppress(OSError, paramiko.SSHException):
                line = socket.socket(socket.AF_UNIX)
                line.settimeout(_PATIENCE)
                line.connect(path)
                self._connect(line)

    def close(self) -> None:
        self._close()


def agent_answers(path: str) -> bool:
    """Whether an agent with keys listens there."""
    agent = _Agent(path)
    try:
        return bool(agent.get_keys())
    finally:
        agent.close()


def _certified(key: paramiko.PKey, certificate: Path) -> bool:
    """Whether the key shows that certificate from now on. One of another kind of key is none for it."""
    if not certificate.is_file():
        return False
    try:
        key.load_certificate(str(certificate))
    except (paramiko.SSHException, OSError, ValueError):
        return False
    return True


def public_blob(path: Path) -> bytes:
    """The public half of the key in that file, without unlocking it; b"" where it does not show it."""
    with suppress(OSError, ValueError, IndexError):
        text = path.read_bytes()
        if b"BEGIN OPENSSH PRIVATE KEY" in text:
            return _public_part(base64.b64decode(b"".join(text.strip().splitlines()[1:-1])))
        words = (path if path.suffix == ".pub" else path.with_name(f"{path.name}.pub")).read_bytes().split()
        return base64.b64decode(words[1])
    return b""


def _public_part(whole: bytes) -> bytes:
    """Of OpenSSH's own format: three texts, the number of keys, then the public one."""
    rest = whole.removeprefix(_MAGIC)
    for _ in range(3):
        _, rest = _text(rest)
    return _text(rest[4:])[0]


def _text(data: bytes) -> tuple[bytes, bytes]:
    size = int.from_bytes(data[:4], "big")
    return data[4 : 4 + size], data[4 + size :]


def keyed(hop: Hop) -> bool:
    """Whether there is anything to log in with, where keys are named."""
    if not hop.identities or any(path.is_file() for path in hop.identities):
        return True
    return not hop.own.only and bool(hop.own.agent) and os.path.exists(hop.own.agent) and agent_answers(hop.own.agent)
