"""Folders that only their owner may look into."""

from __future__ import annotations

from pathlib import Path


def make_private(folder: Path) -> None:
    """Make it, and whatever is missing above it, 0700; one that exists is left as it is.

    `mkdir(mode=…, parents=True)` gives the mode to the last folder alone: with the usual umask 002
    a first apply made a `.dstack/state` that others of the group may write, and then refused it.
    """
    if folder.is_dir():
        return
    if folder.parent != folder:
        make_private(folder.parent)
    folder.mkdir(mode=0o700, exist_ok=True)
