"""One pinned SSH connection, and why it was refused. Only the pinned key is accepted."""

from __future__ import annotations

import base64
import io
import selectors
import socket
import time
from dataclasses import dataclass

import fabric
import paramiko

from reconciler.hosts.runner import Unreachable, Untrusted
from reconciler.hosts.ssh.config import Hop
from reconciler.hosts.ssh.login_keys import LoginKeys
from schemas.host import fingerprint


@dataclass(frozen=True, kw_only=True)
class Patience:
    """Seconds. `silence` is how long data of ours may stay unacknowledged before a line counts as cut.

    `turn` is how long one waits for others of this process to be done, `tunnel` for a vendor's program to lead there.
    """

    dial: float = 8.0
    banner: float = 8.0
    turn: float = 20.0
    tunnel: float = 25.0
    login: float = 10.0
    silence: float = 12.0


class Pinned(fabric.Connection):  # type: ignore[misc]
    """A connection that knows one key. The library's own would accept any: its policy is replaced before it dials."""

    # Without an attribute of that name the library writes it into `config`, which then is built anew: others, on
    # other threads, find it half empty.
    inline_ssh_env = False

    def __init__(
        self,
        hop: Hop,
        sock: socket.socket | paramiko.Channel,
        *,
        config: fabric.Config,
        patience: Patience,
        authority: str = "",
    ) -> None:
        """`authority` is where a certificate authority is trusted for that server, which trusts nobody here."""
        keys: dict[str, object] = {"auth_strategy": LoginKeys(hop)}
        if hop.login:
            own = paramiko.Ed25519Key.from_private_key(io.StringIO(hop.login))
            keys = {"pkey": own, "look_for_keys": False, "allow_agent": False}
        without = _disallowed(hop)
        super().__init__(
            host=hop.hostname,
            user=hop.user,
            port=hop.port,
            config=config,
            gateway=False,
            forward_agent=False,
            connect_kwargs={
                "sock": sock,
                **keys,
                **({"disabled_algorithms": without} if without else {}),
                "banner_timeout": patience.banner,
                "auth_timeout": patience.login,
                "timeout": patience.dial + patience.banner,  # the rest of the greeting included
            },
        )
        self.client.set_missing_host_key_policy(_Refuse(hop, authority=authority))
        if hop.key:
            kind, _, blob = hop.key.partition(" ")
            name = hop.hostname if hop.port == 22 else f"[{hop.hostname}]:{hop.port}"
            self.client.get_host_keys().add(name, kind, _key(hop, kind, blob))


def _disallowed(hop: Hop) -> dict[str, list[str]]:
    """Algorithms of the library that the user's configuration leaves out."""
    known = paramiko.Transport
    usual = {
        "ciphers": known._preferred_ciphers, "macs": known._preferred_macs, "kex": known._preferred_kex,
        "keys": known._preferred_keys, "pubkeys": known._preferred_pubkeys,
    }  # fmt: skip
    return {kind: [one for one in usual[kind] if one not in allowed] for kind, allowed in hop.own.algorithms}


def _key(hop: Hop, kind: str, blob: str) -> paramiko.PKey:
    try:
        return paramiko.PKey.from_type_string(kind, base64.b64decode(blob))
    except (ValueError, paramiko.SSHException, paramiko.pkey.UnknownKeyType) as error:
        raise Untrusted(f"{hop.who}its pinned host key cannot be read: {kind}") from error


class _Refuse(paramiko.RejectPolicy):  # type: ignore[misc]
    """As the library's, but says which key was shown, and what to do."""

    def __init__(self, hop: Hop, *, authority: str) -> None:
        self._hop, self._authority = hop, authority

    def missing_host_key(self, client: paramiko.SSHClient, hostname: str, key: paramiko.PKey) -> None:
        shown = text_of(key)
        what = f"`dstack pool add-ssh {self._hop.at}` shows it and asks, or write `host_key: {shown}`"
        if self._authority:
            what = f"{self._authority} trusts an authority of certificates, which is not supported here; {what}"
        if self._hop.key or self._hop.login:  # of another type than the pinned one
            raise Untrusted(changed(self._hop, key), shown=shown)
        raise Untrusted(f"{self._hop.who}host key {fingerprint(shown)} is not known: {what}", shown=shown)


def changed(hop: Hop, key: paramiko.PKey) -> str:
    shown = text_of(key)
    if hop.login:
        what = f"{fingerprint(shown)} is shown, not {fingerprint(hop.key)}" if hop.key else fingerprint(shown)
        return f"host key of another machine: {what}. Somebody may be in between: it is not used"
    return (
        f"{hop.who}host key changed: {fingerprint(shown)} is shown, {fingerprint(hop.key)} is pinned. Somebody "
        f"may be in between; if it was set up anew, `dstack pool add-ssh {hop.at}` shows the new key and asks"
    )


def text_of(key: paramiko.PKey) -> str:
    return f"{key.get_name()} {key.get_base64()}"


def refused_login(hop: Hop, error: Exception) -> Unreachable:
    """A machine of ours that shows its own key and refuses the project's: then it is another project's key."""
    if hop.login:
        why = "the project's key of this machine opens nothing there: get `.dstack/keys/project.key` of who made it"
        return Unreachable(f"not visible from here: {why}", ours=True)
    return Unreachable(f"{hop.who}login as {hop.user} was refused: {words(error)}{unsupported(hop)}")


def unsupported(hop: Hop) -> str:
    """What the user's configuration says of that server and is not supported: behind a failure."""
    said = ", ".join(hop.own.unsupported)
    return f". Its ssh_config has {said}, which dstack does not support" if said else ""


def failed(hop: Hop, error: Exception, *, patience: Patience) -> Unreachable:
    said = words(error)
    if "No authentication methods available" in said:
        return Unreachable(
            f"not visible from here: {hop.who}no key to log in with on this machine{unsupported(hop)}", ours=True
        )
    if "banner" in said.lower():
        return Unreachable(silent(hop, patience))
    return Unreachable(f"{hop.who}{hop.at}: {said}{unsupported(hop)}")


def silent(hop: Hop, patience: Patience) -> str:
    return f"{hop.who}{hop.at} accepts and says nothing: no SSH greeting in {patience.banner:g} s"


def speaks(sock: socket.socket | paramiko.Channel, *, ends: float) -> bool:
    """Whether there is anything to read, or an end, before `ends`; nothing is taken away."""
    if isinstance(sock, paramiko.Channel):  # its pipe would cost two descriptors as long as it lives
        while not (sock.recv_ready() or sock.closed or sock.eof_received):
            if time.monotonic() > ends:
                return False
            time.sleep(0.02)
        return True
    with selectors.DefaultSelector() as selector:
        selector.register(sock, selectors.EVENT_READ)
        return bool(selector.select(max(0.0, ends - time.monotonic())))


def words(error: Exception) -> str:
    return str(error).strip().rstrip(".") or type(error).__name__
