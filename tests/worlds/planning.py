"""Worlds for tests of the planner: written compactly, planned, and lived through.

`world_of` builds a `World` from plain mappings. `perfect` is a world in which everything that a
plan asks for happens at once: machines come up, jobs run, what is to end ends. `text_of` is
a plan as the cases' snapshots show it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import msgspec
from msgspec.structs import replace

from reconciler.planner.plan import plan
from reconciler.planner.world import World
from reconciler.state.record_plan import intend
from reconciler.state.settle import conclude
from schemas.base import place_of
from schemas.desired import BackendConfig, Desired
from schemas.instance import Instance
from schemas.launch import Request
from schemas.offer import Offer
from schemas.plan import Action, Assign, Attach, Detach, Launch, Permissions, Plan, Resume, Stop, Terminate, Update
from schemas.resources import Gpu, Resources
from schemas.run import LIVE_JOB, Attempt, Job
from schemas.state import VERSION, Place, State

NOW = 1_800_000_000
MACHINES = {
    "small": Resources(cpus=4, memory=16 * 1024, disk=200 * 1024),
    "big": Resources(cpus=64, memory=256 * 1024, disk=500 * 1024),
    "share": Resources(cpus=2, memory=4 * 1024, disk=10 * 1024),
    "a10": Resources(cpus=8, memory=32 * 1024, disk=200 * 1024, gpu=Gpu(name="A10G", memory=24 * 1024, count=1)),
    "a100": Resources(cpus=12, memory=85 * 1024, disk=200 * 1024, gpu=Gpu(name="A100", memory=80 * 1024, count=1)),
    "a100x8": Resources(cpus=96, memory=1100 * 1024, disk=1000 * 1024, gpu=Gpu(name="A100", memory=80 * 1024, count=8)),
    "bare": Resources(cpus=4, memory=16 * 1024, disk=200 * 1024, runtime="none"),
    "pod": Resources(cpus=4, memory=16 * 1024, disk=200 * 1024, runtime="image"),
    "docker": Resources(cpus=8, memory=32 * 1024, disk=200 * 1024, runtime="docker"),
    "octo": Resources(
        cpus=96,
        memory=1024 * 1024,
        disk=1000 * 1024,
        gpu=Gpu(name="A100", memory=80 * 1024, count=8, uuids=tuple(f"GPU-{number}" for number in range(8))),
    ),
    "uuids": Resources(
        cpus=8,
        memory=32 * 1024,
        disk=99 * 1024,
        gpu=Gpu(name="A100", memory=80 * 1024, count=2, uuids=("GPU-aa", "GPU-bb")),
    ),
}
_TIME = re.compile(r"([+-])(\d+)([smhd])")
_UNIT = {"s": 1, "m": 60, "h": 3600, "d": 86400}


def world_of(case: Mapping[str, Any], *, nonce: str = "n0000000") -> World:
    """`-5m` is five minutes ago; `resources` name one of `MACHINES`; ids, places and defaults are filled in."""
    case = _timed(case)
    state, offers = dict(case.get("state", {})), [_offer(each) for each in case.get("offers", [])]
    instances = [_instance(each) for each in state.pop("instances", [])]
    desired = dict(case.get("desired", {}))
    specs = [_spec(each) for each in desired.get("runs", [])]
    declared = {name for spec in specs for name in (spec["name"], *spec.get("formerly", ()))}
    runs = [_run(each, declared=declared) for each in state.pop("runs", [])]
    attempts = [_attempt(each) for each in state.pop("attempts", [])]
    places = {each["name"]: each for each in state.pop("places", [])}
    for name, backend in sorted({(each["place"], each["backend"]) for each in instances}):
        places.setdefault(name, {"name": name, "config": {"name": backend, "type": backend}})
    for each in places.values():
        each.setdefault("config", {"name": each["name"].split("/")[0], "type": each["name"].split("/")[0]})
        each.setdefault("observed_at", NOW - 60)
    remembered = {
        "version": VERSION, "project": "testproject", "lineage": "l1", "generation": 7, **state,
        "instances": instances, "runs": runs, "attempts": attempts, "places": list(places.values()),
    }  # fmt: skip
    return World(
        desired=msgspec.convert({**desired, "runs": specs}, Desired),
        state=msgspec.convert(remembered, State),
        offers=msgspec.convert(offers, list[Offer]),
        now=NOW,
        nonce=nonce,
        permissions=msgspec.convert(case.get("permissions", {}), Permissions),
        lacking=case.get("lacking", {}),
        done=frozenset((name, hash) for name, hash in case.get("done", [])),
    )


def _timed(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _timed(each) for key, each in value.items()}
    if isinstance(value, list):
        return [_timed(each) for each in value]
    if isinstance(value, str) and (match := _TIME.fullmatch(value)):
        sign, count, unit = match.groups()
        return NOW + (1 if sign == "+" else -1) * int(count) * _UNIT[unit]
    return value


def _offer(each: Mapping[str, Any]) -> dict[str, Any]:
    given = {"backend": "aws", "region": "us", "price": None, **each}
    given["resources"] = msgspec.to_builtins(MACHINES[given.get("resources", "small")])
    given["instance_type"] = given.pop("type", each.get("resources", "small"))
    if given["backend"] == "local":
        given = {**given, "region": "", "cloud": False}
    return given


def _instance(each: Mapping[str, Any]) -> dict[str, Any]:
    given = {"id": each["name"], "backend": "aws", "phase": "ready", "external_id": f"i-{each['name']}", **each}
    given["resources"] = msgspec.to_builtins(MACHINES[given.get("resources", "small")])
    local = given["backend"] == "local"
    given.setdefault("region", "" if local else "us")
    given.setdefault("place", place_of(given["backend"], given["region"]))
    given["instance_type"] = given.pop("type", each.get("resources", "small"))
    given.setdefault("created_at", NOW - 3600)
    if given["phase"] in ("ready", "terminating"):
        given.setdefault("ready_at", NOW - 60)
    if given["phase"] == "pending":
        given["external_id"] = ""
    return given


def _spec(each: Mapping[str, Any]) -> dict[str, Any]:
    return {"hash": "h1", "pool": "gpu", "commands": [f"./{each['name']}"], **each}


def _run(each: Mapping[str, Any], *, declared: set[str]) -> dict[str, Any]:
    """A record: `name` and keys of the spec under `spec`, the rest its own; declared if the documents name it."""
    given = dict(each)
    name = given.pop("name")
    spec = _spec({"name": name, **given.pop("spec", {})})
    origin = "declared" if name in declared else "run"
    return {"id": name, "submitted_at": NOW - 600, "origin": origin, **given, "spec": spec}


def _attempt(each: Mapping[str, Any]) -> dict[str, Any]:
    given = {"number": 1, "replica": 0, **each}
    given.setdefault("id", f"{given['run']}-{given['replica']}-{given['number']}")
    given["jobs"] = [
        {"id": f"{given['id']}-{rank}", "rank": rank, "status": "running", "started_at": NOW - 300, **job}
        for rank, job in enumerate(given["jobs"])
    ]
    return given


# ---------------------------------------------------------------- a world in which everything works


def requests_of(made: Plan, *, state: State) -> dict[str, Request]:
    return {
        action.launch: Request(
            place=action.offer.place, launch=action.launch, token=action.launch, ids=action.ids, names=action.names,
            pool=action.pool, instance_type=action.offer.instance_type, not_after=NOW + 600, lineage=state.lineage,
        )
        for action in made.actions
        if isinstance(action, Launch)
    }  # fmt: skip


def intended(world: World, made: Plan) -> State:
    return intend(world.state, made, now=world.now, requests=requests_of(made, state=world.state))


def perfect(state: State, *, now: int) -> State:
    """Every mark has come true: machines are up, jobs run, stopped ones and machines have ended."""
    instances = tuple(_came_true(one, now=now) for one in state.instances)
    attempts = tuple(_under_way(each, now=now) for each in state.attempts)
    places = {place.name: place for place in state.places}
    for one in instances:
        places.setdefault(one.place, Place(name=one.place, config=BackendConfig(name=one.backend, type=one.backend)))
    state = replace(state, instances=instances, attempts=attempts, intents=(), places=tuple(places.values()))
    return conclude(state, now=now)


def _came_true(one: Instance, *, now: int) -> Instance:
    if one.phase == "terminating":
        return replace(one, phase="terminated", terminated_at=now)
    if one.phase in ("pending", "provisioning"):
        return replace(one, phase="ready", ready_at=now, seen_at=now, external_id=f"i-{one.id}")
    return replace(one, stray_jobs=())


def _under_way(attempt: Attempt, *, now: int) -> Attempt:
    return replace(attempt, jobs=tuple(_job(job, attempt=attempt, now=now) for job in attempt.jobs))


def _job(job: Job, *, attempt: Attempt, now: int) -> Job:
    if attempt.stopping and job.status in LIVE_JOB:
        return replace(job, status="terminated", reason=attempt.stopping, ended_at=now)
    if job.status == "assigned":
        return replace(job, status="running", started_at=now - 60)
    return job


def rounds_of(world: World, *, most: int = 6) -> list[Plan]:
    """Plans until one does nothing that people would read; the last one is that."""
    return lived(world, most=most)[0]


def lived(world: World, *, most: int = 6) -> tuple[list[Plan], World]:
    """The plans, and the world in which the last of them had nothing to do."""
    plans = []
    for index in range(most):
        world = changed(world, nonce=f"n{index:07}")
        plans.append(plan(world))
        if not loud(plans[-1]):
            return plans, world
        world = changed(world, state=perfect(intended(world, plans[-1]), now=world.now))
    raise AssertionError(f"no empty plan after {most} rounds; the last: {plans[-1].actions}")


def changed(world: World, **changes: Any) -> World:
    fields = {name: getattr(world, name) for name in World.__dataclass_fields__}
    return World(**{**fields, **changes})


def loud(made: Plan) -> list[Action]:
    return [action for action in made.actions if not (isinstance(action, Update) and action.quiet)]


# ---------------------------------------------------------------- words


def text_of(plans: list[Plan]) -> str:
    """The first plan whole, the later ones by their actions."""
    first, *later = plans
    lines = [_line(action) for action in first.actions]
    lines += [f"unmet  {each.subject}: {each.why}" for each in first.unmet]
    lines += [f"waits  run {each.run}: {each.why}" for each in first.waits if each.instances]
    lines += [f"warn   {each}" for each in first.warnings]
    lines += [f"note   {each}" for each in first.notes]
    lines += [f"idle   {each.name}: {_at(each.at)} ({each.source})" for each in first.idle]
    lines += [f"next   {first.next_actor}", f"cost   ${first.hourly_before:.2f}/h → ${first.hourly_after:.2f}/h"]
    for number, made in enumerate(later, start=2):
        lines += [f"then   {number}: " + ("nothing" if not loud(made) else "")]
        lines += [f"         {_line(action)}" for action in loud(made)]
        lines += [f"         unmet  {each.subject}: {each.why}" for each in made.unmet]
    return "\n".join(lines).replace(": \n", ":\n")


def _at(at: int | None) -> str:
    return "stays" if at is None else f"in {at - NOW} s"


def _line(action: Action) -> str:
    match action:
        case Launch():
            offer, kind = action.offer, "spot" if action.offer.spot else "on-demand"
            price = "unpriced" if offer.price is None else f"${offer.price}"
            reserved = f" reserved for {action.reserved_for}" if action.reserved_for else ""
            what = f"{', '.join(action.names)} {offer.instance_type} {offer.place} {kind} {price}"
            return f"+ launch {what}{reserved}: {action.why}"
        case Resume():
            return f"+ resume {action.launch}: {action.why}"
        case Assign():
            gpus = f" gpus {action.gpus}" if any(action.gpus) else ""
            return f"→ assign {action.attempt} on {', '.join(action.instances)}{gpus}: {action.why}"
        case Stop():
            return f"- stop {action.attempt}{' at once' if action.abort else ''}: {action.why}"
        case Terminate():
            return f"- terminate {action.name}{' (inferred)' if action.inferred else ''}: {action.why}"
        case Update():
            changes = ", ".join(f"{name}={_value(value)}" for name, value in action.changes.items())
            mark = "." if action.quiet else "~"
            return f"{mark} {action.subject.split()[0]} {action.name}: {action.why}{f' [{changes}]' if changes else ''}"
        case Attach() | Detach():
            return f"? {action.kind} {action.name}: {action.why}"


def _value(value: object) -> str:
    if isinstance(value, int) and value > NOW // 2:
        return f"{value - NOW:+}s"
    return type(value).__name__ if isinstance(value, msgspec.Struct) else repr(value)
