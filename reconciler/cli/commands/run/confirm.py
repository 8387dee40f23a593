"""Show the offers for a run and ask for confirmation."""

from __future__ import annotations

import os
from dataclasses import dataclass

from reconciler.app.site import Site
from reconciler.cli.commands.offers.rows import OfferQuery, browsed, offer_rows, show_offers
from reconciler.cli.commands.plan.approval import above_limit, price_flag
from reconciler.cli.commands.plan.basis import stored_offers
from reconciler.cli.did_you_mean import near
from reconciler.cli.exits import Fail
from reconciler.cli.terminal.progress import Progress
from reconciler.cli.terminal.streams import NoTerminal, ask, say
from reconciler.engine.refresh_catalog import freshen
from reconciler.planner.confirmed_price import confirmed, unpriced
from reconciler.planner.placement.blocks import share_misfit
from reconciler.state.requests import namesakes
from reconciler.state.status import alive, instance_status, jobs_by_instance
from reconciler.system.process import now
from reconciler.text.format import counted, hourly
from schemas.base import Price
from schemas.desired import Desired
from schemas.plan import Assign, Launch, Plan
from schemas.pool import Pool
from schemas.run import Run
from schemas.state import State

FEW = 3


@dataclass(kw_only=True)
class RunConfirm:
    """`confirm` of the wish's tick. `price` is what was confirmed, as in `confirmed`."""

    run: Run
    desired: Desired
    site: Site
    yes: bool
    yes_above: str
    most: int
    price: Price | None = None
    unpriced: tuple[str, ...] = ()

    def __call__(self, plan: Plan, state: State) -> Plan | None:
        pool = self._pool()
        spec = self.run.spec
        self._refuse_unknown_instance(state)
        asked = OfferQuery(
            need=spec.need,
            where=spec.where,
            pool=pool,
            new=not (spec.reuse_only or spec.instance_name),
            instance=spec.instance_name,
            desired=self.desired,
            now=now(),
        )
        with Progress() as progress:
            freshen(self.desired, os.environ, now=asked.now, asking=progress.asking)
        offers = tuple(stored_offers(self.site, self.desired, state))
        rows = offer_rows(asked, state=state, offers=offers)
        show_offers(rows, most=self.most, now=asked.now)
        if not rows:
            self._refuse_hopeless(browsed(asked, state=state, offers=offers).funnel, plan=plan, state=state)
        self._say_waiting(plan)
        self._say_bought(plan, state)
        self.price, self.unpriced = confirmed(plan, spec.need), unpriced(plan)
        return plan if self._agreed(plan, state) else None

    def _pool(self) -> Pool:
        name = self.run.spec.pool
        return next((one for one in self.desired.pools if one.name == name), Pool(name=name))

    def _served(self, plan: Plan) -> bool:
        return any(
            (isinstance(one, Assign) and one.run == self.run.id) or isinstance(one, Launch) for one in plan.actions
        )

    def _refuse_unknown_instance(self, state: State) -> None:
        name = self.run.spec.instance_name
        living = [one.name for one in state.instances if alive(one) and one.pool == self.run.spec.pool]
        if not name or name in living:
            return
        hint = near(name, living, there="there are:")
        raise Fail(f"--instance {name}: no such instance in pool {self.run.spec.pool}; {hint}")

    def _refuse_hopeless(self, why: str, *, plan: Plan, state: State) -> None:
        """Nothing fits and nothing is under way: it is said now, and nothing is written."""
        if self._served(plan) or self.run.spec.retry.no_capacity:
            return
        spec = self.run.spec
        if spec.reuse_only or spec.instance_name:
            raise Fail(f"no instance of pool {spec.pool} could ever run {spec.name}: {self._misfits(state)}")
        whys = [one.why for one in plan.unmet if one.subject == f"run {spec.name}"]
        # A pool of servers has no offers: what its servers lack is the reason.
        told = ("; ".join(whys), why) if self._pool().hosts else (why, "; ".join(whys))
        reason = next(filter(None, told), "none in this pool and its backends")
        raise Fail(f"no offer fits run {spec.name}: {reason}; ask for less, or wait for capacity with --retry")

    def _misfits(self, state: State) -> str:
        spec = self.run.spec
        mine = [one for one in state.instances if one.pool == spec.pool and alive(one)]
        whys = [f"{one.name}: {share_misfit(spec.need, spec.where, one) or 'in use'}" for one in mine[:5]]
        return "; ".join(whys) or "the pool has no instance; `dstack pool add` adds one, or leave --reuse out"

    def _say_waiting(self, plan: Plan) -> None:
        for one in plan.unmet:
            if one.subject == f"run {self.run.spec.name}":
                say(f"waiting: {one.why}")

    def _say_bought(self, plan: Plan, state: State) -> None:
        """What is new and its price; with it, which idle ones there are and why none of them does."""
        launches = [one for one in plan.actions if isinstance(one, Launch)]
        if not launches:
            return
        each = ", ".join(dict.fromkeys(hourly(one.offer.price) for one in launches))
        number, name = sum(len(one.ids) for one in launches), self.run.spec.name
        idle = self._idle_unfit(state)
        say(f"run {name}: {counted(number, 'new instance')} at {each}{' each' if number > 1 else ''}"
            f"{f'; idle, and not for it: {idle}' if idle else ''}")  # fmt: skip

    def _idle_unfit(self, state: State) -> str:
        spec, jobs = self.run.spec, jobs_by_instance(state.attempts)
        idle = [one for one in state.instances if one.pool == spec.pool and instance_status(one, jobs) == "idle"]
        unfit = [(one.name, share_misfit(spec.need, spec.where, one)) for one in idle]
        whys = [f"{name} ({why})" for name, why in unfit if why]
        return ", ".join(whys[:FEW]) + (f" and {len(whys) - FEW} more" if len(whys) > FEW else "")

    def _agreed(self, plan: Plan, state: State) -> bool:
        bound = price_flag(self.yes_above, flag="--yes-above")
        above = above_limit(plan, limit=self.desired.confirm_above, yes_above=bound)
        same = [one for one in namesakes(state, self.run.spec.name) if one.id != self.run.id]
        if self.yes and not above:
            for one in same:
                say(f"note: another run {one.spec.name} is {one.status}; both go on ({one.id}, {self.run.id})")
            return True
        try:
            if same and not ask(f"A run {self.run.spec.name} is {same[0].status} already. Start another beside it?"):
                return False
            if above:
                say(above.words)
            return ask("Continue?")
        except NoTerminal as error:
            raise Fail(
                f"there is no terminal to ask at; nothing was done; {above.remedy if above else 'add -y'}"
            ) from error
