"""Make a plan on stored observations: no backend is asked."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from reconciler.app.connections import connector
from reconciler.app.site import Site
from reconciler.app.stores import store_of
from reconciler.app.wiring import lacking_here, undeclared_anywhere
from reconciler.cli.terminal.streams import say
from reconciler.engine.catalog import Later, catalog_of
from reconciler.engine.clock_guard import concluded_unasked, withheld_by_the_clock
from reconciler.planner.plan import plan as make_plan
from reconciler.planner.world import World, needs_of, replaced
from reconciler.state.apply_config import apply
from reconciler.system.process import boot_time, now, who
from schemas.desired import Desired
from schemas.offer import Offer
from schemas.plan import Permissions, Plan
from schemas.resources import Where
from schemas.run import RUN_ENDED, RunSpec
from schemas.state import Applied, Revision, State


@dataclass(frozen=True, kw_only=True)
class Basis:
    """What a plan rests on besides the documents: two plans of one basis differ by their documents alone."""

    site: Site
    state: State
    done: frozenset[tuple[str, str]]
    moment: int
    nonce: str
    priced: bool = False
    """As `World.priced`."""


def planned(basis: Basis, digest: str, desired: Desired, permissions: Permissions) -> tuple[Plan, State]:
    """The plan as if these documents ruled, wherever they came from."""
    revision = Revision(digest=digest)
    state = apply(basis.state, desired=desired, revision=revision, by=who(), now=basis.moment)
    return _planned(dataclasses.replace(basis, state=state), desired, permissions, was=basis.state.applied)


def _planned(basis: Basis, desired: Desired, permissions: Permissions, *, was: Applied | None) -> tuple[Plan, State]:
    """No clock is asked: where the last apply contradicts ours, nothing ends for reasons of time."""
    world = world_on(basis, desired, permissions, was=was)
    made = make_plan(world)
    if world.lapses:
        return made, world.state
    _, clock = concluded_unasked(basis.state, now=basis.moment, boot=boot_time())
    by_ours = make_plan(dataclasses.replace(world, now=basis.moment))
    held = withheld_by_the_clock(made, by_ours=by_ours, reading=clock, state=world.state, permissions=permissions)
    return held, world.state


def world_on(basis: Basis, desired: Desired, permissions: Permissions, *, was: Applied | None) -> World:
    """What the planner gets."""
    state, clock = concluded_unasked(basis.state, now=basis.moment, boot=boot_time())
    nowhere = {spec.name: why for spec in _specs(desired, state) if (why := undeclared_anywhere(spec, desired))}
    return World(
        desired=desired,
        state=state,
        offers=_offers(basis.site, desired, state),
        now=basis.moment - clock.off,
        nonce=basis.nonce,
        permissions=permissions,
        lacking=nowhere,
        assumed={name: why for name, why in _lacking(basis.site, desired, state).items() if name not in nowhere},
        done=basis.done,
        before=replaced(was, desired),
        priced=basis.priced,
        lapses=not clock.apart,
    )


def _lacking(site: Site, desired: Desired, state: State) -> dict[str, str]:
    """run name -> what it needs and is not to be had here, of the declared and of the waiting."""
    why = lacking_here(site, environ=os.environ)
    return {spec.name: missing for spec in _specs(desired, state) if (missing := why(spec, desired))}


def _specs(desired: Desired, state: State) -> tuple[RunSpec, ...]:
    """Of the declared runs and of those that wait."""
    return (*desired.runs, *(run.spec for run in state.runs if run.status not in RUN_ENDED))


def _offers(site: Site, desired: Desired, state: State) -> Sequence[Offer]:
    return Later(lambda: stored_offers(site, desired, state))


def stored_offers(site: Site, desired: Desired, state: State | None) -> Iterator[Offer]:
    """What catalogs and this machine offer; a place that cannot tell now offers nothing."""
    from backends.errors import CallFailed

    yield from catalog_of(desired, os.environ, now=now(), told=lambda why: say(f"warning: {why}"))

    others = [config for config in desired.backends if config.traits.offers != "catalog"]
    runs, wishes = (state.runs, state.wishes) if state else ((), ())
    needs = needs_of(desired, runs=runs, wishes=wishes)
    connect = connector(site, address=store_of(site).address if others and site.project else "")
    for config in others:
        for region in config.regions or ("",):
            try:
                yield from connect(config, region, state.lineage if state else "").offers(needs, Where())
            except CallFailed as error:
                say(f"warning: {config.name}{f' {region}' if region else ''}: no offers: {error}")
