"""Where one project lies: its root, its state and its keys."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from reconciler.state.errors import StateRefused
from schemas.location import Bucket, Location, location

STATE = ".dstack/state"
KEYS = ".dstack/keys"


@dataclass(frozen=True, kw_only=True)
class Site:
    """A project where it lies: `root` holds `.dstack`, `state` is as written in the documents ("" is the default).

    `artifacts` is `artifact_store` as written: where artifacts go when the state is a folder.
    """

    root: Path
    project: str
    state: str = ""
    authority: str = ""
    artifacts: str = ""
    state_backend: str = ""
    """The backend whose credentials open the bucket of the state. "": the only one of that cloud, if there is one."""
    artifact_backend: str = ""
    """The same of `artifacts`."""

    @property
    def location(self) -> Location:
        """Of the state. `StateRefused` where it is none."""
        return location_of(self.state, key="state")

    @property
    def folder(self) -> Path:
        """Of the state; with a state in a bucket, of what is kept of it here: copies only."""
        where = self.location
        if isinstance(where, Bucket) or not where.path:
            return self.root / STATE
        return self.root / Path(where.path).expanduser()

    @property
    def beside(self) -> Path:
        """Where blobs, done-markers and the ledger lie. A folder that was named may hold several projects."""
        where = self.location
        named = not isinstance(where, Bucket) and where.path
        return self.folder / self.project if named else self.folder

    @property
    def keys(self) -> Path:
        return self.root / KEYS


def location_of(text: str, *, key: str) -> Location:
    try:
        return location(text)
    except ValueError as error:
        raise StateRefused(f"{key}: {error}") from None
