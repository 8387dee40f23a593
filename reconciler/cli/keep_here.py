"""What this machine keeps of a state that it read: the names for completion, and which `ssh RUN` still work."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from reconciler.app.site import Site
    from schemas.state import State


def keep_here(where: Site, state: State) -> None:
    """After each read: a state in a bucket is too far away to be asked at a press of Tab."""
    if "://" in where.state:
        from reconciler.cli.completion.names import remember

        remember(where, state)


def forget_aliases(state: State) -> None:
    """Whoever sees that a run has ended takes its `ssh RUN` away."""
    if not (Path.home() / ".dstack" / "ssh").is_dir():
        return
    from reconciler.hosts.ssh.aliases import Aliases
    from schemas.run import RUN_ENDED

    living = frozenset(run.id for run in state.runs if run.status not in RUN_ENDED)
    Aliases(Path.home()).forget(project=state.project, living=living)
