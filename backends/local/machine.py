"""Measure this machine: its id, and the CPUs, memory, disk and GPUs that this process may use."""

from __future__ import annotations

import hashlib
import os
import platform
import shutil
import subprocess
import uuid
from contextlib import suppress
from pathlib import Path

from backends.errors import TryLater
from backends.local.containers import runtime
from backends.local.records import make_private
from backends.nvidia_smi import parse_gpus
from schemas.base import Mib, Value
from schemas.resources import Gpu

_ROOT = Path("/")


class LocalMachine(Value, frozen=True, kw_only=True):
    """`memory` and `disk` in MiB; `gpus` one entry for each, with its UUID; `runtime` as in `Resources`."""

    cpus: int
    memory: Mib
    disk: Mib
    cpu_arch: str
    gpus: tuple[Gpu, ...] = ()
    runtime: str = ""


def machine_id(base: Path, *, root: Path = _ROOT) -> str:
    """The same as long as the system is installed; hashed, since the system's own is not for others to know."""
    for path in (root / "etc/machine-id", root / "var/lib/dbus/machine-id"):
        with suppress(OSError):
            if known := path.read_text("ascii", "replace").strip():
                return hashlib.sha256(f"dstack {known}".encode()).hexdigest()[:32]
    return _minted_id(base / "machine-id")


def _minted_id(path: Path) -> str:
    try:
        make_private(path.parent)
        fresh = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
        fresh.write_text(uuid.uuid4().hex, "ascii")
        with suppress(FileExistsError):
            os.link(fresh, path)
        fresh.unlink()
        return path.read_text("ascii").strip()
    except OSError as error:
        raise TryLater(f"this machine has no id: {error}") from error


def measure(folder: Path, *, root: Path = _ROOT) -> LocalMachine:
    """What is there now, within this process's affinity and cgroup. `folder` tells which disk."""
    existing = next(path for path in (folder, *folder.parents) if path.exists())
    return LocalMachine(
        cpus=_cpus(root),
        memory=_memory(root),
        disk=shutil.disk_usage(existing).free // 2**20,
        cpu_arch="arm" if platform.machine().lower() in ("aarch64", "arm64") else "x86",
        gpus=gpus(),
        runtime=runtime(os.environ),
    )


def _cpus(root: Path) -> int:
    allowed = len(os.sched_getaffinity(0))
    quota = _quota(root)
    return max(1, min(allowed, int(quota))) if quota else allowed


def _quota(root: Path) -> float | None:
    """CPUs that the cgroup grants, None without a limit: `cpu.max` (v2) or `cpu.cfs_*` (v1)."""
    with suppress(OSError, ValueError):
        limit, period = _cgroup(root, "cpu.max").split()
        return None if limit == "max" else int(limit) / int(period)
    with suppress(OSError, ValueError):
        limit, period = (_cgroup(root, f"cpu/cpu.cfs_{name}_us") for name in ("quota", "period"))
        return int(limit) / int(period) if int(limit) > 0 else None
    return None


def _cgroup(root: Path, name: str) -> str:
    return (root / "sys/fs/cgroup" / name).read_text("ascii").strip()


def _memory(root: Path) -> Mib:
    lines = (root / "proc/meminfo").read_text("ascii").splitlines()
    total = next(int(line.split()[1]) // 1024 for line in lines if line.startswith("MemTotal:"))
    for name in ("memory.max", "memory/memory.limit_in_bytes"):
        with suppress(OSError, ValueError):  # "max" is no number
            total = min(total, int(_cgroup(root, name)) // 2**20)
    return total


def gpus() -> tuple[Gpu, ...]:
    """As nvidia-smi lists them; none where there is no nvidia-smi. Raises `TryLater` where it fails."""
    program = shutil.which("nvidia-smi")
    if program is None:
        return ()
    query = [program, "--query-gpu=uuid,name,memory.total,compute_cap", "--format=csv,noheader,nounits"]
    try:
        answer = subprocess.run(query, capture_output=True, text=True, timeout=20, check=False)  # noqa: S603
    except (OSError, subprocess.TimeoutExpired) as error:
        raise TryLater(f"nvidia-smi does not answer: {error}") from error
    if answer.returncode == 6 or "No devices were found" in answer.stdout:
        return ()
    if answer.returncode:
        raise TryLater(f"nvidia-smi: {(answer.stdout + answer.stderr).strip()[:200]}")
    return parse_gpus(answer.stdout)
