"""One seed replays one failure: a defect is planted in a copy of the tree, found by the machine, and found again."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
# A pool may grow above its maximum.
DEFECT = (
    "reconciler/planner/placement/limits.py",
    "if pool.nodes_max is None or count + held + n <= pool.nodes_max:",
    "if True:",
)


@pytest.fixture
def broken(tmp_path: Path) -> Path:
    for name in ("schemas", "backends", "reconciler", "tests"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__", "__snapshots__"))
    shutil.copy2(ROOT / "pyproject.toml", tmp_path)
    name, text, instead = DEFECT
    source = (tmp_path / name).read_text()
    assert source.count(text) == 1
    (tmp_path / name).write_text(source.replace(text, instead))
    return tmp_path


def failure(tree: Path, *, seed: int) -> list[str]:
    """The law that was broken, and each step that led there, as a person reads them."""
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "pytest",
            "-q",
            "-n",
            "0",
            "-p",
            "no:cacheprovider",
            f"--hypothesis-seed={seed}",
            "tests/engine/test_machine.py",
        ],
        cwd=tree,
        env={**os.environ, "PYTHONPATH": str(tree), "HYPOTHESIS_PROFILE": "first"},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 1, done.stdout + done.stderr
    told = [line for line in done.stdout.splitlines() if line.startswith("E  ")]
    return [line for line in told if "scratch=" not in line]  # a folder of its own each time


def test_a_seed_replays_its_failure_and_no_other(broken: Path) -> None:
    first = failure(broken, seed=7)
    assert any("in pool a, its maximum is" in line for line in first), first
    assert any("state.begin(" in line for line in first), first
    assert failure(broken, seed=7) == first
    assert failure(broken, seed=8) != first


def test_make_chaos_prints_the_seed_that_it_uses() -> None:
    for given in ([], ["SEED=77"]):
        told = subprocess.run(["make", "-n", "chaos", *given], cwd=ROOT, capture_output=True, text=True, check=True)
        seed = told.stdout.split("make chaos SEED=")[1].split('"')[0]
        assert f"--hypothesis-seed={seed} " in told.stdout
        assert f"--seed {seed}\n" in told.stdout
        assert not given or f"SEED={seed}" in given
