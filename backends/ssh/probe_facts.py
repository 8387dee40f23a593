"""Parse what `probe.sh` reports of a server: its resources, failed checks and owner. Pure."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable, Mapping

import msgspec

from backends.nvidia_smi import parse_gpus
from schemas.base import Seconds, Value
from schemas.resources import Gpu, GpuNeed, Resources, Span

_FACT = re.compile(r"fact ([a-z]{1,20}) (.{1,8000})\Z")
_CHECK = re.compile(r"check ([a-z-]{1,30}) (ok|bad|none) (\d{1,9}) ?(.{0,400})\Z")
_CLAIM = re.compile(r"claim ([a-z_]{1,20}) (.{0,200}).*\Z")
_NUMBERS = {"generation": 15, "at": 12}  # of a claim, and the most digits of each: as many as a host's fence may have
_ENDED = re.compile(r"ended ([a-z0-9-]{1,100})\Z")
_FOREIGN = re.compile(r"foreign (\d{1,4}) (\d{1,10}) (\d{1,9}|-)\Z")
_TICK = re.compile(r"tick (\d{1,12}) (.{0,100})\Z")


class NotUnderstood(Exception):
    """The server answered something else."""


class Check(Value, frozen=True, kw_only=True):
    """`ok` None: nothing to check, or something to know that is no fault. `took` in milliseconds."""

    name: str
    ok: bool | None
    took: int = 0
    said: str = ""


class Probed(Value, frozen=True, kw_only=True):
    """`claim` is whose it is, empty where nobody's; `tick` when its owner last looked, and who did.

    `ended` are ids of ours that were let go and not yet told. `foreign` are processes on its GPUs.
    All text is printable.
    """

    machine_id: str
    boot_id: str
    kernel: str
    clock: int
    resources: Resources
    checks: tuple[Check, ...]
    claim: Mapping[str, str] = {}
    tick: tuple[int, str] | None = None
    jobs: int = 0
    ended: tuple[str, ...] = ()
    runtime: str = ""
    login: str = ""
    addresses: tuple[str, ...] = ()
    foreign: str = ""

    @property
    def bad(self) -> str:
        """What failed, each by its name."""
        return "; ".join(f"{check.name}: {check.said}" for check in self.checks if check.ok is False)


def read_probe(out: bytes) -> Probed:
    """Raises `NotUnderstood`, whatever the bytes."""
    lines = [printable(line) for line in out.decode("utf-8", "replace").split("\n")]
    if lines[0] != "dstack-probe 1" or lines[-2:] != [".", ""]:
        raise NotUnderstood(f"the server's answer is not understood: {lines[0][:60]!a}")
    body = lines[1:-2]
    facts = {found[1]: found[2] for found in map(_FACT.match, body) if found}
    tick = next((found for found in map(_TICK.match, body) if found), None)
    return Probed(
        machine_id=facts.get("machine", ""),
        boot_id=facts.get("boot", ""),
        kernel=facts.get("kernel", ""),
        clock=_number(facts, "clock"),
        resources=Resources(
            cpus=_number(facts, "cpus"),
            memory=_number(facts, "memory"),
            disk=_number(facts, "disk"),
            cpu_arch="arm" if facts.get("arch", "") in ("aarch64", "arm64") else "x86",
            gpu=_gpus(line[4:] for line in body if line.startswith("gpu ")),
            runtime=facts.get("runtime", "none"),
        ),
        checks=tuple(_check(*found.groups()) for found in map(_CHECK.match, body) if found),
        claim=_claim({found[1]: found[2] for found in map(_CLAIM.match, body) if found}),
        tick=(int(tick[1]), tick[2]) if tick else None,
        jobs=_number(facts, "jobs"),
        ended=tuple(found[1] for found in map(_ENDED.match, body) if found),
        runtime=facts.get("runtime", ""),
        login=facts.get("login", ""),
        addresses=tuple(map(_address, facts.get("addresses", "").split())),
        foreign="; ".join(_foreign(*found.groups()) for found in map(_FOREIGN.match, body) if found),
    )


def printable(text: str) -> str:
    """One line of a server's words, as they may be shown: nothing that a terminal obeys."""
    return "".join(char if char.isprintable() else "?" for char in text)


def _address(text: str) -> str:
    try:
        return str(ipaddress.ip_address(text))
    except ValueError as error:
        raise NotUnderstood(f"the server's answer is not understood: address {text[:40]!a}") from error


def _claim(claim: Mapping[str, str]) -> Mapping[str, str]:
    """Whoever has that login can write there: its numbers are numbers, and no larger than a counter gets."""
    for name, digits in _NUMBERS.items():
        if name in claim and not re.fullmatch(rf"[0-9]{{1,{digits}}}", claim[name]):
            raise NotUnderstood(f"its claim is not understood: {name} {claim[name][:40]!a}")
    return claim


def _number(facts: Mapping[str, str], name: str) -> int:
    text = facts.get(name, "0").strip()
    if not re.fullmatch(r"[0-9]{1,15}", text):
        raise NotUnderstood(f"the server's answer is not understood: {name} {text[:40]!a}")
    return int(text)


def _check(name: str, how: str, took: str, said: str) -> Check:
    return Check(name=name, ok={"ok": True, "bad": False}.get(how), took=int(took) * 10, said=said)


def _foreign(gpu: str, pid: str, used: str) -> str:
    memory = "" if used == "-" else f", {int(used) / 1024:.0f} GB" if int(used) >= 1024 else f", {int(used)} MB"
    return f"gpu {gpu}: pid {pid}{memory}"


def _gpus(lines: Iterable[str]) -> Gpu | None:
    """Those of the commonest model, together."""
    from collections import Counter

    every = parse_gpus("\n".join(lines))
    if not every:
        return None
    (name, memory), _ = Counter((one.name, one.memory) for one in every).most_common(1)[0]
    alike = [one for one in every if (one.name, one.memory) == (name, memory)]
    uuids = tuple(uuid for one in alike for uuid in one.uuids)
    return msgspec.structs.replace(alike[0], count=len(alike), uuids=uuids)


def gpu_checks(probed: Probed, need: GpuNeed | None) -> tuple[Check, ...]:
    """Its own checks; that of its GPUs fails too where they are not what its pool asks for."""
    gpu = probed.resources.gpu
    if need is None or gpu is None or _suffices(gpu, need):
        return probed.checks
    names = ",".join(need.names).upper() or need.vendor or "gpu"
    said = f"{_span(need.count)}x{names} ({_span(need.memory, 1024)}GB) asked by its pool, it has "
    said += f"{gpu.count}x{gpu.name.upper()} ({round(gpu.memory / 1024)}GB)"
    bad = Check(name="gpus", ok=False, said=said.replace(" (GB)", ""))
    return (*(check for check in probed.checks if check.name != "gpus"), bad)


def _suffices(gpu: Gpu, need: GpuNeed) -> bool:
    return (
        need.count.holds(gpu.count)
        and (not need.names or gpu.name.lower() in need.names)
        and need.memory.holds(gpu.memory)
        and need.total_memory.holds(gpu.memory * gpu.count)
        and need.compute_capability.holds(gpu.compute_capability)
    )


def _span(span: Span, unit: int = 1) -> str:
    low, high = (None if end is None else f"{end / unit:g}" for end in (span.min, span.max))
    return (low or "") if low == high else f"{low or ''}..{high or ''}"


def clock_check(probed: Probed, *, now: float, skew: Seconds = 60) -> Check:
    """Off by more than a minute is said, and no reason to refuse it: nothing ends by its clock."""
    off = round(probed.clock - now)
    words = f"{abs(off)} s {'ahead of' if off > 0 else 'behind'} ours" if abs(off) > skew else ""
    return Check(name="clock", ok=None if words else True, said=words)


def network_check(probed: Probed, network: str) -> tuple[Check, str]:
    """The check, and the server's own address in `network`."""
    if not network:
        return Check(name="network", ok=True), ""
    wanted = ipaddress.ip_network(network, strict=False)
    for address in probed.addresses:
        if ipaddress.ip_address(address) in wanted:
            return Check(name="network", ok=True, said=address), address
    has = ", ".join(one for one in probed.addresses if not ipaddress.ip_address(one).is_loopback) or "none"
    return Check(name="network", ok=False, said=f"no address in {network}; it has {has}"), ""
