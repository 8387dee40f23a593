"""Ask a person to approve a plan, and do no more than was approved."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from typing import NamedTuple

from reconciler.cli.exits import Fail
from reconciler.cli.terminal.interrupts import Interrupts
from reconciler.cli.terminal.streams import ask, ask_typed, interactive, out, page, say
from reconciler.planner.approve import approve
from reconciler.planner.confirmed_price import unpriced
from reconciler.report.plan import render_plan
from reconciler.report.plan_rows import explain
from reconciler.system.process import now
from reconciler.text.format import hourly
from schemas.base import Price
from schemas.plan import Plan, Stop, Terminate, Update
from schemas.state import State


@dataclass(frozen=True, kw_only=True)
class Approval:
    """How a plan is approved.

    `limit` is the documents' `confirm_above`: what costs more an hour afterwards is asked about
    although `yes` was given, unless `yes_above` covers it. `declared` are the pools of the documents:
    ending another pool's instances is confirmed by typing its name, unless `destroyable`.
    `saved` bounds everything.
    """

    yes: bool
    interrupts: Interrupts
    limit: Price | None = None
    yes_above: Price | None = None
    declared: frozenset[str] | None = None
    destroyable: frozenset[str] = frozenset()
    saved: Plan | None = None
    show: Callable[[Plan, State], None] | None = None
    quiet: bool = False
    """A plan without changes is not shown."""

    def __call__(self, plan: Plan, state: State) -> Plan | None:
        """`confirm` of a tick."""
        self.interrupts.disarm()
        allowed = plan if self.saved is None else approve(plan, self.saved, starts=True)
        if not self.quiet or explain(allowed, state) or allowed.changes:
            (self.show or _show)(allowed, state)
        if self.saved is not None and len(explain(allowed, state)) < len(explain(plan, state)):
            say("left out: what the saved plan does not have; `dstack plan` shows it")
        if (explain(allowed, state) or allowed.changes) and not self._agreed(allowed):
            return None
        self.interrupts.arm()
        return allowed

    def _agreed(self, plan: Plan) -> bool:
        above = self._above(plan)
        if (self.yes or self.saved is not None) and not above:
            return self._pools_agreed(plan)
        if not interactive():
            raise Fail(_refusal(above))
        if above:
            say(above.words)
        return self._pools_agreed(plan) and ask("Continue?")

    def _above(self, plan: Plan) -> Above | None:
        above = above_limit(plan, limit=self.limit, yes_above=self.yes_above)
        return above if unpriced(plan) or plan.hourly_after > plan.hourly_before else None

    def _pools_agreed(self, plan: Plan) -> bool:
        """Each pool that is removed with what it has is typed, once."""
        if self.declared is None:
            return True
        ending = _ending(plan)
        for pool in sorted(ending.keys() - self.declared - self.destroyable):
            names = ", ".join(ending[pool])
            if not interactive():
                gone = f"pool {pool} was removed from the configuration and has {names}"
                raise Fail(f"{gone}. Delete it: dstack apply --allow-destroy {pool}")
            if not ask_typed(f"Pool {pool} was removed from the configuration: {names} will be terminated.", word=pool):
                return False
        return True


def _ending(plan: Plan) -> dict[str, list[str]]:
    """pool -> names of what the plan ends of it, at once or by draining it, because the documents or a person say so.

    What ends for a reason that is inferred, as an orphan does, would end with its pool declared, too.
    """
    found: dict[str, list[str]] = {}
    for one in plan.actions:
        if isinstance(one, Terminate) and one.inferred:
            continue
        if isinstance(one, Terminate | Stop) or (isinstance(one, Update) and one.changes.get("draining")):
            found.setdefault(one.pool, []).append(one.name)
    found.pop("", None)
    return found


def _show(plan: Plan, state: State) -> None:
    out(render_plan(plan, state, now=plan.made_at or now(), page=page(sys.stdout)))


def _refusal(above: Above | None) -> str:
    if above:
        return f"{above.words}, which -y alone does not cover; {above.remedy}"
    return "there is no terminal to ask at; nothing was done. Look at the plan, then add -y"


class Above(NamedTuple):
    """Why `-y` alone does not approve a plan, and what does."""

    words: str
    remedy: str


def above_limit(plan: Plan, *, limit: Price | None, yes_above: Price | None) -> Above | None:
    """What exceeds `confirm_above`: a launch without a known price may, and `--yes-above` says nothing of it."""
    if limit is None:
        return None
    if kinds := unpriced(plan):
        words = f"{', '.join(kinds)}: no known price, so that it may be above confirm_above: {hourly(limit)}"
        return Above(words, "`dstack offers --refresh` asks for prices, or answer at a terminal")
    if plan.hourly_after <= max(limit, yes_above or limit):
        return None
    words = f"{hourly(plan.hourly_after)} is above confirm_above: {hourly(limit)}"
    return Above(words, f"add -y --yes-above {plan.hourly_after}")


def price_flag(text: str, *, flag: str) -> Price | None:
    """`1.20` or `$1.20`; "" is not given."""
    if not text:
        return None
    try:
        amount = Decimal(text.removeprefix("$").removesuffix("/h"))
    except InvalidOperation:
        amount = Decimal(-1)
    if not amount.is_finite() or amount < 0:
        raise Fail(f"{flag} {text}: not a price; write $/h, such as 1.20")
    return amount
