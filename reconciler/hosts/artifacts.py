"""Select a job's files by its artifact globs and pack them. Safe against whatever the job left there."""

from __future__ import annotations

import fnmatch
import gzip
import re
import tarfile
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from reconciler.text.dates import archived_time

LIMIT = 10 * 1024**3


def choose(listed: bytes, globs: Sequence[str]) -> tuple[list[bytes], list[str]]:
    """Of the NUL-separated paths (`./a/b`), those that a glob or its folder matches, sorted; and notes."""
    wanted = [_patterns(glob) for glob in globs if _lies_inside(glob)]
    notes = [f"artifacts must lie inside the run's folder: {glob}" for glob in globs if not _lies_inside(glob)]
    paths = sorted(path for path in listed.split(b"\0") if path.startswith(b"./"))
    return [path for path in paths if any(_matches(_parts(path), patterns) for patterns in wanted)], notes


def _lies_inside(glob: str) -> bool:
    path = PurePosixPath(glob)
    return not path.is_absolute() and ".." not in path.parts and bool(path.parts)


def _parts(path: bytes) -> tuple[str, ...]:
    return tuple(path[2:].decode("utf-8", "surrogateescape").split("/"))


def _patterns(glob: str) -> tuple[re.Pattern[str] | None, ...]:
    """One for each folder or file name; None is `**`, any number of folders."""
    return tuple(None if part == "**" else re.compile(fnmatch.translate(part)) for part in PurePosixPath(glob).parts)


def pattern_of(glob: str) -> str:
    """The same as an extended regular expression on `./a/b`, for a host's grep. One that matches nothing where it
    would leave the folder.
    """
    if not _lies_inside(glob):
        return "^$"
    parts = ["([^/]+/)*" if part == "**" else f"{_expression(part)}/" for part in PurePosixPath(glob).parts]
    return "^\\./" + "".join(parts).removesuffix("/") + ("[^/]*(/.*)?$" if glob.endswith("**") else "(/.*)?$")


def _expression(part: str) -> str:
    found, inside = "", False
    for letter in part:
        if inside:
            found += "^" if letter == "!" and found.endswith("[") else letter
            inside = letter != "]"
        elif letter == "[" and "]" in part:
            found, inside = found + letter, True
        else:
            found += {"*": "[^/]*", "?": "[^/]"}.get(letter) or re.sub(r"([.^$+(){}|\\\[\]])", r"\\\1", letter)
    return found


def _matches(parts: tuple[str, ...], patterns: tuple[re.Pattern[str] | None, ...]) -> bool:
    """`*` and `?` stay in one folder; a folder's name takes everything in it."""
    if not patterns:
        return True
    if not parts:
        return False
    if patterns[0] is None:
        return any(_matches(parts[start:], patterns[1:]) for start in range(len(parts)))
    return bool(patterns[0].match(parts[0])) and _matches(parts[1:], patterns[1:])


def repack(raw: Path, *, into: Path, limit: int = LIMIT) -> tuple[Path | None, list[str]]:
    """The host's tar as one without owners: files and links that stay inside, at most `limit` bytes.

    A tar that ends early gives what it held. None where nothing is left. Notes name what was left out.
    """
    kept = _Kept(limit=limit, end=raw.stat().st_size)
    with (
        into.open("wb") as file,
        gzip.GzipFile("", "wb", compresslevel=6, fileobj=file, mtime=0) as zipped,
        tarfile.open(fileobj=zipped, mode="w", format=tarfile.PAX_FORMAT) as target,
    ):
        try:
            with tarfile.open(raw, "r:", ignore_zeros=True) as source:
                for member in source:
                    kept.take(member, source=source, target=target)
        except (tarfile.TarError, OSError, EOFError) as error:
            kept.notes.append(f"artifacts are incomplete: {error}")
    if kept.count:
        return into, kept.notes
    into.unlink()
    return None, kept.notes


class _Kept:
    """`end` is the raw tar's length: a member that claims to reach beyond it was cut."""

    def __init__(self, *, limit: int, end: int) -> None:
        self.left, self.end, self.count = limit, end, 0
        self.notes: list[str] = []

    def take(self, member: tarfile.TarInfo, *, source: tarfile.TarFile, target: tarfile.TarFile) -> None:
        name = member.name.removeprefix("./")
        content = _content(member, source)
        refusal = self._refusal(member, name=name, content=content)
        if refusal:
            self.notes.append(f"left out, {refusal}: {name}")
            return
        plain = tarfile.TarInfo(name)
        plain.mode = 0o755 if member.mode & 0o100 else 0o644
        plain.mtime = archived_time(member.mtime)
        if content is None:
            plain.type, plain.linkname, plain.mode = tarfile.SYMTYPE, member.linkname, 0o777
            target.addfile(plain)
        else:
            plain.size = content.size
            target.addfile(plain, source.extractfile(content))
            self.left -= plain.size
        self.count += 1

    def _refusal(self, member: tarfile.TarInfo, *, name: str, content: tarfile.TarInfo | None) -> str:
        if not _lies_inside(name) or (member.issym() and not _stays(name, member.linkname)):
            return "it leaves the folder"
        if content is None:
            return "" if member.issym() else "not a file"
        if content.offset_data + content.size > self.end:
            raise tarfile.ReadError(f"cut within {name}")
        return f"too large, {content.size} bytes" if content.size > self.left else ""


def _content(member: tarfile.TarInfo, source: tarfile.TarFile) -> tarfile.TarInfo | None:
    """Whose bytes these are: a file's second name in a tar has those of its first. None for what has none."""
    if not member.islnk():
        return member if member.isreg() else None
    first = next((found for found in source.getmembers() if found.name == member.linkname), None)
    return first if first is not None and first.isreg() else None


def _stays(name: str, link: str) -> bool:
    depth = len(PurePosixPath(name).parts) - 1
    if PurePosixPath(link).is_absolute():
        return False
    for part in PurePosixPath(link).parts:
        depth += -1 if part == ".." else 1
        if depth < 0:
            return False
    return True
