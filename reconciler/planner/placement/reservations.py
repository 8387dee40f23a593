"""What is reserved for a multi-node run, and until when. Pure."""

from __future__ import annotations

from reconciler.planner.draft import Draft


def release(draft: Draft) -> None:
    """A reservation ends at its time, or when its run waits no more."""
    for one in list(draft.living.values()):
        if not one.reserved_for:
            continue
        run = draft.runs.get(one.reserved_for)
        over = one.reserved_until is not None and draft.now >= one.reserved_until
        begun = run is not None and run.spec.type != "service" and bool(draft.live.get(run.id))
        if over or run is None or run.stop_reason or begun:
            name = run.spec.name if run else one.reserved_for
            why = f"no longer reserved for run {name}" + (": its time is over" if over else "")
            draft.update_instance(one, why=why, reserved_for="", reserved_until=None)
