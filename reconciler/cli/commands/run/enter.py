"""`dstack enter`: the program behind `ssh RUN`. Speaks SSH on its stdio."""

from __future__ import annotations

from pathlib import Path

from reconciler.cli.commands.run.door import door_to
from reconciler.cli.commands.run.find import find_attempt, find_job, find_run
from reconciler.cli.exits import Fail
from reconciler.cli.project import site, state_of
from reconciler.hosts.ssh.aliases import Aliases
from schemas.instance import Instance
from schemas.run import LIVE_JOB, RUN_ENDED, Job, Run
from schemas.state import State


def enter_run(name: str, *, project: Path, job: int, replica: int) -> int:
    """0 once the client has gone. Messages are stderr's: the client's user reads them."""
    from reconciler.hosts.session.ssh_server import serve_ssh

    where = site(project)
    state = state_of(where)
    run = find_run(state, name)
    found, host = living_job(state, run, rank=job, replica=replica)
    door = door_to(host, where=where)
    serve_ssh(door, found.id, key=Aliases(Path.home()).key, given=0, out=1)
    return 0


def living_job(state: State, run: Run, *, rank: int, replica: int) -> tuple[Job, Instance]:
    """The newest attempt's, and its host. `Fail` where it has not begun, or has ended."""
    if run.status in RUN_ENDED:
        raise Fail(f"run {run.spec.name} has ended: {run.status}; `dstack logs {run.spec.name}` shows its log")
    attempt = find_attempt(state, run, replica=replica, number=0)
    job = find_job(attempt, rank=rank, run=run) if attempt else None
    host = next((one for one in state.instances if job and one.id == job.instance), None)
    if job is None or host is None or job.status not in LIVE_JOB:
        raise Fail(f"run {run.spec.name} does not run: {run.status}{f' ({run.reason})' if run.reason else ''}")
    return job, host
