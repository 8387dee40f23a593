"""Done-markers in a bucket: one tiny object each."""

from __future__ import annotations

from reconciler.state.errors import StateRefused
from reconciler.store.markers.folder import marker_name, parsed_markers
from reconciler.store.objects.base import Objects, ObjectsError


class BucketMarkers:
    """`<under>/<run name>.<hash>`. They are listed once a process: nobody but us and other `put`s makes any."""

    def __init__(self, objects: Objects, under: str) -> None:
        self._objects, self._under = objects, under
        self._known: frozenset[tuple[str, str]] | None = None

    def has(self, name: str, digest: str) -> bool:
        return (name, digest) in self.all()

    def put(self, name: str, digest: str) -> None:
        """Again is no error."""
        try:
            self._objects.put(f"{self._under}/{marker_name(name, digest)}", b"done\n")
        except ObjectsError as error:
            raise StateRefused(f"the done-marker of {name} cannot be written: {error}") from None
        if self._known is not None:
            self._known |= {(name, digest)}

    def all(self) -> frozenset[tuple[str, str]]:
        """See `Markers.all`."""
        if self._known is None:
            try:
                names = [item.key.rsplit("/", 1)[-1] for item in self._objects.items(self._under)]
            except ObjectsError as error:
                # An empty answer here would start every finished run again.
                raise StateRefused(f"the done-markers cannot be read: {error}") from None
            self._known = parsed_markers(names)
        return self._known
