"""Create and check folders that only their owner may write to."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path


def make_private(folder: Path) -> None:
    """Make it, and whatever is missing above it, 0700. `OSError` where what is there cannot be trusted.

    `mkdir(mode=…, parents=True)` gives the mode to the last folder alone: with the usual umask 002
    a first apply made a `.dstack/state` that others of the group may write, and then refused it.
    """
    if not folder.is_dir():
        _make(folder)
    if why := distrust(folder):
        raise OSError(errno.EPERM, why, str(folder))


def distrust(folder: Path) -> str:
    """Why others may decide what lies in `folder`, "" where they may not, or it is not there.

    A checkout may bring a link of that name: what is swept there would be anybody's.
    """
    try:
        info = os.lstat(folder)
    except FileNotFoundError:
        return ""
    if stat.S_ISLNK(info.st_mode):
        return "is a symbolic link; put the folder itself there"
    if not stat.S_ISDIR(info.st_mode):
        return "not a folder; move it away"
    if info.st_uid not in (0, os.geteuid()):
        return f"belongs to user {info.st_uid}, who could replace what is in it"
    if info.st_mode & 0o022 and not info.st_mode & stat.S_ISVTX:
        return f"others may write in it: `chmod go-w {folder}`"
    return ""


def _make(folder: Path) -> None:
    if not folder.is_dir():
        _make(folder.parent)
        folder.mkdir(mode=0o700, exist_ok=True)
