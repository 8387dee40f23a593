"""Folders in /tmp that belong to one test process, and the end of those whose process was killed.

Each says who made it: process id and start time, in which process namespace, of which boot. Only what says so, is
ours by its owner, and whose maker is proven dead is removed: same boot, same namespace, no such process.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from pathlib import Path

PREFIX = "dstack-tests-"
OWNER = ".made-by"
SYSTEM = Path("/tmp")


def folder_of_ours(*, mode: int = 0o700, parent: Path = SYSTEM) -> Path:
    """A new one. Its name is short: a socket's path has room for some hundred letters."""
    made = Path(tempfile.mkdtemp(prefix=PREFIX, dir=parent))
    (made / OWNER).write_text(who(os.getpid()))
    made.chmod(mode)
    return made


def sweep(parent: Path = SYSTEM) -> list[str]:
    """Removes what killed test processes left. The names of what is gone."""
    found = [path for path in parent.glob(f"{PREFIX}*") if not path.is_symlink() and _abandoned(path)]
    for path in found:
        remove(path)
    return [path.name for path in found if not path.exists()]


def remove(folder: Path) -> None:
    """With what is mounted below it, as engines do."""
    mounts = [line.split()[1] for line in Path("/proc/self/mounts").read_text().splitlines()]
    for mounted in reversed(mounts):
        if mounted.startswith(f"{folder}/"):
            subprocess.run(["umount", "-l", mounted], check=False, capture_output=True)
    # Where something below could not be unmounted, nothing of another disk is emptied.
    if not any(line.split()[1].startswith(f"{folder}/") for line in Path("/proc/self/mounts").read_text().splitlines()):
        shutil.rmtree(folder, ignore_errors=True)


def _abandoned(folder: Path) -> bool:
    try:
        if folder.stat().st_uid != os.geteuid():
            return False
        said = (folder / OWNER).read_text().split()
    except OSError:
        return False
    return dead(said)


def dead(maker: list[str]) -> bool:
    """Proven: what `who` said, by its words, is of this boot and namespace, and there is no such process."""
    if len(maker) != 4 or not maker[0].isdecimal() or maker[2:] != _here():
        return False
    return maker != who(int(maker[0])).split()


def who(pid: int) -> str:
    """`PID START NAMESPACE BOOT`; START is "-" where there is no such process, or a dead one."""
    return " ".join((str(pid), _started(pid), *_here()))


def _started(pid: int) -> str:
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].split()
    except OSError:
        return "-"
    return "-" if fields[0] in "ZX" else fields[19]


def _here() -> list[str]:
    return [os.readlink("/proc/self/ns/pid"), Path("/proc/sys/kernel/random/boot_id").read_text().strip()]
