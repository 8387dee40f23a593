"""Remember which files of a project dstack itself wrote, so that no run takes its predecessors' results along.

These are artifacts, what was copied out of runs, and logs that were sent into a file.

A file counts for as long as it is as dstack wrote it: by its path, or by its inode where it was moved. Whoever
changes it, adds it to git or names it in `files` has it sent. One JSON list a line, in `.dstack/state/fetched`.
"""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Iterable, Iterator
from fcntl import F_GETFL, fcntl
from pathlib import Path

from reconciler.system.private_folder import make_private

MOST = 200_000
"""Records that are kept; the oldest are dropped."""


class Fetched:
    """The files that were written below `root`, the project's folder.

    `expect` is called before a file is written and `keep` (or the end of a `with`) afterwards: a file that was there
    before, and that dstack did not write, stays the user's, although its content is replaced.
    """

    def __init__(self, root: Path) -> None:
        self._root = root.resolve()
        self._file = root / ".dstack" / "state" / "fetched"
        self._records = list(_read(self._file))
        self._known = {key for path, inode, size, at in self._records for key in ((path, size, at), (inode, size, at))}
        self._expected: list[Path] = []

    def __bool__(self) -> bool:
        return bool(self._records)

    def __enter__(self) -> Fetched:
        return self

    def __exit__(self, *error: object) -> None:
        self.keep()

    def has(self, path: str, known: os.stat_result) -> bool:
        """Whether the file at `path`, relative to the project, is one of them and has not been changed since."""
        inode, size, at = known.st_ino, known.st_size, known.st_mtime_ns
        return (path, size, at) in self._known or (inode, size, at) in self._known

    def expect(self, place: Path) -> None:
        """A file is about to be written at `place`."""
        path = self._below(place)
        if path is None:
            return
        try:
            known = os.lstat(place)
        except (FileNotFoundError, NotADirectoryError):
            self._expected.append(place)
        else:
            if self.has(path, known):
                self._expected.append(place)

    def keep(self) -> int:
        """Store what was written since; the number of files of which a run will not be sent any."""
        made = []
        for place in self._expected:
            path = self._below(place)
            try:
                known = os.lstat(place)
            except (FileNotFoundError, NotADirectoryError):
                continue
            if path is not None and stat.S_ISREG(known.st_mode):
                made.append((path, known.st_ino, known.st_size, known.st_mtime_ns))
        self._expected.clear()
        if made:
            self._store(made)
        return len(made)

    def keep_output(self, descriptor: int) -> None:
        """Store the file that `descriptor` writes to, unless it is none or was there before and is added to."""
        known = os.fstat(descriptor)
        if stat.S_ISREG(known.st_mode) and known.st_size and not fcntl(descriptor, F_GETFL) & os.O_APPEND:
            self._store([("", known.st_ino, known.st_size, known.st_mtime_ns)])

    def _store(self, made: list[_Record]) -> None:
        make_private(self._file.parent)
        replaced = {path for path, *_ in made if path}
        kept = [one for one in self._records if one[0] not in replaced]
        self._records = [*kept, *made][-MOST:]
        temporary = self._file.with_name(f".fetched.{os.getpid()}.tmp")
        try:
            with temporary.open("w", encoding="ascii") as file:
                file.writelines(f"{json.dumps(one)}\n" for one in self._records)
            temporary.replace(self._file)
        finally:
            temporary.unlink(missing_ok=True)

    def _below(self, place: Path) -> str | None:
        """Its path from the project's folder, through no link in between; None for what lies outside."""
        try:
            return (place.parent.resolve() / place.name).relative_to(self._root).as_posix()
        except ValueError:
            return None


_Record = tuple[str, int, int, int]
"""Path, inode, size in bytes, time of the last change in nanoseconds."""


def _read(file: Path) -> Iterator[_Record]:
    """A line that is none of ours is passed over: at worst a file is sent."""
    for line in _lines(file):
        try:
            path, inode, size, at = json.loads(line)
        except ValueError:
            continue
        if isinstance(path, str) and all(type(one) is int for one in (inode, size, at)):
            yield path, inode, size, at


def _lines(file: Path) -> Iterable[str]:
    try:
        return file.read_text("ascii", errors="replace").splitlines()
    except (FileNotFoundError, NotADirectoryError):
        return ()
