"""Derive the status of instances and runs that people read. Pure.

They are stored nowhere: an instance is busy because an attempt is live on it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Literal

from schemas.base import Seconds
from schemas.instance import Instance
from schemas.run import Attempt, Job
from schemas.state import State, Tick

# As a transport words a quarantine for the wrong key: when the pinned one is shown again, it is over.
UNTRUSTED = "host key"
# As a host's report words GPUs that it has no more; their UUIDs follow.
MISSING_GPU = "missing GPU "

# As an answer of a host is worded that nobody understands.
UNREADABLE = "unreadable status"

# Why a machine ended that was shut down from within: what ran there may have had a result.
UNHEARD = "another copy of this state may own it"  # begins what is said of a launch that the state has never heard of
POWERED_OFF = "it powered itself off"

# How the reason of a machine begins that its place took away (a spot kill); the place's own words follow.
INTERRUPTED = "interrupted"

# Failed checks of a host in a row after which it counts as unreachable.
LOOKS_ENOUGH = 3

OFTEN = 3600
"""Seconds between two applies, above which nobody would let a run wait for the next one."""

InstanceStatus = Literal["pending", "provisioning", "idle", "busy", "holding", "terminating", "terminated"]


def jobs_by_instance(attempts: Iterable[Attempt]) -> dict[str, list[Job]]:
    """instance id -> its jobs that are not settled yet (assigned, running, ended)."""
    found: dict[str, list[Job]] = {}
    for attempt in attempts:
        for job in attempt.jobs:
            if job.status in ("assigned", "running", "ended"):
                found.setdefault(job.instance, []).append(job)
    return found


def runs_on(state: State, instance: Instance) -> list[str]:
    """Names of the runs with a job on it that is not settled yet."""
    names = {run.id: run.spec.name for run in state.runs}
    mine = {job.id for job in jobs_by_instance(state.attempts).get(instance.id, ())}
    found = [one.run for one in state.attempts if any(job.id in mine for job in one.jobs)]
    return list(dict.fromkeys(names.get(run, run) for run in found))


def instance_status(instance: Instance, jobs: Mapping[str, list[Job]]) -> InstanceStatus:
    """`jobs` as `jobs_by_instance` gives it."""
    if instance.phase != "ready":
        return instance.phase
    mine = jobs.get(instance.id)
    if not mine:
        return "idle"
    return "holding" if all(job.status == "ended" for job in mine) else "busy"


def idle_since(instance: Instance) -> int | None:
    """Since when, provided that it is idle. Boot time is never idle time."""
    if instance.ready_at is None:
        return None
    return max(instance.ready_at, instance.last_job_end or 0)


def reap_at(instance: Instance, *, since: int | None) -> int | None:
    """When its idle duration is over, provided that it is idle `since` then; `None` is never."""
    if since is None or instance.idle_duration is None:
        return None
    return since + instance.idle_duration


def degraded(instance: Instance, *, allow_foreign: bool) -> str:
    """Why it may be given no work although it answers; "" if it may. What a lost GPU leaves of it, it is given."""
    whole = "" if lost_gpus(instance) else instance.degraded
    found = (whole, instance.disarmed, instance.unfit, "" if allow_foreign else instance.foreign)
    return "; ".join(why for why in found if why)


def lost_gpus(instance: Instance) -> frozenset[str]:
    """UUIDs of the GPUs that it had and its host has no more."""
    if not instance.degraded.startswith(MISSING_GPU):
        return frozenset()
    gpu = instance.resources.gpu
    return frozenset(instance.degraded.removeprefix(MISSING_GPU).split(", ")).intersection(gpu.uuids if gpu else ())


def alive(instance: Instance) -> bool:
    """It counts against maxima, caps and budgets: from its launch's writing to its proven end."""
    return instance.phase != "terminated"


def unheard(instance: Instance) -> bool:
    """Made by a launch of this project that no write of this state ever begun: it is not ours to end."""
    return instance.orphan.startswith(UNHEARD)


def here(instance: Instance) -> bool:
    """A share of this machine: its address is a folder."""
    return instance.host is None and "/" in instance.address


def bought(instance: Instance) -> bool:
    """A machine in a cloud: no declared server, and no share of this one."""
    return instance.host is None and not here(instance) and instance.phase != "pending"


def timers(state: State | None) -> list[Instance]:
    """The machines that power themselves off if nobody reaches them any more, the soonest first."""
    staying = (one for one in state.instances if one.phase not in ("terminating", "terminated")) if state else ()
    armed = [one for one in staying if timer_of(one) is not None]
    return sorted(armed, key=lambda one: (one.self_destruct_at or 0, one.name))


def timer_of(instance: Instance) -> int | None:
    """Unix time at which it powers itself off; `None` where it has no timer, or its backend says that it is broken."""
    return None if instance.unfit else instance.self_destruct_at


def unreachable(instance: Instance) -> bool:
    return instance.unreachable_since is not None


def regular_ticks(ticks: Iterable[Tick], *, now: int) -> list[Tick]:
    """The unattended ones that still come: not more than two are missing."""
    return [one for one in ticks if one.unattended and one.every and now < one.at + 3 * one.every]


def applies_often(ticks: Iterable[Tick], *, now: int, most: Seconds = OFTEN) -> bool:
    """Whether somebody will soon look again, whatever this apply leaves."""
    return any(one.every is not None and one.every <= most for one in regular_ticks(ticks, now=now))
