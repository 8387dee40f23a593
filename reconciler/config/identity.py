"""Read the project's name and id from the YAML, without judging the rest."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from reconciler.config.files import document_files, read_bytes

KEYS = (b"project", b"state", b"authority", b"artifact_store")


def identity(root: Path) -> tuple[dict[str, Any], str]:
    """({project: {name, id}, state, authority, artifact_store} as far as written, the first problem or "").

    Only files that hold one of the words are read, as strictly and as safely as `load` does.
    """
    found: dict[str, Any] = {}
    unreadable = ""
    for file in document_files(root):
        if file.parent.name != "runs" and _may_say(file):
            unreadable = _take(file, root, found) or unreadable
    return found, unreadable


def _may_say(file: Path) -> bool:
    data = read_bytes(file)
    return isinstance(data, str) or any(key in data for key in KEYS)


def _take(file: Path, root: Path, found: dict[str, Any]) -> str:
    from reconciler.config.yaml.reader import read_yaml

    source, _ = read_yaml(file, shown=file.relative_to(root).as_posix())
    value = source.value if isinstance(source.value, dict) else {}
    for key in ("state", "authority", "artifact_store"):
        if isinstance(value.get(key), str):
            found[key] = value[key]
    if isinstance(value.get("project"), dict):
        found["project"] = {**found.get("project", {}), **value["project"]}
    return str(source.problems[0]) if source.problems else ""
