"""Hold back inferred terminations of more than half of a pool in one plan. `--allow-mass-destroy` lifts it. Pure."""

from __future__ import annotations

from collections import Counter

from reconciler.planner.draft import Draft
from reconciler.text.format import counted
from schemas.plan import Terminate


def brake(draft: Draft) -> None:
    """Withhold the inferred ends of a pool where they are more than max(1, half) of it in one tick.

    Inferred are those for reasons that we concluded (unreachable, health, time-out, unowned).
    Ends of idle time, of the documents and of a person are not counted.
    """
    if draft.may.mass_destroy:
        return
    inferred = [action for action in draft.actions if isinstance(action, Terminate) and action.inferred]
    counts = Counter(_pool(draft, action) for action in inferred)
    withheld = {pool for pool, count in counts.items() if 2 * count > max(2, _size(draft, pool))}
    for pool in sorted(withheld):
        ends = [action for action in inferred if _pool(draft, action) == pool]
        members = counted(_size(draft, pool), "instance")
        draft.cannot(
            f"pool {pool}" if pool else "project",
            f"{len(ends)} of its {members} would end for a reason that is inferred "
            f"({ends[0].why}): withheld; `--allow-mass-destroy` ends them",
        )
    held = {action.instance for action in inferred if _pool(draft, action) in withheld}
    draft.actions = [
        action for action in draft.actions if not (isinstance(action, Terminate) and action.instance in held)
    ]
    for id in held:
        del draft.leaving[id]


def _size(draft: Draft, pool: str) -> int:
    """Instances of the pool; of the project for orphans without a pool, which are all that such a pool would have."""
    return len(draft.members.get(pool, ())) if pool else len(draft.living)


def _pool(draft: Draft, action: Terminate) -> str:
    return draft.pool_of(draft.living[action.instance])
