"""Read `.gitignore` and `.dstackignore` as git reads them, without git."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

MOST = 1024 * 1024  # bytes of one file of rules
_CLASSES = {
    "alnum": "a-zA-Z0-9", "alpha": "a-zA-Z", "blank": " \\t", "digit": "0-9", "lower": "a-z", "space": "\\s",
    "upper": "A-Z", "xdigit": "0-9A-Fa-f", "punct": "!-/:-@\\[-`{-~", "cntrl": "\\x00-\\x1f\\x7f",
    "graph": "!-~", "print": " -~",
}  # fmt: skip


class RulesUnreadable(Exception):
    """A file of rules is there and cannot be read: what it would leave out is not known. The message names it."""


class _Rule(NamedTuple):
    pattern: re.Pattern[str]
    negated: bool
    folders_only: bool


class IgnoreRules:
    """The rules of all files called `name` below `root`, read when a path below their folder is asked about."""

    def __init__(self, root: Path, name: str) -> None:
        self._root, self._name = root, name
        self._read: dict[str, tuple[_Rule, ...]] = {}
        self._ignored: dict[str, bool] = {}

    def ignores(self, path: str, *, folder: bool = False) -> bool:
        """Whether `path` (relative, "/" between its parts) is left out, by itself or with a folder above it.

        As with git, nothing below an ignored folder can be taken back in. Raises `RulesUnreadable`.
        """
        above = path.rpartition("/")[0]
        if above and self._folder_ignored(above):
            return True
        return self._says(path, folder=folder)

    def _folder_ignored(self, folder: str) -> bool:
        if folder not in self._ignored:
            self._ignored[folder] = self.ignores(folder, folder=True)
        return self._ignored[folder]

    def _says(self, path: str, *, folder: bool) -> bool:
        """The last rule that matches decides; those of a deeper folder come later."""
        parts = path.split("/")
        for depth in range(len(parts) - 1, -1, -1):
            relative = "/".join(parts[depth:])
            for rule in reversed(self._rules("/".join(parts[:depth]))):
                if (folder or not rule.folders_only) and rule.pattern.fullmatch(relative):
                    return not rule.negated
        return False

    def _rules(self, folder: str) -> tuple[_Rule, ...]:
        if folder not in self._read:
            file = self._root / folder / self._name
            try:
                regular = stat.S_ISREG(os.lstat(file).st_mode)  # git follows no link there, and waits for no pipe
                text = file.read_bytes()[:MOST] if regular else b""
            except (FileNotFoundError, NotADirectoryError):
                text = b""
            except OSError as error:
                raise RulesUnreadable(f"{file}: {error.strerror}: what it leaves out is not known") from error
            self._read[folder] = tuple(_rules(os.fsdecode(text.removeprefix(b"\xef\xbb\xbf"))))
        return self._read[folder]


def _rules(text: str) -> Iterator[_Rule]:
    for raw in text.split("\n"):
        line = re.sub(r"(?<!\\)((?:\\\\)*) +\Z", r"\1", raw.removesuffix("\r"))
        if not line or line.startswith("#"):
            continue
        negated = line.startswith("!")
        line = line[1:] if negated else line
        folders_only = line.endswith("/")
        line = line[:-1] if folders_only else line
        if not line:
            continue
        anchored = "/" in line
        pattern = _translated(line.removeprefix("/"))
        if pattern is not None:
            yield _Rule(re.compile(pattern if anchored else f"(?:.*/)?{pattern}", re.DOTALL), negated, folders_only)


def _translated(glob: str) -> str | None:
    """A regular expression for the whole path; `None` for a pattern that matches nothing, as git has it."""
    found, at = "", 0
    while at < len(glob):
        rest = glob[at:]
        start = at == 0 or glob[at - 1] == "/"
        if start and rest.startswith("**/"):
            found, at = f"{found}(?:.*/)?", at + 3
        elif start and rest == "**":
            found, at = f"{found}.+", at + 2
        elif rest[0] == "*":
            found, at = f"{found}[^/]*", at + len(rest) - len(rest.lstrip("*"))
        elif rest[0] == "?":
            found, at = f"{found}[^/]", at + 1
        elif rest[0] == "[":
            inside = _bracket(rest)
            if inside is None:
                return None
            found, at = found + inside[0], at + inside[1]
        elif rest[0] == "\\":
            if len(rest) == 1:
                return None
            found, at = found + re.escape(rest[1]), at + 2
        else:
            found, at = found + re.escape(rest[0]), at + 1
    return found


def _bracket(text: str) -> tuple[str, int] | None:
    """`[a-z]`, `[!x]`, `[[:digit:]]`: the expression, and how long it is written; `None` where it does not end."""
    at, negated = 1, text[1:2] in ("!", "^") and len(text) > 1
    at += negated
    items: list[str] = []
    first = True
    while at < len(text):
        if text[at] == "]" and not first:
            body = "".join(items)
            return (f"(?!/)[^{body}]" if negated else f"(?!/)[{body}]"), at + 1
        first = False
        named = re.match(r"\[:([a-z]*):\]", text[at:])
        if named:
            if named[1] not in _CLASSES:
                return None
            items.append(_CLASSES[named[1]])
            at += named.end()
            continue
        low, at = _character(text, at)
        if text[at : at + 1] == "-" and text[at + 1 : at + 2] not in ("]", ""):
            high, at = _character(text, at + 1)
            items.append(f"{re.escape(low)}-{re.escape(high)}" if low <= high else "")
        else:
            items.append(re.escape(low))
    return None


def _character(text: str, at: int) -> tuple[str, int]:
    if text[at] == "\\" and at + 1 < len(text):
        return text[at + 1], at + 2
    return text[at], at + 1


def left_out(rules: Sequence[IgnoreRules], path: str, *, folder: bool = False) -> bool:
    """Whether any of them leaves it out."""
    return any(one.ignores(path, folder=folder) for one in rules)
