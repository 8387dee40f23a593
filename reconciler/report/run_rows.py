"""Rows of `dstack ps`. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from reconciler.state.blocks import share_of
from reconciler.state.services import replicas_serving
from schemas.base import Price
from schemas.instance import Instance
from schemas.run import RUN_ENDED, Attempt, Job, Run, RunSpec
from schemas.state import State


@dataclass(frozen=True, kw_only=True)
class RunRow:
    """A run with its latest attempts (one a replica) and the instances that they use or used: its share of them."""

    run: Run
    attempt: int
    reason: str
    exit_code: int | None
    instances: tuple[Instance, ...]
    attempts: tuple[Attempt, ...]
    observed_at: int | None = None
    """Unix time of the oldest last good listing of the places of its instances; None: it has none."""

    @property
    def status(self) -> str:
        """The run's, or `pulling` while an image of it is not there yet. Of a service also `restarting`, `not ready`
        and `being replaced`, of any of its replicas, the worst first."""
        if self.run.status in RUN_ENDED:
            return self.run.status
        if self.pulling:
            return "pulling"
        if self.run.status == "running" and self.troubles:
            return "restarting" if any(job.failing for _, job in self._running) else "not ready"
        return "being replaced" if self.replaced else self.run.status

    @property
    def _running(self) -> list[tuple[Attempt, Job]]:
        live = (one for one in self.attempts if one.live and not one.stopping)
        return [(one, job) for one in live for job in one.jobs if job.status == "running"]

    @property
    def replaced(self) -> bool:
        """A newer version of the service takes over from it, replica by replica."""
        return self.run.spec.type == "service" and bool(self.run.superseded_by) and bool(self.instances)

    @property
    def troubles(self) -> tuple[str, ...]:
        """What keeps replicas of a service from serving: `replica 0: exit 3, restarted 4 times`."""
        if self.run.spec.type != "service":
            return ()
        found = ((one, trouble(job, self.run.spec)) for one, job in self._running)
        return tuple(f"replica {one.replica}: {why}" for one, why in found if why)

    @property
    def pulling(self) -> str:
        jobs = (job for one in self.attempts for job in one.jobs)
        return next((job.pulling for job in jobs if job.pulling and job.status == "running"), "")

    @property
    def addresses(self) -> tuple[str, ...]:
        """Where the replicas of a service that serve are reached."""
        if self.run.spec.type != "service" or self.run.status in RUN_ENDED:
            return ()
        hosts = {one.id: one for one in self.instances}
        return tuple(one.url for one in replicas_serving(self.attempts, self.run.spec, hosts))

    @property
    def said(self) -> str:
        """Why it is as it is: its reason, or what goes on with its replicas."""
        parts = [self.reason or self.pulling, *self.troubles]
        parts += ["a newer version replaces it, replica by replica"] if self.replaced and not self.troubles else []
        return "; ".join(part for part in parts if part)

    @property
    def price(self) -> Price | None:
        """$/h of all its instances; `None` without any, or where one is not priced."""
        prices = [one.price for one in self.instances]
        known = [one for one in prices if one is not None]
        return sum(known, Price(0)) if known and len(known) == len(prices) else None


def explain_runs(state: State, *, everything: bool) -> tuple[RunRow, ...]:
    """Newest first: the unfinished ones; where there are none, the last one; or all of them."""
    runs = sorted(state.runs, key=lambda run: (run.submitted_at, run.id), reverse=True)
    chosen = runs if everything else [run for run in runs if run.status not in RUN_ENDED] or runs[:1]
    attempts = _latest_attempts(state.attempts)
    instances = {one.id: one for one in state.instances}
    rows = (_row(run, attempts=attempts.get(run.id, ()), instances=instances) for run in chosen)
    observed = {place.name: place.observed_at for place in state.places}
    return tuple(replace(row, observed_at=_oldest(row, observed)) for row in rows)


def _oldest(row: RunRow, observed: Mapping[str, int | None]) -> int | None:
    times = [observed.get(one.place) for one in row.instances]
    return min((at for at in times if at is not None), default=None)


def _latest_attempts(attempts: Iterable[Attempt]) -> dict[str, tuple[Attempt, ...]]:
    """run id -> its newest attempt of each replica, by replica."""
    newest: dict[tuple[str, int], Attempt] = {}
    for attempt in attempts:
        key = (attempt.run, attempt.replica)
        if key not in newest or newest[key].number < attempt.number:
            newest[key] = attempt
    found: dict[str, tuple[Attempt, ...]] = {}
    for (run, _), attempt in sorted(newest.items()):
        found[run] = (*found.get(run, ()), attempt)
    return found


def _row(run: Run, *, attempts: tuple[Attempt, ...], instances: dict[str, Instance]) -> RunRow:
    ended = run.status in RUN_ENDED
    used = {job.instance: job for one in attempts if ended or one.live for job in one.jobs}
    return RunRow(
        run=run,
        attempt=max((one.number for one in attempts), default=0),
        reason=_reason(run, attempts=attempts),
        exit_code=run.exit_code,
        instances=tuple(share_of(instances[key], job) for key, job in used.items() if key in instances),
        attempts=attempts,
    )


def trouble(job: Job, spec: RunSpec) -> str:
    """What keeps a running replica of a service from serving, as the list of instances says it."""
    if spec.type != "service" or job.status != "running":
        return ""
    return job.failing or ("its probe does not succeed" if spec.probe is not None and job.ready is False else "")


def _reason(run: Run, *, attempts: tuple[Attempt, ...]) -> str:
    if run.status == "terminating" and run.stop_reason:
        return run.stop_reason
    live = [job for one in attempts if one.live for job in one.jobs]
    if run.status == "running" and live and all(job.status == "ended" for job in live):
        return "finished: the next `dstack apply` collects its result"
    if run.reason or run.status not in ("failed", "aborted", "terminated"):
        return run.reason
    told = (job.reason for one in attempts for job in one.jobs if job.reason)
    return run.stop_reason or next(told, "")
