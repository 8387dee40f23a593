"""This machine as a backend: an instance is a folder and the processes of its jobs.

The place is (machine, lineage, folder): the instances of another checkout's state are another
place's, and where HOME is another one, ours are not gone.
`Seen.address` is the folder that the runner works in. Its listing never lags, and an instance
that it does not have has ended.
"""

from __future__ import annotations

import os
import shutil
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Literal

import msgspec

from backends.base import BackendDefaults, Setting
from backends.errors import BackendError, NoCapacity
from backends.local import containers as local_containers
from backends.local import homes as local_homes
from backends.local import processes as local_processes
from backends.local import records as local_record
from backends.local.machine import LocalMachine, machine_id, measure
from backends.local.records import Ended, Record
from schemas.base import Price
from schemas.desired import BackendConfig
from schemas.instance import Seen
from schemas.launch import Ending, LaunchAnswer, Made, Request, TerminateAnswer, Unknown
from schemas.offer import Offer
from schemas.resources import Gpu, Need, Resources, Where

PLACE = "local"
INSTANCES = 4
_REMEMBERED = 86400  # an ended folder is listed for a day


def connect(config: BackendConfig, region: str, setting: Setting) -> LocalBackend:
    """`options: {instances: N}`; `region` is always ""."""
    return LocalBackend(name=config.name, shares=int(config.options.get("instances", INSTANCES)), setting=setting)


def base_folder(setting: Setting) -> Path:
    """Where the instances of all projects lie: the setting's `local_base`, else the user's state folder."""
    given = getattr(setting, "local_base", "")
    if given:
        return Path(given)
    state = Path(os.environ.get("XDG_STATE_HOME", ""))
    return (state if state.is_absolute() else Path.home() / ".local" / "state") / "dstack"


def foreign(setting: Setting) -> Sequence[Seen]:
    """Living instances of other lineages of this project whose state lay where ours does, or lies nowhere now.

    Something here means that a state is missing, not empty.
    """
    project = _project(setting)
    lineages = sorted(path for path in project.glob("*") if path.is_dir() and path.name != setting.lineage)
    found = [folder for lineage in lineages for folder in local_record.folders(lineage) if _orphaned(folder, setting)]
    return [seen for seen in map(_seen, found) if seen.phase == "running"]


def _project(setting: Setting) -> Path:
    if not local_record.is_id(setting.project):
        raise BackendError(f"not a project's id: {setting.project!r}")
    return base_folder(setting) / setting.project


def _orphaned(folder: Path, setting: Setting) -> bool:
    record = local_record.read(folder)
    address = record.state_address if record else ""
    return address == setting.state_address or (address.startswith("/") and not Path(address).exists())


def _seen(folder: Path) -> Seen:
    """An instance from its folder. One without a record is told by its folder's name alone."""
    record, ended = local_record.read(folder), local_record.read_ended(folder)
    phase: Literal["running", "ended"] = "ended" if ended or not folder.is_dir() else "running"
    if record is None:
        why = "its record is gone" if phase == "running" else "its folder is gone"
        return Seen(external_id=folder.name, id=folder.name, lineage=folder.parent.name, phase=phase, reason=why)
    return Seen(
        external_id=record.id,
        id=record.id,
        launch=record.launch,
        pool=record.pool,
        lineage=record.lineage,
        generation=record.generation,
        phase=phase,
        reason=ended.reason if ended else "",
        instance_type=record.instance_type,
        price=Price(0),
        resources=record.resources,
        address=str(folder / "host"),
        created_at=record.created_at,
        ended_at=ended.at if ended else None,
    )


MOST_SHARES = 1000
"""As many as the YAML may ask for."""


class LocalBackend(BackendDefaults):
    """A setting without a lineage lists the instances that a missing state would have (`foreign`)."""

    place = PLACE

    def __init__(
        self, *, name: str, shares: int, setting: Setting, measure: Callable[[Path], LocalMachine] = measure
    ) -> None:
        self._name = name
        self._shares = min(max(1, shares), MOST_SHARES)  # a state may say anything: each share is looked at
        self._setting = setting
        self._base = base_folder(setting)
        self._measure = cache(measure)

    def identity(self) -> str:
        return f"{machine_id(self._base)}/{self._setting.lineage} in {os.path.realpath(self._base)}"

    def offers(self, needs: Sequence[Need], where: Where) -> Sequence[Offer]:
        machine = self._measure(self._base)
        every = [share(machine, slot=slot, of=self._shares) for slot in range(self._shares)]
        free = Counter(kind for kind, _ in self._free_slots().values())
        return [self._offer(kind, _anonymous(resources), free[kind]) for kind, resources in dict(every).items()]

    def _offer(self, kind: str, resources: Resources, free: int) -> Offer:
        return Offer(
            backend=self._name,
            region="",
            instance_type=kind,
            resources=resources,
            price=Price(0),
            cloud=False,
            availability="available" if free else "no-capacity",
            free=free,
            source="this machine",
        )

    def _free_slots(self) -> dict[int, tuple[str, Resources]]:
        machine, used = self._measure(self._base), {record.slot for record in self._living()}
        return {slot: share(machine, slot=slot, of=self._shares) for slot in range(self._shares) if slot not in used}

    def _living(self) -> list[Record]:
        records = map(local_record.read, (folder for folder in self._folders() if _seen(folder).phase == "running"))
        return [record for record in records if record]

    def _folders(self) -> list[Path]:
        known = self._setting.project and self._setting.lineage
        return local_record.folders(self._lineage()) if known else []

    def _lineage(self) -> Path:
        if not local_record.is_id(self._setting.lineage):
            raise BackendError(f"not a lineage: {self._setting.lineage!r}")
        return _project(self._setting) / self._setting.lineage

    def prepare(self, request: Request, offer: Offer) -> Request:
        return request

    def launch(self, request: Request) -> Mapping[str, LaunchAnswer]:
        if not all(map(local_record.is_id, request.ids)):
            raise BackendError(f"not an instance's id among {', '.join(request.ids)}")
        lineage = self._lineage()
        with local_record.alone(lineage):
            local_homes.settle(lineage, address=self._setting.state_address)
            self._forget_old()
            self._forget_staged()
            new = [id for id in request.ids if not (lineage / id).exists()]
            free = [(slot, own) for slot, (kind, own) in self._free_slots().items() if kind == request.instance_type]
            if len(free) < len(new) == len(request.ids):
                raise NoCapacity(f"{len(free)} of this machine's {self._shares} instances are free", retry_after=30)
            for id, (slot, own) in zip(new, free, strict=False):
                local_record.make(lineage, self._record(request, id=id, slot=slot, resources=own))
        full = Unknown(why=f"none of this machine's {self._shares} instances is free", retry_after=30)
        return {id: Made(external_id=id) if (lineage / id).exists() else full for id in request.ids}

    def _record(self, request: Request, *, id: str, slot: int, resources: Resources) -> Record:
        return Record(
            id=id,
            launch=request.launch,
            pool=request.pool,
            name=request.names[request.ids.index(id)],
            project=self._setting.project,
            lineage=self._setting.lineage,
            generation=request.generation,
            instance_type=request.instance_type,
            state_address=self._setting.state_address,
            created_at=int(self._setting.now()),
            slot=slot,
            resources=resources,
        )

    def _forget_old(self) -> None:
        for folder in self._folders():
            ended = local_record.read_ended(folder)
            if ended and self._setting.now() - ended.at > _REMEMBERED:
                shutil.rmtree(folder, ignore_errors=True)

    def _forget_staged(self) -> None:
        """Alone, so that whoever staged it is dead."""
        for staged in self._lineage().glob(".*.*"):
            shutil.rmtree(staged, ignore_errors=True)

    def instances(self, ids: Sequence[str] | None = None) -> Sequence[Seen]:
        if not self._setting.lineage:
            return [seen for seen in foreign(self._setting) if ids is None or seen.external_id in ids]
        if ids is None:
            local_homes.settle(self._lineage(), address=self._setting.state_address)
            for folder in self._folders():
                local_record.follow(folder, address=self._setting.state_address)
            return [_seen(folder) for folder in self._folders()]
        return [_seen(self._lineage() / id) for id in ids if local_record.is_id(id)]

    def terminate(self, ids: Sequence[str], *, generation: int = 0) -> Mapping[str, TerminateAnswer]:
        """Returns when every process and container of their jobs is gone and their folders are emptied.

        Raises `BackendError` in a copy of the state's folder: what runs here is the original's.
        """
        local_homes.settle(self._lineage(), address=self._setting.state_address)
        for id in ids:
            folder = self._lineage() / id
            if local_record.is_id(id) and folder.is_dir() and not local_record.read_ended(folder):
                local_record.forbid_starts(folder)
                local_processes.kill_all(folder / "host")
                local_containers.remove_all(folder / "host")
                local_record.end(folder, Ended(at=int(self._setting.now())))
        return {id: Ending() for id in ids}

    def why_copied(self) -> str:
        if not self._setting.lineage:
            return ""
        address = self._setting.state_address
        other = local_homes.other_home(self._lineage(), address=address)
        return local_homes.copy_words(address, other=other) if other else ""


def share(machine: LocalMachine, *, slot: int, of: int) -> tuple[str, Resources]:
    """What instance number `slot` of `of` may use, and its type: `local`, or `local-2gpu` where it has more GPUs.

    CPUs are shared, not reserved. GPUs are dealt in their order, those of the machine's commonest model.
    """
    dealt = _deal(_alike(machine.gpus), slot=slot, of=of)
    fewest = len(_alike(machine.gpus)) // of
    resources = Resources(
        cpus=max(1, machine.cpus // of),
        memory=machine.memory // of,
        disk=machine.disk // of,
        cpu_arch=machine.cpu_arch,
        gpu=_together(dealt),
        runtime=machine.runtime,
    )
    return ("local" if len(dealt) == fewest else f"local-{len(dealt)}gpu"), resources


def _alike(gpus: Sequence[Gpu]) -> list[Gpu]:
    if not gpus:
        return []
    commonest, _ = Counter((gpu.name, gpu.memory) for gpu in gpus).most_common(1)[0]
    return [gpu for gpu in gpus if (gpu.name, gpu.memory) == commonest]


def _deal(gpus: Sequence[Gpu], *, slot: int, of: int) -> Sequence[Gpu]:
    each, more = divmod(len(gpus), of)
    start = slot * each + min(slot, more)
    return gpus[start : start + each + (slot < more)]


def _together(gpus: Sequence[Gpu]) -> Gpu | None:
    if not gpus:
        return None
    uuids = tuple(uuid for gpu in gpus for uuid in gpu.uuids)
    return msgspec.structs.replace(gpus[0], count=len(gpus), uuids=uuids)


def _anonymous(resources: Resources) -> Resources:
    """An offer is of any free slot: it names no GPU."""
    gpu = msgspec.structs.replace(resources.gpu, uuids=()) if resources.gpu else None
    return msgspec.structs.replace(resources, gpu=gpu)
