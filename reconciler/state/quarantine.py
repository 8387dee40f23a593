"""Stop placing work on hosts where jobs fail as soon as they start. Pure.

The rule. On each ready instance, count back from its newest job that ended: those that *fell* (failed within a minute
of their start, or never started) until one that *stood* (done, or ran for longer). Jobs that a person, a gang or an
interruption ended tell nothing. Three that count against the host quarantine it. A fall does not count

* where the run is at fault as far as anybody can tell: the same content fell on another host too, and stood nowhere;
* a second time for the same content, unless it stood on another host;
* when it was before a person trusted the host again (`pool resume`).

And no more than half of a pool (one at least) is quarantined so: what strikes more of them is not theirs.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection
from typing import Literal, NamedTuple

from msgspec.structs import replace

from reconciler.state.job_results import ASSUMED_LOST, RESULT_LOST
from schemas.base import Seconds
from schemas.instance import Instance
from schemas.run import Attempt, Job, Run
from schemas.state import State

AT_ONCE: Seconds = 60
ENOUGH = 3
# Other parts may quarantine too, each for its own reason: ours begins with this.
REASON = f"{ENOUGH} jobs in a row failed within a minute each"

Fate = Literal["fell", "stood", ""]


class Trial(NamedTuple):
    """A job that ended on a host. `content` is what ran, whatever the run was called."""

    at: int
    job: Job
    fate: Fate
    content: str
    run: str


def quarantine(state: State, *, now: int) -> State:
    """The state with those hosts quarantined that the rule finds; the same state where it finds none."""
    suspects = _suspects(state)
    if not suspects:
        return state
    trials = _trials(state, hosts=suspects.keys(), contents=None, now=now)
    rows = {id: row for id, one in suspects.items() if len(row := _in_a_row(one, trials)) >= ENOUGH}
    if not rows:
        return state
    contents = {trial.content for row in rows.values() for trial in row}
    alike = _trials(state, hosts=None, contents=contents, now=now)
    found = {id: falls for id, row in rows.items() if len(falls := _against(id, row, alike=alike)) >= ENOUGH}
    spared = _spared(state, found)
    if not found.keys() - spared:
        return state
    return replace(
        state,
        instances=tuple(
            replace(one, quarantined=_reason(found[one.id])) if one.id in found and one.id not in spared else one
            for one in state.instances
        ),
    )


def _suspects(state: State) -> dict[str, Instance]:
    """Most states have none: only hosts with enough failures are looked at closely."""
    failed: Counter[str] = Counter()
    for attempt in state.attempts:
        for job in attempt.jobs:
            if job.status in ("failed", "lost"):
                failed[job.instance] += 1
    if not failed or max(failed.values()) < ENOUGH:
        return {}
    return {
        one.id: one
        for one in state.instances
        if failed[one.id] >= ENOUGH and one.phase == "ready" and not one.quarantined
    }


def _trials(state: State, *, hosts: Collection[str] | None, contents: Collection[str] | None, now: int) -> list[Trial]:
    """What told something, on those hosts and of those contents (`None`: of all), the newest last."""
    runs = {run.id: run for run in state.runs}
    found = []
    for attempt in state.attempts:
        content = _content(runs.get(attempt.run), attempt)
        if contents is not None and content not in contents:
            continue
        for job in attempt.jobs:
            fate = _fate(job, attempt, now=now) if hosts is None or job.instance in hosts else ""
            if fate:
                run = runs[attempt.run].spec.name if attempt.run in runs else attempt.run
                at = now if job.ended_at is None else job.ended_at
                found.append(Trial(at=at, job=job, fate=fate, content=content, run=run))
    return sorted(found, key=lambda trial: (trial.at, trial.job.id))


def _content(run: Run | None, attempt: Attempt) -> str:
    return run.spec.hash or run.id if run else attempt.run


def _fate(job: Job, attempt: Attempt, *, now: int) -> Fate:
    began = job.started_at
    end = now if job.ended_at is None else job.ended_at
    if job.status == "done" or (began is not None and end - began > AT_ONCE):
        return "stood"
    ours = bool(attempt.stopping) or job.interrupted or job.exit_code == 0
    untold = job.reason in (RESULT_LOST, ASSUMED_LOST)
    return "fell" if job.status in ("failed", "lost") and not ours and not untold else ""


def _in_a_row(one: Instance, trials: list[Trial]) -> list[Trial]:
    """Its falls since it stood, or was trusted again, the newest first."""
    row = []
    for trial in reversed(trials):
        if trial.job.instance != one.id:
            continue
        if trial.fate == "stood" or trial.at <= (one.trusted_at or 0):
            break
        row.append(trial)
    return row


def _against(host: str, row: list[Trial], *, alike: list[Trial]) -> list[Trial]:
    """The falls that count against the host; no more than are enough."""
    elsewhere = [trial for trial in alike if trial.job.instance != host]
    fell = {trial.content for trial in elsewhere if trial.fate == "fell"}
    stood = {trial.content for trial in elsewhere if trial.fate == "stood"}
    counted: list[Trial] = []
    known: set[str] = set()
    for trial in row:
        if trial.content not in stood and (trial.content in fell or trial.content in known):
            continue
        known.add(trial.content)
        counted.append(trial)
    return counted[:ENOUGH]


def _spared(state: State, found: dict[str, list[Trial]]) -> set[str]:
    """Those of more than half of a pool whose third fall came last."""
    spared: set[str] = set()
    living = [one for one in state.instances if one.phase != "terminated"]
    for pool in {one.pool for one in living if one.id in found}:
        ours = [one for one in living if one.pool == pool]
        room = max(1, len(ours) // 2) - sum(one.quarantined.startswith(REASON) for one in ours)
        struck = sorted((found[one.id][0].at, one.id) for one in ours if one.id in found)
        spared |= {id for _, id in struck[max(0, room) :]}
    return spared


def _reason(falls: list[Trial]) -> str:
    said = (f"{each.run} ({each.job.reason or f'exit {each.job.exit_code}'})" for each in reversed(falls))
    return f"{REASON}: {', '.join(said)}"
