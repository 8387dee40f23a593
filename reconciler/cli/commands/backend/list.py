"""`dstack backend list`: list backends, their last known accounts and costs. Asks no backend."""

from __future__ import annotations

import sys

from reconciler.cli.project import documents_of, project_root, site_of, state_if_any
from reconciler.cli.terminal.state_age import say_age
from reconciler.cli.terminal.streams import out, say, show, width
from reconciler.report.backend_rows import BackendRow, explain_backends
from reconciler.text.format import counted, price
from schemas.backend_types import type_of


def list_backends(*, as_json: bool) -> int:
    """From the documents and the stored state; `backend check` asks the backends themselves."""
    documents = documents_of(project_root())
    state = state_if_any(site_of(documents))
    rows = explain_backends(documents.desired, state)
    if as_json:
        from reconciler.report.json import dump

        out(dump({"version": 1, "backends": [_json(row) for row in rows]}))
        return 0
    from reconciler.report.tables import fitted

    if state is not None:
        say_age(state)
    heads = ["NAME", "TYPE", "REGIONS", "IDENTITY", "INSTANCES", "COST/H"]
    show(fitted(heads, [_cells(row) for row in rows], core=len(heads), width=width(sys.stdout)))
    for row in rows:
        for error in row.errors:
            say(f"{row.name}: {error}")
        if not row.declared:
            say(f"{row.name}: no document declares it any more; what lives there stays known until it is gone")
    return 0


def _cells(row: BackendRow) -> list[str]:
    regions = ", ".join(row.regions) or ("every" if type_of(row.type).regional else "")
    few = counted(len(row.identities), "server") if type_of(row.type).kind == "server" else ", ".join(row.identities)
    least = "≥" if row.unpriced or row.unseen else ""
    return [row.name, row.type, regions, few, str(row.instances), least + price(row.hourly)]


def _json(row: BackendRow) -> dict[str, object]:
    return {
        "name": row.name,
        "type": row.type,
        "declared": row.declared,
        "regions": list(row.regions),
        "identities": list(row.identities),
        "instances": row.instances,
        "hourly": float(row.hourly),
        "unpriced": row.unpriced,
        "unseen": row.unseen,
        "errors": list(row.errors),
    }
