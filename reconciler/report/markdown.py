"""Format a plan as a review comment of at most 60,000 characters. Pure.

Whatever comes from documents, places or hosts stands in code blocks whose fence is longer than any run of backquotes
in it, one line each, and no `@` in it has a name behind it: it can neither end its block nor call anybody.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from reconciler.report.fail_on import GateFailure
from reconciler.report.plan import idle_lines, observed_lines, summary
from reconciler.report.plan_diff import Difference
from reconciler.report.plan_rows import PlanRow, explain
from reconciler.report.plan_sections import (
    ENDS,
    Row,
    configuration_rows,
    cost_rows,
    instance_rows,
    pending,
    pending_rows,
    run_rows,
)
from reconciler.report.price_sources import explain_prices
from reconciler.text.columns import columns
from reconciler.text.format import clean, counted, hourly, stamp
from schemas.plan import Plan
from schemas.state import State

LIMIT = 60_000
# What stands around a block, its note of what was left out included.
AROUND = 400
NARROW = "\u200b"  # of no width: between an @ and a name, so that nobody is called


@dataclass(frozen=True, kw_only=True)
class _Block:
    title: str
    lines: Sequence[str]
    folded: bool = False
    language: str = "text"


def marker(project: str) -> str:
    """The first line of the comment, which no reader sees: a CI job finds its own comment by it."""
    return f"<!-- dstack-plan:{re.sub('[^a-z0-9]', '', project)} -->"


def render_markdown(
    plan: Plan,
    state: State | None,
    *,
    now: int,
    difference: Difference | None = None,
    gates: Sequence[GateFailure] = (),
) -> str:
    """Ends with a newline. Blocks are cut by whole lines, and say how many are left out; the first have most room."""
    rows = explain(plan, state)
    head = f"{marker(plan.project)}\n### dstack {_title(summary(plan, rows))}\n"
    if difference is not None:
        head += f"\n{_against(difference, plan)}\n"
    foot = f"\nMade at {stamp(plan.made_at or now)} on generation {plan.generation} of the state.\n"
    blocks = _blocks(plan, rows, now=now, difference=difference, gates=gates)
    left = LIMIT - len(head) - len(foot) - AROUND * len(blocks)
    shown = []
    for block in blocks:
        text = _shown(block, room=left)
        shown.append(text)
        left -= max(0, len(text) - AROUND)
    return head + _cost_table(cost_rows(plan)) + "".join(shown) + foot


def _title(text: str) -> str:
    """`plan: 1 instance to create. …`, `plan: no changes. …`."""
    return text.replace("Plan:", "plan:", 1) if text.startswith("Plan:") else f"plan: {text[:1].lower()}{text[1:]}"


def _cost_table(rows: Sequence[Row]) -> str:
    """Money first, as a table. A pool's name is a plain identifier; everything else is ours."""
    if not rows:
        return ""
    lines = [f"| {' | '.join(_cell(cell) for cell in row[:4])} |" for row in rows]
    return "\n".join(["", lines[0], "|---|--:|--:|--:|", *lines[1:]]) + f"\n\n{rows[-1][-1]}\n"


def _cell(text: str) -> str:
    return re.sub(r"[^A-Za-z0-9 .,()$≤≥≈/+?-]", "·", text) or " "


def _against(difference: Difference, plan: Plan) -> str:
    own = counted(len(difference.change), "action")
    change = plan.hourly_after - difference.hourly
    cost = f"{'+' if change >= 0 else '-'}{hourly(abs(change))}"
    ahead = clean(difference.revision).replace("`", "")
    behind = f"; `{ahead}` is {counted(difference.behind, 'commit')} ahead" if difference.behind else ""
    return f"Because of this change: {own}, {cost}. Compared with the documents of `{difference.commit[:10]}`{behind}."


def _blocks(
    plan: Plan, rows: Sequence[PlanRow], *, now: int, difference: Difference | None, gates: Sequence[GateFailure]
) -> list[_Block]:
    """In the order of their importance."""
    failed = [f"{one.gate}: {one.why}" for one in gates if one.why]
    change = rows if difference is None else difference.change
    anyway, averted = ((), ()) if difference is None else (difference.anyway, difference.averted)
    because = " because of this change" if difference else ""
    ends = [row for row in change if row.kind in (*ENDS, "stop")]
    others = [row for row in change if row.kind not in (*ENDS, "stop")]
    found = [
        _Block(title="Gates that failed", lines=failed),
        _Block(title=f"Terminated and stopped{because}", lines=_diffed(ends), language="diff"),
        _Block(title="Configuration", lines=_lines(configuration_rows(plan)), language="diff"),
        _Block(title=f"Instances and runs{because}", lines=_diffed(others, plan=plan), language="diff"),
        _Block(title="No longer planned because of this change", lines=_diffed(averted)),
        _Block(title="Pending", lines=_lines(pending_rows(plan))),
        _Block(title="Not in the cost", lines=plan.uncounted),
        _Block(title="Warnings", lines=plan.warnings),
        _Block(title="Planned anyway", lines=_diffed(anyway), folded=True, language="diff"),
        _Block(title="Notes", lines=plan.notes),
        _Block(title="Prices", lines=list(explain_prices(plan, now=now))),
        _Block(title="Idle", lines=list(idle_lines(plan, now=now)), folded=True),
        _Block(title="Observed", lines=list(observed_lines(plan, now=now)), folded=True),
        _Block(title="Next", lines=[plan.next_actor] if plan.next_actor and pending(plan) else []),
    ]
    return [block for block in found if block.lines]


def _diffed(rows: Sequence[PlanRow], *, plan: Plan | None = None) -> list[str]:
    """With the symbol in the first column, where `diff` colours it. `plan`: whose changed runs are told, too."""
    return [*_lines(instance_rows(rows)), *_lines(run_rows(rows, plan.changes if plan else ()))]


def _lines(rows: Iterable[Row]) -> list[str]:
    return columns(list(rows), width=0, indent=0)


def _shown(block: _Block, *, room: int) -> str:
    lines = [_quiet(line) for line in block.lines]
    kept: list[str] = []
    used = 0
    for line in lines:
        used += len(line) + 3  # its end, and a backquote that the fence may need for it
        if used > room:
            break
        kept.append(line)
    note = f"\n{counted(len(lines) - len(kept), 'more line')} left out: `dstack plan` shows all.\n"
    return _framed(block, kept, note=note if len(kept) < len(lines) else "", number=len(lines))


def _framed(block: _Block, lines: list[str], *, note: str, number: int) -> str:
    fence = "`" * (1 + max(2, *(len(run) for line in lines for run in re.findall("`+", line)), 0))
    body = f"{fence}{block.language}\n" + "".join(f"{line}\n" for line in lines) + f"{fence}\n" if lines else ""
    if block.folded:
        return f"\n<details><summary>{block.title} ({counted(number, 'line')})</summary>\n\n{body}{note}\n</details>\n"
    return f"\n**{block.title}**\n\n{body}{note}"


def _quiet(line: str) -> str:
    """One line that calls nobody, also where a robot reads the bare text, and that is no command of a robot."""
    text = re.sub(r"@(?=\S)", f"@{NARROW}", clean(line))
    return f" {text}" if text.startswith("/") else text
