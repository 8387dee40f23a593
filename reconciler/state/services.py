"""Where the services of a pool are reached. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import NamedTuple

from schemas.instance import Instance
from schemas.run import RUN_ENDED, Attempt, Job, Run, RunSpec
from schemas.state import State


class Serving(NamedTuple):
    """A replica that serves: `address` is where the other machines of its pool reach its host."""

    replica: int
    instance: Instance
    address: str
    port: int

    @property
    def url(self) -> str:
        return url_of(self.address, self.port)


def url_of(address: str, port: int) -> str:
    """`http://10.0.0.4:8000`."""
    return f"http://[{address}]:{port}" if ":" in address else f"http://{address}:{port}"


def variable_of(service: str) -> str:
    """`DSTACK_SERVICE_MY_DB_URL` for `my-db`."""
    return f"DSTACK_SERVICE_{service.upper().replace('-', '_')}_URL"


def address_of(one: Instance) -> str:
    """Where the other nodes reach it: in the network that they share, where it is named. A folder is this machine."""
    address = one.internal_ip or one.address
    return "127.0.0.1" if not address or "/" in address else address


def port_of(job: Job, spec: RunSpec) -> int:
    """Where a job's service listens; 0: it has no port."""
    return job.service_port or spec.port or 0


def replicas_serving(
    attempts: tuple[Attempt, ...], spec: RunSpec, instances: Mapping[str, Instance]
) -> Iterator[Serving]:
    """The replicas of a service that run, are not about to stop and pass their probe, where it has one."""
    for attempt in attempts:
        for job in attempt.jobs:
            one = instances.get(job.instance)
            passed = job.ready is True if spec.probe is not None else job.ready is not False
            if one is None or attempt.stopping or job.status != "running" or job.failing or not passed:
                continue
            if port := port_of(job, spec):
                yield Serving(attempt.replica, one, address_of(one), port)


def older_versions(state: State, name: str) -> list[Run]:
    """The records of a declared service of that name that its newest one replaces: they stop with it."""
    declared = (run for run in state.runs if run.spec.name == name and run.origin == "declared")
    versions = [run for run in declared if run.spec.type == "service" and run.status not in RUN_ENDED]
    hashes = {run.spec.hash for run in versions if not run.superseded_by}
    return [run for run in versions if run.superseded_by and run.superseded_by in hashes]


def service_url(state: State, name: str, *, pool: str, host: Instance) -> str:
    """A replica of that service of the pool, on `host` if there is one; "" where none serves."""
    instances = {one.id: one for one in state.instances}
    found: list[Serving] = []
    for run in state.runs:
        if (run.spec.name, run.spec.type, run.spec.pool) != (name, "service", pool) or run.status in RUN_ENDED:
            continue
        mine = tuple(each for each in state.attempts if each.run == run.id)
        found += replicas_serving(mine, run.spec, instances)
    near = next((one for one in found if (one.instance.id, one.instance.place) == (host.id, host.place)), None)
    if near is not None:
        return url_of("127.0.0.1", near.port)
    return found[0].url if found else ""
