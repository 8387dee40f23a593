"""What a state in a bucket costs: requests of a tick with nothing to do, a large one's size and CPU, a crowd at one.

JSON on stdout. Servers of the tests (`tests/doubles/buckets/buckets.py`) stand in for the clouds; our own CPU counts,
not theirs.
"""

from __future__ import annotations

import gc
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from pathlib import Path
from types import SimpleNamespace

sys.path.insert(0, str(Path(__file__).parents[1]))

from msgspec.structs import replace

from bench import planner
from reconciler.engine.begin import TickRefused
from reconciler.engine.write_state import land
from reconciler.state.errors import StateMoved
from reconciler.store.bucket import BucketStore
from reconciler.store.objects.open import open_bucket
from schemas.location import Bucket, location
from schemas.state import VERSION, State, Tombstone
from tests.doubles.buckets import buckets
from tests.doubles.buckets.fault_proxy import FaultProxy

ROOT = Path(__file__).parents[1]
LARGE = 100_000
CROWD = 100
ROUNDS = 3
DOCUMENTS = """\
project: {{name: bench, id: benchbench12}}
state: {url}
pools:
  - {{name: floor, default: true, nodes: 1, resources: {{cpu: 1.., memory: 0.1GB.., disk: 0.1GB..}}}}
"""


def measure(folder: Path) -> dict[str, float]:
    """Every figure by its name in the table of `bench.run`."""
    found: dict[str, float] = {"of 100 reconcilers at one object, those lost": 0}
    for kind in buckets.KINDS:
        if kind != "moto" and buckets.lacking(kind):
            continue
        with buckets.served(kind, folder / kind) as server:
            if kind == "moto":
                found |= {**_nothing_to_do(server, folder), **_large(server)}
            lost, retries = _crowd(server)
        found["of 100 reconcilers at one object, those lost"] += lost
        found[f"their retries on {kind}"] = retries
    return found


def _nothing_to_do(server: buckets.Server, folder: Path) -> dict[str, float]:
    """`dstack apply -y` of a pool that holds one instance, and then once more, counted at a proxy."""
    project = folder / "project"
    (project / ".dstack").mkdir(parents=True)
    url = server.state("first-bucket", "bench")
    (project / ".dstack/pools.yml").write_text(DOCUMENTS.format(url=url))
    proxy = FaultProxy(server.port)
    environ = {**os.environ, **server.at(proxy.port), "HOME": str(folder), "XDG_STATE_HOME": str(folder / "state")}
    environ["PYTHONPATH"] = str(ROOT)

    def dstack(*words: str) -> None:
        command = [sys.executable, "-m", "reconciler.cli.main", *words]
        subprocess.run(command, cwd=project, env=environ, capture_output=True, text=True, check=True)

    try:
        dstack("apply", "-y")
        dstack("apply", "-y")
        proxy.seen.clear()
        dstack("apply", "-y")
        counted = Counter(proxy.methods())
    finally:
        dstack("destroy", "--confirm", "bench")
        proxy.close()
    return {
        "GETs of an apply with nothing to do": counted["GET"],
        "its other requests": counted.total() - counted["GET"],
    }


def _large(server: buckets.Server) -> dict[str, float]:
    made = planner.world(LARGE).state
    gc.set_threshold(200_000, 20, 100)  # as the command itself sets it
    store = _store(server, "large", project=made.project)
    token = store.write(made, "")
    seconds = []
    for number in range(ROUNDS):
        began = time.process_time()
        state, token = store.read()
        assert state is not None
        token = store.write(replace(state, generation=made.generation + 1 + number), token)
        seconds.append(time.process_time() - began)
    (size,) = [item.size for item in store._objects.items("") if item.key.endswith(".gz")]
    return {
        "100,000 instances in a bucket": size / 1e6,
        "they are read and written": sorted(seconds)[ROUNDS // 2],
    }


def _crowd(server: buckets.Server) -> tuple[int, int]:
    """A hundred reconcilers, each with one fold to land on the same object at the same moment: those lost, retries."""
    _store(server, "crowd").write(State(version=VERSION, project="crowdcrowd", lineage="aaaaaaaa", generation=1), "")
    moved: list[int] = []
    gave_up: list[str] = []
    start = threading.Barrier(CROWD)
    threads = [
        threading.Thread(target=_one, args=(_Counting(_store(server, "crowd"), moved), number, start, gave_up))
        for number in range(CROWD)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    state, _ = _store(server, "crowd").read()
    assert state is not None
    lost = CROWD - len(gave_up) - len(state.tombstones)
    return len(gave_up) + lost, len(moved)


def _one(store: _Counting, number: int, start: threading.Barrier, gave_up: list[str]) -> None:
    ports = SimpleNamespace(
        store=store,
        now=lambda: int(time.time()),
        sleep=time.sleep,
        who=f"r{number}@bench",
        unattended=True,
        nonce=lambda: os.urandom(4).hex(),
        record=lambda entries: None,
        markers=None,
        boot_time=lambda: ("", 0),
    )
    mine = Tombstone(id=f"r{number}", kind="run", at=0, why="")
    start.wait()
    try:
        land(ports, lambda state: replace(state, tombstones=(*state.tombstones, mine)))  # type: ignore[arg-type]
    except TickRefused as error:
        gave_up.append(str(error))


class _Counting:
    """A store that notes each write that lost."""

    def __init__(self, store: BucketStore, moved: list[int]) -> None:
        self._store, self._moved = store, moved

    def __getattr__(self, name: str) -> object:
        return getattr(self._store, name)

    def write(self, state: State, token: str) -> str:
        try:
            return self._store.write(state, token)
        except StateMoved:
            self._moved.append(state.generation)
            raise


def _store(server: buckets.Server, prefix: str, *, project: str = "crowdcrowd") -> BucketStore:
    where = location(server.state("first-bucket", prefix))
    assert isinstance(where, Bucket)
    return BucketStore(open_bucket(where, environ=server.environ), project)


if __name__ == "__main__":
    with tempfile.TemporaryDirectory(prefix="dstack-bench-") as temporary:
        print(json.dumps([measure(Path(temporary))]))
