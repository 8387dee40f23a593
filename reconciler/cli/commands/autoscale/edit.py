"""`dstack autoscale allow | clear | enable | disable`: edit the YAML, and write an override that holds at once.

The YAML is written first, after the question. Killed in between, the same command again writes the word.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from reconciler.app.site import Site
from reconciler.cli.commands.offers.check_rule import check_offered
from reconciler.cli.commands.plan.scoped_tick import Wished, fulfil
from reconciler.cli.commands.pool.edit import COMMIT, put_edits, show_edits
from reconciler.cli.exits import Fail
from reconciler.cli.project import documents_of, project_root, site_of, state_if_any
from reconciler.cli.terminal.streams import NoTerminal, ask, out, say
from reconciler.config.edit.autoscale import clear_rules, remove_rule, set_enabled, set_rule
from reconciler.config.edit.pools import Edit, EditRefused
from reconciler.engine.tick import TickResult
from reconciler.planner.autoscale_ends import ended_at_once, ends_of, rules_in_force
from reconciler.report.in_progress import under_way
from reconciler.state.autoscale_overrides import say_cleared, say_enabled, say_rule
from reconciler.state.autoscale_rules import Rules, rule_words
from reconciler.state.status import alive
from reconciler.system.process import nonce, now, who
from reconciler.text.format import counted, hourly
from schemas.desired import Cap, Desired
from schemas.instance import Instance
from schemas.plan import Plan
from schemas.state import State

LIMIT = 120.0  # seconds; a job that is stopped has its time to end, and its result is brought home
STILL = 3  # as of `apply`: still under way
LOOKS = 5


@dataclass(frozen=True, kw_only=True)
class AutoscaleCommand:
    """What a command says: its edit of the documents, its word in the state, and both in words."""

    edit: Callable[[Path], Edit | None]
    wish: Callable[[State], State]
    said: str
    again: str


def allow(cap: Cap, *, yes: bool) -> int:
    """Add or replace a rule; a maximum of 0 removes it, and asks nobody whether the type is offered."""
    if not cap.instance_type.strip():
        raise Fail("TYPE is empty: name an instance type, as `dstack offers` lists them")
    root = project_root()
    documents = documents_of(root)
    state = state_if_any(site_of(documents))
    if cap.max:
        check_offered(cap, documents.desired, site=site_of(documents), state=state)
    else:
        _check_known(cap, documents.desired, state)
    change = set_rule if cap.max else remove_rule
    name = rule_words(cap)
    word = AutoscaleCommand(
        edit=lambda folder: change(folder, cap),
        wish=lambda fresh: say_rule(fresh, cap, by=who(), now=now()),
        said=f"at most {cap.max} {name}" if cap.max else f"no rule for {name} any more",
        again=f"there is a rule for at most {cap.max} {name} already",
    )
    return _do(root, word, state=state, yes=yes)


def clear(*, yes: bool) -> int:
    """Every rule goes; an empty list of them allows no spot instance."""
    root = project_root()
    word = AutoscaleCommand(
        edit=clear_rules,
        wish=lambda fresh: say_cleared(fresh, by=who(), now=now()),
        said="no rule is left: no spot instances",
        again="there are no rules to clear",
    )
    return _do(root, word, state=state_if_any(site_of(documents_of(root))), yes=yes)


def switch(*, enabled: bool, yes: bool) -> int:
    """`enable` or `disable`; the rules stay as they are."""
    root = project_root()
    word = AutoscaleCommand(
        edit=lambda folder: set_enabled(folder, enabled=enabled),
        wish=lambda fresh: say_enabled(fresh, enabled=enabled, by=who(), now=now()),
        said="spot instances are made by the rules again" if enabled else "no spot instances; the rules are kept",
        again=f"autoscale is {'enabled' if enabled else 'disabled'} already",
    )
    return _do(root, word, state=state_if_any(site_of(documents_of(root))), yes=yes)


def _check_known(cap: Cap, desired: Desired, state: State | None) -> None:
    known = {rule_words(one) for one in (*desired.caps, *(rules_in_force(state).caps if state else ()))}
    if rule_words(cap) not in known:
        there = f"there are {', '.join(sorted(known))}" if known else "there are none"
        raise Fail(f"no rule for {rule_words(cap)}; {there}")


# ---------------------------------------------------------------- both at once


def _do(root: Path, word: AutoscaleCommand, *, state: State | None, yes: bool) -> int:
    try:
        edit = word.edit(root / ".dstack")
    except EditRefused as error:
        raise Fail(str(error)) from error
    edits = (edit,) if edit else ()
    wished = word.wish(state) if state is not None and state.applied is not None else None
    scope = ended_at_once(wished, now=now(), nonce=nonce()) if wished else ()
    told = wished is not None and (bool(scope) or _changes(state, wished))
    if not edits and not told:
        say(word.again)
        return 0
    show_edits(root, edits)
    if not told or wished is None:
        put_edits(edits)
        say(COMMIT if state is not None else "nothing was applied yet; `dstack apply` makes it so")
        return 0
    last, scope = _fulfilled(site_of(documents_of(root)), word, edits=edits, scope=scope, yes=yes)
    out(f"{word.said}\n")
    _say_what_drains(wished)
    say("commit this, or main undoes it" if edits else "it holds until other documents are applied")
    if last.state is None:
        return 0
    left = _left(last.state, last.plan, scope)
    return max(_still(left, last.state) if left else 0, _unasked(last.state, {*scope} - {one.id for one in left}))


def _unasked(state: State, scope: set[str]) -> int:
    """What goes on and costs money because nobody could be asked to end it."""
    unknown = {place.name: place.error for place in state.places if place.error}
    stays = [one for one in state.instances if one.id in scope and alive(one) and one.place in unknown]
    for one in stays:
        say(f"not ended: {_described(one)}: {one.place} is unknown ({unknown[one.place]})")
    if stays:
        say("the same command again ends it, once its place answers")
    return STILL if stays else 0


def _left(state: State, plan: Plan | None, scope: tuple[str, ...]) -> list[Instance]:
    """Those that are to end and that no place has shown on their way out yet; one that turned out to stay is none."""
    planned = {id for id, _ in ends_of(plan)} if plan else set()
    mine = (one for one in state.instances if one.id in scope and alive(one) and not one.ending)
    return [one for one in mine if one.id in planned or one.draining or one.phase == "terminating"]


def _still(left: list[Instance], state: State) -> int:
    known = under_way(state)
    runs = {name for one in left for name in _runs(state, one)}
    say(f"{counted(len(left), 'spot instance')} not ended within {LIMIT:.0f} s; every `dstack apply` goes on with it:")
    for one in left:
        say(f"  {one.name}: {known.get(one.name) or one.unreachable_why or one.draining or one.reason or 'not known'}")
    for name in sorted(runs & known.keys()):
        say(f"  {name}: {known[name]}")
    return STILL


def _say_what_drains(wished: State) -> None:
    """What the rules do not allow and the word did not speak of: that is the documents', and drains."""
    rules = rules_in_force(wished)
    others = [one for one in wished.instances if alive(one) and rules.forbids(one) and not rules.at_once(one)]
    if others:
        kinds = ", ".join(sorted({one.instance_type for one in others}))
        say(f"note: {counted(len(others), 'spot instance')} that no rule lists ({kinds}) will drain")


def _changes(state: State | None, wished: State) -> bool:
    """Whether other rules hold than those in force."""
    return state is None or _meaning(rules_in_force(state)) != _meaning(rules_in_force(wished))


def _meaning(rules: Rules) -> object:
    return sorted((rule_words(cap), cap.max) for cap in rules.caps), rules.exist, rules.enabled


class _Others(Exception):
    """A look at the machines showed that the word ends others than those that the state had it end."""

    def __init__(self, scope: tuple[str, ...]) -> None:
        self.scope = scope


def _fulfilled(
    where: Site, word: AutoscaleCommand, *, edits: tuple[Edit, ...], scope: tuple[str, ...], yes: bool
) -> tuple[TickResult, tuple[str, ...]]:
    """The last tick, and which instances end. Nothing is asked, and nothing written, before a look agrees on them."""
    for _ in range(LOOKS):
        confirm = _Confirm(edits=edits, scope=scope, yes=yes)
        asked = Wished(wish=word.wish, scope=scope, confirm=confirm, prompted=not yes, hasty=True, within=LIMIT)
        try:
            return fulfil(where, asked, until=_all_gone(scope) if scope else None), scope
        except _Others as others:
            scope = others.scope
    raise Fail("what this would end is another thing at each look; nothing was done; try again")


def _all_gone(scope: tuple[str, ...]) -> Callable[[State, Plan], bool]:
    return lambda state, plan: not _left(state, plan, scope)


@dataclass(frozen=True, kw_only=True)
class _Confirm:
    """What ends is listed with its runs, and asked about; then the YAML is written. `_Others`: see there."""

    edits: tuple[Edit, ...]
    scope: tuple[str, ...]
    yes: bool

    def __call__(self, made: Plan, state: State) -> Plan | None:
        if not set(others := ended_at_once(state, now=now(), nonce=nonce())) <= set(self.scope):
            raise _Others(others)
        ending = dict(ends_of(made))
        found = [one for one in state.instances if one.id in ending]
        for one in found:
            say(f"  - {_described(one)}{_running(state, one)}")
        for unmet in made.unmet:
            say(f"  note: {unmet.subject}: {unmet.why}")
        if found and not self.yes and not self._agreed(len(found), state, ending):
            return None
        put_edits(self.edits)
        return made

    def _agreed(self, count: int, state: State, ending: dict[str, str]) -> bool:
        runs = {name for one in state.instances if one.id in ending for name in _runs(state, one)}
        ends = f"{counted(count, 'spot instance')}" + (f" and the runs {', '.join(sorted(runs))}" if runs else "")
        try:
            return ask(f"This ends {ends} now. Continue?")
        except NoTerminal as error:
            raise Fail(f"this ends {ends} now, and there is no terminal to ask at; nothing was done; add -y") from error


def _described(one: Instance) -> str:
    return f"{one.name}: {one.instance_type or one.backend}, {one.place}, {hourly(one.price)}"


def _running(state: State, one: Instance) -> str:
    runs = _runs(state, one)
    return f", ends run{'s' if len(runs) > 1 else ''} {', '.join(runs)}" if runs else ", no run on it"


def _runs(state: State, one: Instance) -> list[str]:
    names = {run.id: run.spec.name for run in state.runs}
    live = (attempt for attempt in state.attempts if attempt.live)
    mine = (attempt.run for attempt in live if any(job.instance == one.id for job in attempt.jobs))
    return list(dict.fromkeys(names.get(run, run) for run in mine))
