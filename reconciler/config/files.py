"""Find the configuration files and read their bytes, with bounds on size and time."""

from __future__ import annotations

import os
import stat
from pathlib import Path

FOLDER = ".dstack"
KNOWN_HOSTS = ".dstack/known_hosts"
MAX_BYTES = 8 * 1024 * 1024


def document_files(root: Path) -> list[Path]:
    """Every `*.yml` and `*.yaml` of `.dstack` and `.dstack/runs`, sorted; hidden ones are not documents."""
    folders = (root / FOLDER, root / FOLDER / "runs")
    return sorted(
        file
        for folder in folders
        if folder.is_dir()
        for file in folder.iterdir()
        if file.suffix in (".yml", ".yaml") and not file.name.startswith(".")
    )


def own_file(home: Path) -> Path:
    """The user's own profiles."""
    return home / FOLDER / "profiles.yml"


def read_bytes(file: Path) -> bytes | str:
    """At most one byte more than a document may have; a text says why it cannot be read. Never waits for a pipe."""
    try:
        with open(file, "rb", opener=_at_once) as stream:
            if not stat.S_ISREG(os.fstat(stream.fileno()).st_mode):
                return "not a regular file"
            return stream.read(MAX_BYTES + 1)
    except OSError as error:
        return error.strerror or "?"


def _at_once(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NONBLOCK)
