"""Unpack a stream of tar into a folder that nothing of it can leave, also where a hostile job wrote it.

No part of a name is followed where it is a link, nothing is written through one, and a link is made only where it
leads to something in the folder.
"""

from __future__ import annotations

import os
import secrets
import stat
import tarfile
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Protocol

from reconciler.text.dates import archived_time

CHUNK = 256 * 1024


class TarSource(Protocol):
    """Where the tar comes from."""

    def read(self, size: int, /) -> bytes: ...


@dataclass(kw_only=True)
class Unpacked:
    """How much arrived; `notes` are what was left out, with the reason; `cut` why the rest did not come, or ""."""

    files: int = 0
    size: int = 0
    notes: list[str] = field(default_factory=list)
    cut: str = ""


def unpack(
    source: TarSource,
    into: Path,
    *,
    choose: Callable[[str], str | None] = lambda name: name,
    moved: Callable[[int], object] = lambda size: None,
) -> Unpacked:
    """`choose` gives the name below `into` for one in the tar, None to skip it; "" is `into` itself, as a file.

    Files there are replaced, each whole or not at all. Owners are not kept; of the mode, who may run it; of the
    times, the last change.
    `into` is trusted, also where it is a link. Raises `OSError` where it cannot be written.
    """
    done = Unpacked()
    with suppress(FileExistsError):
        into.parent.mkdir(parents=True)
    try:
        with tarfile.open(fileobj=source, mode="r|*") as packed:  # type: ignore[call-overload]
            for member in packed:
                name = _plain(member.name)
                wanted = None if name is None else choose(name)
                if name is None:
                    done.notes.append(f"left out, it leaves the folder: {member.name}")
                elif wanted is not None:
                    try:
                        _take(member, packed, into, wanted, done=done, moved=moved)
                    except (IsADirectoryError, NotADirectoryError, FileExistsError):
                        done.notes.append(f"left out, something else is in its place: {member.name}")
    except (tarfile.TarError, EOFError) as error:
        done.cut = str(error) or type(error).__name__
    return done


def _plain(name: str) -> str | None:
    """Without `.` and doubled slashes; None for one that could leave the folder."""
    parts = [part for part in name.split("/") if part not in ("", ".")]
    return None if name.startswith("/") or ".." in parts or "\0" in name else "/".join(parts)


def _take(
    member: tarfile.TarInfo,
    packed: tarfile.TarFile,
    into: Path,
    name: str,
    *,
    done: Unpacked,
    moved: Callable[[int], object],
) -> None:
    place = into / name if name else into
    if not _folders_of(place, into=into):
        done.notes.append(f"left out, a link is in its way: {name}")
    elif member.isdir():
        if not _is_folder(place, follow=not name):
            place.mkdir(parents=not name)
    elif member.isreg():
        done.size += _write(packed.extractfile(member), place, member=member, moved=moved)
        done.files += 1
    elif member.issym() or member.islnk():
        _link(member, into, place, name, done=done)
    else:
        done.notes.append(f"left out, not a file: {name}")


def _folders_of(place: Path, *, into: Path) -> bool:
    """Make the folders between; false where one of them is no real folder."""
    if place == into:
        return True
    if not _is_folder(into, follow=True):
        into.mkdir(parents=True)
    between = into
    for part in place.relative_to(into).parts[:-1]:
        between = between / part
        if not os.path.lexists(between):
            between.mkdir()
        elif not _is_folder(between, follow=False):
            return False
    return True


def _is_folder(path: Path, *, follow: bool) -> bool:
    try:
        info = path.stat() if follow else path.lstat()
    except FileNotFoundError:
        return False
    return stat.S_ISDIR(info.st_mode)


def _write(content: IO[bytes] | None, place: Path, *, member: tarfile.TarInfo, moved: Callable[[int], object]) -> int:
    """Beside it first: what is there is replaced by a whole file, never written into, also where it is a link."""
    runs, at = bool(member.mode & 0o100), archived_time(member.mtime)
    temporary = place.with_name(f".{secrets.token_hex(8)}.part")
    size = 0
    try:
        handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o777 if runs else 0o666)
        with os.fdopen(handle, "wb") as file:
            while content is not None and (data := content.read(CHUNK)):
                file.write(data)
                size += len(data)
                moved(len(data))
            file.flush()
            os.utime(handle, (at, at))
        temporary.replace(place)
    finally:
        temporary.unlink(missing_ok=True)
    return size


def _link(member: tarfile.TarInfo, into: Path, place: Path, name: str, *, done: Unpacked) -> None:
    """A second name becomes a link to the first file, where that arrived; both kinds only within the folder."""
    if not name:
        done.notes.append("left out, it is a link")
        return
    if member.islnk():
        first = _plain(member.linkname)
        target = into / first if first else None
        if target is None or not _folders_of(target, into=into) or not _is_file(target):
            done.notes.append(f"left out, a second name of what did not arrive: {name}")
            return
        _place_link(lambda path: os.link(target, path, follow_symlinks=False), place)
        done.files += 1
    elif _stays(name, member.linkname):
        _place_link(lambda path: os.symlink(member.linkname, path), place)
    else:
        done.notes.append(f"left out, a link that leaves the folder: {name} -> {member.linkname}")


def _is_file(path: Path) -> bool:
    try:
        return stat.S_ISREG(path.lstat().st_mode)
    except FileNotFoundError:
        return False


def _place_link(make: Callable[[Path], object], place: Path) -> None:
    temporary = place.with_name(f".{secrets.token_hex(8)}.part")
    make(temporary)
    try:
        temporary.replace(place)
    finally:
        temporary.unlink(missing_ok=True)


def _stays(name: str, link: str) -> bool:
    """`..` only at its beginning, and no more of them than folders: later ones could lead out through another link.

    The folders on the way are real ones, so each `..` leads to where its name says.
    """
    parts = [part for part in link.split("/") if part not in ("", ".")]
    ups = next((number for number, part in enumerate(parts) if part != ".."), len(parts))
    return bool(link) and not link.startswith("/") and ".." not in parts[ups:] and ups <= name.count("/")
