"""`dstack plan`: what apply would do, from the stored state; with `--refresh`, from a fresh look."""

from __future__ import annotations

import dataclasses
import os
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from msgspec.structs import replace

from backends.registry import CATALOGED
from reconciler.app.connections import connector
from reconciler.app.wiring import STATE, Site, lacking_here, markers_of, nonce, now, store_of, who
from reconciler.cli.commands.plan.authority import judged
from reconciler.cli.exits import Done
from reconciler.cli.project import documents_of, ports_of, project_root, site_of, tell
from reconciler.cli.terminal.streams import out, page, say
from reconciler.config.load import Documents
from reconciler.engine.catalog import Later, catalog_of
from reconciler.planner.draft import World
from reconciler.planner.local_state_guard import told_alone
from reconciler.planner.plan import plan as make_plan
from reconciler.report.plan import render_plan
from reconciler.report.plan_rows import explain
from reconciler.state.apply_config import apply
from reconciler.state.settle import conclude
from reconciler.store.format_upgrade import older
from reconciler.store.markers.folder import markers_needed
from schemas.desired import Desired
from schemas.offer import Offer
from schemas.plan import Permissions, Plan
from schemas.resources import Need, Where
from schemas.run import RUN_ENDED
from schemas.state import VERSION, Revision, State

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


@dataclass(frozen=True, kw_only=True)
class Basis:
    """What a plan rests on besides the documents: two plans of one basis differ by their documents alone."""

    site: Site
    state: State
    done: frozenset[tuple[str, str]]
    moment: int
    nonce: str


def show_plan(flags: PlanFlags) -> int:
    """2 where there are changes and they were asked for by `--detailed-exitcode`, 1 where a gate holds, else 0."""
    if flags.reviews:
        from reconciler.cli.commands.plan.review import gates_of

        gates_of(flags.fail_on)  # a mistyped gate is said at once
    root = project_root()
    known = None if flags.refresh else _peeked(root)
    documents = documents_of(root, known=known)
    check_pool(flags.pool, documents.desired)
    permissions = Permissions(only_pool=flags.pool)
    if flags.refresh:
        made, state = refreshed(documents, permissions)
    else:
        made, state = stored(documents, permissions, known=known)
    if flags.reviews:
        return _reviewed(flags, made, state, documents, permissions)
    _save(flags, made, documents)
    _print(made, state, as_json=flags.as_json)
    if flags.detailed_exitcode and explain(made, state):
        raise Done(2)
    return 0


def _reviewed(
    flags: PlanFlags, made: Plan, state: State, documents: Documents, permissions: Permissions
) -> int:  # fmt: skip
    from reconciler.cli.commands.plan import review as plan_review

    site = site_of(documents)
    done = markers_of(site).all() if site.project else frozenset()
    basis = Basis(site=site, state=state, done=done, moment=made.made_at or now(), nonce=nonce())
    found = plan_review.review(
        made, basis, documents, permissions, against=flags.against, asked=plan_review.gates_of(flags.fail_on)
    )
    plan = replace(found.plan, warnings=made.warnings) if flags.against else found.plan
    _save(flags, plan, documents)
    if flags.markdown is not None:
        from reconciler.report.markdown import render_markdown

        text = render_markdown(
            plan, found.state, now=basis.moment, difference=found.difference, gates=found.gates
        )  # fmt: skip
        plan_review.write_whole(flags.markdown, text, flag="--markdown")
    _print(plan, found.state, as_json=flags.as_json, review=found)
    plan_review.say_gates(found.gates)
    if found.failed:
        raise Done(1)
    own = found.difference.own if found.difference else bool(explain(plan, found.state))
    if flags.detailed_exitcode and own:
        raise Done(2)
    return 0


def _save(flags: PlanFlags, plan: Plan, documents: Documents) -> None:
    if flags.out is not None:
        from reconciler.cli.commands.plan.saved import save_plan

        save_plan(flags.out, plan, digest=documents.digest)


def stored(documents: Documents, permissions: Permissions, *, known: State | None = None) -> tuple[Plan, State]:
    """A plan on the state as it is stored (`known`, where it was read already): no cloud and no host is asked."""
    site = site_of(documents)
    stored = _remembered(site, known)
    moment = now()
    found = judged(stored, documents, now=moment)
    done = markers_needed(markers_of(site), found.state, documents.desired) if site.project else frozenset()
    basis = Basis(site=site, state=found.state, done=done, moment=moment, nonce=nonce())
    made, state = _planned(basis, documents.desired, replace(permissions, may_end=found.may_end))
    warnings = (*_format(state), *told_alone(documents.desired), *found.warnings, *made.warnings)
    return replace(made, warnings=warnings), state


def planned(basis: Basis, digest: str, desired: Desired, permissions: Permissions) -> tuple[Plan, State]:
    """The plan as if these documents ruled, wherever they came from."""
    revision = Revision(digest=digest)
    state = apply(basis.state, desired=desired, revision=revision, by=who(), now=basis.moment)
    return _planned(dataclasses.replace(basis, state=state), desired, permissions)


def _planned(basis: Basis, desired: Desired, permissions: Permissions) -> tuple[Plan, State]:
    state = conclude(basis.state, now=basis.moment)
    world = World(
        desired=desired,
        state=state,
        offers=_offers(basis.site, desired, state),
        now=basis.moment,
        nonce=basis.nonce,
        permissions=permissions,
        lacking=_lacking(basis.site, desired, state),
        done=basis.done,
    )
    return make_plan(world), state


def _format(state: State) -> tuple[str, ...]:
    """What apply asks for first, where the state is of an older format."""
    why = older(state.version)
    return (why,) if why else ()


def _lacking(site: Site, desired: Desired, state: State) -> dict[str, str]:
    """run name -> what it needs and is not to be had here, of the declared and of the waiting."""
    why = lacking_here(site, environ=os.environ)
    specs = (*desired.runs, *(run.spec for run in state.runs if run.status not in RUN_ENDED))
    return {spec.name: missing for spec in specs if (missing := why(spec, desired))}


def refreshed(documents: Documents, permissions: Permissions) -> tuple[Plan, State]:
    """A plan on a fresh observation, of which nothing is written."""
    from reconciler.app.wiring import OwnThreads
    from reconciler.cli.commands.plan.revision import revision
    from reconciler.cli.exits import Fail
    from reconciler.cli.terminal.progress import Progress
    from reconciler.engine.refresh_catalog import refresh
    from reconciler.engine.request import TickAsk
    from reconciler.engine.tick import tick

    asked = TickAsk(documents=documents, revision=revision(documents), permissions=permissions, act=False)
    with Progress() as progress:
        for why in refresh(documents.desired, os.environ, threads=OwnThreads(), now=now, asking=progress.asking):
            say(f"warning: {why}")
        if not documents.desired.project:
            return stored(documents, permissions)
        result = tick(ports_of(site_of(documents), asking=progress.asking), asked)
    if result.refused:
        raise Fail(result.refused)
    state = result.state or _empty(documents.desired.project)
    before = (*_format(state), *told_alone(documents.desired))
    made = replace(result.plan, warnings=(*before, *result.warnings, *result.plan.warnings))
    return made, state


def check_pool(name: str, desired: Desired) -> None:
    """`Fail` with a suggestion for a pool that the documents do not have."""
    from reconciler.cli.exits import Fail

    names = [pool.name for pool in desired.pools]
    if name and name not in names:
        from reconciler.cli.did_you_mean import near

        raise Fail(f"--pool {name}: no such pool in .dstack; {near(name, names)}")


def _offers(site: Site, desired: Desired, state: State) -> Sequence[Offer]:
    return Later(lambda: stored_offers(site, desired, state))


def stored_offers(site: Site, desired: Desired, state: State | None) -> Iterator[Offer]:
    """What catalogs and this machine offer; a place that cannot tell now offers nothing."""
    from backends.base import BackendError

    yield from catalog_of(desired, os.environ, now=now(), told=lambda why: say(f"warning: {why}"))

    others = [config for config in desired.backends if config.type not in CATALOGED]
    connect = connector(site, address=store_of(site).address if others and site.project else "")
    for config in others:
        for region in config.regions or ("",):
            try:
                yield from connect(config, region, state.lineage if state else "").offers(Need(), Where())
            except BackendError as error:
                say(f"warning: {config.name}{f' {region}' if region else ''}: no offers: {error}")


def _peeked(root: Path) -> State | None:
    """The state at its usual place, before the documents say where it is: they may be the applied ones."""
    from reconciler.store.base import StateRefused

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


def _remembered(site: Site, known: State | None) -> State:
    if not site.project:
        return _empty("")
    if known is not None and known.project == site.project and not site.state:
        return known
    store = store_of(site)
    state, _ = store.read()
    tell(store.notes)
    return state or _empty(site.project)


def _empty(project: str) -> State:
    return State(version=VERSION, project=project, lineage="")


def _print(made: Plan, state: State, *, as_json: bool, review: Review | None = None) -> None:
    difference = review.difference if review else None
    if as_json:
        from reconciler.report.json import dump, plan_json

        out(dump(plan_json(made, state, difference=difference, gates=review.gates if review else ())))
    else:
        moment = made.made_at or now()
        out(render_plan(made, state, now=moment, page=page(sys.stdout), difference=difference))
