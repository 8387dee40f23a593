"""Build the order that starts a job on its host, with the values that are never stored."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from pathlib import Path

from reconciler.engine.ports import Ports
from reconciler.hosts.runner import ContainerSpec, JobOrder
from reconciler.secrets.errors import SecretLacking
from reconciler.state.blocks import share_of
from reconciler.state.job_results import last_artifacts
from reconciler.state.services import address_of, service_url, variable_of
from reconciler.store.blobs.folder import BlobError
from schemas.delivery import Delivery
from schemas.desired import Desired
from schemas.instance import Instance
from schemas.run import Attempt, Job, Run, RunSpec
from schemas.state import State

HOLD_BACK = 3600  # a node that nobody looks at and nobody releases gives its machine back after so long
WITHOUT_LIMIT = 999_999_999  # seconds, as `stop_duration: off` is told to a host


class CannotOrder(Exception):
    """Something that the job needs is not to be had here. The message says what."""


def order_of(
    ports: Ports, state: State, *, run: Run | None, attempt: Attempt, job: Job, instances: Mapping[str, Instance]
) -> JobOrder:
    """The order for one job of `run`; `instances` by id. Raises `CannotOrder`."""
    if run is None or state.applied is None:
        raise CannotOrder("its run is not in the state")
    host, spec = instances[job.instance], run.spec
    share = share_of(host, job).resources
    held = host.blocks != 1 and not _on_this_machine(state, host)  # on this machine CPUs are shared, not reserved
    nodes = sorted(attempt.jobs, key=lambda one: one.rank)
    before, left = last_artifacts(state, spec, attempt, rank=job.rank) or (None, None)
    return JobOrder(
        run=run.id,
        attempt=attempt.id,
        job=job.id,
        name=spec.name,
        generation=state.generation,
        number=attempt.number,
        replica=attempt.replica,
        rank=job.rank,
        nodes=len(attempt.jobs),
        peers=tuple(address_of(instances[one.instance]) for one in nodes),
        peer_slots=tuple(len(one.gpus) for one in nodes),
        hold_back=HOLD_BACK if len(nodes) > 1 else 0,
        master_port=attempt.port,
        project=state.project,
        env={**_environment(ports, spec, state.applied.desired), **_services(state, spec, host=host)},
        commands=spec.commands,
        setup=spec.setup,
        args=spec.args,
        files_bundle=bundle_of(ports, run),
        restore=_stored(ports, left.artifacts) if left else None,
        restored_from=before.number if before else 0,
        working_dir=spec.working_dir,
        max_duration=spec.max_duration,
        grace=WITHOUT_LIMIT if spec.stop_duration is None else spec.stop_duration,
        hold=host.hold if spec.hold is None else spec.hold,
        gpus=job.gpus,
        cpus=share.cpus,
        disk=share.disk,
        limit_cpus=share.cpus if held else 0,
        limit_memory=share.memory if held else 0,
        port=job.service_port or spec.port or None,
        log_limit=spec.log_limit * 1024 * 1024,
        probe=spec.probe,
        restart=spec.type == "service",
        artifacts=spec.artifacts,
        deliveries=_deliveries(ports, job.id, spec),
        inactivity=spec.inactivity or 0,
        box=_box(ports, state, state.applied.desired, spec, host=share_of(host, job)),
        python=spec.python,
        stay=spec.type == "dev-environment",
        keep_changes=spec.type == "dev-environment",
        disk_floor=_disk_floor(state.applied.desired, pool=host.pool),
    )


AROUND = 3 * 3600  # for what comes before a job's first second (its image, the other nodes), and for the sending


def _environment(ports: Ports, spec: RunSpec, desired: Desired) -> dict[str, str]:
    try:
        return dict(ports.resolve(spec, desired))
    except SecretLacking as error:
        raise CannotOrder(str(error)) from error


def _services(state: State, spec: RunSpec, *, host: Instance) -> dict[str, str]:
    """The addresses of the services that the run needs."""
    found = {}
    for name in spec.needs_services:
        url = service_url(state, name, pool=spec.pool, host=host)
        if not url:
            raise CannotOrder(f"service {name} is not ready")
        found[variable_of(name)] = url
    return found


def _on_this_machine(state: State, host: Instance) -> bool:
    return any(one.name == host.place and one.config.traits.kind == "machine" for one in state.places)


def _box(ports: Ports, state: State, applied: Desired, spec: RunSpec, *, host: Instance) -> ContainerSpec | None:
    """Where the instance is a share of its machine, the container may have no more than that."""
    if spec.container is None or host.resources.runtime == "image":
        return None  # where the instance is made of the image, the job is a process in it
    try:
        given = ports.fill(spec.container, applied)
        words = None if given.entrypoint is None else tuple(shlex.split(given.entrypoint))
    except (SecretLacking, ValueError) as error:
        raise CannotOrder(str(error)) from error
    shared = _on_this_machine(state, host) or host.blocks != 1
    return ContainerSpec(
        image=given.image,
        username=given.username,
        password=given.password,
        entrypoint=words,
        user=given.user,
        privileged=given.privileged,
        shm=spec.shm or 0,
        cpus=host.resources.cpus if shared else 0,
        memory=host.resources.memory if shared else 0,
        volumes=tuple((source, target) for source, _, target in (each.partition(":") for each in given.volumes)),
    )


def _disk_floor(desired: Desired, *, pool: str) -> int:
    return next((one.disk_floor for one in desired.pools if one.name == pool), 0)


def bundle_of(ports: Ports, run: Run) -> Path | None:
    """The run's files here; `None` where it has none. Raises `CannotOrder`."""
    if not run.bundle:
        return None
    path = ports.blobs.path(run.bundle)
    if path is None:
        raise CannotOrder(f"its files ({run.bundle[:12]}) are not in the store")
    return path


def _stored(ports: Ports, artifacts: str) -> Path | None:
    """What an earlier attempt left; `None` where it is not in the store any more. Raises `CannotOrder`."""
    store = ports.artifacts or ports.blobs
    try:
        return None if store.path(artifacts) is None else store.verified(artifacts)
    except BlobError as error:
        raise CannotOrder(f"the artifacts of its last attempt cannot be had: {error}") from error


def _deliveries(ports: Ports, job: str, spec: RunSpec) -> tuple[Delivery, ...]:
    """They hold for as long as the job may run, and no longer: its host sends the result when it ends, once."""
    if ports.deliver is None:
        return ()
    limits = (spec.max_duration, spec.stop_duration)
    return ports.deliver(job, None if None in limits else sum(one or 0 for one in limits) + AROUND)
