"""Find a run by its name (the newest of that name) or by its id."""

from __future__ import annotations

from difflib import get_close_matches

from reconciler.cli.exits import Fail
from schemas.run import Attempt, Job, Run
from schemas.state import State


def find_run(state: State, name: str) -> Run:
    """`Fail` with a suggestion where there is none."""
    found = [run for run in state.runs if name in (run.spec.name, run.id)]
    if found:  # of those of one second the last in the state, which gains runs at its end
        return max(reversed(found), key=lambda run: run.submitted_at)
    names = sorted({run.spec.name for run in state.runs})
    close = get_close_matches(name, names, n=1)
    hint = f"did you mean {close[0]}?" if close else "`dstack ps -a` lists them"
    raise Fail(f"no run {name}; {hint}")


def find_attempt(state: State, run: Run, *, replica: int, number: int) -> Attempt | None:
    """Of one replica: that number, or (0) the newest. `None` where none was begun."""
    mine = [one for one in state.attempts if one.run == run.id and one.replica == replica]
    if not mine:
        return None
    if not number:
        return max(mine, key=lambda one: one.number)
    for one in mine:
        if one.number == number:
            return one
    numbers = ", ".join(str(one.number) for one in sorted(mine, key=lambda one: one.number))
    raise Fail(f"run {run.spec.name}: no attempt {number}; there are {numbers}")


def find_job(attempt: Attempt, *, rank: int, run: Run) -> Job:
    for job in attempt.jobs:
        if job.rank == rank:
            return job
    raise Fail(f"run {run.spec.name}: no job {rank}; it has nodes 0..{len(attempt.jobs) - 1}")
