"""The folder store: the conformance suite, and what only files and folders do."""

from __future__ import annotations

import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import textwrap
from functools import partial
from pathlib import Path

import pytest

from reconciler.state.errors import StateRefused
from reconciler.store.folder import FolderStore, filesystem
from reconciler.store.statefile import dumps
from schemas.state import State
from tests.contracts.store_conformance import PROJECT, Open, StoreConformance, a_state

ROOT = Path(__file__).parents[2]


class TestFolderStore(StoreConformance):
    @pytest.fixture
    def opened(self, tmp_path: Path) -> Open:
        return partial(FolderStore, tmp_path / "state", PROJECT)

    def overwrite(self, opened: Open, state: State) -> None:
        Path(opened().address).write_bytes(dumps(state))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "state"


@pytest.fixture
def file(folder: Path) -> Path:
    """A written state."""
    FolderStore(folder, PROJECT).write(a_state(), "")
    return folder / f"{PROJECT}.yml"


def test_reading_makes_nothing(folder: Path) -> None:
    assert FolderStore(folder, PROJECT).read() == (None, "")
    assert not folder.exists()


def test_only_its_owner_reads_it(file: Path) -> None:
    assert file.stat().st_mode & 0o777 == 0o600
    assert file.parent.stat().st_mode & 0o777 == 0o700


def test_its_address_is_the_same_by_every_way(file: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(file.parent)
    assert FolderStore(tmp_path / "link", PROJECT).address == str(file)


@pytest.mark.parametrize("project", ["", "../escape", "short", "UPPERCASE1", "a" * 33, "with/slash", "new\nline1"])
def test_a_project_id_that_could_leave_the_folder(folder: Path, project: str) -> None:
    with pytest.raises(StateRefused, match="project id"):
        FolderStore(folder, project)


def test_a_hand_edit_moves_the_token(file: Path) -> None:
    _, before = FolderStore(file.parent, PROJECT).read()
    file.write_bytes(file.read_bytes() + b"\n")
    _, after = FolderStore(file.parent, PROJECT).read()
    assert before != after


def test_readable_by_others_is_mended_and_told_once(file: Path) -> None:
    file.chmod(0o644)
    store = FolderStore(file.parent, PROJECT)
    store.read()
    store.read()
    assert file.stat().st_mode & 0o777 == 0o600
    assert store.notes == [f"{file}: was readable by others; set to 0600"]


@pytest.mark.parametrize("mode", [0o620, 0o602, 0o666])
def test_a_file_that_others_may_write(file: Path, mode: int) -> None:
    file.chmod(mode)
    with pytest.raises(StateRefused, match="chmod 600"):
        FolderStore(file.parent, PROJECT).read()
    assert file.stat().st_mode & 0o777 == mode


@pytest.mark.parametrize("mode", [0o770, 0o707, 0o777])
def test_a_folder_that_others_may_write(file: Path, mode: int) -> None:
    file.parent.chmod(mode)
    for attempt in (
        FolderStore(file.parent, PROJECT).read,
        lambda: FolderStore(file.parent, PROJECT).write(a_state(), ""),
    ):
        with pytest.raises(StateRefused, match="chmod go-w"):
            attempt()


def test_a_sticky_folder_is_fine(file: Path) -> None:
    file.parent.chmod(0o1777)
    assert FolderStore(file.parent, PROJECT).read()[0] == a_state()


def test_a_symbolic_link(file: Path) -> None:
    file.rename(file.with_suffix(".real"))
    file.symlink_to(file.with_suffix(".real"))
    with pytest.raises(StateRefused, match="symbolic link"):
        FolderStore(file.parent, PROJECT).read()


def test_a_pipe_does_not_hang(folder: Path) -> None:
    folder.mkdir(mode=0o700)
    os.mkfifo(folder / f"{PROJECT}.yml", 0o600)
    with pytest.raises(StateRefused, match="regular file"):
        FolderStore(folder, PROJECT).read()


def test_a_folder_that_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "state").write_text("")
    for attempt in (
        FolderStore(tmp_path / "state", PROJECT).read,
        FolderStore(tmp_path / "state" / "deep", PROJECT).read,
    ):
        with pytest.raises(StateRefused):
            attempt()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
def test_another_users_file_and_folder(file: Path) -> None:
    os.chown(file, 65534, 65534)
    with pytest.raises(StateRefused, match="chown"):
        FolderStore(file.parent, PROJECT).read()
    os.chown(file.parent, 65534, 65534)
    with pytest.raises(StateRefused, match="belongs to user 65534"):
        FolderStore(file.parent, PROJECT).read()


def test_another_projects_state_under_our_name(file: Path) -> None:
    file.write_bytes(dumps(a_state(project="another12")))
    with pytest.raises(StateRefused, match="project another12"):
        FolderStore(file.parent, PROJECT).read()


def test_a_read_only_folder_is_a_clear_error() -> None:
    """As somebody who is not root: root may write anywhere. So it lies where others may pass."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "state"
        folder.mkdir()
        Path(name).chmod(0o755)
        if os.geteuid() == 0:
            os.chown(folder, 65534, 65534)
        folder.chmod(0o500)
        program = f"""
            import os, sys
            sys.path.insert(0, {str(ROOT)!r})
            from pathlib import Path
            import filelock
            from reconciler.state.errors import StateRefused
            from reconciler.store.folder import FolderStore
            from schemas.state import VERSION, State
            if os.geteuid() == 0:
                os.setgid(65534)
                os.setuid(65534)
            store = FolderStore(Path({str(folder)!r}), "{PROJECT}")
            assert store.read() == (None, "")
            try:
                store.write(State(version=VERSION, project="{PROJECT}", lineage="a"), "")
            except StateRefused as error:
                print(error)
        """
        done = _python(program)
        folder.chmod(0o700)
    assert done.stdout.startswith(f"{folder}: cannot be locked"), done.stderr
    assert "Permission denied" in done.stdout


def test_a_full_disk_leaves_the_old_state(file: Path) -> None:
    """A limit on the size of files stands in for the disk: the write fails half-way."""
    before = file.read_bytes()
    store = FolderStore(file.parent, PROJECT)
    _, token = store.read()
    import filelock  # noqa: F401 - imported before the limit

    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, limits[1]))
    try:
        with pytest.raises(StateRefused, match="the old one is intact"):
            store.write(a_state(2), token)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, ignored)
    assert file.read_bytes() == before
    assert sorted(os.listdir(file.parent)) == [f".{PROJECT}.lock", file.name]
    store.write(a_state(2), token)


STRACE = shutil.which("strace")
CAN_TRACE = STRACE is not None and subprocess.run([STRACE, "-o", "/dev/null", "true"]).returncode == 0


@pytest.mark.skipif(not CAN_TRACE, reason="needs strace, and the right to use it")
@pytest.mark.parametrize(
    ("fault", "word", "generation"),
    [
        ("fsync:error=EIO:when=1", "cannot be written: Input/output error; the old one is intact", 1),
        ("fsync:error=ENOSPC:when=1", "cannot be written: No space left on device; the old one is intact", 1),
        ("fsync:error=EIO:when=2", "written, but may not survive a loss of power: Input/output error", 2),
    ],
)
def test_a_failing_disk(file: Path, fault: str, word: str, generation: int) -> None:
    program = f"""
        import sys
        sys.path.insert(0, {str(ROOT)!r})
        from pathlib import Path
        from msgspec.structs import replace
        from reconciler.state.errors import StateRefused
        from reconciler.store.folder import FolderStore
        store = FolderStore(Path({str(file.parent)!r}), "{PROJECT}")
        state, token = store.read()
        try:
            store.write(replace(state, generation=2), token)
        except StateRefused as error:
            print(error)
    """
    done = _python(
        program,
        str(STRACE),
        "-f",
        "--seccomp-bpf",
        "-qq",
        "-o",
        "/dev/null",
        "-e",
        "trace=fsync",
        "-e",
        f"inject={fault}",
    )
    assert word in done.stdout, done.stderr
    assert FolderStore(file.parent, PROJECT).read()[0] == a_state(generation)
    assert not list(file.parent.glob(".*.tmp"))


def test_a_file_laid_out_by_hand_is_compared_all_the_same(file: Path) -> None:
    file.write_text(json.dumps(json.loads(file.read_bytes()), indent=2))
    store = FolderStore(file.parent, PROJECT)
    state, token = store.read()
    assert state == a_state()
    with pytest.raises(StateRefused, match="lineage"):
        store.write(a_state(2, lineage="bbbbbbbb"), token)
    store.write(a_state(2), token)


def test_a_dead_writers_leftovers_are_swept(file: Path) -> None:
    leftover = file.parent / f".{PROJECT}.12345.tmp"
    leftover.write_bytes(b"half")
    store = FolderStore(file.parent, PROJECT)
    store.write(a_state(2), store.read()[1])
    assert not leftover.exists()


def test_a_killed_holder_keeps_nobody_waiting(file: Path) -> None:
    program = f"""
        import os, signal, sys
        sys.path.insert(0, {str(ROOT)!r})
        from filelock import FileLock
        FileLock({str(file.parent / f".{PROJECT}.lock")!r}, fallback_to_soft=False).acquire()
        os.kill(os.getpid(), signal.SIGKILL)
    """
    assert _python(program).returncode == -signal.SIGKILL
    store = FolderStore(file.parent, PROJECT)
    store.write(a_state(2), store.read()[1])


@pytest.mark.parametrize(
    ("event", "ending", "generation"),
    [("open", ".tmp", 1), ("os.rename", ".tmp", 1), ("open", "/state", 2), ("os.remove", ".tmp", 1)],
)
def test_killed_on_the_way_it_is_the_old_or_the_new(file: Path, event: str, ending: str, generation: int) -> None:
    """Killed as it enters a system call: before the temporary file, before the rename, before the folder's sync."""
    (file.parent / f".{PROJECT}.1.tmp").write_bytes(b"half")
    program = f"""
        import os, signal, sys
        sys.path.insert(0, {str(ROOT)!r})
        from pathlib import Path
        import filelock
        from reconciler.store.folder import FolderStore
        from msgspec.structs import replace

        store = FolderStore(Path({str(file.parent)!r}), "{PROJECT}")
        state, token = store.read()

        def kill(event, arguments):
            if event == {event!r} and str(arguments[0]).endswith({ending!r}):
                os.kill(os.getpid(), signal.SIGKILL)
        sys.addaudithook(kill)
        store.write(replace(state, generation=2), token)
    """
    assert _python(program).returncode == -signal.SIGKILL
    store = FolderStore(file.parent, PROJECT)
    state, token = store.read()
    assert state == a_state(generation)
    store.write(a_state(3), token)
    assert not list(file.parent.glob(".*.tmp"))


def test_reading_never_pays_for_the_lock(file: Path) -> None:
    program = f"""
        import sys
        sys.path.insert(0, {str(ROOT)!r})
        from pathlib import Path
        from reconciler.store.folder import FolderStore
        assert FolderStore(Path({str(file.parent)!r}), "{PROJECT}").read()[0]
        print([name for name in ("filelock", "asyncio", "cryptography", "yaml", "pydantic") if name in sys.modules])
    """
    assert _python(program).stdout.strip() == "[]"


def test_network_folders_are_refused_by_name(file: Path, tmp_path: Path) -> None:
    mounts = tmp_path / "mounts"
    mounts.write_text(f"/dev/sda1 / ext4 rw 0 0\nserver:/export {tmp_path} nfs4 rw 0 0\n")
    store = FolderStore(file.parent, PROJECT, mounts=mounts)
    for attempt in (store.read, lambda: store.write(a_state(2), "")):
        with pytest.raises(StateRefused, match="lies on NFS4"):
            attempt()


def test_the_file_system_of_a_folder(tmp_path: Path) -> None:
    mounts = tmp_path / "mounts"
    mounts.write_text("/dev/sda1 / ext4 rw 0 0\nx /data nfs rw 0 0\ny /data/a\\040b xfs rw 0 0\nz /da tmpfs rw 0 0\n")
    assert filesystem(Path("/data/x"), mounts=mounts) == "nfs"
    assert filesystem(Path("/data/a b/c"), mounts=mounts) == "xfs"
    assert filesystem(Path("/database"), mounts=mounts) == "ext4"
    assert filesystem(Path("/database"), mounts=tmp_path / "nowhere") == ""


def _python(program: str, *under: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*under, sys.executable, "-c", textwrap.dedent(program)], capture_output=True, text=True, timeout=60, cwd="/"
    )
