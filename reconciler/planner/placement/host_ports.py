"""Ports as a resource of a host: one process listens on a port, so one job has it. Pure.

Jobs run as processes or in containers with the network of their host: what listens on a port keeps every other job off
it. A service declares its `port`, any run its `ports`. The instances of a `local` place are shares of one machine.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection

from reconciler.planner.draft import Draft
from reconciler.state.master_port import master_port
from reconciler.state.sending import type_for
from schemas.instance import Instance
from schemas.offer import Offer
from schemas.run import RunSpec

AUTO = range(30000, 32768)
"""Ports for `port: auto`: above those of masters, below those that systems give out by themselves."""


def ports_of(spec: RunSpec) -> tuple[int, ...]:
    """The ports that a job of the run listens on, as declared; none for `port: auto`, which is chosen for each job."""
    if not spec.port and not spec.ports:
        return ()
    declared = {int(each.rpartition(":")[2]) for each in spec.ports}
    return tuple(sorted(declared | ({spec.port} if spec.port else set())))


def listeners(draft: Draft, machine: Instance | Offer) -> dict[int, str]:
    """Port -> the run that has it, on the host of an instance, or on the machine that an offer is a share of."""
    return _known(draft).setdefault(host_of(draft, machine), {})


def host_of(draft: Draft, machine: Instance | Offer) -> str:
    """What has its ports to itself: the instance, or the machine that it is a share of; "" for a new machine."""
    if type_for(draft.backends, machine.backend).kind == "machine":
        return machine.place
    return machine.id if isinstance(machine, Instance) else ""


def clash(draft: Draft, machine: Instance | Offer, ports: tuple[int, ...], *, ending: Collection[str] = ()) -> str:
    """Why a job with these ports cannot be on that host: `port 8080 is used by run web`; "" where it can.

    `ending`: names of runs whose jobs there have ended by then.
    """
    if not ports or not host_of(draft, machine):
        return ""
    known = listeners(draft, machine)
    taken = ((port, known[port]) for port in ports if port in known)
    return next((f"port {port} is used by run {run}" for port, run in taken if run not in ending), "")


def take_ports(draft: Draft, machine: Instance | Offer, ports: tuple[int, ...], *, run: str) -> None:
    """The run has them from now on in this plan."""
    if ports and host_of(draft, machine):
        listeners(draft, machine).update(dict.fromkeys(ports, run))


def propose_master_port(draft: Draft, attempt: str) -> int:
    """Where the nodes of an attempt find their master: no other attempt of this plan has it."""
    port = master_port(attempt, taken=draft.ports)
    draft.ports.add(port)
    return port


def free_port(draft: Draft, one: Instance, *, attempt: str) -> int:
    """A port of the host for a service with `port: auto`; another one for each attempt, where there are others."""
    first = int(hashlib.sha256(attempt.encode()).hexdigest()[:8], 16) % len(AUTO)
    known = listeners(draft, one)
    ports = (AUTO[(first + step) % len(AUTO)] for step in range(len(AUTO)))
    return next((port for port in ports if port not in known), AUTO[first])


def _known(draft: Draft) -> dict[str, dict[int, str]]:
    if draft.listeners is None:
        draft.listeners = {}
        for run in draft.runs.values():
            for attempt in draft.live.get(run.id, ()):
                for job in attempt.jobs:
                    one = draft.living.get(job.instance)
                    if one is None or job.status in ("done", "failed", "terminated", "aborted", "lost"):
                        continue
                    own = {*ports_of(run.spec), *([job.service_port] if job.service_port else [])}
                    draft.listeners.setdefault(host_of(draft, one), {}).update(dict.fromkeys(own, run.spec.name))
    return draft.listeners
