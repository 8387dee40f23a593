"""Read `.dstack/known_hosts` and its like: which key belongs to which host name. The first matching line wins.

A key that a `@revoked` line names for a host is none of its keys. Lines of `@cert-authority` give no key: certificates
of hosts are not checked here, so that such a line trusts nobody.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

from schemas.host import key_blob


@dataclass(frozen=True, kw_only=True)
class _Entry:
    number: int
    marker: str
    patterns: tuple[str, ...]
    key: str


class Known:
    """The lines of one file. `source` is its name, for messages."""

    def __init__(self, text: str, *, source: str = "known_hosts") -> None:
        self.source = source
        self._entries: list[_Entry] = []
        self._marked: list[_Entry] = []
        for number, line in enumerate(text.splitlines(), 1):
            words = line.split()
            if not words or words[0].startswith("#"):
                continue
            marker = words.pop(0).lower() if words[0].startswith("@") else ""
            if len(words) >= 3:
                names = tuple(words[0].split(","))
                entry = _Entry(number=number, marker=marker, patterns=names, key=f"{words[1]} {words[2]}")
                (self._marked if marker else self._entries).append(entry)

    def key_of(self, hostname: str, port: int | None = None) -> str:
        """`ssh-ed25519 AAAA…`, or ""."""
        return next(iter(self.keys_of(hostname, port)), "")

    def keys_of(self, hostname: str, port: int | None = None) -> tuple[str, ...]:
        """All of them that are not revoked, in the order of the file."""
        name = name_of(hostname, port)
        found = [one.key for one in self._entries if _names(one.patterns, name)]
        return tuple(key for key in found if not self.revoked(key, hostname, port))

    def revoked(self, key: str, hostname: str, port: int | None = None) -> int:
        """The line that revokes `key` for that host; 0 where none does. A line without the port counts, too."""
        blob, names = key_blob(key), {name_of(hostname, port), name_of(hostname, None)}
        for one in self._marked:
            if one.marker == "@revoked" and key_blob(one.key) == blob and _any(one.patterns, names):
                return one.number
        return 0

    def authority(self, hostname: str, port: int | None = None) -> int:
        """The line that trusts a certificate authority for that host; 0 where none does."""
        names = {name_of(hostname, port)}
        found = (one for one in self._marked if one.marker == "@cert-authority" and _any(one.patterns, names))
        return next((one.number for one in found), 0)


def read_known_hosts(path: Path) -> Known:
    """An absent file knows nobody."""
    try:
        return Known(path.read_text("utf-8", "replace"), source=str(path))
    except OSError:
        return Known("", source=str(path))


def name_of(hostname: str, port: int | None) -> str:
    """As the files write it."""
    return hostname.lower() if port in (None, 22) else f"[{hostname.lower()}]:{port}"


def _any(patterns: Sequence[str], names: set[str]) -> bool:
    return any(_names(patterns, name) for name in names)


def _names(patterns: Sequence[str], name: str) -> bool:
    if any(one.startswith("!") and _plain(one[1:].lower(), name) for one in patterns):
        return False
    return any(_hashed(one, name) if one.startswith("|1|") else _plain(one.lower(), name) for one in patterns)


def _plain(pattern: str, name: str) -> bool:
    """Brackets stand for themselves there."""
    return pattern == name or fnmatchcase(name, pattern.replace("[", "[[]"))


def _hashed(pattern: str, name: str) -> bool:
    try:
        _, _, salt, digest = pattern.split("|")
        made = hmac.new(base64.b64decode(salt), name.encode(), hashlib.sha1).digest()
        return hmac.compare_digest(made, base64.b64decode(digest))
    except ValueError:
        return False


def with_keys(text: str, keys: Sequence[tuple[str, str]]) -> str:
    """A file's text with (name, key) pinned: lines of the same name alone make way, all others stay as they are."""
    names = {name for name, _ in keys}
    kept = [line for line in text.splitlines() if (line.split() or [""])[0].lower() not in names]
    return "".join(f"{line}\n" for line in (*kept, *(f"{name} {key}" for name, key in keys)))
