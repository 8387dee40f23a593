"""`dstack gc`: list resources with the project's id and no owner in every region, and remove them after approval."""

from __future__ import annotations

from dataclasses import dataclass

from reconciler.app.site import Site
from reconciler.cli.exits import Fail
from reconciler.cli.project import ports_of, site, state_of
from reconciler.cli.terminal.progress import Progress
from reconciler.cli.terminal.streams import must_agree, out, say, show
from reconciler.engine.garbage import GarbageQuestion, ask_everywhere, remove_all, unanswered
from reconciler.engine.ports import Connections
from reconciler.report.json import dump, leftovers_json
from reconciler.report.tables import leftover_table
from reconciler.state.unowned import unowned
from reconciler.system.process import now
from reconciler.text.format import counted
from schemas.leftover import Leftover
from schemas.state import State


@dataclass(frozen=True)
class _Look:
    state: State
    asked: GarbageQuestion
    chosen: tuple[Leftover, ...]


def collect_garbage(*, yes: bool, as_json: bool) -> int:
    """0 where nothing is left or all of it was removed, but for what waits for the end of a machine.

    1 where a place was silent or refused to list something, or kept something.
    """
    where = site()
    connections = Connections(ports_of(where), state_of(where).lineage)
    with Progress() as progress:
        look = _look(where, connections, progress=progress)
    for line in unanswered(look.asked.silent, look.asked.refused):
        say(f"warning: {line}")
    if as_json and not yes:
        out(dump(leftovers_json(look.chosen, removed={}, silent=look.asked.silent, refused=look.asked.refused)))
        return not look.asked.whole
    if not look.chosen:
        if as_json:
            out(dump(leftovers_json((), removed={}, silent=look.asked.silent, refused=look.asked.refused)))
        elif look.asked.found:  # where no place could say, nothing is known: the warnings have it
            out(f"nothing without an owner in {counted(len(look.asked.found), 'place')}\n")
        return not look.asked.whole
    return _removed(where, connections, look, yes=yes, as_json=as_json)


def _look(where: Site, connections: Connections, *, progress: Progress) -> _Look:
    """The state is read after the places: what a launch under way makes is then known by its intent."""
    asked = ask_everywhere(ports_of(where, asking=progress.asking), state_of(where), connections)
    state = state_of(where)
    if state.applied is None:
        raise Fail("nothing is applied yet: `dstack apply`")
    return _Look(state, asked, unowned(state, asked.found))


def _removed(where: Site, connections: Connections, look: _Look, *, yes: bool, as_json: bool) -> int:
    if not as_json:
        show(leftover_table(look.chosen, now=now()))
    question = f"Remove {counted(len(look.chosen), 'thing')} that nobody owns?"
    must_agree(question, yes=yes, otherwise="nothing is removed; `dstack gc --yes` removes it")
    state = state_of(where)  # somebody may have adopted some of it meanwhile
    still = [one for one in unowned(state, look.asked.found) if one in look.chosen]
    results: dict[str, str] = {}

    def told(one: Leftover, why: str) -> None:
        results[one.id] = why
        if not as_json:
            say(f"{one.kind} {one.id}: not removed: {why}") if why else out(f"removed {one.kind} {one.id}\n")

    leaving = {each.place for each in look.asked.found if any(seen.phase == "ending" for seen in each.instances)}
    waiting = remove_all(connections, state, still, leaving=leaving, told=told)
    if as_json:
        out(dump(leftovers_json(still, removed=results, silent=look.asked.silent, refused=look.asked.refused)))
    return not look.asked.whole or any(why for id, why in results.items() if id not in waiting)
