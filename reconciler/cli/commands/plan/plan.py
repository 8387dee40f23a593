"""`dstack plan`: show what apply would do, from the stored state or, with `--refresh`, from a fresh one."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from msgspec.structs import replace

from reconciler.app.site import STATE, Site
from reconciler.app.stores import markers_of, store_of
from reconciler.cli.commands.plan.authority import for_review
from reconciler.cli.commands.plan.basis import Basis
from reconciler.cli.commands.plan.stored import empty_state, format_warnings, stored
from reconciler.cli.exits import Finished
from reconciler.cli.project import documents_of, ports_of, project_root, site_of, tell
from reconciler.cli.terminal.streams import out, page, say
from reconciler.config.load import Documents
from reconciler.planner.local_state_guard import told_alone
from reconciler.report.differences import differences
from reconciler.report.plan import render_plan
from reconciler.system.process import nonce, now
from schemas.desired import Desired
from schemas.plan import Permissions, Plan
from schemas.state import State

if TYPE_CHECKING:
    from reconciler.cli.commands.plan.review import Review


@dataclass(frozen=True, kw_only=True)
class PlanFlags:
    refresh: bool = False
    as_json: bool = False
    out: Path | None = None
    detailed_exitcode: bool = False
    pool: str = ""
    against: str = ""
    fail_on: str = ""
    markdown: Path | None = None

    @property
    def reviews(self) -> bool:
        return bool(self.against or self.fail_on) or self.markdown is not None


def show_plan(flags: PlanFlags) -> int:
    """2 where something differs and `--detailed-exitcode` asks for that, 1 where a gate holds, else 0."""
    if flags.reviews:
        from reconciler.cli.commands.plan.review import gates_of

        gates_of(flags.fail_on)  # a mistyped gate is said at once
    root = project_root()
    known = None if flags.refresh else _peeked(root)
    documents = documents_of(root, known=known)
    permissions = Permissions(only_pool=check_pool(flags.pool, documents.desired))
    if flags.refresh:
        made, state = refreshed(documents, permissions)
    else:
        made, state = stored(documents, permissions, known=known, priced=flags.as_json or flags.reviews)
    made = replace(made, configuration=tuple(map(str, documents.new_endpoints)))
    if flags.reviews:
        made = replace(made, warnings=for_review(made.warnings))
        return _reviewed(flags, made, state, documents, permissions)
    _save(flags, made, documents)
    _print(made, state, as_json=flags.as_json)
    if flags.detailed_exitcode and differences(made, state):
        raise Finished(2)
    return 0


def _reviewed(flags: PlanFlags, made: Plan, state: State, documents: Documents, permissions: Permissions) -> int:
    from reconciler.cli.commands.plan import review as plan_review

    site = site_of(documents)
    done = markers_of(site).all() if site.project else frozenset()
    basis = Basis(site=site, state=state, done=done, moment=made.made_at or now(), nonce=nonce(), priced=True)
    found = plan_review.review(
        made, basis, documents, permissions, against=flags.against, asked=plan_review.gates_of(flags.fail_on)
    )
    said = {"warnings": made.warnings, "configuration": made.configuration}
    plan = replace(found.plan, **said) if flags.against else found.plan
    _save(flags, plan, documents)
    if flags.markdown is not None:
        from reconciler.report.markdown import render_markdown

        text = render_markdown(plan, found.state, now=basis.moment, difference=found.difference, gates=found.gates)
        plan_review.write_whole(flags.markdown, text, flag="--markdown")
    _print(plan, found.state, as_json=flags.as_json, review=found)
    plan_review.say_gates(found.gates)
    if found.failed:
        raise Finished(1)
    if flags.detailed_exitcode and differences(plan, found.state, change=found.difference):
        raise Finished(2)
    return 0


def _save(flags: PlanFlags, plan: Plan, documents: Documents) -> None:
    if flags.out is not None:
        from reconciler.cli.commands.plan.saved import save_plan

        save_plan(flags.out, plan, digest=documents.digest)


def refreshed(documents: Documents, permissions: Permissions) -> tuple[Plan, State]:
    """A plan on a fresh observation, of which nothing is written."""
    from reconciler.cli.commands.plan.revision import revision_if_read
    from reconciler.cli.exits import Fail
    from reconciler.cli.terminal.progress import Progress
    from reconciler.engine.refresh_catalog import refresh
    from reconciler.engine.request import TickAsk
    from reconciler.engine.tick import tick
    from reconciler.system.process import OwnThreads

    mine, git_failed = revision_if_read(documents)
    asked = TickAsk(documents=documents, revision=mine, git_failed=git_failed, permissions=permissions, act=False)
    with Progress() as progress:
        for why in refresh(documents.desired, os.environ, threads=OwnThreads(), now=now, asking=progress.asking):
            say(f"warning: {why}")
        if not documents.desired.project:
            return stored(documents, permissions)
        result = tick(ports_of(site_of(documents), asking=progress.asking), asked)
    if result.refused:
        raise Fail(result.refused)
    state = result.state or empty_state(documents.desired.project)
    before = (*format_warnings(state), *told_alone(documents.desired))
    made = replace(result.plan, warnings=(*before, *result.warnings, *result.plan.warnings))
    return made, state


def check_pool(name: str, desired: Desired) -> str:
    """Its name today, "" for none. `Fail` with a suggestion for a pool that the documents do not have."""
    from reconciler.cli.exits import Fail
    from schemas.pool import pool_named, renamed_words

    found = pool_named(name, desired.pools) if name else None
    if found is None and name:
        from reconciler.cli.did_you_mean import near

        raise Fail(f"--pool {name}: no such pool in .dstack; {near(name, [pool.name for pool in desired.pools])}")
    if found is not None and (words := renamed_words(name, found)):
        say(f"note: {words}")
    return found.name if found else ""


def _peeked(root: Path) -> State | None:
    """The state at its usual place, before the documents say where it is: they may be the applied ones."""
    from reconciler.state.errors import StateRefused

    found = list((root / STATE).glob("*.yml"))
    if len(found) != 1:
        return None
    try:
        store = store_of(Site(root=root, project=found[0].stem))
        state, _ = store.read()
    except StateRefused:
        return None  # whoever needs it reads it again, and says why
    tell(store.notes)
    return state


def _print(made: Plan, state: State, *, as_json: bool, review: Review | None = None) -> None:
    difference = review.difference if review else None
    if as_json:
        from reconciler.report.json import dump, plan_json

        out(dump(plan_json(made, state, difference=difference, gates=review.gates if review else ())))
    else:
        moment = made.made_at or now()
        out(render_plan(made, state, now=moment, page=page(sys.stdout), difference=difference))
