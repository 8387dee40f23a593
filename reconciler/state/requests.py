"""Write a person's request into the state: a run, instances, a stop, an override. Pure.

Each takes a state and returns the wished one, or raises `WishRefused`. A wish touches nothing but its subject.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

from msgspec.structs import replace

from reconciler.state.apply_config import why_destroyed
from reconciler.state.drains import INSTANCE, INSTANCE_DRAINED, POOL_DRAINED
from reconciler.state.relaunch.end_requests import leave_request, requested
from reconciler.state.services import older_versions
from reconciler.state.status import UNTRUSTED, alive, jobs_by_instance, runs_on
from schemas.base import Seconds
from schemas.desired import Desired
from schemas.instance import Instance
from schemas.pool import Pool
from schemas.run import RUN_ENDED, Attempt, Job, Run, RunStatus
from schemas.state import Applied, Override, Revision, State, Wish

Kind = Literal["drain", "pause"]


class WishRefused(Exception):
    """It cannot be done as asked. The message says why and what to do instead."""


# ---------------------------------------------------------------- what it rests on


def carry(state: State, *, pool: str, desired: Desired, by: str, now: int) -> State:
    """Make sure that `pool` is known before a run or instances are wished in it.

    `desired` is the caller's checkout. Before the first apply, the wish carries the pool with what it needs, under a
    revision with the digest "": no floor, no declared run. Afterwards a pool that only the checkout knows is refused.
    """
    mine = {each.name: each for each in desired.pools}
    if state.applied is None or not state.applied.revision.digest:
        if pool not in mine:
            raise WishRefused(_unknown_pool(pool, mine))
        return replace(state, applied=_carried(state.applied, pool=mine[pool], desired=desired, by=by, now=now))
    applied = {each.name for each in state.applied.desired.pools}
    if pool in applied:
        return state
    if pool in mine:
        raise WishRefused(f"pool {pool} is not applied yet: `dstack apply`")
    raise WishRefused(_unknown_pool(pool, applied))


def _carried(before: Applied | None, *, pool: Pool, desired: Desired, by: str, now: int) -> Applied:
    others = tuple(each for each in before.desired.pools if each.name != pool.name) if before else ()
    bare = replace(pool, nodes_min=0, nodes_target=None)
    scoped = replace(desired, pools=(*others, bare), runs=(), warnings=(), unsupported=())
    return Applied(revision=Revision(digest=""), by=by, at=now, desired=scoped)


def _unknown_pool(pool: str, known: Iterable[str]) -> str:
    names = ", ".join(sorted(known))
    return f"no pool {pool}; " + (f"there are {names}" if names else "declare one in .dstack, then `dstack apply`")


# ---------------------------------------------------------------- runs


def namesakes(state: State, name: str) -> tuple[Run, ...]:
    """Active runs of that name: whoever starts another is asked first."""
    return tuple(run for run in state.runs if run.spec.name == name and run.status not in RUN_ENDED)


def add_run(state: State, run: Run) -> State:
    """Always a new run. Its pool must be known (see `carry`); `origin` is `run`."""
    if any(each.id == run.id for each in state.runs):
        raise WishRefused(f"run id {run.id} exists already: try again")
    _refuse_unknown_pool(state, run.spec.pool, creates=True)
    return replace(state, runs=(*state.runs, replace(run, origin="run")))


def stop_run(state: State, name: str, *, by: str, now: int, abort: bool = False) -> State:
    """Mark an active run, by name or id, for its end: at once where it has no live attempt.

    `abort` skips the grace and the result; it may follow an ordinary stop.
    """
    older = older_versions(state, name)
    for old in older:
        if old.status != "terminating" or (abort and not old.abort):
            state = stop_run(state, old.id, by=by, now=now, abort=abort)
    run = _active(state, name, apart=frozenset(old.id for old in older))
    if run.status == "terminating" and (run.abort or not abort):
        if older:
            return state
        raise WishRefused(f"run {run.spec.name} is being stopped already" + ("" if run.abort else "; `-x` aborts it"))
    why = f"{'aborted' if abort else 'stopped'} by {by}"
    live = {each.id for each in state.attempts if each.run == run.id and each.live}
    status: RunStatus = "terminating" if live else "aborted" if abort else "terminated"
    ended = replace(run, status=status, stop_reason=why, reason=why, abort=abort, finished_at=None if live else now)
    runs = tuple(ended if each.id == run.id else each for each in state.runs)
    return replace(_stop_attempts(state, live, why=why, now=now, abort=abort), runs=runs)


def _active(state: State, name: str, *, apart: frozenset[str] = frozenset()) -> Run:
    active = (run for run in state.runs if run.status not in RUN_ENDED and run.id not in apart)
    found = [run for run in active if name in (run.id, run.spec.name)]
    if len(found) == 1:
        return found[0]
    if found:
        raise WishRefused(f"{len(found)} runs {name} are active; name one by its id: {_listed(r.id for r in found)}")
    if past := [run for run in state.runs if name in (run.id, run.spec.name)]:
        raise WishRefused(f"run {name} has ended already: {past[-1].status}")
    raise WishRefused(f"no run {name}: `dstack ps -a` lists them")


def _stop_attempts(state: State, ids: Iterable[str], *, why: str, now: int, abort: bool) -> State:
    chosen = frozenset(ids)
    if not chosen:
        return state
    attempts = tuple(
        _stopping(each, why=why, now=now, abort=abort) if each.id in chosen else each for each in state.attempts
    )
    return replace(state, attempts=attempts)


def _stopping(attempt: Attempt, *, why: str, now: int, abort: bool) -> Attempt:
    """The first reason stands: it is why the end was asked for. A later abort still hurries it."""
    return replace(
        attempt,
        stopping=attempt.stopping or why,
        stop_asked_at=attempt.stop_asked_at if attempt.stopping else now,
        abort=attempt.abort or abort,
    )


# ---------------------------------------------------------------- instances


def add_instances(state: State, wish: Wish) -> State:
    """Ask for `wish.count` instances in a known pool (see `carry`)."""
    if any(each.id == wish.id for each in state.wishes):
        raise WishRefused(f"wish id {wish.id} exists already: try again")
    if wish.count < 1:
        raise WishRefused(f"--count {wish.count}: at least 1")
    _refuse_unknown_pool(state, wish.pool, creates=True)
    if wish.name:
        _refuse_taken(state, wish)
    return replace(state, wishes=(*state.wishes, wish))


def _refuse_taken(state: State, wish: Wish) -> None:
    if wish.count > 1:
        raise WishRefused(f"--name {wish.name} names one instance; --count {wish.count} asks for more")
    living = any(each.name == wish.name and alive(each) for each in state.instances)
    asked = any(each.name == wish.name for each in state.wishes)
    if living or asked:
        raise WishRefused(f"an instance {wish.name} exists already, or is requested: take another --name")


def remove_instance(state: State, name: str, *, by: str, now: int, pool: str = "", force: bool = False) -> State:
    """Mark a living instance, by name or id, for its end.

    An idle one is `terminating` from here on. A busy one is refused with its runs listed, or, with
    `force`, drained: its attempts are marked as stopping, and it terminates when they have. Where its host
    does not answer, or it was forced before, it terminates at once: that proves that its jobs ended. Nothing is
    launched in its place for the request of `pool add` that asked for it. Where only an open request has that name or
    id, that is removed.
    """
    if (wish := requested(state, name, pool=pool)) is not None:
        state = replace(state, wishes=tuple(each for each in state.wishes if each.id != wish.id))
        if all(each.phase == "terminating" for each in _called(state, name) if alive(each)):
            return state
    instance = _living(state, name, pool=pool)
    if instance.host is not None:
        raise WishRefused(_declared(state, instance))
    if instance.prevent_destroy:
        raise WishRefused(f"{name} has prevent_destroy: take that out of pool {instance.pool} and `dstack apply` first")
    busy = jobs_by_instance(state.attempts).get(instance.id, [])
    attempts = [each for each in state.attempts if any(job in busy for job in each.jobs)]
    if attempts and not force:
        raise WishRefused(_busy(state, instance, attempts, busy))
    reason = f"removed by {by}"
    if attempts:
        state = _stop_attempts(state, (each.id for each in attempts), why=reason, now=now, abort=False)
        marked = replace(instance, draining=reason, forced=True)
    if not attempts or instance.unreachable_since is not None or instance.forced:
        marked = replace(instance, phase="terminating", terminate_at=now, reason=reason)
    state = replace(state, instances=tuple(marked if each.id == instance.id else each for each in state.instances))
    return leave_request(state, instance.id)


def _declared(state: State, instance: Instance) -> str:
    """A declared server is removed with its declaration; what it runs ends there and nowhere else."""
    address = instance.host.address if instance.host else ""
    out = f"{instance.name} is an SSH host of the configuration: take {address} out of `hosts` of pool {instance.pool}"
    runs = runs_on(state, instance)
    if instance.unreachable_since is None or not runs:
        return f"{out}, and `dstack apply`"
    lost = " ".join(f"--assume-lost {run}" for run in runs)
    return (
        f"{instance.name} does not answer, and nothing but itself can end {_listed(runs)}. "
        f"To give that up: dstack apply {lost}. To remove the host, take {address} out of `hosts` of pool "
        f"{instance.pool}"
    )


def _living(state: State, name: str, *, pool: str) -> Instance:
    found = [
        each for each in state.instances if alive(each) and name in (each.name, each.id) and pool in ("", each.pool)
    ]
    if not found:
        raise WishRefused(f"no instance {name}{f' in pool {pool}' if pool else ''}: `dstack pool ps` lists them")
    if len(found) > 1:
        raise WishRefused(f"{len(found)} instances are called {name}; name one by id: {_listed(i.id for i in found)}")
    if found[0].phase == "terminating":
        raise WishRefused(f"{name} is being ended already: {found[0].reason}")
    return found[0]


def _busy(state: State, instance: Instance, attempts: Iterable[Attempt], jobs: Iterable[Job]) -> str:
    names = {run.id: run.spec.name for run in state.runs}
    runs = _listed(dict.fromkeys(names.get(each.run, each.run) for each in attempts))
    if all(job.status == "ended" for job in jobs):
        return f"{instance.name} holds results not collected yet ({runs}): `dstack apply`, or --force"
    return f"{instance.name} is busy ({runs}): stop that first, or --force ends it"


# ---------------------------------------------------------------- overrides


def set_override(
    state: State,
    *,
    kind: Kind,
    subject: str,
    by: str,
    now: int,
    begins: int | None = None,
    until: int | None = None,
    stop_after: Seconds | None = None,
    reason: str = "",
) -> State:
    """`drain` a pool or an instance, `pause` a pool. It replaces one of the same subject."""
    subject = _subject(state, subject, instances=kind == "drain")
    if begins is not None and begins <= now:
        raise WishRefused(f"{kind} {subject}: its begin is already past")
    if until is not None and until <= max(now, begins or 0):
        raise WishRefused(f"{kind} {subject}: its end is already past" + (" when it begins" if until > now else ""))
    override = Override(
        kind=kind, subject=subject, by=by, at=now, begins=begins, until=until, stop_after=stop_after, reason=reason
    )
    kept = tuple(each for each in state.overrides if (each.kind, each.subject) != (kind, subject))
    return replace(state, overrides=(*kept, override))


def clear_override(state: State, *, subject: str, now: int, kinds: tuple[Kind, ...] = ("drain", "pause")) -> State:
    """`pool resume`: a pool's drain, pause and backoff end, or an instance's drain and quarantine."""
    name, subject = subject, _subject(state, subject, instances=True)
    kept = tuple(each for each in state.overrides if each.subject != subject or each.kind not in kinds)
    ill = [one for one in state.instances if one.quarantined and alive(one) and subject == INSTANCE + one.id]
    if untrusted := [one for one in ill if UNTRUSTED in one.quarantined]:
        way = f"`dstack pool add-ssh {untrusted[0].host.address}`" if untrusted[0].host else "its pin"
        raise WishRefused(f"{name} is quarantined for its host key, which no word of ours clears: {way} settles that")
    backoffs = tuple(each for each in state.backoffs if each.pool != subject)
    if len(kept) == len(state.overrides) and not ill and backoffs == state.backoffs:
        more = " nor quarantined" if subject.startswith(INSTANCE) else ""
        raise WishRefused(f"{name} is neither drained nor paused{more}: nothing to resume")
    return replace(
        state,
        overrides=kept,
        backoffs=backoffs,
        instances=tuple(_resumed(one, subject=subject, now=now) for one in state.instances),
    )


def _resumed(one: Instance, *, subject: str, now: int) -> Instance:
    """What failed on it before a person trusts it again is no longer held against it."""
    if subject == INSTANCE + one.id and alive(one):
        own = one.draining.startswith(INSTANCE_DRAINED)
        one = replace(one, quarantined="", trusted_at=now if one.quarantined else one.trusted_at)
    else:
        own = one.pool == subject and one.draining.startswith(POOL_DRAINED)
    return replace(one, draining="", drain_until=None) if own else one


def _subject(state: State, name: str, *, instances: bool) -> str:
    """What an override names: a pool by its name, else a living instance by its id."""
    if not instances or name in _known_pools(state) or not any(alive(one) for one in _called(state, name)):
        _refuse_unknown_pool(state, name, instances=instances)
        return name
    return INSTANCE + _living(state, name, pool="").id


def _called(state: State, name: str) -> Iterable[Instance]:
    return (one for one in state.instances if name in (one.name, one.id))


# ---------------------------------------------------------------- rules of all


def _refuse_unknown_pool(state: State, pool: str, *, instances: bool = False, creates: bool = False) -> None:
    if creates and (why := why_destroyed(state)):
        raise WishRefused(why)
    known = _known_pools(state)
    if pool not in known:
        why = _unknown_pool(pool, known)
        raise WishRefused(f"{why}; and no instance of that name: `dstack pool ps`" if instances else why)


def _known_pools(state: State) -> set[str]:
    """A pool is known while it is applied, and while it has living instances."""
    applied = [each.name for each in state.applied.desired.pools] if state.applied else []
    return {*applied, *(each.pool for each in state.instances if alive(each) and each.pool)}


def _listed(names: Iterable[str]) -> str:
    return ", ".join(names)
