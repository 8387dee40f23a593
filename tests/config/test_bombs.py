"""Documents made to exhaust whoever reads them, at the real command: refused soon and cheaply, with a place."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.doubles.commands.command import DSTACK, Folder, Ran, folder_at

MIB = 1024  # of the kernel's kB
MORE_MEMORY = 60 * MIB  # than for ordinary documents
WHOLE = 600 * MIB  # for the largest that is read at all: 8 MiB, a million values
CPU_SECONDS = 10.0
# The command's peak is told by a small process between: a child begins with its parent's pages, and pytest has many.
MEASURED = """
import json, os, resource, subprocess, sys
done = subprocess.run(sys.argv[2:], stdin=subprocess.DEVNULL)
used = resource.getrusage(resource.RUSAGE_CHILDREN)
with open(sys.argv[1], "w") as file:
    json.dump([used.ru_utime + used.ru_stime, used.ru_maxrss], file)
sys.exit(done.returncode)
"""


def measured(folder: Folder, *args: str) -> tuple[Ran, float, int]:
    """How it ended, its CPU seconds, and its peak of memory in kB."""
    figures = folder.root.parent / "figures.json"
    done = subprocess.run(
        [sys.executable, "-S", "-c", MEASURED, str(figures), *DSTACK, *args],
        cwd=folder.root,
        env=folder.env,
        capture_output=True,
        timeout=90,
        check=False,
    )
    cpu, peak = json.loads(figures.read_text())
    return Ran(done.returncode, done.stdout.decode(), done.stderr.decode()), cpu, peak


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Folder]:
    return folder_at(tmp_path_factory.mktemp("bombs"))


@pytest.fixture(scope="module")
def ordinary(folder: Folder) -> int:
    ran, _, peak = measured(folder, "validate")
    assert ran.code == 0
    return peak


def huge(path: Path) -> None:
    """50 MB of pools that are all in order."""
    with path.open("w") as file:
        file.write("pools:\n")
        for number in range(50_000_000 // 80):
            file.write(f"  - {{name: p{number:08}, nodes: 0..4, resources: {{cpu: 2.., memory: 8GB..}}}}\n")


def just_read(path: Path) -> None:
    """As large as is read at all, and all of it wrong."""
    path.write_text("pools:\n" + "  - {nmae: a, nodes: x}\n" * 150_000)


def one_line(path: Path) -> None:
    path.write_text("pools: [" + "{name: a}, " * 700_000 + "]\n")


def nested(path: Path) -> None:
    path.write_text("pools: " + "[" * 1000 + "]" * 1000 + "\n")


def nested_blocks(path: Path) -> None:
    path.write_text("".join(f"{' ' * depth}a:\n" for depth in range(1000)))


def nested_for_ever(path: Path) -> None:
    path.write_text("pools: " + "{a: " * 1_000_000)


def laughs(path: Path) -> None:
    """Each level stands ten times for the one before."""
    levels = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    levels += [f"a{level}: &a{level} [{', '.join([f'*a{level - 1}'] * 10)}]" for level in range(1, 30)]
    path.write_text("\n".join(levels) + "\npools: *a29\n")


def merges(path: Path) -> None:
    """The same with `<<`."""
    levels = ["a0: &a0 {" + ", ".join(f"k{number}: x" for number in range(1000)) + "}"]
    for level in range(1, 40):
        levels.append(f"a{level}: &a{level} {{<<: [{', '.join([f'*a{level - 1}'] * 50)}], b{level}: 1}}")
    path.write_text("\n".join(levels) + "\n")


BOMBS: dict[Callable[[Path], None], tuple[str, int]] = {
    huge: ("is larger than 8 MiB: not read", MORE_MEMORY),
    just_read: ("nmae", WHOLE),
    one_line: ("more than 1,000,000 values", WHOLE),
    nested: ("nested deeper than 64 levels", MORE_MEMORY),
    nested_blocks: ("nested deeper than 64 levels", MORE_MEMORY),
    nested_for_ever: ("nested deeper than 64 levels", MORE_MEMORY),
    laughs: ("the aliases stand for more than 1,000,000 values", MORE_MEMORY),
    merges: ("the aliases stand for more than 1,000,000 values", MORE_MEMORY),
}
LINES = {
    ".dstack/bomb.yml": ("validate", "plan", "apply -y"),
    ".dstack/runs/bomb.yml": ("plan",),
    "bomb.yml": ("run . -f bomb.yml -y",),
}


CASES = [(bomb, place) for bomb in BOMBS for place in LINES if bomb not in (just_read, one_line)]
CASES += [(just_read, ".dstack/runs/bomb.yml"), (one_line, "bomb.yml")]  # these take seconds


@pytest.mark.parametrize(("bomb", "place"), CASES, ids=lambda case: getattr(case, "__name__", case))
def test_a_bomb_is_refused_soon_and_cheaply(
    folder: Folder, ordinary: int, bomb: Callable[[Path], None], place: str
) -> None:
    problem, more = BOMBS[bomb]
    path = folder.write(place, "")
    bomb(path)
    try:
        for line in LINES[place]:
            ran, cpu, peak = measured(folder, *line.split())
            assert ran.code == 1
            assert re.search(rf"{place}:\d+:\d+: ", ran.said)
            assert problem in ran.said
            assert "defect" not in ran.said
            assert len(ran.said) < 1_000_000
            assert cpu < CPU_SECONDS
            assert peak < ordinary + more, f"{peak // MIB} MiB"
        assert not (folder.root / ".dstack/state").exists()
    finally:
        path.unlink()
