"""`dstack state show | rebuild | forget`: inspect and repair the state."""

from __future__ import annotations

from collections import Counter

from reconciler.app.stores import store_of
from reconciler.cli.commands.plan.revision import identified, revision
from reconciler.cli.exits import Fail
from reconciler.cli.project import ports_of, project_root, site, site_of, state_of
from reconciler.cli.terminal.streams import NoTerminal, ask_typed, must_agree, out, say
from reconciler.engine.ports import Ports
from reconciler.state.errors import StateRefused
from reconciler.state.status import alive
from reconciler.system.process import now, who
from reconciler.text.format import ago, clean, counted, stamp
from schemas.run import RUN_ENDED
from schemas.state import Place, State


def show_state(*, as_json: bool) -> int:
    """Where it lies, whose it is, and how much it holds."""
    where = site()
    state = state_of(where)
    found = _facts(state, address=store_of(where).address)
    if as_json:
        from reconciler.report.json import dump

        out(dump(found))
        return 0
    width = max(len(key) for key in found)
    out("".join(f"{key.ljust(width)}  {clean(str(value))}\n" for key, value in found.items()))
    return 0


def _facts(state: State, *, address: str) -> dict[str, object]:
    applied, runs = state.applied, Counter(run.status for run in state.runs)
    rules = "nothing" if applied is None or not applied.revision.digest else applied.revision.digest[:12]
    destroyed = (
        {"destroyed_by": state.destroyed.by, "destroyed_at": stamp(state.destroyed.at)} if state.destroyed else {}
    )
    return {
        **destroyed,
        "address": address,
        "project": state.project,
        "format": state.version,
        "lineage": state.lineage,
        "generation": state.generation,
        "applied": rules,
        "commit": applied.revision.commit if applied else "",
        "applied_by": applied.by if applied else "",
        "applied_at": stamp(applied.at) if applied else None,
        "instances": sum(alive(one) for one in state.instances),
        "runs_active": sum(number for status, number in runs.items() if status not in RUN_ENDED),
        "runs_ended": sum(number for status, number in runs.items() if status in RUN_ENDED),
        "launches_open": len(state.intents),
        "places": ", ".join(f"{one.name} ({_seen(one)})" for one in state.places),
        "ticks": ", ".join(f"{one.by} {ago(one.at, now=now())}" for one in state.ticks),
    }


def _seen(place: Place) -> str:
    return "forgotten" if place.forgotten else place.error or ago(place.observed_at, now=now()) or "never seen"


def forget_subject(subject: str, *, confirmed: str) -> int:
    """It is no longer counted; seen again, it is an orphan and ends."""
    from reconciler.engine.write_state import land
    from reconciler.state.forget import billing, concerned, forget

    where = site()
    state = state_of(where)
    forget(state, subject, now(), by=who())
    known = billing(concerned(state, subject))
    billed = f"Keeps running and billing, as last seen: {known}.\n" if known else ""
    question = f"{billed}{subject} is forgotten: what runs there keeps running, and no apply counts it any more."
    try:
        if confirmed == subject:
            out(billed)
        elif not ask_typed(question, word=subject):
            say("nothing was done")
            return 1
    except NoTerminal as error:
        raise Fail(f"there is no terminal to type the name at; --confirm {subject} stands for it") from error
    land(ports_of(where), lambda state: forget(state, subject, now(), by=who()))
    out(f"{subject} is forgotten\n")
    return 0


def rebuild_state(*, yes: bool, allow_endpoint: tuple[str, ...] = ()) -> int:
    """From what places and hosts answer; the old file, if any, is kept beside the new one."""
    documents = identified(project_root(), allow_endpoint=allow_endpoint)
    where = site_of(documents)
    ports = ports_of(where)
    _refuse_sealed(ports)
    old = _readable(ports)
    from reconciler.cli.commands.state.rebuild import rebuilt

    state = rebuilt(ports, desired=documents.desired, revision=revision(documents), old=old)
    living = [one for one in state.instances if alive(one)]
    held = [run.spec.name for run in state.runs if run.held]
    if state.destroyed is not None:
        say(f"note: the project stays destroyed (by {state.destroyed.by}) until `dstack apply --revive`")
    say(f"found {counted(len(living), 'instance')} and {counted(len(state.runs) - len(held), 'run')} of this project")
    must_agree("Write a new state from that?", yes=yes)
    kept = ports.store.supersede(state, now=now())
    if kept:
        say(f"note: the old state is kept as {kept}")
    out(f"{ports.store.address}: rebuilt, generation {state.generation}\n")
    if held:
        say(f"held until `dstack apply --first-run`, since nobody knows whether they ran: {', '.join(held)}")
    say("`dstack plan` shows what the next apply would do, before anything is done")
    return 0


def _refuse_sealed(ports: Ports) -> None:
    """Whoever rebuilds where a state was moved away from would make a second one."""
    from reconciler.store.moved_pointer import moved_to

    try:
        data, _ = ports.store.raw()
    except StateRefused:
        return  # said by whoever reads it next
    if to := moved_to(data):
        raise Fail(f"{ports.store.address}: sealed: the state lies at {to} now: write `state: {to}` in .dstack")


def _readable(ports: Ports) -> State | None:
    """The state that is there; `None` without, and where it cannot be read."""
    try:
        state, _ = ports.store.read()
    except StateRefused as error:
        say(f"note: {error}")
        return None
    return state
