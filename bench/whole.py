"""A whole `dstack plan` of a large project: CPU seconds and peak memory of the process.

10,000 instances, half of them idle, 50 pools, 1,000 waiting runs of 200 shapes; once with what this
machine offers, once with 100,000 offers. No catalog is that large yet: this file, run as
`python bench/whole.py OFFERS.json plan`, is the command with the offers read from a file.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from bench.budgets import Row
from bench.commands import cpu_and_memory

SIZE, POOLS, SHAPES, OFFERS = 10_000, 50, 200, 100_000
DSTACK = str(Path(sys.executable).with_name("dstack"))
ROUNDS = 5


def measure_whole(*, rounds: int = ROUNDS) -> list[Row]:
    """Without and with the offers: CPU seconds (the median) and the memory at the peak."""
    with tempfile.TemporaryDirectory(prefix="dstack-bench-") as scratch:
        folder, offers = Path(scratch, "large"), Path(scratch, "offers.json")
        make_project(folder, size=SIZE, offers=offers)
        commands = (
            ("plan of 10,000 instances", "its memory", [DSTACK, "plan"]),
            (
                "plan of 10,000 instances, 100,000 offers",
                "its memory with the offers",
                [sys.executable, str(Path(__file__)), str(offers), "plan"],
            ),
        )
        taken: dict[str, list[tuple[float, float]]] = {what: [] for what, _, _ in commands}
        for turn in range(rounds + 1):
            for what, _, command in commands:
                cost = cpu_and_memory(command, cwd=folder, env=environment(folder))
                if turn:  # the first is for the caches
                    taken[what].append(cost)
    return [row for what, memory, _ in commands for row in _rows(taken[what], what=what, memory=memory)]


def _rows(costs: list[tuple[float, float]], *, what: str, memory: str) -> Iterator[Row]:
    yield Row(what=what, value=statistics.median(seconds for seconds, _ in costs), unit="s")
    yield Row(what=memory, value=max(mebibytes for _, mebibytes in costs), unit="MiB")


def make_project(folder: Path, *, size: int, offers: Path) -> None:
    """A project of so many instances, made in a process of its own; 100,000 offers go into their file."""
    command = [sys.executable, str(Path(__file__)), "--make", str(folder), str(size), str(offers)]
    subprocess.run(command, check=True)


def _make(folder: Path, size: int, offers: Path) -> None:
    """A project that was applied once, its state filled by the seed."""
    import msgspec
    from msgspec.structs import replace

    from bench import planner
    from reconciler.store.folder import FolderStore

    made = planner.world(size, pools=POOLS, shapes=SHAPES, offers=OFFERS)
    (folder / ".dstack").mkdir(parents=True)
    text = "project: {name: large, id: largebenchmark}\npools:\n"
    text += "".join(f"  - name: {pool.name}\n    nodes: 0..1000\n" for pool in made.desired.pools)
    (folder / ".dstack" / "pools.yml").write_text(text)
    subprocess.run([DSTACK, "apply", "-y"], cwd=folder, env=environment(folder), check=True, capture_output=True)
    store = FolderStore(folder / ".dstack" / "state", "largebenchmark")
    state, token = store.read()
    assert state is not None
    filled = made.state
    store.write(
        replace(
            state,
            generation=state.generation + 1,
            places=(*state.places, *filled.places),
            instances=filled.instances,
            runs=filled.runs,
            attempts=filled.attempts,
        ),
        token,
    )
    offers.write_bytes(msgspec.json.encode(made.offers))


def environment(folder: Path) -> dict[str, str]:
    """With `.pyc` files, in a folder of their own, also where a machine forbids to write them."""
    kept = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    made = {"XDG_STATE_HOME": str(folder.parent / "home"), "HOME": str(folder.parent)}
    return {**kept, **made, "PYTHONPYCACHEPREFIX": str(folder.parent / "pyc")}


def command(path: str, arguments: list[str]) -> int:
    """`dstack` with the offers of a file."""
    import msgspec

    from reconciler.app.site import Site
    from reconciler.cli.commands.plan import plan
    from reconciler.cli.session import run_session
    from schemas.desired import Desired
    from schemas.offer import Offer
    from schemas.state import State

    def offers(site: Site, desired: Desired, state: State | None) -> Iterator[Offer]:
        yield from msgspec.json.decode(Path(path).read_bytes(), type=list[Offer])

    plan.stored_offers = offers
    return run_session(arguments)


def main() -> None:
    if sys.argv[1:2] == ["--make"]:
        _make(Path(sys.argv[2]), int(sys.argv[3]), Path(sys.argv[4]))
        return
    sys.exit(command(sys.argv[1], sys.argv[2:]))


if __name__ == "__main__":
    main()
