"""What a host is told to start: a job's order, from memory, with the values that are never stored."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from reconciler.ports import Ports
from reconciler.runner import Order
from reconciler.secrets import SecretLacking
from schemas.desired import Desired
from schemas.instance import Instance
from schemas.run import Attempt, Job, Run, RunSpec
from schemas.state import State


class CannotOrder(Exception):
    """Something that the job needs is not to be had here. The message says what."""


def order_of(
    ports: Ports, state: State, *, run: Run | None, attempt: Attempt, job: Job, instances: Mapping[str, Instance]
) -> Order:
    """The order for one job of `run`; `instances` by id. Raises `CannotOrder`."""
    if run is None or state.applied is None:
        raise CannotOrder("its run is not in the state")
    host, spec = instances[job.instance], run.spec
    return Order(
        run=run.id,
        attempt=attempt.id,
        job=job.id,
        name=spec.name,
        generation=state.generation,
        number=attempt.number,
        replica=attempt.replica,
        rank=job.rank,
        nodes=len(attempt.jobs),
        peers=tuple(
            _address(instances[one.instance].address) for one in sorted(attempt.jobs, key=lambda one: one.rank)
        ),
        project=state.project,
        env=_environment(ports, spec, state.applied.desired),
        commands=spec.commands,
        setup=spec.setup,
        args=spec.args,
        files_bundle=bundle_of(ports, run),
        working_dir=spec.working_dir,
        max_duration=spec.max_duration,
        hold=host.hold if spec.hold is None else spec.hold,
        gpus=job.gpus,
        cpus=host.resources.cpus,
        disk=host.resources.disk,
        port=spec.port,
        probe=spec.probe,
        restart=spec.type == "service",
        artifacts=spec.artifacts,
    )


def _environment(ports: Ports, spec: RunSpec, desired: Desired) -> dict[str, str]:
    try:
        return dict(ports.resolve(spec, desired))
    except SecretLacking as error:
        raise CannotOrder(str(error)) from error


def bundle_of(ports: Ports, run: Run) -> Path | None:
    """The run's files here; `None` where it has none. Raises `CannotOrder`."""
    if not run.bundle:
        return None
    path = ports.blobs.path(run.bundle)
    if path is None:
        raise CannotOrder(f"its files ({run.bundle[:12]}) are not in the store")
    return path


def _address(address: str) -> str:
    """A folder is an instance on this machine."""
    return "127.0.0.1" if not address or "/" in address else address
