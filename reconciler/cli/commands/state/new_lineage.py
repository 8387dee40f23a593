"""`dstack state new-lineage`: make a copied state independent of its original."""

from __future__ import annotations

from reconciler.cli.exits import Fail
from reconciler.cli.project import ports_of, site, state_of
from reconciler.cli.terminal.streams import NoTerminal, ask_typed, must_agree, out, say
from reconciler.engine.begin import why_copied
from reconciler.state.rebuild import with_new_lineage
from reconciler.state.status import alive
from reconciler.system.process import now
from reconciler.text.format import counted
from schemas.location import Bucket
from schemas.run import RUN_ENDED
from schemas.state import State


def new_lineage(*, yes: bool, confirmed: str) -> int:
    """A copy of a state that exists elsewhere is asked about; any other one that has instances takes the typed id."""
    where = site()
    if isinstance(where.location, Bucket):
        raise Fail(
            f"{where.state}: every checkout of this project uses the state in the bucket, so it is no copy. "
            "To make a separate project of this checkout, write another `project: {id}` and another `state`"
        )
    state, ports = state_of(where), ports_of(where)
    copied = why_copied(ports, state)
    say(_left(state))
    if copied or not any(map(alive, state.instances)):
        must_agree("Continue?", yes=yes)
    elif confirmed != state.project and not _typed(state.project):
        say("nothing was done")
        return 1
    fresh = with_new_lineage(state, lineage=ports.nonce() + ports.nonce(), now=now())
    kept = ports.store.supersede(fresh, now=now())
    out(f"{ports.store.address}: new state id {fresh.lineage}\n")
    say(f"note: the old state is kept as {kept}")
    if held := [run.spec.name for run in fresh.runs if run.held]:
        say(f"held until `dstack apply --first-run`: {', '.join(held)}")
    say("`dstack plan` shows what the next apply would create here")
    return 0


def _left(state: State) -> str:
    instances = counted(sum(map(alive, state.instances)), "instance")
    runs = counted(sum(run.status not in RUN_ENDED for run in state.runs), "active run")
    return f"{instances} and {runs} stay with the original state (id {state.lineage}); this one forgets them."


def _typed(project: str) -> bool:
    question = "No other copy of this state was found on this machine: its instances would have no owner."
    try:
        return ask_typed(question, word=project)
    except NoTerminal as error:
        raise Fail(f"{question} Not a terminal: `--confirm {project}` confirms it") from error
