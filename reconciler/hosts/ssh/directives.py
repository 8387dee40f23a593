"""What the directives of an ssh_config mean for a connection of ours: each is honoured, refused, or named.

`ssh -G` decides which of them hold for a host. `_OURS` are honoured here; `_SESSION` belong to a person's session or to
ssh's own process, and change neither where a connection leads nor whom it trusts. Whatever else differs from ssh's
defaults is named, also a directive that a later ssh will know.
"""

from __future__ import annotations

import getpass
import hashlib
import os
import re
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from reconciler.hosts.ssh.ask_ssh import Answer, NoWay, usual_home
from reconciler.text.format import clean

_USUAL = ("~/.ssh/id_rsa", "~/.ssh/id_ecdsa", "~/.ssh/id_ed25519")
_TRUSTED = ("~/.ssh/known_hosts", "~/.ssh/known_hosts2", "/etc/ssh/ssh_known_hosts", "/etc/ssh/ssh_known_hosts2")
_ALGORITHMS = {  # the library's names of them
    "ciphers": "ciphers", "macs": "macs", "kexalgorithms": "kex", "hostkeyalgorithms": "keys",
    "pubkeyacceptedalgorithms": "pubkeys",
}  # fmt: skip
_OURS = {
    "host", "hostname", "user", "port", "identityfile", "certificatefile", "identitiesonly", "identityagent",
    "proxyjump", "proxycommand", "hostkeyalias", "addressfamily", "bindaddress", "bindinterface", "connecttimeout",
    "userknownhostsfile", "globalknownhostsfile", "revokedhostkeys", "pubkeyauthentication", "preferredauthentications",
    *_ALGORITHMS,
    "canonicalizehostname", "canonicaldomains", "canonicalizemaxdots", "canonicalizefallbacklocal",
    "canonicalizepermittedcnames",
}  # fmt: skip
_SESSION = {
    "addkeystoagent", "batchmode", "channeltimeout", "checkhostip", "clearallforwardings", "compression",
    "connectionattempts", "controlmaster", "controlpath", "controlpersist", "dynamicforward", "enableescapecommandline",
    "enablesshkeysign", "escapechar", "exitonforwardfailure", "fingerprinthash", "forkafterauthentication",
    "forwardagent", "forwardx11", "forwardx11timeout", "forwardx11trusted", "gatewayports", "gssapiauthentication",
    "gssapidelegatecredentials", "gssapikexalgorithms", "gssapikeyexchange", "gssaprenewalforcesrekey",
    "gssapirenewalforcesrekey", "gssapitrustdns", "gssapiclientidentity", "gssapiserveridentity", "hashknownhosts",
    "hostbasedacceptedalgorithms", "ignoreunknown", "ipqos", "kbdinteractiveauthentication", "kbdinteractivedevices",
    "localcommand", "localforward", "loglevel", "logverbose", "numberofpasswordprompts", "obscurekeystroketiming",
    "passwordauthentication", "permitlocalcommand", "permitremoteopen", "rekeylimit",
    "remotecommand", "remoteforward", "requesttty", "sendenv", "serveralivecountmax", "serveraliveinterval",
    "sessiontype", "setenv", "stdinnull", "streamlocalbindmask", "streamlocalbindunlink", "stricthostkeychecking",
    "syslogfacility", "tag", "tcpkeepalive", "tunnel", "tunneldevice", "updatehostkeys", "versionaddendum",
    "visualhostkey", "warnweakcrypto", "xauthlocation",
}  # fmt: skip
_REFUSED = {  # directive -> why nothing is done without it
    "proxyusefdpass": "a ProxyCommand that hands over its socket cannot be used here",
    "pkcs11provider": "keys are taken from files and from an agent: `ssh-add -s` hands a token's keys to the agent",
    "refuseconnection": "ssh refuses this connection",
}


@dataclass(frozen=True, kw_only=True)
class Own:
    """What the user's own configuration says of a connection, beyond address, login and keys."""

    usual: tuple[Path, ...] = ()
    """Private keys that are tried where none is named."""
    certificates: tuple[Path, ...] = ()
    only: bool = False
    """Of an agent's keys, only those that are named as files."""
    agent: str = ""
    """Path of the agent's socket; "" for none."""
    alias: str = ""
    """What known_hosts files call the host instead of its name."""
    trusted: tuple[Path, ...] = ()
    """known_hosts files of the user and of the system."""
    revoked: Path | None = None
    """A file of keys that are never accepted."""
    family: int = 0
    """`socket.AF_INET` or `AF_INET6`; 0 for either."""
    bind: str = ""
    interface: str = ""
    timeout: float = 0.0
    """Seconds for the connection to open; 0 where nothing is said."""
    algorithms: tuple[tuple[str, frozenset[str]], ...] = ()
    """(the library's kind, the allowed ones), where they are not ssh's defaults."""
    unsupported: tuple[str, ...] = ()
    """Directives that are met and not supported, as `KnownHostsCommand` has it."""


class Directives:
    """The answer of ssh for one host. `written` is what it is called there, `home` this user's folder."""

    def __init__(self, answer: Answer, *, defaults: Answer, home: Path, written: str, user: str, port: int) -> None:
        self._answer, self._defaults, self._home, self._written = answer, defaults, home, written
        self.hostname = self._one("hostname") or written
        self.user = user or self._one("user") or getpass.getuser()
        self.port = port or int(self._one("port") or 22)
        self._refuse()

    def _one(self, key: str) -> str:
        """ "" where it is not said, or said to be none."""
        value = next(iter(self._answer.get(key, ())), "")
        return "" if value.lower() == "none" else value

    def _differs(self, key: str) -> bool:
        return key in self._answer and self._answer[key] != self._defaults.get(key)

    def _refuse(self) -> None:
        for key, why in _REFUSED.items():
            if self._differs(key) and self._one(key) not in ("", "no", "false"):
                raise NoWay(f"{self._written}: {key} in the ssh_config is not supported: {why}")
        methods = self._one("preferredauthentications")
        barred = self._one("pubkeyauthentication") in ("no", "false")
        if barred or (methods and "publickey" not in methods.split(",")):
            raise NoWay(f"{self._written}: the ssh_config allows no login with a key, and dstack has no other")

    # ------------------------------------------------------------ where it leads

    @property
    def jumps(self) -> tuple[str, ...]:
        """`ProxyJump`, the nearest first; empty where a `ProxyCommand` was said before it."""
        said = self._one("proxyjump")
        return tuple(self.filled(one.strip(), "ProxyJump", short=True) for one in said.split(",")) if said else ()

    @property
    def proxy_command(self) -> str:
        """As written; "" where none, or a `ProxyJump`, holds."""
        return self._one("proxycommand")

    @property
    def command(self) -> str:
        """The `ProxyCommand` with its tokens filled; what `${NAME}` is, the shell that runs it knows."""
        return self.filled(self.proxy_command, "the ProxyCommand", short=True)

    # ------------------------------------------------------------ whom it trusts, who logs in

    @property
    def identities(self) -> tuple[Path, ...] | None:
        """Keys that the configuration names, maybe none of them; `None` where it says nothing."""
        said = self._answer.get("identityfile", ())
        if not said or said == self._defaults.get("identityfile"):
            return None
        return tuple(self._path(one, "IdentityFile") for one in said if one.lower() != "none")

    def own(self) -> Own:
        usual = self._defaults.get("identityfile", _USUAL) if self.identities is None else ()
        timeout = self._one("connecttimeout")
        revoked = self._one("revokedhostkeys")
        return Own(
            usual=tuple(self._path(one, "IdentityFile") for one in usual),
            certificates=tuple(self._path(one, "CertificateFile") for one in self._answer.get("certificatefile", ())),
            only=self._one("identitiesonly") == "yes",
            agent=self._agent(),
            alias=self._one("hostkeyalias").lower(),
            trusted=self._trusted(),
            revoked=self._path(revoked, "RevokedHostKeys") if revoked else None,
            family={"inet": socket.AF_INET, "inet6": socket.AF_INET6}.get(self._one("addressfamily"), 0),
            bind=self._one("bindaddress"),
            interface=self._one("bindinterface"),
            timeout=float(timeout) if timeout.isdecimal() else 0.0,
            algorithms=tuple(
                (ours, frozenset(self._one(key).split(","))) for key, ours in _ALGORITHMS.items() if self._differs(key)
            ),
            unsupported=tuple(clean(key) for key in self._answer if self._is_unsupported(key)),
        )

    def _is_unsupported(self, key: str) -> bool:
        return key not in _OURS and key not in _SESSION and self._differs(key)

    def _agent(self) -> str:
        """As `IdentityAgent` says: a path, `none`, `SSH_AUTH_SOCK` or another variable."""
        said = next(iter(self._answer.get("identityagent", ())), "SSH_AUTH_SOCK")
        if said.lower() == "none":
            return ""
        if said == "SSH_AUTH_SOCK" or re.fullmatch(r"\$\w+", said):
            return os.environ.get(said.removeprefix("$"), "")
        return str(self._at_home(self._path(said, "IdentityAgent")))

    def _trusted(self) -> tuple[Path, ...]:
        said = [*self._answer.get("userknownhostsfile", ()), *self._answer.get("globalknownhostsfile", ())]
        paths = [one for line in said for one in re.split(r"\s+(?=[/~])", line) if one.lower() != "none"]
        return tuple(self._at_home(self._path(one, "UserKnownHostsFile")) for one in (paths if said else _TRUSTED))

    def _at_home(self, path: Path) -> Path:
        """ssh has written `~` out by the password database: where that is another folder than ours, ours holds."""
        usual = usual_home()
        return self._home / path.relative_to(usual) if usual.name and path.is_relative_to(usual) else path

    # ------------------------------------------------------------ tokens

    def _path(self, written: str, what: str) -> Path:
        """`~` is this user's home; a relative one lies where the command was started, as for ssh."""
        text = self.filled(written, what)
        return self._home / text[2:] if text.startswith("~/") else Path(os.path.expanduser(text)).absolute()

    def filled(self, text: str, what: str, *, short: bool = False) -> str:
        """With `%h` and its like, and `${NAME}`. `short`: only those that a jump may have. Raises `NoWay`."""
        values = {"%": "%", "h": self.hostname, "n": self._written, "p": str(self.port), "r": self.user}
        values |= {} if short else self._further()

        def value_of(found: re.Match[str]) -> str:
            if found[2] and short:
                return found[0]
            if found[2]:
                if (value := os.environ.get(found[2])) is None:
                    raise NoWay(f"{what} of {self._written}: the environment variable {found[2]} is not set")
                return value
            if found[1] not in values:
                raise NoWay(f"{what} of {self._written} has {found[0]}: known are {_known(values)}")
            return values[found[1]]

        return re.sub(r"%(.?)|\$\{(\w+)\}", value_of, text)

    def _further(self) -> Mapping[str, str]:
        here, jump = socket.gethostname(), next(iter(self._answer.get("proxyjump", ())), "")
        whole = f"{here}{self.hostname}{self.port}{self.user}{jump}"
        return {
            "C": hashlib.sha1(whole.encode()).hexdigest(),  # noqa: S324 - a name, as ssh makes it
            "d": str(self._home),
            "i": str(os.getuid()),
            "j": jump,
            "k": self._one("hostkeyalias") or self._written,
            "L": here.partition(".")[0],
            "l": here,
            "u": getpass.getuser(),
        }


def _known(values: Mapping[str, str]) -> str:
    names = [f"%{name}" for name in sorted(values) if name != "%"]
    return f"{', '.join(names)} and %%"
