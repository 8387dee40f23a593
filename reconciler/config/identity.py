"""Read the project's name and id from the YAML, without judging the rest."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from reconciler.config.files import document_files, read_bytes
from schemas.backend_types import TYPES
from schemas.desired import BackendConfig

KEYS = (b"project", b"state", b"authority", b"artifact_store")


def identity(root: Path) -> tuple[dict[str, Any], str]:
    """({project: {name, id}, state, authority, artifact_store, state_backend,
    artifact_backend} as far as written, the first problem or "").

    Only files that hold one of the words are read, as strictly and as safely as `load` does.
    """
    found: dict[str, Any] = {}
    unreadable = ""
    for file in document_files(root):
        if file.parent.name != "runs" and _may_say(file):
            unreadable = _take(file, root, found) or unreadable
    return found, unreadable


def backends(root: Path) -> list[BackendConfig]:
    """The declared backends with what opens a bucket: name, type, regions, `creds`, `endpoint`. The rest is not judged.

    Credentials are references as written; none is resolved here.
    """
    from reconciler.config.yaml.reader import read_yaml

    found: list[BackendConfig] = []
    for file in document_files(root):
        if file.parent.name != "runs" and _may_say(file, (b"backends",)):
            source, _ = read_yaml(file, shown=file.relative_to(root).as_posix())
            written = source.value.get("backends") if isinstance(source.value, dict) else None
            entries = written if isinstance(written, list) else []
            found += [_config(one) for one in entries if isinstance(one, dict) and one.get("type") in TYPES]
    return found


def _config(written: dict[str, Any]) -> BackendConfig:
    creds, regions = written.get("creds"), written.get("regions")
    options: dict[str, Any] = {"endpoint": str(written["endpoint"])} if written.get("endpoint") else {}
    if isinstance(creds, dict):
        options["creds"] = {str(key): str(value) for key, value in creds.items()}
    return BackendConfig(
        name=str(written.get("name") or written["type"]),
        type=str(written["type"]),
        regions=tuple(map(str, regions)) if isinstance(regions, list) else (),
        options=options,
    )


def _may_say(file: Path, keys: tuple[bytes, ...] = KEYS) -> bool:
    data = read_bytes(file)
    return isinstance(data, str) or any(key in data for key in keys)


def _take(file: Path, root: Path, found: dict[str, Any]) -> str:
    from reconciler.config.yaml.reader import read_yaml

    source, _ = read_yaml(file, shown=file.relative_to(root).as_posix())
    value = source.value if isinstance(source.value, dict) else {}
    for key in ("state", "authority", "artifact_store"):
        if isinstance(value.get(key), str):
            found[key] = value[key]
    for key, backend in (("state", "state_backend"), ("artifact_store", "artifact_backend")):
        if isinstance(said := value.get(key), dict):
            found |= {name: str(said[part]) for name, part in ((key, "url"), (backend, "backend")) if said.get(part)}
    if isinstance(value.get("project"), dict):
        found["project"] = {**found.get("project", {}), **value["project"]}
    return str(source.problems[0]) if source.problems else ""
