"""Show what the configuration of a checkout would be allowed to do when applied."""

from __future__ import annotations

from dataclasses import dataclass

from reconciler.config.load import Documents
from reconciler.state.apply_config import apply
from reconciler.state.authority import judge
from reconciler.system.process import who
from schemas.state import State


@dataclass(frozen=True)
class Judged:
    """`state` as if they were applied; `warnings` say what apply would refuse, or not end."""

    state: State
    may_end: bool = True
    warnings: tuple[str, ...] = ()


def judged(state: State, documents: Documents, *, now: int) -> Judged:
    """Asks git only where other documents rule now: the applied ones and the first ones need no proof."""
    applied = state.applied
    if applied is None or not applied.revision.digest or applied.revision.digest == documents.digest:
        return Judged(state)
    from reconciler.cli.commands.plan.revision import revision
    from reconciler.config.git_revision import facts_of

    mine, authority = revision(documents), documents.desired.authority
    verdict = judge(
        mine,
        applied=applied,
        history=state.history,
        facts=facts_of(documents.root, mine, applied.revision, authority=authority),
        authority=authority,
    )
    brought = apply(state, desired=documents.desired, revision=mine, by=who(), now=now)
    if not verdict.accept:
        return Judged(brought, False, (f"apply would refuse these documents: {verdict.why}",))
    return Judged(brought, verdict.may_end, () if verdict.may_end else (verdict.why,))
