"""Done-markers: one small file for each declared run that was done, by (run name, hash).

They lie beside the state and outlive it, so that a lost state never repeats a training.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

from reconciler.private import make_private
from reconciler.store import StateRefused
from schemas.base import NAME

HASH = r"[A-Za-z0-9]{1,128}"


class Markers:
    """`<folder>/<run name>.<hash>`, empty. Made once, never changed."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def has(self, name: str, digest: str) -> bool:
        return self._place(name, digest).exists()

    def put(self, name: str, digest: str) -> None:
        """Again is no error. It survives a loss of power once it returns."""
        path = self._place(name, digest)
        try:
            make_private(self._folder)
            os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW, 0o600))
            folder = os.open(self._folder, os.O_RDONLY | os.O_DIRECTORY)
            try:
                os.fsync(folder)
            finally:
                os.close(folder)
        except OSError as error:
            raise StateRefused(f"{path}: cannot be written: {error.strerror}") from error

    def all(self) -> frozenset[tuple[str, str]]:
        """Every (run name, hash) that was done."""
        try:
            names = os.listdir(self._folder)
        except FileNotFoundError:
            return frozenset()
        except OSError as error:
            # An empty answer here would start every finished run again.
            raise StateRefused(f"{self._folder}: cannot be read: {error.strerror}") from error
        found = (re.fullmatch(rf"({NAME})\.({HASH})", name) for name in names)
        return frozenset((match[1], match[2]) for match in found if match)

    def _place(self, name: str, digest: str) -> Path:
        if not re.fullmatch(NAME, name) or not re.fullmatch(HASH, digest):
            raise ValueError(f"not a run and its hash: {name!r}, {digest!r}")
        return self._folder / f"{name}.{digest}"
