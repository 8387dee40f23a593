"""Rows of the sections of a plan: configuration, instances, runs, pending, cost. Pure.

Each row is its cells: the text lays them out in columns, the review comment in tables and blocks.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import groupby

from reconciler.report.plan_rows import PlanRow
from reconciler.text.format import by_number, clean, counted, hourly, resources
from schemas.base import Price
from schemas.configuration import Change, PlanCost, PoolCost
from schemas.plan import Plan

Row = tuple[str, ...]
OPS: Mapping[str, str] = {"create": "+", "change": "~", "remove": "-"}
MOST_ENDS = 30
ENDS = ("terminate", "detach", "remove")
DAY = 24


# ---------------------------------------------------------------- configuration


def configuration_rows(plan: Plan) -> Iterator[Row]:
    """`~ pool train | nodes | 0..4 → 1..4 | keeps 1 at least`; the name once for all keys of an entry."""
    mine = [one for one in plan.changes if one.kind != "run"]
    for (kind, name), group in groupby(mine, key=lambda one: (one.kind, one.name)):
        head = f"{kind} {clean(name)}".strip()
        for number, one in enumerate(group):
            first = f"{OPS[one.op]} {head}" if number == 0 else ""
            note = f"  ({one.note})" if one.note else ""
            yield (first, one.key, _turned(one) + note) if one.op == "change" else (first, _turned(one) + note)
    for sentence in plan.configuration:
        yield (f"~ {clean(sentence)}",)


def _turned(one: Change) -> str:
    if one.op != "change":
        return clean(one.new or one.old)
    return f"{clean(one.old) or 'unset'} → {clean(one.new) or 'unset'}"


# ---------------------------------------------------------------- instances


def instance_rows(rows: Iterable[PlanRow]) -> Iterator[Row]:
    """`+ gpu-0..1 | aws us-east-1 p4d.24xlarge spot | 2 × ≤$32.77/h | run llama`. Alike neighbours share a row."""
    mine = sorted((row for row in rows if not row.of_run), key=lambda row: row.pool)
    for _, group in groupby(mine, key=_alike):
        yield _instances(tuple(group))


def _alike(row: PlanRow) -> tuple[object, ...]:
    return (row.pool, row.kind, row.run, row.why, row.instance_type, row.price, row.spot)


def _instances(rows: tuple[PlanRow, ...]) -> Row:
    row = rows[0]
    names = [clean(one.instance) for one in rows if one.instance]
    subject = _ends(names) if row.kind in ENDS else _names(names)
    subject = subject or (f"pool {clean(row.pool)}" if row.pool else "project")
    return (f"{row.symbol} {subject}", _machine(row), _cost(row, number=len(rows)), clean(_verb(row) + row.why))


def _verb(row: PlanRow) -> str:
    """What happens, where the symbol alone does not tell."""
    return {"attach": "attach: ", "detach": "detach: ", "remove": "remove: "}.get(row.kind, "")


def _names(names: list[str]) -> str:
    """`gpu-0, gpu-2`, `gpu-0..9`."""
    if len(names) > 1 and (whole := _range(names)):
        return whole
    return ", ".join(names) if len(names) <= 3 else f"{names[0]} … {names[-1]} ({len(names)})"


def _range(names: Sequence[str]) -> str:
    """`gpu-3..7` where these are all of them; "" else."""
    stem, _, first = names[0].rpartition("-")
    if not stem or not first.isdigit():
        return ""
    wanted = [f"{stem}-{int(first) + step}" for step in range(len(names))]
    return f"{stem}-{first}..{int(first) + len(names) - 1}" if list(names) == wanted else ""


def _ends(names: list[str]) -> str:
    """Whoever reviews an end must see what it ends."""
    listed = sorted(names, key=by_number)
    if len(listed) > 1 and (whole := _range(listed)):
        return whole
    more = len(listed) - MOST_ENDS
    return ", ".join(listed[:MOST_ENDS]) + (f" and {more} more (--json lists all)" if more > 0 else "")


def _machine(row: PlanRow) -> str:
    if row.kind not in ("launch", "attach"):
        return ""
    where = clean(row.backend) + (f" {clean(row.region)}" if row.region and row.region != row.backend else "")
    kind = clean(row.instance_type) if row.instance_type != row.backend else ""
    has = row.resources
    if has is not None and kind:  # the type tells the rest
        told = f"{has.gpu.count}x{has.gpu.name.upper()}" if has.gpu and has.gpu.count else ""
    else:
        told = resources(has) if has else ""
    return " ".join(part for part in (where, kind, told, "spot" * row.spot) if part)


def _cost(row: PlanRow, *, number: int) -> str:
    """Of starting or ending instances only; the rest changes no price."""
    many = f"{number} × " if number > 1 else ""
    if row.kind == "launch":
        return many + ("≤" if row.at_most else "") + hourly(row.price)
    return f"{many}-{hourly(row.price)}" if row.kind in ENDS else ""


# ---------------------------------------------------------------- runs


def run_rows(rows: Iterable[PlanRow], changes: Sequence[Change]) -> Iterator[Row]:
    """`+ llama | task, 2 nodes → train-0..1`, `~ eval | commands: a → b (runs again)`, `- big | on gpu-0: …`."""
    mine = [row for row in rows if row.of_run]
    edits: dict[str, list[Change]] = {}
    for one in changes:
        if one.kind == "run":
            edits.setdefault(one.name, []).append(one)
    started = _started(mine)
    told: set[str] = set()
    for row in mine:
        name = clean(row.run)
        if row.kind == "assign":
            if row.run in started:
                yield (f"→ {name}", f"on {_where(started.pop(row.run))}")
            continue
        if row.kind == "stop":
            on = f"on {clean(row.instance)}: " if row.instance else ""
            yield (f"- {name}", f"{on}{clean(row.why)}")
            continue
        edited = edits.get(row.run, [])
        told.add(row.run)
        if is_new(row):
            made = next((one.new for one in edited if one.op == "create"), "")
            sends = row.why.partition(", ")[2]
            said = ", ".join(filter(None, (clean(made) or clean(row.why.partition(",")[0]), clean(sends))))
            yield (f"+ {name}", said + (f" → {_where(started.pop(row.run))}" if row.run in started else ""))
            continue
        yield (f"~ {name}", "; ".join([clean(row.why), *_edits(edited)]))
    for run, found in edits.items():
        if run not in told:
            yield (f"{OPS[found[0].op]} {clean(run)}", "; ".join(_edits(found)) or clean(found[0].new or "removed"))


def is_new(row: PlanRow) -> bool:
    """The run was not known before."""
    return row.why == "new" or row.why.startswith(("new ", "new,"))


def _edits(edited: Iterable[Change]) -> list[str]:
    found = [one for one in edited if one.op == "change"]
    again = f" ({found[0].note})" if found and found[0].note else ""
    return [f"{one.key}: {_turned(one)}" for one in found[:-1]] + [
        f"{one.key}: {_turned(one)}{again}" for one in found[-1:]
    ]


def _started(rows: Iterable[PlanRow]) -> dict[str, list[PlanRow]]:
    found: dict[str, list[PlanRow]] = {}
    for row in rows:
        if row.kind == "assign":
            found.setdefault(row.run, []).append(row)
    return found


def _where(rows: Sequence[PlanRow]) -> str:
    """`gpu-0..1: idle, the cheapest that fits`."""
    return f"{_names([clean(row.instance) for row in rows])}: {clean(rows[0].why)}"


# ---------------------------------------------------------------- pending


def pending(plan: Plan) -> bool:
    """Whether something waits that another apply may start."""
    return any(not one.final for one in plan.unmet) or any(one.instances for one in plan.waits)


def pending_rows(plan: Plan) -> Iterator[Row]:
    """`✗ big | cannot run: …`, `… two | waits for gpu-1, free in 3m`."""
    for one in plan.unmet:
        subject = clean(one.subject.removeprefix("run "))
        cannot = "cannot run: " if one.final and one.subject.startswith("run ") else ""
        yield (f"{'✗' if one.final else '…'} {subject}", cannot + clean(one.why))
    for wait in plan.waits:
        if wait.instances:
            yield (f"… {clean(wait.run)}", clean(wait.why))


# ---------------------------------------------------------------- cost


def cost_rows(plan: Plan) -> list[Row]:
    """The heads, a row for each pool that costs or may cost anything, and the totals. Empty where nothing does."""
    cost = plan.cost
    if cost is None or not _agrees(cost, plan):
        return []
    priced = [one for one in cost.pools if one.before or one.after or one.worst or one.worst is None or one.unpriced]
    if not priced:
        return []
    rows = [("", "now", "after", "worst case"), *(_pool(one) for one in priced)]
    unpriced = " + $?" if any(one.unpriced for one in priced) else ""
    day = plan.hourly_after * DAY
    now, after = sums(plan)
    total = (
        "total",
        now,
        after + unpriced,
        worst_words(cost.worst) + (unpriced if cost.worst is not None else ""),
        f"≈ ${day:,.0f}/day after",
    )
    return [*rows, total]


def sums(plan: Plan) -> tuple[str, str]:
    """`$1.21/h`, `≤$67.14/h`: now and after; `≥` where something is in neither, `≤` where a price may be lower."""
    least = "≥" if plan.uncounted else ""
    most = "≤" if not least and plan.cost is not None and any(one.at_most for one in plan.cost.pools) else ""
    return least + hourly(plan.hourly_before), (least or most) + hourly(plan.hourly_after)


def _agrees(cost: PlanCost, plan: Plan) -> bool:
    """Both are of one plan: where less was approved afterwards, the pools' figures are not true any more."""
    before = sum((one.before for one in cost.pools), Price(0))
    after = sum((one.after for one in cost.pools), Price(0))
    return (before, after) == (plan.hourly_before, plan.hourly_after)


def _pool(one: PoolCost) -> Row:
    unpriced = " + $?" if one.unpriced else ""
    after = ("≤" if one.at_most else "") + hourly(one.after) + unpriced
    worst = worst_words(one.worst) + (unpriced if one.worst is not None else "")
    return (clean(one.pool) or "(no pool)", hourly(one.before), after, worst)


def worst_words(worst: Price | None) -> str:
    """`≤$131.08/h`, or that nothing limits it."""
    if worst is None:
        return "no maximum"
    return f"≤{hourly(worst)}" if worst else hourly(worst)


# ---------------------------------------------------------------- the summary


def summary_parts(plan: Plan, rows: Sequence[PlanRow]) -> list[str]:
    """`4 instances to create`, `1 to terminate`, `2 runs to start`, `1 pool changed`, `1 pending`, `1 cannot run`."""
    coming = {one.run for one in plan.waits if not one.instances}
    final = sum(one.final for one in plan.unmet)
    waits = len(plan.unmet) - final + sum(bool(one.instances) for one in plan.waits)
    return [
        *_doing(rows, coming=coming, done=False),
        *(words for number, words in _settings(plan.changes) if number),
        *([f"{waits} pending"] if waits else []),
        *([f"{final} cannot run"] if final else []),
    ]


def done_parts(rows: Sequence[PlanRow]) -> list[str]:
    """`4 instances created`, `1 terminated`, `3 runs added`."""
    return _doing(rows, coming=set(), done=True)


_VERBS = {
    "launch": ("to create", "created"), "attach": ("to attach", "attached"),
    "terminate": ("to terminate", "terminated"),
    "detach": ("to detach", "detached"), "remove": ("to remove", "removed"), "start": ("to start", "started"),
    "stop": ("to stop", "stopped"), "update": ("to update", "updated"),
}  # fmt: skip
"""Kind → what will be, and what was done."""


def _doing(rows: Sequence[PlanRow], *, coming: set[str], done: bool) -> list[str]:
    """`coming`: runs that wait for what is launched, and start once it is ready."""
    number = {kind: sum(row.kind == kind for row in rows) for kind in ("launch", "attach", *ENDS)}
    of_runs = [row for row in rows if row.of_run]
    new = {row.run for row in of_runs if row.kind == "update" and is_new(row)}
    started = {row.run for row in of_runs if row.kind == "assign"} | (new & coming)
    stopped = {row.run for row in of_runs if row.kind == "stop"}
    edited = {row.run for row in of_runs if row.kind == "update"} - new
    nouns = (
        ("launch", number["launch"], "instance"), ("attach", number["attach"], "server"),
        ("terminate", number["terminate"], "" if number["launch"] else "instance"),
        ("detach", number["detach"], "server"), ("remove", number["remove"], "leftover"),
        ("start", len(started), "run"), ("stop", len(stopped), "run"),
        ("update", sum(row.kind == "update" and not row.of_run for row in rows), "record"),
    )  # fmt: skip
    found = [
        f"{counted(many, noun) if noun else many} {_VERBS[kind][done]}" for kind, many, noun in nouns if many
    ]  # fmt: skip
    added = len(new - started)
    found += [f"{counted(added, 'run')} added"] if added else []
    return found + ([f"{counted(len(edited), 'run')} changed"] if edited else [])


def _settings(changes: Iterable[Change]) -> list[tuple[int, str]]:
    """`1 pool added`, `2 pools changed`, `1 project setting changed`."""
    done = {"create": "added", "change": "changed", "remove": "removed"}
    entries = {
        (one.kind, one.op, one.name if one.kind != "project" else one.key) for one in changes if one.kind != "run"
    }
    found = []
    for kind in ("pool", "profile", "rule", "backend", "secret", "project"):
        noun = "project setting" if kind == "project" else kind
        for op, words in done.items():
            number = sum((one, other) == (kind, op) for one, other, _ in entries)
            found.append((number, f"{counted(number, noun)} {words}"))
    return found
