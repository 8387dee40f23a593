"""The port of done-markers: which tasks ended well once."""

from __future__ import annotations

from typing import Protocol


class DoneMarkers(Protocol):
    """The done-markers beside the state: which (run name, hash) ended well once."""

    def put(self, name: str, hash: str) -> None: ...
    def all(self) -> frozenset[tuple[str, str]]: ...
