"""A whole `dstack report --html` of a month of 10,000 instances: its CPU seconds and the size of its page."""

from __future__ import annotations

import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from bench.budgets import Row
from bench.commands import cpu_and_memory
from bench.whole import DSTACK, environment
from schemas.instance import Instance
from schemas.ledger import Entry
from schemas.resources import Resources
from schemas.run import Run, RunSpec

SIZE, DAYS, DAY, HOUR = 10_000, 30, 86400, 3600
ROUNDS = 3
POOLS = ("train", "dev", "batch", "eval", "serve", "notebooks", "ci", "render", "sweep")
USERS = ("ann@lab", "bob@lab", "chen@desk", "dara@ci")
TYPES = (("p4d.24xlarge", Decimal("32.7726")), ("g6.xlarge", Decimal("0.8048")), ("g5.12xlarge", Decimal("5.672")))
REASON = "No match: pool train allows only A100:8, the run asks for H100:1."
BOX = Resources(cpus=8, memory=65536)


def measure_report(*, rounds: int = ROUNDS) -> list[Row]:
    """The median CPU seconds, and the size of the page in MB."""
    with tempfile.TemporaryDirectory(prefix="dstack-bench-") as scratch:
        folder = Path(scratch, "large")
        subprocess.run([sys.executable, str(Path(__file__)), str(folder), str(SIZE)], check=True)
        command = [DSTACK, "report", "--html", "report.html", "--since", f"{DAYS}d"]
        taken = [cpu_and_memory(command, cwd=folder, env=environment(folder))[0] for _ in range(rounds + 1)]
        size = (folder / "report.html").stat().st_size / 1e6
    return [
        Row(what="report of a month of 10,000 instances", value=statistics.median(taken[1:]), unit="s"),
        Row(what="its page", value=size, unit="MB"),
    ]


def make_month(folder: Path, *, size: int, now: int) -> None:
    """A project that was applied once, its ledger filled with a month of `size` instances, its state with the last."""
    from msgspec.structs import replace

    from reconciler.store.folder import FolderStore
    from reconciler.store.ledger.folder import FolderLedger

    (folder / ".dstack").mkdir(parents=True)
    text = "project: {name: large, id: largebenchmark}\npools:\n"
    text += "".join(f"  - name: {pool}\n    nodes: 0..1000\n" for pool in POOLS)
    (folder / ".dstack" / "pools.yml").write_text(text)
    subprocess.run([DSTACK, "apply", "-y"], cwd=folder, env=environment(folder), check=True, capture_output=True)
    store = FolderStore(folder / ".dstack" / "state", "largebenchmark")
    state, token = store.read()
    assert state is not None
    ours = random.Random(7)  # noqa: S311
    live, told = [], []
    for number in range(size):
        one = _instance(number, ours, now=now, lives=number >= size - size // 50)
        live += [one] if one.phase != "terminated" else []
        told += list(_entries(one, number, ours, now=now))
    waiting = tuple(
        Run(
            id=f"w{number}", spec=RunSpec(name=f"waiting-{number}", pool=POOLS[number % 9]), user=USERS[number % 4],
            submitted_at=now - ours.randint(60, 2 * DAY), reason=REASON,
        )
        for number in range(12)
    )  # fmt: skip
    FolderLedger(folder / ".dstack" / "state" / "ledger").append(told)
    store.write(replace(state, generation=state.generation + 1, instances=tuple(live), runs=waiting), token)


def _instance(number: int, ours: random.Random, *, now: int, lives: bool) -> Instance:
    type_, price = TYPES[min(2, int(ours.expovariate(1.2)))]
    created = now - (ours.randint(600, 6 * HOUR) if lives else ours.randint(2 * HOUR, DAYS * DAY - HOUR))
    ready = created + ours.randint(60, 300)
    ended = None if lives else min(now - 60, ready + int(ours.expovariate(1 / (3 * HOUR))) + 300)
    return Instance(
        id=f"i{number:05}", name=f"{POOLS[number % 9]}-{number}", pool=POOLS[number % 9], backend="aws",
        place="aws/us-east-1", instance_type=type_, resources=BOX, price=price, spot=number % 3 == 0,
        external_id=f"x{number}",
        phase="ready" if lives else "terminated", created_at=created, seen_at=created + 20, ready_at=ready,
        terminated_at=ended, reason="idle for 5m" if ended else "",
    )  # fmt: skip


def _entries(one: Instance, number: int, ours: random.Random, *, now: int) -> Iterator[Entry]:
    about = {"subject": f"instance {one.id}", "name": one.name, "pool": one.pool, "place": one.place, "spot": one.spot,
             "instance": one.id, "instance_type": one.instance_type, "price": one.price, "by": "cron@lab"}  # fmt: skip
    ready, end = one.ready_at or 0, one.terminated_at or now
    for kind, at in (("launched", one.created_at), ("seen", one.created_at + 20), ("ready", ready)):
        yield Entry(id=f"{kind}:{one.id}", at=at, kind=kind, **about)  # type: ignore[arg-type]
    start = ready + 5
    for part in range(ours.randint(0, 3)):
        length = min(end - start, ours.randint(60, 2 * HOUR))
        if length <= 0:
            break
        yield from _run(one, f"{number:05}x{part}", start, length, ours)
        start += length + ours.randint(0, 600)
    if one.phase == "terminated":
        seconds = end - one.created_at
        yield Entry(id=f"ended:{one.id}", at=end, kind="ended", why=one.reason, **about)  # type: ignore[arg-type]
        boot = ready - one.created_at
        yield Entry(id=f"billed:{one.id}", at=end, kind="billed", seconds=seconds, boot=boot, **about)  # type: ignore[arg-type]


def _run(one: Instance, id: str, start: int, seconds: int, ours: random.Random) -> Iterator[Entry]:
    name, user = f"{ours.choice(('llama', 'eval', 'sweep'))}-{id}", ours.choice(USERS)
    about = {"subject": f"run {id}", "name": name, "pool": one.pool, "run": id, "user": user, "by": user}
    why = ours.choice(("done", "done", "done", "failed: exit 1"))
    for kind, at in (("submitted", start - int(ours.expovariate(1 / 900)) - 5), ("started", start)):
        yield Entry(id=f"{kind}:{id}", at=at, kind=kind, **about)  # type: ignore[arg-type]
    yield Entry(id=f"finished:{id}", at=start + seconds, kind="finished", why=why, **about)  # type: ignore[arg-type]
    used = f"used:{id}-0-{ours.choice((1, 1, 1, 1, 2, 3))}-0"
    yield Entry(id=used, at=start + seconds, kind="used", seconds=seconds, instance=one.id, place=one.place,
                price=one.price, why=why, **about)  # type: ignore[arg-type]  # fmt: skip


if __name__ == "__main__":
    make_month(Path(sys.argv[1]), size=int(sys.argv[2]), now=int(time.time()))
