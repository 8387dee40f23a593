"""Make an ssh_config readable to ssh for another home folder than that of the password database.

Relative names after `Include` lie in `~/.ssh`, and ssh asks the password database what `~` is. Where `$HOME` says
otherwise (containers of CI do), those names are written out, in files that go when this process ends.
"""

from __future__ import annotations

import os
import re
import shlex
import stat
import tempfile
import weakref
from collections.abc import Iterator
from glob import glob
from pathlib import Path

DEEPEST = 16  # as ssh
_INCLUDE = re.compile(rb"\s*include(?:\s*=\s*|\s+)(.*)", re.IGNORECASE)


class ReadableCopy:
    """`name` is what ssh is given: `path` with its includes written out, then the file `also`.

    `checked`: a file that others may write is refused, as ssh refuses the user's own. Raises `OSError`, `ValueError`.
    The files are removed when this is.
    """

    def __init__(self, path: Path, *, home: Path, also: Path | None, checked: bool) -> None:
        self._home, self._checked = home, checked
        self._files: list[Path] = []
        weakref.finalize(self, _removed, self._files)
        text = self._text(path, depth=0) if path.exists() else b""
        if also is not None and also.exists():
            text += b"\nMatch all\nInclude " + _quoted(str(also)) + b"\n"
        self.name = self._kept(text)

    def _kept(self, text: bytes) -> str:
        handle, name = tempfile.mkstemp(prefix=".dstack-ssh-", suffix=".conf")
        self._files.append(Path(name))
        with os.fdopen(handle, "wb") as file:
            file.write(text)
        return name

    def _text(self, path: Path, *, depth: int) -> bytes:
        with path.open("rb") as file:
            info = os.fstat(file.fileno())
            theirs = info.st_uid not in (0, os.getuid()) or info.st_mode & (stat.S_IWGRP | stat.S_IWOTH)
            if self._checked and theirs and stat.S_ISREG(info.st_mode):
                raise PermissionError(f"Bad owner or permissions on {path}")
            return b"\n".join(self._line(line, depth=depth) for line in file.read().split(b"\n"))

    def _line(self, line: bytes, *, depth: int) -> bytes:
        found = _INCLUDE.fullmatch(line.rstrip(b"\r"))
        if found is None:
            return line
        if depth >= DEEPEST:
            raise ValueError("Too many recursive configuration includes")
        names = [_quoted(one) for one in self._included(os.fsdecode(found[1]), depth=depth + 1)]
        return b"Include " + b" ".join(names) if names else b""

    def _included(self, words: str, *, depth: int) -> Iterator[str]:
        for word in shlex.split(words, comments=True):
            inside = self._home / word[2:] if word.startswith("~/") else self._home / ".ssh" / word
            for name in sorted(glob(str(inside))):
                yield self._readable(Path(name), depth=depth)

    def _readable(self, path: Path, *, depth: int) -> str:
        """It, or a copy of it where it includes others."""
        if not path.is_file():
            return str(path)
        text = self._text(path, depth=depth)
        return self._kept(text) if any(map(_INCLUDE.match, text.split(b"\n"))) else str(path)


def _quoted(path: str) -> bytes:
    return b'"' + os.fsencode(path) + b'"'


def _removed(files: list[Path]) -> None:
    for file in files:
        file.unlink(missing_ok=True)
