"""Writes, syncs and renames that fail from outside, under the real command: a full disk, EIO, a read-only folder.

After each: one line that says it, exit 1, the state as it was, and the next apply goes on.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from reconciler.store.statefile import loads
from tests.doubles.commands.command import DSTACK, Folder, Ran, folder_at

TASK = "type: task\nname: hello\ncommands: [echo hello]\n"
OTHER = TASK.replace("hello", "other")
STATE = ".dstack/state/demo12345678.yml"


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Folder]:
    """One that has applied a first time, and wants more."""
    made = folder_at(tmp_path)
    made.write(".dstack/runs/hello.yml", TASK)
    assert made.dstack("apply", "-y").code == 0
    made.write(".dstack/runs/other.yml", OTHER)
    yield made
    made.dstack("destroy", "--confirm", "demo")


def traced() -> str:
    """Why calls cannot be made to fail here, "" if they can."""
    if shutil.which("strace") is None:
        return "strace is not installed"
    tried = subprocess.run(
        ["strace", "-o", os.devnull, "-e", "inject=fsync:error=EIO", "true"], capture_output=True, check=False
    )
    return "" if tried.returncode == 0 else f"strace may not trace here: {tried.stderr.decode().strip()[-200:]}"


def failing(folder: Folder, call: str, *, error: str, when: str) -> Ran:
    """`dstack apply`, where that system call fails: the Nth of a thread, or from the Nth on ("N+")."""
    done = subprocess.run(
        [
            "strace",
            "-f",
            "-o",
            os.devnull,
            "-e",
            f"trace={call}",
            "-e",
            f"inject={call}:error={error}:when={when}",
            *DSTACK,
            "apply",
            "-y",
            "--detach",
        ],
        cwd=folder.root,
        env=folder.env,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=120,
        check=False,
    )
    return Ran(done.returncode, done.stdout.decode(), done.stderr.decode())


def state_of(folder: Folder) -> bytes:
    content = (folder.root / STATE).read_bytes()
    assert loads(content, STATE).project == "demo12345678"
    return content


def heals(folder: Folder) -> None:
    """The next applies do what is left, and leave no temporary file behind."""
    for _ in range(20):
        ran = folder.dstack("apply", "-y")
        assert ran.code == 0, ran
        runs = loads(state_of(folder), STATE).runs
        if len(runs) == 2 and {run.status for run in runs} == {"done"}:
            break
    assert [(run.spec.name, run.status) for run in runs] == [("hello", "done"), ("other", "done")]
    assert list((folder.root / ".dstack/state").glob(".*.tmp")) == []


def clean_refusal(ran: Ran) -> None:
    assert ran.code == 1, ran
    errors = [line for line in ran.err.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1, ran
    assert re.match(r"error: [^:]+: ", errors[0]), f"of what? {errors[0]}"
    assert "defect" not in ran.err
    assert "Traceback" not in ran.err


needs_strace = pytest.mark.skipif(bool(traced()), reason=traced() or "-")


ONE_CALL = [
    *((call, "EIO", number) for call in ("fsync", "rename") for number in range(1, 5)),
    *(("write", "EIO", number) for number in range(1, 10)),
    *(("write", "ENOSPC", number) for number in (2, 4, 5)),
]


@needs_strace
@pytest.mark.parametrize(("call", "error", "number"), ONE_CALL)
def test_one_call_fails_whichever_it_is(folder: Folder, call: str, error: str, number: int) -> None:
    """Of files packed, of the state, of the ledger, of an instance: what is an effect's is told as failed.

    Writes are those of each thread: what is said, a bundle, a blob, the state, the ledger, a host's answer.
    """
    ran = failing(folder, call, error=error, when=str(number))
    if ran.code:
        clean_refusal(ran)
    assert "defect" not in ran.err
    assert "Traceback" not in ran.err
    state_of(folder)
    heals(folder)


@needs_strace
@pytest.mark.parametrize("call", ["fsync", "rename"])
def test_no_call_works_at_all(folder: Folder, call: str) -> None:
    before = state_of(folder)
    ran = failing(folder, call, error="EIO", when="1+")
    clean_refusal(ran)
    assert "Input/output error" in ran.err
    assert state_of(folder) == before
    heals(folder)


@needs_strace
@pytest.mark.parametrize("first", [1, 2, 4])
def test_nothing_can_be_written_from_a_moment_on(folder: Folder, first: int) -> None:
    """Not even what is wrong: the exit code says it."""
    before = state_of(folder)
    ran = failing(folder, "write", error="EIO", when=f"{first}+")
    assert ran.code != 0
    assert "Traceback" not in ran.said
    if first < 4:
        assert state_of(folder) == before
    state_of(folder)
    heals(folder)


# ---------------------------------------------------------------- a small disk of its own


def mount(*args: str) -> str:
    """Why it cannot be mounted, "" where it is."""
    try:
        done = subprocess.run(["mount", *args], capture_output=True, check=False)
    except FileNotFoundError:
        return "there is no mount"
    return "" if done.returncode == 0 else f"nothing may be mounted here: {done.stderr.decode().strip()}"


@pytest.fixture
def small(folder: Folder) -> Iterator[Path]:
    """`.dstack/state` on a disk of 256 kB, with what was there."""
    state, kept = folder.root / ".dstack/state", folder.root.parent / "kept"
    shutil.copytree(state, kept)
    why = mount("-t", "tmpfs", "-o", "size=256k,mode=0700", "none", str(state))
    if why:
        pytest.skip(why)
    shutil.copytree(kept, state, dirs_exist_ok=True)
    yield state
    subprocess.run(["umount", str(state)], check=True)
    shutil.copytree(kept, state, dirs_exist_ok=True)


@pytest.mark.parametrize("free", [0, 1, 2, 3, 4, 6])
def test_the_disk_is_full(folder: Folder, small: Path, free: int) -> None:
    """With so many free pages of 4 kB: it fails at the bundle, the state, or the ledger."""
    before = state_of(folder)
    filler = small / "filler"
    with filler.open("wb") as file:
        try:
            while True:
                file.write(b"\0" * 4096)
                file.flush()
        except OSError:
            os.ftruncate(file.fileno(), max(0, file.tell() // 4096 - free) * 4096)
            os.dup2(os.open(os.devnull, os.O_WRONLY), file.fileno())
    ran = folder.dstack("apply", "-y", "--detach")
    if ran.code or free == 0:
        clean_refusal(ran)
        assert "No space left on device" in ran.err
    if free == 0:
        assert state_of(folder) == before
    state_of(folder)
    assert folder.dstack("ps").code == 0
    filler.unlink()
    heals(folder)
    end(folder)


def test_the_disk_is_read_only(folder: Folder, small: Path) -> None:
    before = state_of(folder)
    assert mount("-o", "remount,ro", str(small)) == ""
    ran = folder.dstack("apply", "-y", "--detach")
    clean_refusal(ran)
    assert "Read-only file system" in ran.err
    assert state_of(folder) == before
    assert folder.dstack("plan").code == 0
    assert mount("-o", "remount,rw", str(small)) == ""
    heals(folder)
    end(folder)


def end(folder: Folder) -> None:
    """While its own disk is there: the state that comes back when that is gone is an older one."""
    assert folder.dstack("destroy", "--confirm", "demo").code == 0
