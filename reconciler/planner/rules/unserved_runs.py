"""Say why a pending run is not served now, and fail it where its time for that is over. Pure."""

from __future__ import annotations

from reconciler.planner.draft import Draft
from reconciler.planner.placement.blocks import suffices
from reconciler.planner.placement.fit import other_image
from reconciler.planner.placement.idle_pool import Requirement
from reconciler.planner.rules.hold_machines import Holds
from reconciler.planner.run_queue import remember
from reconciler.state.blocks import left_of, shared
from reconciler.text.durations import words
from schemas.base import Seconds
from schemas.run import Run


def unserved(
    draft: Draft,
    run: Run,
    why: str,
    *,
    holds: Holds,
    shape: Requirement | None = None,
    failed: bool = False,
    final: bool = False,
) -> None:
    """Add the reason, with numbers, and hold machines for a run that goes on waiting for its shape.

    It fails where its window for capacity is over and it never ran this time.
    `failed`: machines that were launched were never ready, which is an error and no lack of capacity.
    `final`: nothing that the pool has or may have fits.
    """
    over = run.wait_until is not None and draft.now >= run.wait_until and not draft.live.get(run.id)
    retry = run.spec.retry
    # Without a retry it fails where there is nothing, not where a busy one fits or a place did not answer.
    if not over or (not retry.no_capacity and _hope(draft, shape)):
        if shape is not None and (held := _held_for(draft, run, shape, holds=holds)):
            why = f"{why}; {held}"
        why += draft.aside.get(run.id, "")
        draft.cannot(f"run {run.spec.name}", why, final=final)
        remember(draft, run, why)
        return
    tried = _window(retry.duration) if retry.no_capacity else ""
    reason = f"{'no machine was ready' if failed else 'no capacity'}{f' for {tried}' if tried else ''}: {why}"
    draft.cannot(f"run {run.spec.name}", reason, final=True)
    draft.update_run(run, why=reason, status="failed", reason=reason, finished_at=draft.now)


def _held_for(draft: Draft, run: Run, shape: Requirement, *, holds: Holds) -> str:
    """What is held for it: for a single node only blocks, since an idle machine would do at once."""
    if shape.nodes == 1 and draft.pools[shape.pool].blocks == 1:
        return ""
    return holds.hold(run, shape)


def _hope(draft: Draft, shape: Requirement | None) -> bool:
    return bool(draft.unknown) or (shape is not None and _busy_fits(draft, shape))


def _busy_fits(draft: Draft, shape: Requirement) -> bool:
    return any(
        draft.jobs.get(id)
        and not other_image(shape.need, draft.living[id])
        and not suffices(shape.need, left_of(draft.living[id]).resources, of=shared(draft.living[id]), cloud=False)
        for id in draft.members[shape.pool]
    )


def _window(seconds: Seconds | None) -> str:
    return "as long as it takes" if seconds is None else words(seconds)
