"""`dstack plan --against`, `--fail-on` and `--markdown`: a plan for a review."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from msgspec.structs import replace

from reconciler.app.documents import stored_endpoints
from reconciler.cli.commands.plan.basis import Basis, planned
from reconciler.cli.exits import Fail
from reconciler.cli.terminal.streams import say
from reconciler.config.load import Documents
from reconciler.planner.configuration import changes
from reconciler.report.fail_on import BadGate, Gate, GateFailure, gates, held
from reconciler.report.plan_diff import Difference, Side, subtract
from schemas.plan import Permissions, Plan
from schemas.state import State


@dataclass(frozen=True, kw_only=True)
class Review:
    """The plan of the documents as if they ruled, what of it is their own, and what the gates say."""

    plan: Plan
    state: State
    difference: Difference | None = None
    gates: tuple[GateFailure, ...] = ()

    @property
    def failed(self) -> bool:
        return any(one.why for one in self.gates)


def gates_of(text: str) -> tuple[Gate, ...]:
    """`Fail` lists the gates that there are."""
    try:
        return gates(text) if text else ()
    except BadGate as error:
        raise Fail(str(error)) from error


def review(
    made: Plan, basis: Basis, documents: Documents, permissions: Permissions, *, against: str, asked: Sequence[Gate]
) -> Review:
    """`made` is the plan of the documents alone; against other ones both are made anew, alike, on the same state."""
    if not against:
        found = held(asked, made, basis.state, difference=None)
        return Review(plan=made, state=basis.state, gates=found)
    from reconciler.config.at_revision import NoRevision, documents_at

    try:
        endpoints = stored_endpoints(basis.site)
        base = documents_at(documents.root, against, home=Path.home(), endpoints=endpoints)
    except NoRevision as error:
        raise Fail(str(error)) from error
    mine, theirs = _side(basis, documents, permissions), _side(basis, base.documents, permissions)
    difference = subtract(mine, theirs, commit=base.commit, behind=base.behind, revision=against)
    plan = replace(mine.plan, changes=changes(theirs.desired, mine.desired))
    return Review(
        plan=plan,
        state=mine.state,
        difference=difference,
        gates=held(asked, plan, mine.state, difference=difference),
    )


def _side(basis: Basis, documents: Documents, permissions: Permissions) -> Side:
    """As if they were applied here and now. Documents without an id are those of a project that has none yet."""
    desired = documents.desired
    if desired.project != basis.state.project:
        desired = replace(desired, project=basis.state.project)
    plan, state = planned(basis, documents.digest, desired, permissions)
    return Side(plan=plan, state=state, desired=desired)


def say_gates(found: Sequence[GateFailure]) -> None:
    for one in found:
        if one.why:
            say(f"error: gate {one.gate}: {one.why}")


def write_whole(path: Path, text: str, *, flag: str, mode: int = 0o644) -> None:
    """Whole or not at all: a reader never finds half of it. `Fail` names the flag."""
    if not path.name or path.is_dir():
        raise Fail(f"{flag} {path}: is a folder; name a file")
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
        temporary.replace(path)
    except OSError as error:
        raise Fail(f"{flag} {path}: {error.strerror}") from error
    finally:
        temporary.unlink(missing_ok=True)
