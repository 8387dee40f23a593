"""`dstack pool drain | pause | resume`: a person's word that holds over the documents, in the state."""

from __future__ import annotations

from typing import Literal

from reconciler.cli.project import site
from reconciler.cli.terminal import out
from reconciler.cli.times import seconds
from reconciler.cli.wishing import Wished, fulfil
from reconciler.render_plan import override
from reconciler.render_words import clean
from reconciler.wire import now, who
from reconciler.wish import clear_override, set_override
from schemas.state import State


def override_pool(pool: str, *, kind: Literal["drain", "pause"], duration: str, stop_after: str, reason: str) -> int:
    """Written at once; the next apply acts on it."""
    until = now() + seconds(duration, flag="--for") if duration else None
    limit = seconds(stop_after, flag="--stop-after") if stop_after else None

    def wish(state: State) -> State:
        return set_override(
            state, kind=kind, subject=pool, by=who(), now=now(), until=until, stop_after=limit, reason=reason
        )

    last = fulfil(site(), Wished(wish=wish), until=None)
    found = [one for one in last.state.overrides if (one.kind, one.subject) == (kind, pool)] if last.state else []
    out("".join(clean(f"pool {override(one, now=now())}") + "\n" for one in found))
    return 0


def resume_pool(pool: str) -> int:
    """The documents rule again."""
    fulfil(site(), Wished(wish=lambda state: clear_override(state, subject=pool)), until=None)
    out(f"pool {pool} is neither drained nor paused any more\n")
    return 0
