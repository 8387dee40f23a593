"""`dstack explain`: why a run waits, an instance stays or an offer is not taken, by the plan's own matcher."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from reconciler.cli.commands.plan.stored import world_here
from reconciler.cli.did_you_mean import near
from reconciler.cli.exits import Fail
from reconciler.cli.project import documents_of, project_root
from reconciler.cli.terminal.streams import out, width
from reconciler.config.written_at import located
from reconciler.planner.explain.named import KINDS, NotExplained, explain_named
from reconciler.report.explain import explained_json, explained_text
from reconciler.report.json import dump


def explain(words: Sequence[str], *, as_json: bool) -> int:
    """`words` are a name, or a kind and a name. `Fail` names what there is."""
    kind, name = _asked(words)
    root = project_root()
    world = world_here(documents_of(root))
    try:
        kind, found = explain_named(world, name, kind=kind)
    except NotExplained as error:
        raise Fail(f"{error}; {near(name, list(error.names))}" if error.names else str(error)) from error
    where = located(root)
    if as_json:
        out(dump({"version": 1, "kind": kind, kind: explained_json(found, located=where)}))
    else:
        out(explained_text(found, now=world.now, width=width(sys.stdout), located=where))
    return 0


def _asked(words: Sequence[str]) -> tuple[str, str]:
    if len(words) == 2 and words[0] in KINDS:
        return words[0], words[1]
    if len(words) != 1:
        raise Fail("name a run, an instance or a pool, or `offer TYPE`: dstack explain [run|instance|pool|offer] NAME")
    return "", words[0]
