"""Show what the configuration of a checkout would be allowed to do when applied."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from msgspec.structs import replace

from reconciler.config.load import Documents
from reconciler.state.apply_config import apply, why_destroyed
from reconciler.state.authority import ONCE_MERGED, GitFacts, judge
from reconciler.system.process import who
from schemas.state import State


@dataclass(frozen=True)
class Judged:
    """`state` as if they were applied; `warnings` say what apply would refuse, or not end."""

    state: State
    may_end: bool = True
    warnings: tuple[str, ...] = ()


def judged(state: State, documents: Documents, *, now: int) -> Judged:
    """Asks git where other documents were applied, or none: those that were applied need no proof."""
    if why := why_destroyed(state):
        found = judged(replace(state, destroyed=None), documents, now=now)
        return Judged(found.state, found.may_end, (why, *found.warnings))
    applied = state.applied
    if applied is not None and applied.revision.digest == documents.digest:
        return Judged(state)
    from reconciler.cli.commands.plan.revision import revision_if_read
    from reconciler.config.git_revision import facts_of

    mine, failed = revision_if_read(documents)
    authority = documents.desired.authority
    first = applied is None or not applied.revision.digest
    if first and not failed:
        return Judged(state)
    theirs = applied.revision if applied else None
    facts = GitFacts(failed=failed) if failed else facts_of(documents.root, mine, theirs, authority=authority)
    verdict = judge(
        mine,
        applied=applied,
        history=state.history,
        facts=facts,
        authority=authority,
    )
    verdict = verdict.planned
    brought = state if first else apply(state, desired=documents.desired, revision=mine, by=who(), now=now)
    if not verdict.accept:
        return Judged(brought, False, (f"apply would refuse these documents: {verdict.why}",))
    told = verdict.once_merged or not verdict.may_end
    return Judged(brought, verdict.may_end, (verdict.why,) if told else ())


def for_review(warnings: Sequence[str]) -> tuple[str, ...]:
    """Without what is true of every pull request: that it is not on the branch that rules yet."""
    return tuple(one for one in warnings if not one.startswith(ONCE_MERGED))
