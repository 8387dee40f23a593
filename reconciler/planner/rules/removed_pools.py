"""Delete pools that were removed from the configuration and still have instances. Pure."""

from __future__ import annotations

from reconciler.planner.draft import Draft, without
from reconciler.planner.rules.retire import pool_may_go
from reconciler.text.format import counted, few


def pools_left(draft: Draft) -> None:
    """Say which removed pools still have instances, with the flag that deletes them."""
    if not draft.rules_documents or draft.may.destroy_all:
        return
    for name, ids in draft.members.items():
        if not name or name in draft.pools or not draft.covers(id="", pool=name):
            continue
        staying = (draft.living[id] for id in ids if id not in draft.leaving and not draft.living[id].orphan)
        owned = [one.id for one in staying if not (one.prevent_destroy and pool_may_go(draft, one))]
        if not owned:
            continue
        listed = few(sorted(draft.living[id].name for id in owned))
        has = f"was removed from the configuration but still has {counted(len(owned), 'instance')} ({listed})"
        draft.cannot(f"pool {name}", f"{has}. {_way(draft, name)}")


def _way(draft: Draft, pool: str) -> str:
    """How a pool that left may go. Documents that may end nothing by themselves say why in a warning."""
    if draft.may.may_end:
        return f"Delete it: dstack apply --allow-destroy {pool}"
    return f"Deleting it {without(pool)}"
