"""A server that is declared, not bought: how it is reached, and the key that it must show."""

from __future__ import annotations

import base64
import hashlib

from schemas.base import Mib, Price, Value
from schemas.resources import GpuNeed

DISK_FLOOR: Mib = 5 * 1024


class Jump(Value, frozen=True, kw_only=True):
    """A server on the way. `None` and "" leave it to `~/.ssh/config` of whoever connects. `host_key` is its pin."""

    hostname: str
    port: int | None = None
    user: str = ""
    identity_file: str = ""
    host_key: str = ""


class Host(Value, frozen=True, kw_only=True):
    """A declared server with every value effective, but for those that `~/.ssh/config` may give.

    `host_key` is its pin, `ssh-ed25519 AAAA…`, from `host_key` or `.dstack/known_hosts`; "" is refused.
    `jumps` lead there, the nearest to us first. `internal_ip` is what other nodes call it by;
    hosts of a pool with the same `network` (a CIDR, or "") reach each other.
    `disk_floor` is the free disk below which it is not used; `gpu` what its pool asks of each server's GPUs.
    """

    name: str
    hostname: str
    port: int | None = None
    user: str = ""
    identity_file: str = ""
    host_key: str = ""
    jumps: tuple[Jump, ...] = ()
    network: str = ""
    internal_ip: str = ""
    price: Price = Price(0)
    region: str = ""
    blocks: int = 1
    disk_floor: Mib = DISK_FLOOR
    gpu: GpuNeed | None = None

    @property
    def place(self) -> str:
        """Each pinned machine is a place of its own: another key at the same address is another place."""
        return f"ssh/{self.name}#{short(self.host_key)}" if self.host_key else f"ssh/{self.name}"

    @property
    def folder(self) -> str:
        """Ours on that server, below the login's home. Homes that several servers share hold one for each."""
        return f".dstack-hosts/{hashlib.sha256(self.host_key.encode()).hexdigest()[:16]}"

    @property
    def address(self) -> str:
        """As people write it."""
        return f"{self.hostname}:{self.port}" if self.port not in (None, 22) else self.hostname


def fingerprint(host_key: str) -> str:
    """`SHA256:…` of `ssh-ed25519 AAAA…`, as OpenSSH shows it. Raises `ValueError`."""
    try:
        blob = base64.b64decode(host_key.split()[1], validate=True)
    except (IndexError, ValueError) as error:
        raise ValueError("not a host key: `ssh-ed25519 AAAA…` is one") from error
    return "SHA256:" + base64.b64encode(hashlib.sha256(blob).digest()).decode().rstrip("=")


def key_blob(host_key: str) -> str:
    """What tells two keys apart: the base64 of `ssh-ed25519 AAAA… comment`, unpadded; "" where there is none."""
    words = host_key.split()
    return words[1].rstrip("=") if len(words) > 1 else ""


def short(host_key: str) -> str:
    """Enough of it to tell keys apart in a name."""
    return hashlib.sha256(host_key.split()[1].encode()).hexdigest()[:8]
