"""The state as one file in a folder: a native lock around a comparison and an atomic replace."""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import stat
from collections.abc import Iterator
from pathlib import Path

from reconciler.state.errors import StateMoved, StateRefused
from reconciler.store.statefile import Header, dumps, header, header_of, loads, refuse_backwards
from reconciler.system.private_folder import distrust, make_private
from schemas.base import PROJECT_ID
from schemas.state import State

# Held for milliseconds; a holder that was stopped (not killed) is all that can use it up.
LOCK_TIMEOUT = 30.0
# Where a lock taken on one machine does not keep another one out.
SHARED = frozenset({"nfs", "nfs4", "cifs", "smb3", "smbfs", "afs", "fuse.sshfs", "fuse.s3fs", "fuse.rclone"})

BESIDE = ("blobs", "done", "ledger")


class FolderStore:
    """`<folder>/<project>.yml`, 0600, in a folder that only its owner may write. Made at the first write."""

    def __init__(self, folder: Path, project: str, *, mounts: Path = Path("/proc/self/mounts")) -> None:
        if not re.fullmatch(PROJECT_ID, project):
            raise StateRefused(f"project id {project!r}: must be 8 to 32 of a-z and 0-9; see .dstack/project.yml")
        self._folder = folder.absolute()
        self._project = project
        self._path = self._folder / f"{project}.yml"
        self._mounts = mounts
        self._seen: Header | None = None
        self.address = str(self._folder.resolve() / self._path.name)
        self.notes: list[str] = []

    def read(self) -> tuple[State | None, str]:
        """See `Store.read`. Takes no lock: the file is only ever replaced whole."""
        self._refuse_folder()
        data = self._bytes()
        if data is None:
            return None, ""
        state = loads(data, str(self._path))
        self._refuse_other(state)
        self._seen = header_of(state)
        return state, _token(data)

    def write(self, state: State, token: str) -> str:
        """See `Store.write`."""
        data = dumps(state)
        if state.project != self._project:
            raise StateRefused(f"{self._path}: belongs to project {self._project}, not to {state.project}")
        self._make_folder()
        with self._lock():
            current = self._bytes()
            if (_token(current) if current is not None else "") != token:
                raise StateMoved(f"{self._path}: somebody else wrote it first")
            if current is not None:
                refuse_backwards(str(self._path), header(current) or header_of(loads(current, str(self._path))), state)
            self._replace(data)
        self._seen = header_of(state)
        return _token(data)

    def supersede(self, state: State, *, now: int) -> str:
        """See `Store.supersede`."""
        data = dumps(state)
        self._make_folder()
        kept = self._path.with_name(f"{self._path.name}.before-rebuild-{now}")
        with self._lock():
            there = self._path.exists() or self._path.is_symlink()
            if there:
                self._path.rename(kept)
            self._replace(data)
        self._seen = header_of(state)
        return str(kept) if there else ""

    def raw(self) -> tuple[bytes, str]:
        """See `Store.raw`."""
        self._refuse_folder()
        data = self._bytes()
        return (data, _token(data)) if data is not None else (b"", "")

    def replace_raw(self, data: bytes, token: str) -> str:
        """See `Store.replace_raw`."""
        self._make_folder()
        with self._lock():
            current = self._bytes()
            if (_token(current) if current is not None else "") != token:
                raise StateMoved(f"{self._path}: somebody else wrote it first")
            self._replace(data)
        return _token(data)

    def keep_copy(self, name: str) -> str:
        """See `Store.keep_copy`. One that is there already was made by somebody who did not come to the end."""
        data = self._bytes()
        copy = self._path.with_name(f"{self._path.name}.{name}")
        try:
            if data is not None and not copy.exists():
                _write_new(copy, data)
                sync_folder(self._folder)
        except OSError as error:
            raise StateRefused(f"{copy}: cannot be written: {error.strerror}; nothing was changed") from error
        return str(copy)

    def date(self) -> int | None:
        """See `Store.date`: a folder of this machine has this machine's clock."""
        return None

    # ------------------------------------------------------------ what is refused

    def _refuse_folder(self) -> None:
        try:
            info = self._folder.stat()
        except FileNotFoundError:
            return
        except OSError as error:
            raise StateRefused(f"{self._folder}: {error.strerror}; `state:` must name a folder of yours") from error
        if not stat.S_ISDIR(info.st_mode):
            raise StateRefused(f"{self._folder}: not a folder; `state:` must name a folder of yours")
        if info.st_uid not in (0, os.geteuid()):
            raise StateRefused(f"{self._folder}: belongs to user {info.st_uid}, who could replace what is in it")
        if info.st_mode & 0o022 and not info.st_mode & stat.S_ISVTX:
            raise StateRefused(f"{self._folder}: others may write in it: `chmod go-w {self._folder}`")
        self._refuse_beside()
        kind = filesystem(self._folder.resolve(), mounts=self._mounts)
        if kind in SHARED:
            raise StateRefused(
                f"{self._folder}: lies on {kind.upper()}, where a lock does not keep other machines out; "
                "write `state: s3://…`, or a folder on a local disk"
            )

    def _refuse_beside(self) -> None:
        """What lies beside a state is believed as it is: which runs were done, the files that they start with."""
        for folder in (self._folder, self._folder / self._project):
            for name in BESIDE:
                if why := distrust(folder / name):
                    raise StateRefused(f"{folder / name}: {why}")

    def _bytes(self) -> bytes | None:
        try:
            handle = os.open(self._path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        except FileNotFoundError:
            return None
        except OSError as error:
            if self._path.is_symlink():
                raise StateRefused(f"{self._path}: is a symbolic link; put the file itself there") from error
            raise StateRefused(f"{self._path}: cannot be read: {error.strerror}") from error
        try:
            self._refuse_file(handle)
            with os.fdopen(handle, "rb", closefd=False) as file:
                return file.read()
        except OSError as error:
            raise StateRefused(f"{self._path}: cannot be read: {error.strerror}") from error
        finally:
            os.close(handle)

    def _refuse_file(self, handle: int) -> None:
        info = os.fstat(handle)
        if not stat.S_ISREG(info.st_mode):
            raise StateRefused(f"{self._path}: not a regular file; move it away")
        if info.st_uid != os.geteuid():
            raise StateRefused(f"{self._path}: belongs to user {info.st_uid}: `sudo chown {os.geteuid()} {self._path}`")
        if info.st_mode & 0o022:
            raise StateRefused(
                f"{self._path}: others may write it, so it cannot be trusted: look at it, then `chmod 600 {self._path}`"
            )
        if info.st_mode & 0o077:
            os.fchmod(handle, 0o600)
            self.notes.append(f"{self._path}: was readable by others; set to 0600")

    def _refuse_other(self, state: State) -> None:
        if state.project != self._project:
            raise StateRefused(
                f"{self._path}: is the state of project {state.project}, not of {self._project}; "
                "see `project:` in .dstack/project.yml"
            )
        refuse_backwards(str(self._path), self._seen, state, equal=True)

    # ------------------------------------------------------------ writing

    def _make_folder(self) -> None:
        try:
            make_private(self._folder.resolve())
        except OSError as error:
            raise StateRefused(f"{self._folder}: cannot be made: {error.strerror}") from error
        self._refuse_folder()

    @contextlib.contextmanager
    def _lock(self) -> Iterator[None]:
        """Native: the kernel releases it with its process, so there is never one to unlock by hand."""
        from filelock import FileLock, Timeout  # 77 ms: readers never pay them

        path = self._folder / f".{self._project}.lock"
        if path.is_symlink():  # older filelocks follow it, and cut what it leads to
            raise StateRefused(f"{path}: is a symbolic link; remove it")
        lock = FileLock(path, timeout=LOCK_TIMEOUT, mode=0o600, poll_interval=0.005, fallback_to_soft=False)
        try:
            lock.acquire()
        except Timeout as error:
            raise StateRefused(
                f"{path}: held for {LOCK_TIMEOUT:.0f} s by another dstack, perhaps a stopped one; try again"
            ) from error
        except (OSError, NotImplementedError) as error:
            raise StateRefused(f"{self._folder}: cannot be locked: {error}; nothing was written") from error
        try:
            yield
        finally:
            lock.release()

    def _replace(self, data: bytes) -> None:
        """Under the lock, so that every temporary file found is a dead writer's."""
        try:
            self._sweep()
            temporary = self._folder / f".{self._project}.{os.getpid()}.tmp"
            try:
                _write_new(temporary, data)
                temporary.replace(self._path)
            except BaseException:
                temporary.unlink(missing_ok=True)
                raise
        except OSError as error:
            raise StateRefused(f"{self._path}: cannot be written: {error.strerror}; the old one is intact") from error
        try:
            sync_folder(self._folder)
        except OSError as error:
            raise StateRefused(
                f"{self._path}: written, but may not survive a loss of power: {error.strerror}; mend the disk first"
            ) from error

    def _sweep(self) -> None:
        for leftover in self._folder.glob(f".{self._project}.*.tmp"):
            leftover.unlink(missing_ok=True)


def filesystem(folder: Path, *, mounts: Path) -> str:
    """The type of the file system that holds `folder` (resolved), "" where this system does not tell."""
    try:
        lines = mounts.read_text(errors="replace").splitlines()
    except OSError:  # no /proc: only Linux has it
        return ""
    kind, best = "", -1
    for line in lines:
        fields = line.split(" ")
        if len(fields) < 3:
            continue
        point = re.sub(r"\\([0-7]{3})", lambda found: chr(int(found[1], 8)), fields[1])
        if folder.is_relative_to(point) and len(point) >= best:
            kind, best = fields[2], len(point)
    return kind


def sync_folder(folder: Path) -> None:
    """Make names in `folder` survive a loss of power."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _write_new(path: Path, data: bytes) -> None:
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    with os.fdopen(handle, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def _token(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
