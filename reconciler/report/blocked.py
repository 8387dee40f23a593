"""Say what keeps a command waiting in vain, and which command helps. Pure.

"In vain" means that nothing which is waited for can happen by itself: a host does not answer, a backend cannot be
asked, a result cannot be stored.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from reconciler.state.record_outcomes import Failed, Outcome
from reconciler.state.status import alive, bought
from reconciler.text.durations import words
from reconciler.text.format import clean
from schemas.instance import Instance
from schemas.plan import Plan
from schemas.run import LIVE_JOB, RUN_ENDED, Attempt, Job
from schemas.state import State

# Seconds after which a host that can be reached should have ended a job that it was told to stop.
UNHEEDED = 120

Blocked = Callable[[State, Plan, Sequence[Outcome]], str]
"""(state, approved plan, outcomes of the last pass) -> why it is blocked, and what helps; "" while it is not."""


@dataclass(frozen=True, kw_only=True)
class Waiting:
    """What a command waits for the end of: ids of runs and of instances.

    `clock` gives Unix time in seconds. `removing`: the command is `pool remove`.
    """

    clock: Callable[[], int]
    runs: Collection[str] = ()
    instances: Collection[str] = ()
    removing: bool = False

    def why_blocked(self, state: State, plan: Plan, outcomes: Sequence[Outcome]) -> str:
        """As `Blocked`."""
        del plan
        ended = {run.id for run in state.runs if run.status in RUN_ENDED}
        wanted = frozenset(self.runs) - ended
        attempts = [one for one in state.attempts if one.live and one.run in wanted]
        leaving = [one for one in state.instances if one.id in self.instances and alive(one)]
        return _Blockers.of(state, outcomes, now=self.clock(), removing=self.removing).all_of(attempts, leaving)


def everything_blocked(clock: Callable[[], int]) -> Blocked:
    """For `destroy`: whatever still lives."""

    def why(state: State, plan: Plan, outcomes: Sequence[Outcome]) -> str:
        del plan
        leaving = [one for one in state.instances if alive(one)]
        busy = {job.instance for attempt in state.attempts if attempt.live for job in attempt.jobs}
        alone = [one for one in state.attempts if one.live and not busy & {each.id for each in leaving}]
        return _Blockers.of(state, outcomes, now=clock(), destroying=True).all_of(alone, leaving)

    return why


def work_blocked(
    clock: Callable[[], int], unsettled: Callable[[State, Plan], tuple[Sequence[Instance], Sequence[Attempt]]]
) -> Blocked:
    """For `apply`: what it set in motion."""

    def why(state: State, plan: Plan, outcomes: Sequence[Outcome]) -> str:
        instances, attempts = unsettled(state, plan)
        return _Blockers.of(state, outcomes, now=clock()).all_of(attempts, instances)

    return why


@dataclass(frozen=True, kw_only=True)
class _Blockers:
    state: State
    now: int
    hosts: Mapping[str, Instance]
    places: Mapping[str, str]
    """Place -> why it cannot be asked."""
    strangers: Collection[str]
    """Places that another account or machine answers for: nothing is done there."""
    failures: Mapping[str, str]
    """Subject of an effect -> why it failed in the last pass."""
    names: Mapping[str, str] = field(default_factory=dict)
    """Run id -> its name."""
    removing: bool = False
    destroying: bool = False

    @classmethod
    def of(
        cls,
        state: State,
        outcomes: Sequence[Outcome],
        *,
        now: int,
        removing: bool = False,
        destroying: bool = False,
    ) -> _Blockers:
        return cls(
            state=state,
            now=now,
            hosts={one.id: one for one in state.instances},
            places={place.name: place.error for place in state.places if place.error and not place.forgotten},
            strangers=frozenset(place.name for place in state.places if place.answered_by),
            failures={one.subject: one.why for one in outcomes if isinstance(one, Failed)},
            names={run.id: run.spec.name for run in state.runs},
            removing=removing,
            destroying=destroying,
        )

    def all_of(self, attempts: Sequence[Attempt], instances: Sequence[Instance]) -> str:
        """Each reason on a line, where everything that is waited for is blocked; else ""."""
        found = [*self._of_attempts(attempts), *(self._of_instance(one) for one in instances)]
        return clean_lines(found) if found and all(found) else ""

    def _of_attempts(self, attempts: Sequence[Attempt]) -> Iterator[str]:
        for attempt in attempts:
            for job in attempt.jobs:
                if job.status in LIVE_JOB:
                    yield self._of_job(attempt, job)

    def _of_job(self, attempt: Attempt, job: Job) -> str:
        run, host = self.names.get(attempt.run, attempt.run), self.hosts.get(job.instance)
        if host is None or host.phase == "terminated":
            return ""
        if host.phase == "terminating":
            return self._of_place(host)
        if host.place in self.strangers:
            return _unasked(host, self.places.get(host.place, ""))
        if host.unreachable_since is not None:
            return self._unreachable(attempt, host, run=run)
        if job.status == "ended":
            why = self.failures.get(f"job {job.id}")
            return _uncollected(run, host, why=why) if why else ""
        if host.place in self.places and host.host is not None:
            return self._unreachable(attempt, host, run=run)
        asked = attempt.stop_asked_at
        if attempt.stopping and asked is not None and self.now >= asked + UNHEEDED:
            return self._unheeded(attempt, host, run=run, since=self.now - asked)
        return ""

    def _unreachable(self, attempt: Attempt, host: Instance, *, run: str) -> str:
        why = host.unreachable_why or self.places.get(host.place, "") or "no answer"
        silent = f"{host.name} cannot be reached: {why}."
        if host.host is not None:
            return (
                f"{silent} It is an SSH host, so nothing but itself can end run {run}: that is done by the next "
                f"`dstack apply` after it answers. If it never will: dstack apply --assume-lost {run}"
            )
        if not bought(host):
            return f"{silent} Run {run} ends once it answers. To give it up: dstack pool remove {host.name} --force"
        if why := self.places.get(host.place, ""):
            return f"{silent} {_unasked(host, why)}"
        if host.forced or self.destroying:
            return ""  # this pass terminates it
        if not attempt.abort:
            return f"{silent} To terminate it, which ends run {run}: dstack stop {run} -x"
        if not host.prevent_destroy and not self._shared(attempt, host):
            return ""
        if host.prevent_destroy:
            return f"{silent} It has prevent_destroy. To give up its runs: dstack apply --assume-lost {run}"
        return f"{silent} Other runs are on it, too. To end them all: dstack pool remove {host.name} --force"

    def _shared(self, mine: Attempt, host: Instance) -> bool:
        others = (one for one in self.state.attempts if one.live and not one.abort and one.id != mine.id)
        return any(job.instance == host.id and job.status in LIVE_JOB for one in others for job in one.jobs)

    def _unheeded(self, attempt: Attempt, host: Instance, *, run: str, since: int) -> str:
        said = self.failures.get(f"job {attempt.jobs[0].id}", "")
        late = f"{host.name} did not end run {run} within {words(since)}{f': {said}' if said else ''}."
        if host.host is not None:
            return f"{late} Look there, or try again later: dstack stop {run}{' -x' if not attempt.abort else ''}"
        if not attempt.abort and not self.removing:
            return f"{late} To end it without its result: dstack stop {run} -x"
        return f"{late} To terminate {host.name}, with all that is on it: dstack pool remove {host.name} --force"

    def _of_instance(self, one: Instance) -> str:
        if one.phase in ("pending", "provisioning"):
            why = self.places.get(one.place, "")
            return f"{one.name} is not there yet, and {one.place} cannot be asked: {why}." if why else ""
        if one.phase == "terminating":
            return self._of_place(one)
        mine = [attempt for attempt in self.state.attempts if any(job.instance == one.id for job in attempt.jobs)]
        here = [
            self._of_job(attempt, job)
            for attempt in mine
            for job in attempt.jobs
            if job.instance == one.id and job.status in LIVE_JOB
        ]
        return clean_lines(here) if here and all(here) else ""

    def _of_place(self, one: Instance) -> str:
        why = self.places.get(one.place, "")
        return _unasked(one, why) if why else ""


def _unasked(one: Instance, why: str) -> str:
    """Its end is marked, and its backend cannot be told."""
    if one.host is not None:
        return (
            f"{one.name} cannot be reached: {why}. It is detached by the next `dstack apply` after it answers. "
            f"If it never will: dstack state forget {one.name}"
        )
    if not bought(one):
        return f"{one.name} cannot be terminated from here: {why}"
    return (
        f"{one.place} cannot be asked to terminate {one.name}: {why}. It keeps billing; the next `dstack apply` that "
        f"reaches {one.place} terminates it. If that never works again: dstack state forget {one.place}"
    )


def _uncollected(run: str, host: Instance, *, why: str) -> str:
    return (
        f"Run {run} finished, and its result on {host.name} cannot be stored: {why}. It stays there. "
        "Mend that, then: dstack apply"
    )


def clean_lines(lines: Sequence[str]) -> str:
    """Each different line once."""
    return "\n".join(dict.fromkeys(clean(line) for whole in lines for line in whole.split("\n")))
