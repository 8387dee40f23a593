"""Pack the files of declared runs when documents are applied; later ticks use what was packed then."""

from __future__ import annotations

from dataclasses import dataclass, field

from reconciler.engine.ports import Configuration, Ports
from reconciler.secrets.resolve import secret_files
from reconciler.state.apply_config import bundled, unbundled, with_bundles
from reconciler.store.markers.folder import markers_needed
from schemas.state import Applied, State


@dataclass(kw_only=True)
class RunPacker:
    """Packs each list of files once, however often the state is planned anew."""

    ports: Ports
    _packed: dict[tuple[str, ...] | None, str] = field(default_factory=dict)

    def with_files(self, state: State, documents: Configuration | None, *, was: Applied | None) -> State:
        """`state`, its declared runs with the digests of their files. `was`: what was applied before."""
        if documents is None:
            return with_bundles(state, {})
        specs = unbundled(state, was=was, done=markers_needed(self.ports.markers, state, documents.desired))
        return with_bundles(state, bundled(specs, pack=lambda files: self._digest(documents, files)))

    def _digest(self, documents: Configuration, files: tuple[str, ...] | None) -> str:
        if files not in self._packed:
            bundle = self.ports.bundle(documents.root, files, secret_files(documents.desired))
            self._packed[files] = self.ports.blobs.put(bundle)
            bundle.unlink(missing_ok=True)
        return self._packed[files]
