"""Leave a run: hand it over without following it, or detach from it at Ctrl-C or a deadline."""

from __future__ import annotations

from dataclasses import replace

from reconciler.app.site import Site
from reconciler.cli.commands.plan.scoped_tick import Wished, fulfil
from reconciler.cli.exits import Fail
from reconciler.cli.terminal.streams import NoTerminal, ask, out, say
from reconciler.engine.until import settled_for
from reconciler.report.blocked import Waiting
from reconciler.state.requests import WishRefused, stop_run
from reconciler.system.process import now, who
from reconciler.text.format import clean
from schemas.run import RUN_ENDED, Run
from schemas.state import State


def hand_over(site: Site, wished: Wished, *, run: Run) -> int:
    """`-d`: returns once the run's jobs are at their hosts, or says who will start it, if anybody."""
    blocked = Waiting(clock=now, runs=(run.id,)).why_blocked
    asked = replace(wished, waits=f"run {run.spec.name} to start", blocked=blocked)
    last = fulfil(site, asked, until=settled_for(run.id))
    found = run_in(last.state, run)
    if found.status != "submitted":
        out(f"run {found.spec.name} is {found.status}; `dstack logs -f {found.spec.name}` follows it\n")
        return 1 if found.status == "failed" else 0
    out(clean(f"run {found.spec.name} waits: {found.reason or 'nothing is free for it'}") + "\n")
    say(f"next: {last.plan.next_actor or 'nobody; `dstack apply` starts it when it can'}")
    return 0


def leave(site: Site, run: Run) -> int:
    """Ctrl-C: the run is stopped or goes on by itself; nobody to ask means that it goes on."""
    name = run.spec.name
    try:
        stop = ask("\nStop the run before leaving?")
    except (NoTerminal, KeyboardInterrupt):
        stop = False
    if not stop:
        say(f"left run {name}: it goes on; `dstack logs -f {name}`, `dstack stop {name}`")
        return 130
    wished = Wished(
        wish=lambda state: stop_run(state, run.id, by=who(), now=now()),
        scope=(run.id,),
        waits=f"run {name} to end",
        blocked=Waiting(clock=now, runs=(run.id,)).why_blocked,
    )
    try:
        last = fulfil(site, wished, until=lambda state, plan: _over(state, run))
    except Fail as error:
        if not isinstance(error.__cause__, WishRefused):
            raise
        say(str(error))
        return 130
    ended = run_in(last.state, run)
    say(f"run {name} is {ended.status}{f': {ended.reason}' if ended.reason else ''}")
    return 130


def detached(run: Run, why: str) -> int:
    """Exit 3: the run goes on, and nobody waits for it here any more."""
    name = run.spec.name
    say(f"{why}\nDetached. Run {name} is {run.status}. Logs: dstack logs -f {name}. Stop: dstack stop {name}")
    return 3


def run_in(state: State | None, run: Run) -> Run:
    """The run as the state has it."""
    return next((one for one in state.runs if one.id == run.id), run) if state else run


def _over(state: State, run: Run) -> bool:
    found = [one for one in state.runs if one.id == run.id]
    return bool(found) and found[0].status in RUN_ENDED
