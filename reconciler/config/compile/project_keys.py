"""Compile the keys of a project that stand once: its id, budget, autoscale rules, stores."""

from __future__ import annotations

from typing import Any

from reconciler.config.read import Read
from schemas.desired import Cap


def project_keys(read: Read) -> dict[str, Any]:
    values: dict[str, Any] = {}
    project = {"project": "id", "project_name": "name"}
    for target, part in project.items():
        entries = [entry for entry in read.singles.get("project", ()) if getattr(entry.form, part) is not None]
        for entry in entries[1:]:
            read.problems.append(entry.problem(f"said twice, first at {entries[0].at(part, key=True)}", part, key=True))
        values[target] = getattr(entries[0].form, part) if entries else ""
    for key, backend in (("state", "state_backend"), ("artifact_store", "artifact_backend")):
        form = _once(key, read)
        values[key], values[backend] = (form.url, form.backend or "") if form else ("", "")
    texts = ("authority", "requires")
    for key in (*texts, "keep", "confirm_above", "budget"):
        form = _once(key, read)
        values[key] = ("" if key in texts else None) if form is None else form
    return values


def _once(key: str, read: Read) -> Any:
    entries = read.singles.get(key, [])
    for entry in entries[1:]:
        read.problems.append(entry.problem(f"said twice, first at {entries[0].at(key=True)}", key=True))
    return entries[0].form if entries else None


def autoscale_keys(read: Read) -> dict[str, Any]:
    form = _once("autoscale", read)
    if form is None:
        return {}
    caps = tuple(
        Cap(
            instance_type=cap.instance_type,
            max=cap.max,
            backend=cap.backend or "",
            region=cap.region or "",
            spot=True if cap.spot is None else cap.spot,
        )
        for cap in form.rules or ()
    )
    return {"caps": caps, "ruled": form.rules is not None, "autoscale_enabled": form.enabled is not False}
