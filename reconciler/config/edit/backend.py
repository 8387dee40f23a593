"""Add an AWS backend and an artifact store to the YAML as text. Everything else stays as it is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from reconciler.config.edit.block_style import block, end_of, newline_of
from reconciler.config.edit.pools import Edit, EditRefused, edited, round_trip

NEW_FILE = "backends.yml"


def set_aws(
    folder: Path, name: str, *, type: str, creds: Mapping[str, str], region: str, store: str
) -> tuple[Edit, ...]:
    """The backend `name`, made or with these credentials and that region too; `artifact_store` where one is given.

    Raises `EditRefused` where another type has that name, or artifacts go elsewhere already.
    """
    backend = _backend(folder, name, type=type, creds=creds, region=region)
    if not store:
        return (backend,) if backend else ()
    others = any(
        one.get("type") == type and _name(one) != name for _, _, data in round_trip(folder) for one in _list(data) or ()
    )
    return _with_store(folder, backend, store, name=name if others else "")


def declares_any(folder: Path) -> bool:
    return any(_list(data) for _, _, data in round_trip(folder))


def _backend(folder: Path, name: str, *, type: str, creds: Mapping[str, str], region: str) -> Edit | None:
    lists = [(path, text, data) for path, text, data in round_trip(folder) if _list(data) is not None]
    for path, text, data in lists:
        for index, one in enumerate(_list(data)):
            if _name(one) == name:
                return _changed(path, text, one, index, type=type, creds=creds, region=region)
    entry: dict[str, Any] = {"type": type, **({"name": name} if name != type else {}), "regions": [region]}
    entry = {**entry, "creds": dict(creds)} if creds else entry
    if not lists:
        return _new(folder / NEW_FILE, entry)
    path, text, data = lists[0]
    splice = _appended(text, _list(data), entry)
    return edited(path, text, splice=splice, change=lambda fresh: _list(fresh).append(entry))


def _changed(
    path: Path, text: str, one: Any, index: int, *, type: str, creds: Mapping[str, str], region: str
) -> Edit | None:
    if one.get("type") != type:
        raise EditRefused(f"{path}: backend {_name(one)} is of type {one.get('type')}: choose another --name")

    def change(fresh: Any) -> None:
        entry = _list(fresh)[index]
        if creds:
            entry["creds"] = dict(creds)
        else:
            entry.pop("creds", None)
        if region and entry.get("regions") and region not in entry["regions"]:
            entry["regions"].append(region)

    same = dict(one.get("creds") or {}) == dict(creds)
    known = not one.get("regions") or region in one["regions"]
    return None if same and known else edited(path, text, splice=None, change=change)


def _new(path: Path, entry: Mapping[str, Any]) -> Edit:
    before = path.read_text() if path.exists() else ""
    lead = before if not before or before.endswith("\n") else before + "\n"
    said = "".join(f"{line}\n" for line in _lines(entry, 2))
    return Edit(path=path, before=before, after=f"{lead}backends:\n{said}")


def _lines(entry: Mapping[str, Any], column: int) -> Sequence[str]:
    said = [f"{key}: {_flow(value)}" for key, value in entry.items()]
    return [f"{' ' * column}{'- ' if number == 0 else '  '}{line}" for number, line in enumerate(said)]


def _flow(value: Any) -> str:
    if isinstance(value, list):
        return f"[{', '.join(value)}]"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key}: {item}" for key, item in value.items()) + "}"
    return str(value)


def _appended(text: str, items: Any, entry: Mapping[str, Any]) -> str | None:
    found = block(text, items)
    if found is None:
        return None
    lines, starts, column = found
    newline, at = newline_of(lines), end_of(lines, starts[-1], column)
    if not lines[at - 1].endswith("\n"):
        lines[at - 1] += newline
    return "".join((*lines[:at], *(f"{line}{newline}" for line in _lines(entry, column)), *lines[at:]))


def _with_store(folder: Path, backend: Edit | None, store: str, *, name: str) -> tuple[Edit, ...]:
    """`artifact_store`, with the backend's `name` where there are several of its type."""
    for path, _, data in round_trip(folder):
        written = data.get("artifact_store") if hasattr(data, "get") else None
        known = written.get("url") if isinstance(written, dict) else written
        if known == store:
            return (backend,) if backend else ()
        if known:
            raise EditRefused(f"{path}: artifacts go to {known} already; change `artifact_store` there by hand")
    if backend is None:
        path = folder / NEW_FILE
        before = path.read_text() if path.exists() else ""
        backend = Edit(path=path, before=before, after=before)
    said = f"{{url: {store}, backend: {name}}}" if name else store
    lead = backend.after if not backend.after or backend.after.endswith("\n") else backend.after + "\n"
    return (Edit(path=backend.path, before=backend.before, after=f"{lead}artifact_store: {said}\n"),)


def _list(data: Any) -> Any:
    found = data.get("backends") if hasattr(data, "get") else None
    return found if isinstance(found, list) else None


def _name(one: Any) -> str:
    return str(one.get("name") or one.get("type") or "")
