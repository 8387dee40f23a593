"""Terminate machines that do not answer where a person ends them, or aborts the run on them. Pure.

The end of a machine proves that its jobs ended.
"""

from __future__ import annotations

from collections.abc import Iterator

from reconciler.planner.draft import Draft
from reconciler.state.status import LOOKS_ENOUGH
from schemas.instance import Instance
from schemas.plan import Terminate
from schemas.run import LIVE_JOB, Attempt, Run

# Seconds after `stop -x` from which any silence counts, also one that all hosts of a network share.
ABORTED = 60
# Seconds after a stop was asked for in which a host that can be reached does what it is told, with room to spare.
STUBBORN = 300
UNCOLLECTED = "ended"


def beyond_reach(draft: Draft, instance: Instance) -> bool:
    """Whether a busy instance terminates now because a person said so, although its jobs were not seen to end.

    True for `pool remove --force` and `destroy`, where its host does not answer, or did not end its jobs in time.
    """
    if not (draft.may.destroy_all or instance.forced):
        return False
    return instance.unreachable_since is not None or _stubborn(draft, instance)


def _stubborn(draft: Draft, instance: Instance) -> bool:
    """Its jobs were told to end long ago and still run, as far as anybody knows. A result is still collected."""
    asked = [
        attempt.stop_asked_at
        for attempts in draft.live.values()
        for attempt in attempts
        for job in attempt.jobs
        if job.instance == instance.id and job.status in LIVE_JOB and job.status != UNCOLLECTED
    ]
    return bool(asked) and all(at is not None and draft.now >= at + STUBBORN for at in asked)


def end_unanswering(draft: Draft) -> None:
    """Terminate the machines of aborted runs that do not answer; say why where one stays."""
    for run in list(draft.runs.values()):
        if not (run.abort and run.stop_reason and (draft.everything or draft.covers(id=run.id, pool=run.spec.pool))):
            continue
        for attempt in draft.live.get(run.id, ()):
            for instance in dict.fromkeys(_silent(draft, attempt)):
                _end(draft, run, instance)


def _silent(draft: Draft, attempt: Attempt) -> Iterator[Instance]:
    """Machines of the attempt that could be terminated and do not answer. A declared server is nobody's to end."""
    if not attempt.abort:
        return
    for job in attempt.jobs:
        one = draft.living.get(job.instance)
        if one is None or job.status not in LIVE_JOB or one.host is not None or one.phase == "terminating":
            continue
        if one.id in draft.leaving and any(_ends(action, one) for action in draft.actions):
            continue
        late = attempt.stop_asked_at is not None and draft.now >= attempt.stop_asked_at + ABORTED
        if one.unreachable_since is not None and (late or one.failed_looks >= LOOKS_ENOUGH):
            yield one


def _ends(action: object, one: Instance) -> bool:
    return isinstance(action, Terminate) and action.instance == one.id


def _end(draft: Draft, run: Run, one: Instance) -> None:
    if why := _kept(draft, one):
        draft.cannot(f"run {run.spec.name}", f"{one.name} does not answer, and `stop -x` does not terminate it: {why}")
        return
    why = f"{run.stop_reason}; {one.name} does not answer: {one.unreachable_why or 'no answer'}"
    draft.leaving[one.id] = why
    draft.actions.append(Terminate(instance=one.id, name=one.name, pool=one.pool, why=why))


def _kept(draft: Draft, one: Instance) -> str:
    """Why it is not terminated for an aborted run: others have something there, or a person protected it."""
    if one.place in draft.unknown:
        return f"{one.place} cannot be asked ({draft.unknown[one.place]})"
    if one.prevent_destroy:
        return f"it has prevent_destroy; `dstack apply --assume-lost {_names(draft, one)[0]}` gives up its runs"
    if others := _names(draft, one, aborted=False):
        return f"{', '.join(others)} is on it, too; `dstack pool remove {one.name} --force` ends both"
    return ""


def _names(draft: Draft, one: Instance, *, aborted: bool = True) -> list[str]:
    """Names of the runs with a live job on it; with `aborted` false, of those that nobody aborted."""
    found = [
        draft.runs[run].spec.name if run in draft.runs else run
        for run, attempts in draft.live.items()
        for attempt in attempts
        for job in attempt.jobs
        if job.instance == one.id and job.status in LIVE_JOB and (aborted or not attempt.abort)
    ]
    return list(dict.fromkeys(found))
