"""`dstack apply --metrics FILE`: write metrics, also after a failure."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from reconciler.app.stores import store_of
from reconciler.cli.commands.plan.review import write_whole
from reconciler.cli.exits import Fail, Finished
from reconciler.cli.project import project_root, site
from reconciler.engine.tick import TickResult
from reconciler.report.metrics import Visit, render_metrics
from reconciler.state.errors import StateRefused
from reconciler.system.process import boot_clock, now
from schemas.state import State


def measured(path: Path, work: Callable[[list[TickResult]], int]) -> int:
    """`work` with its exit code, its length and its last result in `path`, whatever its end. It adds its results."""
    results: list[TickResult] = []
    began, code = boot_clock(), 1
    try:
        code = work(results)
        return code
    except (Finished, Fail) as end:
        code = end.code
        raise
    except KeyboardInterrupt:
        code = 130
        raise
    finally:
        _write(path, results[-1] if results else None, seconds=boot_clock() - began, code=code)


def _write(path: Path, result: TickResult | None, *, seconds: float, code: int) -> None:
    state = (result.state if result else None) or _stored()
    applied = state.applied.desired if state and state.applied else None
    visit = Visit(
        project=(applied.project_name if applied else "") or (state.project if state else "") or _declared(),
        at=now(),
        seconds=seconds,
        code=code,
        state=state,
        plan=result.plan if result and not result.refused else None,
    )
    # A collector runs as somebody else: readable by all, as other textfiles are.
    write_whole(path, render_metrics(visit), flag="--metrics", mode=0o644)


def _declared() -> str:
    """As the documents call the project: a tick that may not read the state must not start another series."""
    from reconciler.config.identity import identity

    try:
        found = identity(project_root())[0].get("project", {})
    except Fail:
        return ""
    return str(found.get("name") or found.get("id") or "")


def _stored() -> State | None:
    """What is remembered, after a tick that came to nothing: machines may bill all the same."""
    try:
        where = site()
        return store_of(where).read()[0] if where.project else None
    except (Fail, StateRefused):
        return None
