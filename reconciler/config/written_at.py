"""Find where a key of the configuration was written."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from reconciler.config.files import document_files, read_bytes
from reconciler.config.read import FormEntry, read_documents
from reconciler.config.yaml.reader import parse_yaml

SPELLINGS: Mapping[str, tuple[str, ...]] = {
    "nodes": ("nodes",), "resources": ("resources",), "idle_duration": ("idle_duration", "termination_idle_time"),
    "retry": ("retry", "retry_policy"),
}  # fmt: skip
"""Keys that the YAML may spell otherwise."""


def located(root: Path) -> Callable[[str, str], str]:
    """(`pool gpu`, key) → `.dstack/pools.yml:12:5`, "" where it is not written. The files are read once."""
    sources = []
    for file in document_files(root):
        data, shown = read_bytes(file), file.relative_to(root).as_posix()
        if isinstance(data, bytes):
            sources.append((parse_yaml(data, shown=shown), shown.split("/")[-2:-1] == ["runs"]))
    read = read_documents(sources)
    kinds = {"pool": read.pools, "profile": read.profiles, "run": read.runs, "backend": read.backends}

    def where(owner: str, key: str) -> str:
        kind, _, name = owner.partition(" ")
        entry = next((one for one in kinds.get(kind, ()) if _named(one) == name), None)
        written: Any = entry.raw if entry is not None else {}
        spelled = next((each for each in SPELLINGS.get(key, (key,)) if each in written), None)
        return entry.at(spelled, key=True) if entry is not None and spelled else ""

    return where


def _named(entry: FormEntry) -> str:
    return str(getattr(entry.form, "name", "") or "")
