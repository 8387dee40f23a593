"""A declared server as a backend: its one instance is our claim on it. Nothing is installed but a folder.

Each server is a place of its own, so that one that hangs, refuses or changes is unknown alone. It
is pinned by its host key and machine id. A launch attaches: it writes the claim, atomically. An
end detaches: it ends our jobs and removes our folder. One machine has one owner, whoever asks.
"""

from __future__ import annotations

import re
import time
from collections.abc import Collection, Mapping, Sequence
from importlib.resources import files
from typing import NamedTuple, Protocol

import msgspec

from backends.base import BackendDefaults, Reach, Said, Setting
from backends.errors import BackendError, Behind, NoCapacity, TryLater
from backends.ssh.probe_facts import (
    Check,
    NotUnderstood,
    Probed,
    clock_check,
    gpu_checks,
    network_check,
    printable,
    read_probe,
)
from schemas.desired import BackendConfig
from schemas.host import Host, fingerprint
from schemas.instance import Seen
from schemas.launch import Ending, LaunchAnswer, Made, Request, TerminateAnswer
from schemas.offer import Offer
from schemas.resources import Need, Where

LOOK = 30.0
FENCED = 75
TAKEN = 80
STUBBORN = 81


class SshSetting(Setting, Protocol):
    @property
    def reach(self) -> Reach: ...


def connect(config: BackendConfig, region: str, setting: SshSetting) -> SshBackend:
    """`options: {host: …}`, a `Host`; `region` is the host's own."""
    return SshBackend(msgspec.convert(config.options["host"], Host), setting=setting)


class Looked(NamedTuple):
    """One look at a server: what it said, with every check, those of the way there first."""

    probed: Probed
    checks: tuple[Check, ...]
    address: str

    @property
    def bad(self) -> str:
        return "; ".join(f"{check.name}: {check.said}" for check in self.checks if check.ok is False)


def look(reach: Reach, host: Host, *, project: str, thorough: bool = False, now: float) -> Looked:
    """Every check of a server, in one round trip. Raises as `Reach.ask`; `BackendError` for what is not understood."""
    began = time.monotonic()
    args = (host.folder, project, str(host.disk_floor), str(int(host.gpu is not None)), str(int(thorough)), reach.who)
    said = reach.ask(host, _program("probe"), args=args, timeout=LOOK)
    try:
        probed = read_probe(said.out)
    except NotUnderstood as error:
        raise BackendError(str(error)) from error
    network, address = network_check(probed, host.network)
    took = round((time.monotonic() - began) * 1000)
    way = [Check(name=name, ok=True, took=round(seconds * 1000)) for name, seconds in said.steps.items()]
    key = Check(name="host-key", ok=True, said=fingerprint(said.host_key))
    shell = Check(name="shell", ok=True, took=took) if not said.noise.strip() else _noisy(said.noise)
    owner = _owner(probed, host=host, project=project)
    met = ", ".join(said.unsupported)
    config = [Check(name="ssh-config", ok=None, said=f"{met}: met there, and not supported")] if met else []
    checks = (*way, key, *config, shell, *gpu_checks(probed, host.gpu), clock_check(probed, now=now), network, owner)
    return Looked(probed, checks, host.internal_ip or address or host.hostname)


def _noisy(noise: bytes) -> Check:
    """It corrupts nothing of ours, but scp, rsync and git of whoever works there."""
    said = ascii(noise.decode("utf-8", "replace").strip()[:60])
    return Check(name="shell", ok=None, said=f"its rc files print {said} where there is no terminal: they should not")


def _owner(probed: Probed, *, host: Host, project: str) -> Check:
    claim = probed.claim
    if not claim or claim.get("project") == project:
        return Check(name="owner", ok=True, said="ours" if claim else "nobody")
    how = f"`dstack pool add-ssh {host.address} --take-over` takes it"
    return Check(name="owner", ok=False, said=f"{owner_words(probed)}; {how}")


def owner_words(probed: Probed) -> str:
    """Whose it is, since when, and when they last looked."""
    claim = probed.claim
    seen = f", last tick {_ago(probed.clock - probed.tick[0])} ago by {_ticker(probed.tick[1])}" if probed.tick else ""
    project, name, by = (claim.get(key, "?") for key in ("project", "name", "by"))
    return f"project {project} has it, attached as {name} by {by}{seen}"


def _ticker(who: str) -> str:
    return who if "@" in who else "its owner"


def _ago(seconds: int) -> str:
    for size, unit in ((86400, "d"), (3600, "h"), (60, "m")):
        if seconds >= size:
            return f"{seconds // size}{unit}"
    return f"{max(0, seconds)}s"


class SshBackend(BackendDefaults):
    """See `backends.base.Backend`. A declared server is no offer: the plan attaches it."""

    def __init__(self, host: Host, *, setting: SshSetting) -> None:
        self.place = host.place
        self._host = host
        self._setting = setting
        self._seen: Looked | None = None

    def identity(self) -> str:
        """Host key and machine id: another machine at the same address is another one, and so is another key."""
        probed = (self._seen or self._look()).probed
        return f"{fingerprint(self._host.host_key)} {probed.machine_id}"

    def offers(self, needs: Sequence[Need], where: Where) -> Sequence[Offer]:
        return ()

    def prepare(self, request: Request, offer: Offer) -> Request:
        return request

    def launch(self, request: Request) -> Mapping[str, LaunchAnswer]:
        if len(request.ids) != 1:
            raise NoCapacity(f"{self._host.name} is one server, {len(request.ids)} were asked for", retry_after=30)
        claim = "".join(f"{name} {_line(value)}\n" for name, value in self._claim(request).items())
        args = (self._host.folder, request.ids[0], str(request.generation))
        said = self._ask("attach", *args, stdin=claim.encode())
        if said.code == FENCED:
            raise self._behind(said)
        if said.code == TAKEN:
            told = (printable(line) for line in said.out.decode("utf-8", "replace").split("\n"))
            raise self._taken(dict(line[:200].split(" ", 1) for line in told if " " in line[:200]))
        if said.code == STUBBORN:
            raise TryLater(f"{self._host.name}: processes of earlier jobs do not end")
        if said.code:
            raise TryLater(f"our folder could not be made there: {said.err[-200:] or f'exit {said.code}'}")
        return {request.ids[0]: Made(external_id=request.ids[0])}

    def _claim(self, request: Request) -> dict[str, str]:
        return {
            "project": self._setting.project,
            "lineage": request.lineage,
            "id": request.ids[0],
            "launch": request.launch,
            "pool": request.pool,
            "name": request.names[0],
            "generation": str(request.generation),
            "place": self.place,
            "by": self._setting.reach.who,
            "at": str(int(self._setting.now())),
        }

    def _taken(self, claim: Mapping[str, str]) -> BackendError:
        name, project = claim.get("name", "?"), claim.get("project", "?")
        if project != self._setting.project:
            how = f"`dstack pool add-ssh {self._host.address} --take-over` takes it"
            return BackendError(f"project {project} has it, as {name}; {how}")
        if claim.get("lineage") != self._setting.lineage:
            return BackendError(f"another copy of this project's state has it, as {name}: it is left alone")
        return NoCapacity(f"it is attached already, as {name} ({claim.get('place', '?')})", retry_after=60)

    def instances(self, ids: Sequence[str] | None = None) -> Sequence[Seen]:
        """Our claim, if it is there. Where it is not and a check fails, that is an error: the host cannot be used."""
        seen = self._look()
        claim = seen.probed.claim
        ours = claim.get("project") == self._setting.project and claim.get("place") == self.place
        if not ours and seen.bad and self._setting.lineage and not seen.probed.ended:
            raise BackendError(f"checks failed: {seen.bad}")
        mine = [claim.get("id", "")] if ours else []
        found = [self._claimed(seen)] if ours and (ids is None or mine[0] in ids) else []
        told = [id for id in seen.probed.ended if ids is None or id in ids]
        # The very machine answers, and its claim is another's or nobody's: what was attached there is no more.
        gone = [id for id in ids or () if id not in (*mine, *told)]
        return [*found, *(_let_go(id) for id in told), *(_lost(id, seen) for id in gone)]

    def _claimed(self, seen: Looked) -> Seen:
        claim, host, probed = seen.probed.claim, self._host, seen.probed
        return Seen(
            external_id=claim.get("id", ""),
            id=claim.get("id", ""),
            launch=claim.get("launch", ""),
            pool=claim.get("pool", ""),
            lineage=claim.get("lineage", ""),
            generation=int(claim.get("generation", "0")),
            region=host.region,
            instance_type="ssh",
            price=host.price,
            resources=probed.resources,
            address=host.hostname,
            internal_ip=seen.address,
            network=host.network or f"pool {claim.get('pool', '')}",
            via=host.jumps[0].hostname if host.jumps else "",
            machine_id=probed.machine_id,
            created_at=int(claim["at"]) if "at" in claim else None,
            kernel=probed.kernel,
            unfit=seen.bad,
        )

    def terminate(self, ids: Sequence[str], *, generation: int = 0) -> Mapping[str, TerminateAnswer]:
        """Our jobs are ended, our folder is gone; the rest of the server is as it was."""
        for id in ids:
            said = self._ask("detach", self._host.folder, self._setting.project, id, str(generation or ""))
            if said.code == FENCED:
                raise self._behind(said)
            if said.code == STUBBORN:
                raise TryLater(f"{self._host.name}: processes of its jobs do not end")
            if said.code:
                raise TryLater(f"{self._host.name}: our folder could not be removed: {said.err[-200:]}")
        return {id: Ending() for id in ids}

    def _behind(self, said: Said) -> Behind:
        """The highest of `fenced 120 130.SEAL`: names of files that its jobs may have made."""
        told = re.findall(rb"[ ](\d{1,15})(?=[. \n])", said.out[:8192].partition(b"fenced")[2] + b"\n")
        highest = max(map(int, told), default=0)
        return Behind(f"{self._host.name} has been told of a newer generation, {highest}", claimed=highest)

    def confirm_ended(self, living: Collection[str]) -> None:
        """Whom the server told to have been let go, and who is not living, it need not tell again."""
        told = [id for id in self._seen.probed.ended if id not in living] if self._seen else []
        if told:
            self._ask("heard", self._host.folder, self._setting.project, *told)

    def _look(self) -> Looked:
        setting = self._setting
        self._seen = look(setting.reach, self._host, project=setting.project, now=setting.now())
        return self._seen

    def _ask(self, name: str, *args: str, stdin: bytes = b"") -> Said:
        program = f"{self._setting.reach.rules}\n{_program(name)}" if name in ("attach", "detach") else _program(name)
        return self._setting.reach.ask(self._host, program, args=args, stdin=stdin)


def take_over(reach: Reach, host: Host) -> None:
    """End whatever another project has there, and remove its folder. Raises as `Reach.ask`, or `TryLater`."""
    program = f"{reach.rules}\n{_program('detach')}"
    said = reach.ask(host, program, args=(host.folder, "*", "*"))
    if said.code:
        raise TryLater(f"{host.name}: what the other project has there could not be ended: {said.err[-200:]}")


def _let_go(id: str) -> Seen:
    return Seen(external_id=id, id=id, phase="ended", reason="detached")


def _lost(id: str, seen: Looked) -> Seen:
    """Its claim is not there any more."""
    whose = f"; {owner_words(seen.probed)}" if seen.probed.claim else ""
    return Seen(external_id=id, id=id, phase="ended", reason=f"its folder on the host is gone{whose}")


def _line(value: str) -> str:
    return " ".join(value.split())


def _program(name: str) -> str:
    return files("backends.ssh").joinpath(f"{name}.sh").read_text("utf-8")
