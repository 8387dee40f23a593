"""The real runner: sh programs that a transport carries to the host, one round trip each."""

from __future__ import annotations

import hashlib
import os
import re
import secrets
import tempfile
from collections.abc import Callable
from functools import cache, partial
from importlib.resources import files
from pathlib import Path

from msgspec.structs import replace

from backends.boot.spec import BASE
from reconciler.hosts.artifacts import choose, repack
from reconciler.hosts.report import UnreadableReport, parse_fences, parse_report
from reconciler.hosts.runner import (
    CollectedFiles,
    Fenced,
    FolderGone,
    HeldJob,
    HostError,
    JobOrder,
    Unreachable,
    Untrusted,
)
from reconciler.hosts.staging import stage
from reconciler.hosts.transport.base import Reply, Transport
from reconciler.state.fences import Fences, fences
from reconciler.state.status import bought, here
from reconciler.system.private_folder import make_private
from schemas.backend_type import BackendType
from schemas.instance import HostReport, Instance
from schemas.lease import Lease
from schemas.run import LARGEST_LOG

_JOB = re.compile(r"[a-z0-9][a-z0-9-]{0,100}\Z")
_STAGED = re.compile(rb"staged (\d{1,5})$", re.ASCII | re.MULTILINE)
_CHUNK = 1024 * 1024
LOOK = 30.0
# Bytes of an answer. A host that sends more is not believed: what it costs is bounded by what it may have to say.
_WORDS = 64 * 1024
_REPORT = 8 * 1024 * 1024  # ten thousand jobs, each with a line or two
_NAMES = 32 * 1024 * 1024  # a job's files
_WHOLE_LOG = 2 * LARGEST_LOG * 1024 * 1024  # the supervisor keeps what the run's `log_limit` says
_NO_BUNDLE = 77
_NOT_RESTORED = 81
_TRANSFERS = (
    3  # the run's files, an earlier attempt's artifacts, and one that a slow transfer of the other made too old
)
_FENCED = 75
_LONG = 1800.0  # a large transfer; everything else answers in seconds
_PUT = """umask 077; mkdir -p stage && cat > "stage/$1.part" && [ "$(wc -c < "stage/$1.part")" -eq "$2" ] \
&& mv -f "stage/$1.part" "stage/$1.files\""""
_FORGET = 'cd fence && for mark; do rm -rf "./$mark"; done'
# `log`, and behind it the end that is still being written, or was when its supervisor died.
_LOG = """cd "jobs/$1" 2>/dev/null && [ -f log ] || exit 0; """
_TAIL = 'set -- "$1" "$2" "$3" log; for part in tail.old tail.new; do [ ! -f $part ] || set -- "$@" $part; done; '
_NO_ROOM = "dstack: no room"
_WHOLE = f'[ ! -f no-room ] || echo "{_NO_ROOM}" >&2; {_TAIL}shift 3; exec cat "$@"'
_FULL = "the disk of its host was full: its log and its files may be cut"
_FAILURES = {
    74: "its disk takes nothing: it is full, or can only be read",
    76: "the instance is being ended",
    77: "the run's files did not arrive",
    79: "the job still runs",
    80: "it is not held back there any more",
    81: "the artifacts of the last attempt did not arrive",
}


class HostRunner:
    """`transport_for` gives the way to an instance's host; `scratch` holds what is collected, until it is taken.

    `patience`: seconds of the host's uptime after which a claim whose supervisor never began is a lost job.
    `shown` tells the pinned host key that an instance showed, "" where it has none. `seal` proves to us later that we
    told an instance (its id) of a generation; "" where the project's key is not at hand.
    """

    def __init__(
        self,
        transport_for: Callable[[Instance], Transport],
        *,
        scratch: Path | None = None,
        patience: int = 30,
        shown: Callable[[Instance], str] = lambda _: "",
        seal: Callable[[str, int], str] = lambda _id, _generation: "",
    ) -> None:
        self._transport_for = transport_for
        self._shown = shown
        self._seal = seal
        self._scratch = scratch
        self._patience = patience

    def look(self, instance: Instance, *, now: int, lease: Lease | None = None) -> HostReport:
        try:
            gpu = instance.resources.gpu
            deadman, gpus = BASE if bought(instance) else "-", gpu.uuids if gpu else ()
            args = (str(self._patience), deadman, _words(lease), str(now), *gpus)
            # A host that hangs must not hold up a whole tick.
            answer = _settled(self._send(instance, _program("look"), args, timeout=LOOK, most=_REPORT))
            report = parse_report(answer.out, instance=instance.id, now=now)
            told = self._fences(instance, answer)
            if lease is not None and told.unproven and bought(instance):  # whoever gets there at all has the key
                self._send(instance, _FORGET, told.unproven)
            claimed = max(told.claimed, report.generation if report.generation > told.told else 0)
            return replace(report, host_key=self._shown(instance), generation=told.told, claimed=claimed)
        except Unreachable as error:
            return HostReport(
                instance=instance.id,
                at=now,
                error=str(error),
                not_visible=error.ours,
                untrusted=isinstance(error, Untrusted),
                folder_gone=isinstance(error, FolderGone),
            )
        except (HostError, UnreadableReport) as error:
            return HostReport(instance=instance.id, at=now, error=str(error))

    def start(self, instance: Instance, order: JobOrder) -> HeldJob | None:
        _checked(order.job)
        token = secrets.token_hex(16)
        folder, bundle = stage(order), order.files_bundle
        digest = _digest(bundle) if bundle else ""
        args = (order.job, token, self._mark(instance, order.generation), digest, "restore" if order.restore else "")
        answer = self._send(instance, _program("start"), args, stdin=folder)
        for _ in range(_TRANSFERS):
            if answer.code == _NO_BUNDLE and bundle:
                self._put(instance, bundle, f"{order.job}.{token}")
            elif answer.code == _NOT_RESTORED and order.restore:
                self._put(instance, order.restore, f"{order.job}.{token}.restore")
            else:
                break
            answer = self._send(instance, _program("start"), args, stdin=folder)
        told = _STAGED.match(_settled(answer).out)
        if not order.hold_back:
            return None
        return HeldJob(staged=told is not None, port=int(told[1]) if told else 0)

    def release(self, instance: Instance, job: str, *, generation: int, port: int) -> None:
        self._ask(instance, "release", _checked(job), self._mark(instance, generation), str(port))

    def _put(self, instance: Instance, bundle: Path, name: str) -> None:
        """Beside the job's own folder, under a name of its own: whoever cleans the host leaves it alone."""
        size = str(bundle.stat().st_size)
        _settled(self._send(instance, _PUT, (name, size), stdin=bundle, timeout=_LONG))

    def stop(self, instance: Instance, job: str, *, generation: int, abort: bool, why: str) -> None:
        how = "abort" if abort else "stop"
        args = (_checked(job), self._mark(instance, generation), how)
        self._ask(instance, "stop", *args, stdin=why.encode("utf-8", "replace"))

    def collect(self, instance: Instance, job: str, *, artifacts: tuple[str, ...]) -> CollectedFiles:
        log = self._fresh(".log")
        try:
            args = (_checked(job), "", "")
            read = self._send(instance, _LOG + _WHOLE, args, to=log, timeout=_LONG, most=_WHOLE_LOG)
            full = (_FULL,) if _NO_ROOM in _settled(read).err else ()
            files, notes = self._collect_files(instance, job, artifacts) if artifacts else (None, ())
        except BaseException:
            log.unlink()
            raise
        return CollectedFiles(log=log, artifacts=files, notes=(*full, *notes))

    def _collect_files(
        self, instance: Instance, job: str, globs: tuple[str, ...]
    ) -> tuple[Path | None, tuple[str, ...]]:
        names, notes = choose(self._ask(instance, "files", "list", job, most=_NAMES).out, globs)
        if not names:
            return None, (*notes, "no file matches " + ", ".join(globs))
        raw, wanted, program = self._fresh(".tar"), b"\0".join(names) + b"\0", _program("files")
        try:
            answer = self._send(instance, program, ("pack", job), stdin=wanted, to=raw, timeout=_LONG, most=None)
            result, more = repack(raw, into=self._fresh(".tar.gz"))
        finally:
            raw.unlink()
        failed = (f"packing on the host: {answer.err[-200:]}",) if answer.code else ()
        return result, (*notes, *more, *failed)

    def _fresh(self, suffix: str) -> Path:
        """Hidden and `.tmp`: what a killed process leaves in the store's folder is swept there."""
        if self._scratch:
            make_private(self._scratch)
        descriptor, name = tempfile.mkstemp(prefix=".dstack-", suffix=f"{suffix}.tmp", dir=self._scratch)
        os.close(descriptor)
        return Path(name)

    def clean(self, instance: Instance, job: str, *, generation: int) -> None:
        self._ask(instance, "clean", _checked(job), self._mark(instance, generation))

    def read_log(self, instance: Instance, job: str, *, offset: int, to_the_end: bool = False) -> bytes:
        whole = _TAIL if to_the_end else 'set -- "$1" "$2" "$3" log; '
        program = _LOG + whole + 'from=$2 most=$3; shift 3; cat "$@" | tail -c +"$from" | head -c "$most"'
        args = (_checked(job), str(max(0, offset) + 1), str(_CHUNK))
        answer = self._send(instance, program, args, most=_CHUNK)
        return _settled(answer).out

    def admit(self, instance: Instance, keys: tuple[str, ...], *, generation: int) -> None:
        text = "".join(f"{key}\n" for key in keys)
        self._ask(instance, "admit", self._mark(instance, generation), stdin=text.encode())

    def arm(self, instance: Instance, *, generation: int, kind: BackendType) -> None:
        from backends.boot import cloud_init, container
        from backends.boot.spec import LOGIN, DeadMan

        if kind.boot == "container":
            program = container.arming(DeadMan(), kind=kind)
        else:
            program = cloud_init.arming(DeadMan(), user=instance.user or LOGIN, kind=kind)
        self._ask(instance, "arm", self._mark(instance, generation), stdin=program.encode())

    def retire(self, instance: Instance, *, generation: int) -> None:
        self._ask(instance, "retire", self._mark(instance, generation))

    def _ask(self, instance: Instance, name: str, *args: str, stdin: bytes = b"", most: int = _WORDS) -> Reply:
        return _settled(self._send(instance, _program(name), args, stdin=stdin, most=most))

    def _send(
        self,
        instance: Instance,
        program: str,
        args: tuple[str, ...],
        *,
        stdin: bytes | Path = b"",
        to: Path | None = None,
        timeout: float = 60.0,
        most: int | None = _WORDS,
    ) -> Reply:
        """`most` None: artifacts may be as large as they are."""
        way = self._transport_for(instance)
        answer = way.run(program, args=args, stdin=stdin, to=to, timeout=timeout, most=most)
        if answer.code == _FENCED:
            told = self._fences(instance, answer)
            newer = "the host has been told of a newer generation"
            claimed = told.claimed if told.claimed > told.told else 0
            raise Fenced(f"{newer}, {claimed or told.told}", claimed=claimed)
        return answer

    def _mark(self, instance: Instance, generation: int) -> str:
        seal = "" if here(instance) else self._seal(instance.id, generation)
        return f"{generation}.{seal}" if seal else str(generation)

    def _fences(self, instance: Instance, answer: Reply) -> Fences:
        seal = None if here(instance) else partial(self._seal, instance.id)
        return fences(parse_fences(answer.out), seal=seal)


@cache
def _program(name: str) -> str:
    """The rules that all share, then the program; each is readable alone in its file."""
    parts = ("rules", "containers", name)
    texts = (files("reconciler.hosts.programs").joinpath(f"{part}.sh").read_text("utf-8") for part in parts)
    return "\n".join(texts)


def _words(lease: Lease | None) -> str:
    """As the dead-man's program reads it; `-` leaves it as it is."""
    if lease is None:
        return "-"
    span, lifetime = ("-" if each is None else str(each) for each in (lease.span, lease.lifetime))
    return f"{lease.rule} {span} {lease.idle_for} {lease.hold} {lifetime}"


def _checked(job: str) -> str:
    if not _JOB.match(job):
        raise HostError(f"not a job id: {job!r}")
    return job


def _digest(bundle: Path) -> str:
    """A bundle's name is its digest; whatever is named otherwise is read."""
    name = bundle.name.partition(".")[0]
    if re.fullmatch("[0-9a-f]{64}", name):
        return name
    with bundle.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _settled(answer: Reply) -> Reply:
    if answer.code == 0:
        return answer
    said = "; ".join(answer.err.splitlines()[-3:])[-300:]
    raise HostError(_FAILURES.get(answer.code) or said or f"the host's program ended with {answer.code}")
