"""`dstack autoscale info`: show the rules, their use, and whether capacity is available."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from reconciler.cli.commands.plan.basis import stored_offers
from reconciler.cli.project import documents_of, project_root, site_of, state_if_any
from reconciler.cli.terminal.streams import out, say, show, width
from reconciler.planner.autoscale_ends import rules_in_force
from reconciler.report.autoscale_rows import RuleRow, explain_rules, where_of
from reconciler.state.autoscale_rules import Rules, kind, rule_words, rules_of
from reconciler.system.process import now
from reconciler.text.format import ago, size, stamp

if TYPE_CHECKING:
    from rich.console import RenderableType

ALLOW = "`dstack autoscale allow TYPE --max N`"


def show_rules(*, as_json: bool) -> int:
    """Of the applied documents with the words said since; before the first apply, of the documents at hand."""
    documents = documents_of(project_root())
    where = site_of(documents)
    state = state_if_any(where)
    desired = documents.desired
    applied = state is not None and state.applied is not None
    rules = rules_in_force(state) if state is not None and applied else rules_of(desired, ())
    offers = tuple(stored_offers(where, desired, state)) if rules.caps else ()
    rows = explain_rules(rules, state, offers=offers, now=now())
    if as_json:
        from reconciler.report.json import dump

        out(dump(_json(rules, rows)))
        return 0
    if rows:
        show(_table(rows))
    for row in rows:
        if row.status == "refused":
            say(f"{rule_words(row.cap)}: {row.why}")
    say(_words(rules))
    if applied and _differ(rules_of(desired, ()), rules):
        say("note: the documents here say other rules, which are not applied: `dstack plan` shows what they would do")
    return 0


def _words(rules: Rules) -> str:
    if not rules.enabled:
        return "autoscale is disabled: no spot instances; `dstack autoscale enable` goes by the rules again"
    if not rules.exist:
        return f"there are no rules: spot instances of any type may be made; {ALLOW} adds one"
    if not any(cap.spot for cap in rules.caps):
        return f"no rule lists a spot instance: none is made; {ALLOW} adds a rule"
    return "spot instances are made only of these types"


def _differ(one: Rules, other: Rules) -> bool:
    return (set(one.caps), one.exist, one.enabled) != (set(other.caps), other.exist, other.enabled)


def _table(rows: tuple[RuleRow, ...]) -> RenderableType:
    from reconciler.report.tables import fitted

    heads = ["REGION", "INSTANCE TYPE", "CPU", "MEMORY", "GPU", "PURCHASE", "MAXIMUM", "STATUS"]
    return fitted(heads, [_cells(row) for row in rows], core=len(heads), width=width(sys.stdout))


def _cells(row: RuleRow) -> list[str]:
    has = row.resources
    gpu = f"{has.gpu.count}x{has.gpu.name} ({size(has.gpu.memory)})" if has and has.gpu and has.gpu.count else ""
    machine = [str(has.cpus), size(has.memory), gpu] if has else ["", "", ""]
    status = row.status
    if row.since is not None:
        status += f" since {ago(row.since, now=now()).removesuffix(' ago')}"
    used = f"{row.cap.max} ({row.used} used)" if row.used else str(row.cap.max)
    return [where_of(row.cap), row.cap.instance_type, *machine, kind(row.cap), used, status]


def _json(rules: Rules, rows: tuple[RuleRow, ...]) -> dict[str, Any]:
    return {
        "version": 1,
        "enabled": rules.enabled,
        "ruled": rules.exist,
        "rules": [
            {
                "backend": row.cap.backend or None,
                "region": row.cap.region or None,
                "instance_type": row.cap.instance_type,
                "cpus": row.resources.cpus if row.resources else None,
                "memory_mib": row.resources.memory if row.resources else None,
                "gpus": row.resources.gpu.count if row.resources and row.resources.gpu else 0,
                "gpu": row.resources.gpu.name if row.resources and row.resources.gpu else None,
                "purchase": kind(row.cap),
                "maximum": row.cap.max,
                "used": row.used,
                "status": row.status,
                "since": stamp(row.since),
                "why": row.why,
            }
            for row in rows
        ],
    }
