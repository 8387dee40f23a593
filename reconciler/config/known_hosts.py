"""Read `.dstack/known_hosts`: which key belongs to which host name. The first matching line wins."""

from __future__ import annotations

import base64
import hashlib
import hmac
from collections.abc import Sequence
from fnmatch import fnmatchcase
from pathlib import Path


class Known:
    """The lines of one file. Lines of authorities and revoked keys (`@…`) pin nothing."""

    def __init__(self, text: str) -> None:
        self._lines = []
        for line in text.splitlines():
            words = line.split()
            if len(words) >= 3 and words[0][0] not in "#@":
                self._lines.append((words[0].split(","), f"{words[1]} {words[2]}"))

    def key_of(self, hostname: str, port: int | None = None) -> str:
        """`ssh-ed25519 AAAA…`, or ""."""
        return next(iter(self.keys_of(hostname, port)), "")

    def keys_of(self, hostname: str, port: int | None = None) -> tuple[str, ...]:
        """All of them, in the order of the file."""
        name = name_of(hostname, port)
        return tuple(key for patterns, key in self._lines if _names(patterns, name))


def read_known_hosts(path: Path) -> Known:
    """An absent file knows nobody."""
    try:
        return Known(path.read_text("utf-8", "replace"))
    except OSError:
        return Known("")


def name_of(hostname: str, port: int | None) -> str:
    """As the files write it."""
    return hostname.lower() if port in (None, 22) else f"[{hostname.lower()}]:{port}"


def _names(patterns: list[str], name: str) -> bool:
    if any(one.startswith("!") and fnmatchcase(name, one[1:].lower()) for one in patterns):
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
