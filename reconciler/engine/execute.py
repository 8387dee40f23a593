"""Perform effects concurrently and report their outcomes. Decides nothing, remembers nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from backends.base import Backend
from backends.errors import BackendError, Behind, CallFailed, LackingHere, TryLater
from reconciler.engine.ask_leftovers import remove
from reconciler.engine.backend_answers import end_outcome, launch_outcome, refusal_of, subject
from reconciler.engine.job_spec import CannotOrder, order_of
from reconciler.engine.ports import Connections, Ports
from reconciler.hosts import runner
from reconciler.state import record_outcomes as fold
from reconciler.state.pending_effects import (
    Admit,
    Arm,
    Clean,
    Collect,
    Effect,
    End,
    Halt,
    Release,
    Remove,
    Save,
    Send,
    Start,
    keys_digest,
)
from reconciler.state.record_outcomes import Outcome
from reconciler.state.sending import PATIENCE, PUNCTUAL, account_of, type_at
from reconciler.store.blobs.folder import Blobs
from reconciler.system.concurrent import gather
from schemas.instance import Instance
from schemas.launch import LaunchAnswer, Unknown
from schemas.run import Attempt, Run
from schemas.state import State

LIMIT = 1800.0  # a large result takes that long
AWAITED = (Send, End, Remove, Collect, Save)
FRESH = 300.0  # an effect older than this (the machine slept) is left to the next tick


def execute(
    ports: Ports,
    state: State,
    todo: Sequence[Effect],
    *,
    connections: Connections,
    since: float,
    stop: Callable[[], bool],
    hasty: bool = False,
) -> Iterator[Outcome]:
    """Each effect's outcome as it comes, of a state just written; one that does not answer in time has none.

    `since` is when the state was current, by the boot-time clock: effects do not outlive it by much. Nothing
    is begun once `stop` is true, or a host said that another is ahead. `hasty`: what is told to hosts is waited for no
    longer than what is told to places; results that are brought home are.
    """
    hands = _Hands(
        ports=ports,
        state=state,
        connections=connections,
        stop=stop,
        expires=since + FRESH,
        runs={run.id: run for run in state.runs},
        attempts={attempt.id: attempt for attempt in state.attempts},
        instances={instance.id: instance for instance in state.instances},
    )
    tasks = {number: hands.task(effect) for number, effect in enumerate(todo)}
    told = {number for number, effect in enumerate(todo) if hasty and not isinstance(effect, AWAITED)}
    for number, outcome in gather(ports, tasks, limit=LIMIT, spare=told):
        if isinstance(outcome, Exception):
            outcome = hands.failed(todo[number], why=f"{type(outcome).__name__}: {outcome}")
        if isinstance(outcome, fold.Ahead):
            hands.ahead = True
        yield outcome


@dataclass(kw_only=True)
class _Hands:
    """`runs`, `attempts` and `instances` by id, as written."""

    ports: Ports
    state: State
    connections: Connections
    stop: Callable[[], bool]
    expires: float
    runs: dict[str, Run]
    attempts: dict[str, Attempt]
    instances: dict[str, Instance]
    ahead: bool = False
    not_before: dict[str, int] = field(default_factory=dict)
    """Unix time by account: what its vendor asked to wait for, since this wave began."""

    def task(self, effect: Effect) -> Callable[[], Outcome]:
        return lambda: self._guarded(effect)

    def _guarded(self, effect: Effect) -> Outcome:
        if why := self._not_now():
            return self._left(effect, why)
        try:
            return self._do(effect)
        except (runner.Fenced, Behind) as error:
            return self._fenced(effect, error)
        except (runner.HostError, CallFailed, CannotOrder) as error:
            return self.failed(
                effect, why=str(error), lasting=isinstance(error, BackendError) and not isinstance(error, LackingHere)
            )

    def failed(self, effect: Effect, *, why: str, lasting: bool = False) -> fold.Failed:
        """It was begun and came to nothing yet."""
        ending = isinstance(effect, End)
        return fold.Failed(
            subject=subject(effect),
            why=why,
            lasting=lasting and ending,
            not_ended=effect.external_ids if isinstance(effect, End) else (),
            uncollected=effect.job if isinstance(effect, Collect) else "",
        )

    def _not_now(self) -> str:
        if self.stop():
            return "not begun: stopped"
        if self.ahead:
            return "not begun: another reconciler is ahead"
        return "not begun: too much time has passed since it was written" if self.ports.clock() >= self.expires else ""

    def _left(self, effect: Effect, why: str) -> Outcome:
        """Nothing was done. A request that nobody else may send is over with that."""
        return not_sent(effect, why) or fold.Failed(subject=subject(effect), why=why)

    def _fenced(self, effect: Effect, error: runner.Fenced | Behind) -> Outcome:
        """What only a host says, whose jobs may have written it, stops nobody else: the store knows who is behind."""
        if error.claimed:
            state, _ = self.ports.store.read()
            if state is not None and state.generation < error.claimed:
                why = f"{error}; this project never had one: a job there may have written that"
                return fold.Failed(subject=subject(effect), why=why)
        return fold.Ahead(subject=subject(effect), why=str(error))

    def _do(self, effect: Effect) -> Outcome:
        match effect:
            case Send():
                return self._send(effect)
            case End():
                return self._end(effect)
            case Remove():
                return remove(self._backend(effect.place), effect, lineage=self.state.lineage)
            case Start():
                return self._start(effect)
            case Release():
                host = self._instance(effect.instance)
                self.ports.runner.release(host, effect.job, generation=self.state.generation, port=effect.port)
                return fold.Started(job=effect.job, boot_id=host.boot_id, at=self.ports.now())
            case Halt():
                self._stop(effect.instance, effect.job, abort=effect.abort, why=effect.why)
                return fold.Halted(job=effect.job)
            case Collect():
                log, artifacts, notes = self._collect(effect)
                return fold.ResultCollected(job=effect.job, log=log, artifacts=artifacts, notes=notes)
            case Save():
                at = self.ports.now()
                _, artifacts, _ = self._collect(effect)
                return fold.ArtifactsSaved(job=effect.job, artifacts=artifacts, at=at)
            case Admit():
                host = self._instance(effect.instance)
                self.ports.runner.admit(host, effect.keys, generation=self.state.generation)
                return fold.Admitted(instance=effect.instance, digest=keys_digest(effect.keys))
            case Arm():
                host = self._instance(effect.instance)
                kind = type_at(self.state, host.place)
                self.ports.runner.arm(host, generation=self.state.generation, kind=kind)
                return fold.Armed(instance=effect.instance, name=host.name, why=host.disarmed)
            case Clean():
                if effect.stray:
                    self._stop(effect.instance, effect.job, abort=True, why="nobody remembers it")
                host = self._instance(effect.instance)
                self.ports.runner.clean(host, effect.job, generation=self.state.generation)
                return fold.Cleaned(job=effect.job, instance=effect.instance)

    def _send(self, send: Send) -> Outcome:
        request = send.request
        if why := self._awaited(send):
            return self._left(send, why)
        if self.ports.now() < self.not_before.get(self._account(request.place), 0):
            return self._left(send, f"not sent: {request.place} takes no more requests now")
        if self.ports.now() >= send.request.not_after:
            return fold.Failed(subject=subject(send), why="not sent: its time is over")
        try:
            answers: Mapping[str, LaunchAnswer] = self._backend(request.place).launch(request)
        except TryLater as error:
            answers = dict.fromkeys(request.ids, Unknown(why=str(error), retry_after=error.retry_after))
        except LackingHere as error:
            # Nothing was sent: whoever has what is lacking sends the same request, until its time is over.
            return fold.Failed(subject=subject(send), why=str(error))
        except BackendError as error:
            answers = dict.fromkeys(request.ids, refusal_of(error))
        outcome = launch_outcome(send, answers, now=self.ports.now())
        if isinstance(outcome, fold.LaunchRefused | fold.Throttled) and outcome.not_before:
            account = self._account(request.place)
            self.not_before[account] = max(outcome.not_before, self.not_before.get(account, 0))
        return outcome

    def _awaited(self, send: Send) -> str:
        """Wait for the time of a scheduled request. Why it is not sent after all, or ""."""
        if send.at is None:
            return ""
        if (early := send.at - self.ports.now()) > 0:
            if early > PATIENCE:
                return f"not sent: its time is in {early} s"
            self.ports.sleep(early)
        if self.ports.now() > send.at + PUNCTUAL:
            return f"not sent: its time was {self.ports.now() - send.at} s ago"
        return self._not_now()

    def _account(self, place: str) -> str:
        return account_of(next(known for known in self.state.places if known.name == place))

    def _end(self, end: End) -> Outcome:
        given = self._backend(end.place).terminate(end.external_ids, generation=self.state.generation)
        return end_outcome(end, given)

    def _start(self, start: Start) -> Outcome:
        attempt = self.attempts[start.attempt]
        job = next(job for job in attempt.jobs if job.id == start.job)
        host = self._instance(start.instance)
        order = order_of(
            self.ports,
            self.state,
            run=self.runs.get(attempt.run),
            attempt=attempt,
            job=job,
            instances=self.instances,
        )
        try:
            held = self.ports.runner.start(host, order)
        except (runner.Fenced, runner.Unreachable):
            raise
        except runner.HostError as error:
            return fold.StartFailed(job=start.job, why=str(error), at=self.ports.now())
        if held is not None:
            return fold.Staged(job=start.job, boot_id=host.boot_id, staged=held.staged, port=held.port)
        return fold.Started(job=start.job, boot_id=host.boot_id, at=self.ports.now())

    def _stop(self, instance: str, job: str, *, abort: bool, why: str) -> None:
        host = self._instance(instance)
        self.ports.runner.stop(host, job, generation=self.state.generation, abort=abort, why=why)

    def _collect(self, collect: Collect | Save) -> tuple[str, str, tuple[str, ...]]:
        """The log and the artifacts as digests of blobs, and notes on what was left out."""
        host = self._instance(collect.instance)
        result = self.ports.runner.collect(host, collect.job, artifacts=collect.artifacts)
        try:
            log = self.ports.blobs.put(result.log)
            return log, self._artifacts.put(result.artifacts) if result.artifacts else "", result.notes
        finally:
            result.log.unlink(missing_ok=True)
            if result.artifacts:
                result.artifacts.unlink(missing_ok=True)

    @property
    def _artifacts(self) -> Blobs:
        return self.ports.artifacts or self.ports.blobs

    def _backend(self, place: str) -> Backend:
        return self.connections.to(next(known for known in self.state.places if known.name == place))

    def _instance(self, id: str) -> Instance:
        return self.instances[id]


def not_sent(effect: Effect, why: str = "not begun: stopped") -> fold.NotSent | None:
    """The outcome of a request that nobody else may send, where it was not begun."""
    if isinstance(effect, Send) and effect.once:
        return fold.NotSent(intent=effect.intent, subject=subject(effect), why=why)
    return None
