"""A connection that knows one host key, the pinned one, and refuses every other. Nothing is forwarded through it."""

from __future__ import annotations

import base64
import socket

import fabric
import paramiko

from reconciler.resolve_ssh import Hop
from reconciler.runner import Untrusted
from schemas.host import fingerprint


class Pinned(fabric.Connection):  # type: ignore[misc]
    """A connection that knows one key. The library's own would accept any: its policy is replaced before it dials."""

    # Without an attribute of that name the library writes it into `config`, which then is built anew: others, on
    # other threads, find it half empty.
    inline_ssh_env = False

    def __init__(
        self, hop: Hop, sock: socket.socket | paramiko.Channel, *, config: fabric.Config, banner: float, login: float,
        greeting: float,
    ) -> None:  # fmt: skip
        super().__init__(
            host=hop.hostname,
            user=hop.user,
            port=hop.port,
            config=config,
            gateway=False,
            forward_agent=False,
            connect_kwargs={
                "sock": sock,
                "key_filename": [str(path) for path in hop.identities if path.is_file()],
                "look_for_keys": not hop.identities,
                "banner_timeout": banner,
                "auth_timeout": login,
                "timeout": greeting,  # the rest of the greeting included
            },
        )
        self.client.set_missing_host_key_policy(_Refuse(hop))
        if hop.key:
            kind, _, blob = hop.key.partition(" ")
            name = hop.hostname if hop.port == 22 else f"[{hop.hostname}]:{hop.port}"
            self.client.get_host_keys().add(name, kind, _key(hop, kind, blob))


def _key(hop: Hop, kind: str, blob: str) -> paramiko.PKey:
    try:
        return paramiko.PKey.from_type_string(kind, base64.b64decode(blob))
    except (ValueError, paramiko.SSHException, paramiko.pkey.UnknownKeyType) as error:
        raise Untrusted(f"{hop.who}its pinned host key cannot be read: {kind}") from error


class _Refuse(paramiko.RejectPolicy):  # type: ignore[misc]
    """As the library's, but says which key was shown, and what to do."""

    def __init__(self, hop: Hop) -> None:
        self._hop = hop

    def missing_host_key(self, client: paramiko.SSHClient, hostname: str, key: paramiko.PKey) -> None:
        shown = key_text(key)
        what = f"`dstack pool add-ssh {self._hop.at}` shows it and asks, or write `host_key: {shown}`"
        if self._hop.key:  # of another type than the pinned one
            raise Untrusted(changed_words(self._hop, key), shown=shown)
        raise Untrusted(f"{self._hop.who}host key {fingerprint(shown)} is not known: {what}", shown=shown)


def changed_words(hop: Hop, key: paramiko.PKey) -> str:
    shown = key_text(key)
    return (
        f"{hop.who}host key changed: {fingerprint(shown)} is shown, {fingerprint(hop.key)} is pinned. Somebody "
        f"may be in between; if it was set up anew, `dstack pool add-ssh {hop.at}` shows the new key and asks"
    )


def key_text(key: paramiko.PKey) -> str:
    return f"{key.get_name()} {key.get_base64()}"
