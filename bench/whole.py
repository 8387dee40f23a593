"""A whole `dstack plan` of a large project: CPU seconds and peak memory of the process.

10,000 instances, half of them idle, 50 pools, 1,000 waiting runs of 200 shapes; once with what this
machine offers, once with 100,000 offers. No catalog is that large yet: this file, run as
`python bench/whole.py OFFERS.json plan`, is the command with the offers read from a file.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

SIZE, POOLS, SHAPES, OFFERS = 10_000, 50, 200, 100_000
DSTACK = str(Path(sys.executable).with_name("dstack"))
ROUNDS = 5


def rows(*, rounds: int = ROUNDS) -> list[dict[str, float]]:
    """One without and one with the offers: `offers`, CPU `seconds` (the median), `mebibytes` at the peak."""
    import statistics

    with tempfile.TemporaryDirectory(prefix="dstack-bench-") as scratch:
        folder, offers = Path(scratch, "large"), Path(scratch, "offers.json")
        # In a process of its own: what a child starts as, a copy of us, counts as its memory.
        make = [sys.executable, str(Path(__file__)), "--make", str(folder), str(offers)]
        subprocess.run(make, check=True)
        commands = {0: [DSTACK, "plan"], OFFERS: [sys.executable, str(Path(__file__)), str(offers), "plan"]}
        found: dict[int, list[tuple[float, float]]] = {count: [] for count in commands}
        for turn in range(rounds + 1):
            for count, command in commands.items():
                cost = _cost(command, folder)
                if turn:  # the first is for the caches
                    found[count].append(cost)
        return [
            {
                "offers": count,
                "seconds": statistics.median(seconds for seconds, _ in costs),
                "mebibytes": max(mebibytes for _, mebibytes in costs),
            }
            for count, costs in found.items()
        ]


def _make(folder: Path, offers: Path) -> None:
    """A project that was applied once, its state filled by the seed."""
    import msgspec
    from msgspec.structs import replace

    from bench import planner
    from reconciler.store_folder import FolderStore

    made = planner.world(SIZE, pools=POOLS, shapes=SHAPES, offers=OFFERS)
    (folder / ".dstack").mkdir(parents=True)
    text = "project: {name: large, id: largebenchmark}\npools:\n"
    text += "".join(f"  - name: {pool.name}\n    nodes: 0..1000\n" for pool in made.desired.pools)
    (folder / ".dstack" / "pools.yml").write_text(text)
    subprocess.run([DSTACK, "apply", "-y"], cwd=folder, env=_env(folder), check=True, capture_output=True)
    store = FolderStore(folder / ".dstack" / "state", "largebenchmark")
    state, token = store.read()
    assert state is not None
    filled = made.state
    store.write(
        replace(
            state, generation=state.generation + 1, places=(*state.places, *filled.places),
            instances=filled.instances, runs=filled.runs, attempts=filled.attempts,
        ),
        token,
    )  # fmt: skip
    offers.write_bytes(msgspec.json.encode(made.offers))


def _env(folder: Path) -> dict[str, str]:
    return {**os.environ, "XDG_STATE_HOME": str(folder.parent / "home"), "HOME": str(folder.parent)}


def _cost(command: list[str], folder: Path) -> tuple[float, float]:
    child = subprocess.Popen(
        command, cwd=folder, env=_env(folder), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    )
    errors = child.stderr.read() if child.stderr else b""
    _, status, used = os.wait4(child.pid, 0)
    child.returncode = os.waitstatus_to_exitcode(status)
    if child.returncode:
        raise SystemExit(f"{' '.join(command)}: exit {child.returncode}\n{errors.decode(errors='replace')}")
    return used.ru_utime + used.ru_stime, used.ru_maxrss / 1024


def command(path: str, arguments: list[str]) -> int:
    """`dstack` with the offers of a file."""
    import msgspec

    from reconciler.cli import plan
    from reconciler.cli.session import run_session
    from reconciler.wire import Site
    from schemas.desired import Desired
    from schemas.offer import Offer
    from schemas.state import State

    def offers(site: Site, desired: Desired, state: State | None) -> Iterator[Offer]:
        yield from msgspec.json.decode(Path(path).read_bytes(), type=list[Offer])

    plan.stored_offers = offers
    return run_session(arguments)


def main() -> None:
    if sys.argv[1:2] == ["--make"]:
        _make(Path(sys.argv[2]), Path(sys.argv[3]))
        return
    if len(sys.argv) > 1:
        sys.exit(command(sys.argv[1], sys.argv[2:]))
    for row in rows():
        print(f"{row['offers']:>8.0f} offers {row['seconds']:8.3f} s {row['mebibytes']:6.0f} MiB")


if __name__ == "__main__":
    main()
