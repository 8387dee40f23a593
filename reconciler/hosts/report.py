"""Parse a host's report strictly: what is not understood is an error, never a guess. Pure."""

from __future__ import annotations

import re
import signal
from collections.abc import Iterator

from msgspec.structs import replace

from reconciler.state.deadman import disarmed
from reconciler.state.status import MISSING_GPU, UNREADABLE
from reconciler.text.format import clean
from schemas.instance import HostReport, JobReport

_FIRST = "dstack-host 1"
_HOST = re.compile(r"host ([0-9a-f-]{1,64}) (\d{1,12}) (\d{1,12}) (\d{1,15}) ([0-9A-Za-z-]{1,64})\Z", re.ASCII)
_JOB, _NAME = r"job ([a-z0-9][a-z0-9-]{0,100})", r" ([a-z][a-z0-9-]{0,60}|-)\Z"
_RUNNING = re.compile(_JOB + r" running ([01-]) (\d{1,12}|-) (\d{1,9})" + _NAME, re.ASCII)
_OVER = re.compile(
    _JOB + r" (ended|lost) (\d{1,3}|-) ([a-z-]{1,20})(?::(\d{1,12}))? (\d{1,12}|-) (\d{1,12}|-) ([01])" + _NAME,
    re.ASCII,
)
_MISSING = re.compile(r"missing ([A-Za-z0-9-]{1,80})\Z", re.ASCII)
_RUNTIME = re.compile(r"runtime (docker|podman|none)\Z", re.ASCII)
_PULLING = re.compile(r"pulling ([a-z0-9][a-z0-9-]{0,100}) (\d{1,5}|-) (\d{1,5}|-)\Z", re.ASCII)
_WHY = re.compile(r"why ([a-z0-9][a-z0-9-]{0,100}) (.{0,2000})\Z")
_HELD = re.compile(r"held ([a-z0-9][a-z0-9-]{0,100}) (\d{1,5}|-)\Z", re.ASCII)
_FAILING = re.compile(
    r"failing ([a-z0-9][a-z0-9-]{0,100}) (\d{1,12}|-) ([a-z-]{1,20})(?::(\d{1,12}))? (\d{1,12})\Z", re.ASCII
)
_UNTIL = re.compile(r"until ([0-9-]{1,40})\Z", re.ASCII)
_TIMER = re.compile(r"timer (-?\d{1,10}|-) (ok|changed|missing)" + 3 * r" ([a-z-]{1,40})" + r"\Z", re.ASCII)
_FENCES = re.compile(r"fence[sd]((?: [0-9a-f.]{1,255})*)\Z", re.ASCII)
_AUTHORIZED = re.compile(r"authorized ([0-9a-f]{64}|-)\Z", re.ASCII)
_FOREIGN = re.compile(r"foreign (\d{1,4}) (\d{1,10}) (\d{1,9}|-)\Z", re.ASCII)
_BESIDE = (_MISSING, _FOREIGN, _RUNTIME, _PULLING, _WHY, _HELD, _UNTIL, _TIMER, _FENCES, _AUTHORIZED, _FAILING)
_CAUSES = {
    "stop": "stopped",
    "abort": "aborted",
    "never": "stopped before it started",
    "retired": "its instance was ended",
    "shutdown": "its machine was shut down",
    "probe": "its probe failed",
    "image": "no image",
    "container": "the container did not start",
    "barrier": "its start was never released",
    "lost": "its supervisor died without a result",
}


LONGEST = 100 * 366 * 86400  # seconds: whatever a host says to be further away than that is no time


class UnreadableReport(Exception):
    """The host answered something else than a status."""


def parse_report(answer: bytes, *, instance: str, now: int) -> HostReport:
    """`answer` is what `host_look.sh` prints. Raises `Unreadable`, and nothing else, whatever the bytes."""
    lines = answer.decode("utf-8", "replace").split("\n")
    if lines[0] != _FIRST or lines[-2:] != [".", ""]:
        raise UnreadableReport(f"{UNREADABLE}: {_shown(lines[0])}")
    host = _HOST.match(lines[1])
    if host is None:
        raise UnreadableReport(f"{UNREADABLE}: {_shown(lines[1])}")
    boot, uptime, clock, generation, machine = host.groups()
    facts = lines[2:-2]
    jobs = tuple(_jobs(facts))
    if len({one.id for one in jobs}) != len(jobs):
        raise UnreadableReport(f"{UNREADABLE}: it tells of one job twice")
    until = _until(next((found[1] for found in map(_UNTIL.match, facts) if found), "-"))
    timer = next((found.groups() for found in map(_TIMER.match, facts) if found), None)
    stopped = disarmed(*timer, uptime=int(uptime)) if timer else ""
    authorized = next((found[1] for found in map(_AUTHORIZED.match, facts) if found), "-")
    return HostReport(
        instance=instance,
        at=now,
        boot_id=boot,
        machine_id="" if machine == "-" else machine,
        clock=int(clock),
        uptime=int(uptime),
        generation=int(generation),
        runtime=next((found[1] for found in map(_RUNTIME.match, facts) if found), ""),
        jobs=jobs,
        self_destruct_at=None if until is None or stopped else now + until,
        disarmed=stopped,
        authorized="" if authorized == "-" else authorized,
        degraded=_degraded([found[1] for found in map(_MISSING.match, facts) if found]),
        foreign="; ".join(_foreign(*found.groups()) for found in map(_FOREIGN.match, facts) if found),
    )


def parse_fences(answer: bytes) -> tuple[str, ...]:
    """The generations that a host says it was told of, as `reconciler.state.fences` reads them."""
    lines = answer.decode("utf-8", "replace").split("\n")
    return next((tuple(found[1].split()) for found in map(_FENCES.match, lines) if found), ())


def _until(said: str) -> int | None:
    """Seconds; `None` for never, and for what nobody believes."""
    return min(int(said), LONGEST) if re.fullmatch(r"-?\d{1,12}", said, re.ASCII) and int(said) > -LONGEST else None


def parse_end(line: bytes, *, job: str) -> JobReport:
    """What a supervisor wrote at the end of a job, and put into the bucket. Raises `Unreadable`.

    After the first line comes what was reserved for it on the disk.
    """
    first = line.split(b"\n", 1)[0].decode("utf-8", "replace")
    return _job(f"job {job} {first} -")


def _degraded(missing: list[str]) -> str:
    return f"{MISSING_GPU}{', '.join(missing)}" if missing else ""


def _foreign(gpu: str, pid: str, used: str) -> str:
    """`used` in MiB, or `-` where the host does not tell."""
    memory = "" if used == "-" else f", {int(used) / 1024:.0f} GB" if int(used) >= 1024 else f", {int(used)} MB"
    return f"gpu {gpu}: pid {pid}{memory}"


def _jobs(facts: list[str]) -> Iterator[JobReport]:
    """What else is told of a job stands beside its line."""
    pulling = {found[1]: _progress(found[2], found[3]) for found in map(_PULLING.match, facts) if found}
    why = {found[1]: clean(found[2])[:400] for found in map(_WHY.match, facts) if found}
    held = {found[1]: found[2] for found in map(_HELD.match, facts) if found}
    failing = {found[1]: _failing(found) for found in map(_FAILING.match, facts) if found}
    for line in facts:
        if any(other.match(line) for other in _BESIDE):
            continue
        job = _job(line)
        if job.id in why:
            job = replace(job, reason=f"{job.reason}: {why[job.id]}" if job.reason else why[job.id])
        if job.phase == "running":
            job = replace(job, pulling=pulling.get(job.id, ""), failing=failing.get(job.id, ""))
            job = _held(job, port=_number(held[job.id])) if job.id in held else job
        yield job


def _held(job: JobReport, *, port: int | None) -> JobReport:
    """It has the port as soon as it is staged."""
    return replace(job, phase="held", staged=port is not None, port=port or 0, started_at=None)


def _failing(found: re.Match[str]) -> str:
    """`exit 3, restarted 4 times`."""
    _, code, cause, limit, times = found.groups()
    how = _words(cause, code=_number(code), limit=_number(limit or "-")) or "exit 0"
    return f"{how}, restarted {times} time{'' if times == '1' else 's'}"


def _progress(done: str, layers: str) -> str:
    if "-" in (done, layers) or layers == "0":
        return "pulling"
    return f"pulling, layer {layers}" if done == "0" else f"pulling, {done} of {layers} layers"


def _job(line: str) -> JobReport:
    if running := _RUNNING.match(line):
        job, ready, began, restarts, name = running.groups()
        return JobReport(
            id=job,
            phase="running",
            started_at=_number(began),
            ready=None if ready == "-" else ready == "1",
            reason="" if restarts == "0" else f"begun again {restarts} times",
            run=name.strip("-"),
        )
    if over := _OVER.match(line):
        job, phase, code, cause, limit, began, ended, noticed, name = over.groups()
        noticed_exit = noticed == "1" and cause == "exit" and code != "0"
        # Told to end because its machine goes: whatever it exited with, it had not finished.
        interrupted = noticed_exit or cause in ("retired", "shutdown")
        return JobReport(
            id=job,
            phase="ended" if phase == "ended" else "lost",
            exit_code=_number(code),
            reason="interrupted" if noticed_exit else _words(cause, code=_number(code), limit=_number(limit or "-")),
            interrupted=interrupted,
            started_at=_number(began),
            ended_at=_number(ended),
            run=name.strip("-"),
        )
    raise UnreadableReport(f"{UNREADABLE}: {_shown(line)}")


def _number(text: str) -> int | None:
    return None if text == "-" else int(text)


def _words(cause: str, *, code: int | None, limit: int | None) -> str:
    match cause:
        case "exit":
            return exit_words(code)
        case "max-duration":
            return f"max duration {_duration(limit or 0)}"
        case "inactivity":
            return f"inactive for {_duration(limit or 0)}"
        case "disk":
            return f"used more than {limit} MB of disk"
        case "oom":
            return f"out of memory: more than {limit} MB" if limit else "out of memory"
        case "python":
            version = f"{str(limit)[0]}.{str(limit)[1:]}"
            return f"no Python {version} on its host: install it or uv there, or name an image; the log says more"
    return _CAUSES.get(cause, cause)


def exit_words(code: int | None) -> str:
    """0 is "", 3 is "exit 3", 137 "killed by signal 9 (SIGKILL)": shells tell a signal as 128 + its number."""
    if not code:
        return ""
    try:
        return f"killed by signal {code - 128} ({signal.Signals(code - 128).name})"
    except ValueError:
        return f"exit {code}"


def _duration(seconds: int) -> str:
    for unit, size in (("d", 86400), ("h", 3600), ("m", 60)):
        if seconds and seconds % size == 0:
            return f"{seconds // size}{unit}"
    return f"{seconds}s"


def _shown(line: str) -> str:
    return ascii(line[:60])
