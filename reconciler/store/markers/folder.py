"""Done-markers in a folder: one small file for each (run name, hash) that was done.

They lie beside the state and outlive it, so that a lost state never repeats a training.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from pathlib import Path

from reconciler.state.errors import StateRefused
from reconciler.store.markers.base import DoneMarkers
from reconciler.system.private_folder import make_private
from schemas.base import NAME
from schemas.desired import Desired
from schemas.state import State

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
        return parsed_markers(names)

    def _place(self, name: str, digest: str) -> Path:
        return self._folder / marker_name(name, digest)


def markers_needed(markers: DoneMarkers, state: State, desired: Desired) -> frozenset[tuple[str, str]]:
    """All of them, where a declared run has no record that says more; else none: in a bucket they cost a request."""
    recorded = {(run.spec.name, run.spec.hash) for run in state.runs}
    unknown = any((spec.name, spec.hash) not in recorded for spec in desired.runs)
    return markers.all() if unknown else frozenset()


def marker_name(name: str, digest: str) -> str:
    """`ValueError` for what could be another place."""
    if not re.fullmatch(NAME, name) or not re.fullmatch(HASH, digest):
        raise ValueError(f"not a run and its hash: {name!r}, {digest!r}")
    return f"{name}.{digest}"


def parsed_markers(names: Iterable[str]) -> frozenset[tuple[str, str]]:
    """(run name, hash) of each that is a marker of ours."""
    found = (re.fullmatch(rf"({NAME})\.({HASH})", name) for name in names)
    return frozenset((match[1], match[2]) for match in found if match)
