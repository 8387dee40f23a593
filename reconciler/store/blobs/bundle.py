"""Pack a run's files, as git sees them, into one archive. The same content gives the same bytes.

Links are kept as links and never followed. `.git`, and `state`, `keys` and `schema` in `.dstack`, never travel. Without
git, `.gitignore` holds all the same; `.dstackignore` always does. What looks like a key travels only by its own name.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import os
import re
import stat
import tarfile
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from reconciler.store.blobs.fetched import Fetched
from reconciler.store.blobs.ignore_rules import IgnoreRules, RulesUnreadable, left_out
from reconciler.store.blobs.secret_looking import looks_secret
from reconciler.system.git import GitFailed, ask_git, repository_of, run_git
from reconciler.system.private_folder import make_private
from reconciler.text.dates import ARCHIVED
from reconciler.text.format import clean, counted

LIMIT = 100 * 1000 * 1000
NAMED = 5  # files that a message lists
_SKIPPED = frozenset(
    {
        ".git", ".hg", ".svn", ".venv", "venv", "node_modules", "__pycache__", ".mypy_cache", ".ruff_cache",
        ".pytest_cache", ".tox",
    }
)  # fmt: skip
_PRIVATE = re.compile(r"(?:^|/)(?:\.git|\.dstack/(?:state|keys|schema))(?:/|$)")


class CannotBundle(Exception):
    """The files cannot be packed. The message says which, and why."""


class TooLarge(CannotBundle):
    """More than the limit, before compression. `largest` are up to five (path, bytes), largest first."""

    def __init__(self, *, total: int, limit: int, largest: tuple[tuple[str, int], ...]) -> None:
        listed = ", ".join(f"{path} ({size / 1e6:.1f} MB)" for path, size in largest)
        super().__init__(f"the files are {total / 1e6:.0f} MB, above {limit / 1e6:.0f} MB; the largest: {listed}")
        self.total = total
        self.limit = limit
        self.largest = largest


class _Entry(NamedTuple):
    path: str  # relative, "/" between its parts
    stat: os.stat_result


def bundle(
    root: Path,
    files: tuple[str, ...] | None = None,
    *,
    into: Path | None = None,
    scratch: Path | None = None,
    limit: int | None = LIMIT,
    never: tuple[str, ...] = (),
    told: Callable[[str], object] = lambda note: None,
) -> Path:
    """A tar.gz named `<sha256>.tar.gz` in the folder `into`; without one a temporary file, the caller's to remove.

    That lies in `scratch`, hidden and `.tmp`: if we are killed, whoever sweeps that folder removes it.
    `files` are paths of `root` that are sent instead of all that git sees, even where git ignores them; `.` stands for
    all that git sees. `limit` None asks nothing.
    `never` are files that must stay here, named from `root` or absolute: those that secrets are read from.
    `told` hears how much is sent, and which files are left out: they look like keys, or dstack itself wrote them here.
    Raises `TooLarge`, `CannotBundle`.
    """
    entries = _without(_entries(root, files), root=root, never=never)
    entries = _without_keys(entries, root=root, files=files, told=told)
    entries = _without_fetched(entries, root=root, files=files, told=told)
    _check_size(entries, limit)
    told(f"{counted(len(entries), 'file')} ({_megabytes(entries)} MB) {'is' if len(entries) == 1 else 'are'} sent.")
    folder = into or scratch
    if folder:
        make_private(folder)
    descriptor, name = tempfile.mkstemp(prefix=".dstack-", suffix=".tar.gz.tmp", dir=folder)
    try:
        with _naming(name), os.fdopen(descriptor, "wb") as file:
            _pack(root, entries, file)
        return _named_by_content(Path(name)) if into else Path(name)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


@contextmanager
def _naming(path: str) -> Iterator[None]:
    """A write that fails says nothing of its file by itself."""
    try:
        yield
    except OSError as error:
        if error.filename:
            raise
        raise OSError(error.errno, error.strerror, path) from error


def _named_by_content(path: Path) -> Path:
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return path.replace(path.with_name(f"{digest}.tar.gz"))


def _entries(root: Path, files: tuple[str, ...] | None) -> list[_Entry]:
    """Sorted by path; files and links only, none of them under a link."""
    found = []
    for path in sorted(_chosen(root, files), key=os.fsencode):
        if _PRIVATE.search(path):
            continue
        known = _status(root, path)
        if known is not None and (stat.S_ISREG(known.st_mode) or stat.S_ISLNK(known.st_mode)):
            found.append(_Entry(path, known))
    return found


def _chosen(root: Path, files: tuple[str, ...] | None) -> set[str]:
    """The project as git sees it, or, where there are `files`, those alone. `.` among them is the project."""
    if files is None:
        return set(_project(root))
    return {path for wanted in files for path in (_project(root) if _is_root(wanted) else _wanted(root, wanted))}


def _is_root(wanted: str) -> bool:
    return str(PurePosixPath(wanted)) == "."


def _without(entries: list[_Entry], *, root: Path, never: tuple[str, ...]) -> list[_Entry]:
    """Judged by what a name leads to: a link or another spelling of it takes no secret along."""
    kept = {os.path.realpath(root / Path(path).expanduser()) for path in never}
    return [entry for entry in entries if os.path.realpath(root / entry.path) not in kept] if kept else entries


def _without_fetched(
    entries: list[_Entry], *, root: Path, files: tuple[str, ...] | None, told: Callable[[str], object]
) -> list[_Entry]:
    """Results do not travel back out, unless somebody took them into the project: by git, or by name in `files`."""
    fetched = Fetched(root)
    left = {one.path for one in entries if fetched and fetched.has(one.path, one.stat)}
    if not left:
        return entries
    left -= _tracked(root)
    for wanted in files or ():
        asked = {one.path for one in entries if not _is_root(wanted) and PurePosixPath(one.path).is_relative_to(wanted)}
        left -= asked if asked <= left else set()  # by a name that is of nothing else
    if left:
        first = min(left, key=lambda path: (path.count("/"), path))
        told(
            f"{counted(len(left), 'file')} that dstack fetched ({first}{', …' if len(left) > 1 else ''}) "
            f"{'is' if len(left) == 1 else 'are'} not sent. To send one, add it to git or name it in `files`."
        )
    return [one for one in entries if one.path not in left]


def _tracked(root: Path) -> set[str]:
    if repository_of(root) is None:
        return set()
    try:
        answer = ask_git(root, "ls-files", "-z", "--cached", timeout=None)
    except GitFailed as error:
        raise CannotBundle(str(error)) from error
    return set(filter(None, os.fsdecode(answer).split("\0")))


def _without_keys(
    entries: list[_Entry], *, root: Path, files: tuple[str, ...] | None, told: Callable[[str], object]
) -> list[_Entry]:
    """A key leaves this machine only where it is named itself: a folder around it, or `.`, does not name it."""
    named = {str(PurePosixPath(one)) for one in files or ()}
    keys = {
        one.path
        for one in entries
        if one.path not in named
        and stat.S_ISREG(one.stat.st_mode)
        and looks_secret(root, one.path, size=one.stat.st_size)
    }
    if keys:
        first = ", ".join(clean(path) for path in sorted(keys)[:NAMED]) + (", …" if len(keys) > NAMED else "")
        what = "looks like a key and is" if len(keys) == 1 else "look like keys and are"
        told(f"{counted(len(keys), 'file')} {what} not sent: {first}. To send one, name it in `files`.")
    return [one for one in entries if one.path not in keys]


def _status(root: Path, path: str) -> os.stat_result | None:
    """None for what is gone (git may still list it) or lies behind a link."""
    if any((root / parent).is_symlink() for parent in PurePosixPath(path).parents if parent.name):
        return None
    try:
        return os.lstat(root / path)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise CannotBundle(f"{path}: {error}") from error


def _project(root: Path) -> Iterator[str]:
    """What is listed and no `.dstackignore` leaves out."""
    ours = IgnoreRules(root, ".dstackignore")
    try:
        yield from (path for path in _listed(root) if not ours.ignores(path))
    except RulesUnreadable as error:
        raise CannotBundle(str(error)) from error


def _untracked(root: Path) -> Iterable[str]:
    return _walked(root, "", skipped=_SKIPPED, rules=(IgnoreRules(root, ".gitignore"),))


def _listed(root: Path) -> Iterable[str]:
    """What git tracks and does not ignore. Where git does not rule, all that `.gitignore` files and habit leave."""
    try:
        if repository_of(root) is None or run_git(root, "check-ignore", "-q", ".", timeout=None).code == 0:
            return _untracked(root)
        answer = ask_git(
            root, "ls-files", "-z", "--cached", "--others", "--exclude-standard", "--deduplicate", timeout=None
        )
    except GitFailed as error:
        # Packing everything instead would take along what git ignores, secrets among it.
        raise CannotBundle(str(error)) from error
    return _with_repositories(root, os.fsdecode(answer).split("\0"))


def _with_repositories(root: Path, paths: Iterable[str]) -> Iterator[str]:
    """A submodule, or another repository inside, is listed as one folder: its own git lists what is in it."""
    for path in filter(None, paths):
        inner = root / path
        if inner.is_dir() and not inner.is_symlink():
            yield from (f"{path.rstrip('/')}/{name}" for name in _listed(inner))
        else:
            yield path


def _wanted(root: Path, wanted: str) -> Iterable[str]:
    """One entry of `files:`: a file, a link, or a folder with everything in it."""
    path = PurePosixPath(wanted)
    if path.is_absolute() or ".." in path.parts:
        raise CannotBundle(f"files: {wanted} lies outside of the project")
    known = _status(root, str(path))
    if known is None:
        raise CannotBundle(f"files: there is no {wanted} in {root}")
    return _walked(root, str(path)) if stat.S_ISDIR(known.st_mode) else [str(path)]


def _walked(
    root: Path, inside: str, *, skipped: frozenset[str] = frozenset(), rules: Sequence[IgnoreRules] = ()
) -> Iterator[str]:
    """Every file and link below that the rules leave; links to folders are not entered."""

    def refuse(error: OSError) -> None:
        raise CannotBundle(f"{error.filename}: {error.strerror}") from error

    for folder, folders, names in os.walk(root / inside, onerror=refuse):
        here = Path(folder).relative_to(root)
        links = [name for name in folders if (Path(folder) / name).is_symlink()]
        entered = sorted(set(folders) - set(links) - skipped)
        folders[:] = [name for name in entered if not left_out(rules, (here / name).as_posix(), folder=True)]
        found = ((here / name).as_posix() for name in (*names, *links))
        yield from (path for path in found if not left_out(rules, path))


def _megabytes(entries: list[_Entry]) -> str:
    return f"{sum(entry.stat.st_size for entry in entries) / 1e6:.1f}"


def _check_size(entries: list[_Entry], limit: int | None) -> None:
    total = sum(entry.stat.st_size for entry in entries)
    if limit is not None and total > limit:
        largest = sorted(((entry.path, entry.stat.st_size) for entry in entries), key=lambda pair: -pair[1])[:5]
        raise TooLarge(total=total, limit=limit, largest=tuple(largest))


def _pack(root: Path, entries: list[_Entry], file: io.BufferedWriter) -> None:
    """Pack the files without the times, owners and umask of this machine."""
    with (
        gzip.GzipFile("", "wb", compresslevel=6, fileobj=file, mtime=0) as zipped,
        tarfile.open(fileobj=zipped, mode="w", format=tarfile.GNU_FORMAT) as tar,
    ):
        for path, known in entries:
            try:
                _add(tar, root / path, tarfile.TarInfo(path), known)
            except OSError as error:
                raise CannotBundle(f"{path}: {error}") from error


def _add(tar: tarfile.TarFile, source: Path, entry: tarfile.TarInfo, known: os.stat_result) -> None:
    entry.mtime = ARCHIVED  # one date for all: the same content gives the same bytes
    if stat.S_ISLNK(known.st_mode):
        entry.type, entry.linkname, entry.mode = tarfile.SYMTYPE, os.readlink(source), 0o777
        tar.addfile(entry)
        return
    entry.mode = 0o755 if known.st_mode & stat.S_IXUSR else 0o644
    with open(os.open(source, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC), "rb") as content:
        entry.size = os.fstat(content.fileno()).st_size
        tar.addfile(entry, content)
