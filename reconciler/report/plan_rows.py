"""Rows of a plan: one for each instance or node, with reason and price. Pure.

The text, the JSON and the prompt are all made of these rows, so that they cannot disagree.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal, assert_never

from schemas.base import Price
from schemas.instance import Instance
from schemas.plan import Action, Assign, Attach, Detach, Launch, Plan, Resume, Stop, Terminate, Update
from schemas.resources import Resources
from schemas.run import Attempt
from schemas.state import State, Unowned

Kind = Literal["launch", "attach", "assign", "stop", "terminate", "detach", "remove", "update"]
SYMBOL: Mapping[Kind, str] = {
    "launch": "+", "attach": "+", "assign": "→", "stop": "-", "terminate": "-", "detach": "-", "remove": "-",
    "update": "~",
}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class PlanRow:
    """One line of a plan. `price` is $/h of the instance, `None` where it is unknown or does not apply.

    `at_most`: it may cost less, never more.
    """

    kind: Kind
    why: str
    pool: str = ""
    instance: str = ""
    run: str = ""
    backend: str = ""
    region: str = ""
    instance_type: str = ""
    price: Price | None = None
    resources: Resources | None = None
    spot: bool = False
    at_most: bool = False

    @property
    def symbol(self) -> str:
        return SYMBOL[self.kind]

    @property
    def of_run(self) -> bool:
        """It is about a run, not about an instance, a pool or a leftover."""
        return self.kind in ("assign", "stop") or (self.kind == "update" and bool(self.run))


def explain(plan: Plan, state: State | None) -> tuple[PlanRow, ...]:
    """Rows in the plan's order. Bookkeeping (`quiet`) is left out."""
    known = {one.id: one for one in state.instances} if state else {}
    attempts = {one.id: one for one in state.attempts} if state else {}
    named = {key: one.name for key, one in known.items()} | _launched_names(plan.actions) | _run_names(plan, state)
    unowned = {f"leftover {one.key}": one for one in state.unowned} if state else {}
    return tuple(
        row
        for action in plan.actions
        for row in _rows(action, known=known, attempts=attempts, named=named, unowned=unowned)
    )


def _launched_names(actions: Iterable[Action]) -> dict[str, str]:
    return {
        key: name
        for action in actions
        if isinstance(action, Launch)
        for key, name in zip(action.ids, action.names, strict=False)
    }


def _run_names(plan: Plan, state: State | None) -> dict[str, str]:
    """run id -> name, of those remembered and of those that the plan enrols."""
    new = {
        action.enrol.id: action.enrol.spec.name
        for action in plan.actions
        if isinstance(action, Update) and action.enrol is not None
    }
    return {run.id: run.spec.name for run in state.runs} | new if state else new


def _rows(
    action: Action,
    *,
    known: Mapping[str, Instance],
    attempts: Mapping[str, Attempt],
    named: Mapping[str, str],
    unowned: Mapping[str, Unowned],
) -> list[PlanRow]:
    match action:
        case Launch():
            return [_launch(action, name, named=named) for name in action.names]
        case Resume():
            return [_resume(action, name, known=known) for name in action.request.names]
        case Attach():
            return [_of_instance("attach", action.instance, name=action.name, action=action, known=known)]
        case Assign():
            return [_assign(action, key, known=known, named=named) for key in action.instances]
        case Stop():
            return _stop(action, attempts=attempts, known=known)
        case Terminate():
            ended = known.get(action.instance)
            kind: Kind = "detach" if ended is not None and ended.host is not None else "terminate"
            return [_of_instance(kind, action.instance, name=action.name, action=action, known=known)]
        case Detach():
            return [_of_instance("detach", action.instance, name=action.name, action=action, known=known)]
        case Update():
            return [] if action.quiet else [_update(action, unowned=unowned)]
        case _:
            assert_never(action)


def _launch(action: Launch, name: str, *, named: Mapping[str, str]) -> PlanRow:
    offer = action.offer
    return PlanRow(
        kind="launch" if action.host is None else "attach",
        why=action.why,
        pool=action.pool,
        instance=name,
        run=named.get(action.reserved_for, action.reserved_for),
        backend=offer.backend,
        region=offer.region,
        instance_type=offer.instance_type,
        price=offer.price,
        resources=offer.resources if action.host is None else None,
        spot=offer.spot,
        at_most=offer.at_most,
    )


def _resume(action: Resume, name: str, *, known: Mapping[str, Instance]) -> PlanRow:
    request = action.request
    first = next((known[key] for key in request.ids if key in known), None)
    return PlanRow(
        kind="attach" if first and first.host is not None else "launch",
        why=action.why,
        pool=request.pool,
        instance=name,
        backend=first.backend if first else request.place.split("/")[0],
        region=first.region if first else "",
        instance_type=request.instance_type,
        price=first.price if first else None,
        resources=first.resources if first else None,
        spot=request.spot,
    )


def _of_instance(
    kind: Kind, key: str, *, name: str, action: Attach | Terminate | Detach, known: Mapping[str, Instance]
) -> PlanRow:
    one = known.get(key)
    if one is None:
        return PlanRow(kind=kind, why=action.why, pool=action.pool, instance=name)
    return PlanRow(
        kind=kind,
        why=action.why,
        pool=action.pool,
        instance=name,
        backend=one.backend,
        region=one.region,
        instance_type=one.instance_type,
        price=one.price,
        resources=one.resources,
        spot=one.spot,
    )


def _assign(action: Assign, key: str, *, known: Mapping[str, Instance], named: Mapping[str, str]) -> PlanRow:
    one = known.get(key)
    row = PlanRow(kind="assign", why=action.why, pool=action.pool, instance=named.get(key, key), run=action.name)
    if one is None:
        return row
    return PlanRow(
        kind="assign",
        why=action.why,
        pool=action.pool,
        instance=one.name,
        run=action.name,
        backend=one.backend,
        region=one.region,
        instance_type=one.instance_type,
        price=one.price,
        resources=one.resources,
        spot=one.spot,
    )


def _stop(action: Stop, *, attempts: Mapping[str, Attempt], known: Mapping[str, Instance]) -> list[PlanRow]:
    attempt = attempts.get(action.attempt)
    hosts = [known.get(job.instance) for job in attempt.jobs] if attempt else [None]
    return [
        PlanRow(
            kind="stop", why=action.why, pool=action.pool, run=action.name, instance=one.name if one else "",
            backend=one.backend if one else "", region=one.region if one else "",
            instance_type=one.instance_type if one else "",
        )
        for one in hosts
    ]  # fmt: skip


def _update(action: Update, *, unowned: Mapping[str, Unowned]) -> PlanRow:
    kind, _, rest = action.subject.partition(" ")
    if kind == "leftover":
        backend, _, region = rest.split(" ")[0].partition("/")
        one = unowned.get(action.subject)
        price = one.hourly if one else None
        return PlanRow(kind="remove", why=action.why, instance=action.name, backend=backend, region=region, price=price)
    if kind == "instance":
        return PlanRow(kind="update", why=action.why, pool=action.pool, instance=action.name)
    if kind in ("run", "attempt") or action.enrol is not None:
        return PlanRow(kind="update", why=action.why, pool=action.pool, run=action.name)
    pool = action.pool or (action.name if kind == "pool" else "")
    return PlanRow(kind="update", why=f"{action.subject}: {action.why}" if kind != "pool" else action.why, pool=pool)
