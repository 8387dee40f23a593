"""What tells one start of a host from the next: the kernel's boot id, or the id of a container's own start."""

from __future__ import annotations

import subprocess
from importlib.resources import files
from pathlib import Path

import pytest

KERNEL = Path("/proc/sys/kernel/random/boot_id").read_text()
OWN = "0b7e2a52-6f4f-4d0a-9a07-0d9f2f0f3c11\n"


@pytest.mark.parametrize(
    ("written", "boot"),
    [(None, KERNEL), (OWN, OWN), ("", KERNEL), ("no id\n", KERNEL), (f"{OWN.strip()}0\n", KERNEL)],
)
def test_a_containers_own_start_counts_instead_of_its_kernels(written: str | None, boot: str, tmp_path: Path) -> None:
    file = tmp_path / "incarnation"
    if written is not None:
        file.write_text(written)
    rules = files("reconciler.hosts.programs").joinpath("rules.sh").read_text("utf-8")
    assert rules.count("/run/dstack/incarnation") == 2
    program = f'{rules.replace("/run/dstack/incarnation", str(file))}\nread_boot\necho "$boot"\n'
    assert subprocess.run(["sh", "-c", program], capture_output=True, text=True, check=True).stdout == boot
