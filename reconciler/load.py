"""Read a project's documents: `.dstack/*.yml`, `.dstack/runs/*.yml` and the user's profiles.

Cheap to import: YAML and pydantic come with the first document that must be read.
"""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from reconciler.problem import Invalid as Invalid
from reconciler.problem import Problem as Problem
from schemas.desired import Desired

FOLDER = ".dstack"
COMPILER = "1"
"""Raise it with every change of what documents mean: those compiled before are then read again."""

MAX_BYTES = 8 * 1024 * 1024


@dataclass(frozen=True)
class Documents:
    """A project's documents, all valid. `root` is the folder that holds `.dstack`.

    `digest` is sha256 of the files' names and bytes. `warnings` are `path:line:col: message`,
    and so is `unsupported`: what a plan shows as unmet (empty where `known` was taken).
    """

    root: Path
    desired: Desired
    digest: str
    files: tuple[Path, ...]
    warnings: tuple[str, ...]
    unsupported: tuple[str, ...] = ()


def find_project(start: Path, *, home: Path | None = None) -> Path | None:
    """The nearest of `start` and its parents that holds `.dstack`; never the home folder."""
    home = (home or Path.home()).resolve()
    for folder in (start.resolve(), *start.resolve().parents):
        if folder != home and (folder / FOLDER).is_dir():
            return folder
    return None


def load(root: Path, *, home: Path, known: tuple[str, Desired] | None = None) -> Documents:
    """Raises `Invalid` with every problem of every file.

    `known` is a digest and what it was compiled to (the applied documents): the same files
    are then not read again, which saves half of a plan's time.
    """
    files = document_files(root)
    texts = [(file.relative_to(root).as_posix(), read_bytes(file)) for file in files]
    digest = _digest(texts)
    unsupported: tuple[str, ...]
    if known and known == (digest, known[1]) and known[1].compiler == COMPILER and not own_file(home).exists():
        desired, unsupported = known[1], ()
    else:
        from reconciler.compile_files import compile_files

        desired, unsupported = compile_files(texts, own=own_file(home))
    return Documents(root, desired, digest, tuple(files), desired.warnings, unsupported)


def document_files(root: Path) -> list[Path]:
    """Every `*.yml` and `*.yaml` of `.dstack` and `.dstack/runs`, sorted; hidden ones are not documents."""
    folders = (root / FOLDER, root / FOLDER / "runs")
    return sorted(
        file for folder in folders if folder.is_dir() for file in folder.iterdir()
        if file.suffix in (".yml", ".yaml") and not file.name.startswith("."))


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


def _digest(texts: Iterable[tuple[str, bytes | str]]) -> str:
    digest = hashlib.sha256()
    for shown, data in texts:
        content = data if isinstance(data, bytes) else b""
        digest.update(f"{shown}\0{len(content)}\0".encode() + content)
    return digest.hexdigest()
