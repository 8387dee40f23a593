"""Three machines tick one project against one bucket: killed, delayed, cut off, their clocks minutes apart.

`make test` has one life on each of two servers, `make chaos` (DSTACK_TEST_STORM=all) longer ones on every server.

The place is shared by all of them, as a cloud is: one folder of instances. What must hold is what holds for one: each
run has one result and was started once, the state reads, the ledger counts everything once, and the next plan is empty.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from reconciler.store.ledger.bucket import BucketLedger
from reconciler.store.objects.open import open_bucket
from schemas.location import Bucket, location
from tests.cli.test_state_commands import fresh
from tests.doubles.buckets.buckets import KINDS, Server
from tests.doubles.buckets.fault_proxy import Fault, FaultProxy
from tests.doubles.commands import warm
from tests.doubles.commands.command import ROOT, Folder
from tests.doubles.commands.doomed import Doomed, doom, killed

MACHINES = (("ann", 0), ("ben", 240), ("cid", -180))
RUNS = [f"run-{number}" for number in range(5)]
ALL = os.environ.get("DSTACK_TEST_STORM") == "all"
ROUNDS = 15 if ALL else 5
USUAL = 10  # requests of a tick
LIVES = [(kind, seed) for kind in KINDS for seed in range(1, 4)] if ALL else [("seaweedfs", 1), ("azurite", 2)]
DOCUMENTS = """\
project: {{name: demo, id: demo12345678}}
state: {url}
backends: [{{type: local, instances: 6}}]
pools:
  - name: bench
    default: true
    nodes: 1..3
    idle_duration: 30m
    resources: {{cpu: 1.., memory: 0.1GB.., disk: 0.1GB..}}
"""
RUN = """\
type: task
name: {name}
commands:
  - echo {name} >> {starts}
  - sleep 0.4
  - echo {name} > result.txt
artifacts: [result.txt]
"""


class Machine:
    """A checkout and a home of its own, and a line to the bucket that fails as `random` says."""

    def __init__(self, folder: Path, server: Server, url: str, *, name: str, skew: int, seed: int) -> None:
        self.root, self.skew = folder / name / "checkout", skew
        self._random = random.Random(f"{seed} {name}")  # noqa: S311 - the same each time
        self.faulty = True
        self.proxy = FaultProxy(server.port, choose=self._choose, delay=lambda: self._random.uniform(0.02, 0.5))
        documents = self.root / ".dstack"
        (documents / "runs").mkdir(parents=True)
        (documents / "pools.yml").write_text(DOCUMENTS.format(url=url))
        for run in RUNS:
            (documents / f"runs/{run}.yml").write_text(RUN.format(name=run, starts=folder / "starts"))
        self.environ = {
            **{key: value for key, value in os.environ.items() if not key.startswith(("AWS_", "CI"))},
            **server.at(self.proxy.port), "HOME": str(folder / name), "XDG_STATE_HOME": str(folder / "cloud"),
            "PYTHONPATH": str(ROOT), "LOGNAME": name, "USER": name,
        }  # fmt: skip

    def _choose(self, method: str, path: str, number: int) -> Fault:
        lot = self._random.random()
        if not self.faulty or lot > 0.35:
            return ""
        faults: tuple[Fault, ...] = ("lose answer", "reset", "refuse", "503", "slow", "slow")
        return faults[int(lot / 0.35 * len(faults)) % len(faults)]

    def tick(self) -> warm.Started:
        arguments = [str(self.root), str(self.skew)]
        return warm.start(arguments, cwd=self.root, env=self.environ, module="tests.chaos.one_machine")

    def dstack(self, *args: str) -> str:
        done = Folder(self.root).dstack(*args, env={**self.environ, "HOME": self.environ["HOME"]})
        assert done.code == 0, done.said
        return done.out


@pytest.fixture(params=LIVES, ids=lambda life: f"{life[0]}-{life[1]}")
def machines(
    request: pytest.FixtureRequest, tmp_path: Path, server_of: Callable[[str], Server]
) -> Iterator[tuple[list[Machine], str, random.Random]]:
    kind, seed = request.param
    server = server_of(kind)
    url = fresh(server)
    made = [Machine(tmp_path, server, url, name=name, skew=skew, seed=seed) for name, skew in MACHINES]
    yield made, url, random.Random(seed)  # noqa: S311 - the same each time
    for one in made:
        one.proxy.close()
    shutil.rmtree(tmp_path / "cloud", ignore_errors=True)


def storm(machines: list[Machine], lots: random.Random) -> int:
    """Every machine ticks as often as `ROUNDS`, all at once; about half of the ticks are killed. How many were."""
    return sum(killed([_begun(one, lots) for one in machines], patience=60.0) for _ in range(ROUNDS))


def _begun(one: Machine, lots: random.Random) -> Doomed:
    sent, dies = len(one.proxy.seen), lots.random() < 0.5
    process = one.tick()
    return doom(process, one.proxy, sent=sent, usual=USUAL, dice=lots) if dies else Doomed(process, one.proxy)


def test_the_laws_hold_for_three_machines(
    machines: tuple[list[Machine], str, random.Random], tmp_path: Path, server_of: Callable[[str], Server]
) -> None:
    team, url, lots = machines
    assert storm(team, lots) > 0
    ann = team[0]
    for one in team:
        one.faulty = False
    ends = time.monotonic() + 240
    while any(run["status"] != "done" for run in runs(ann)) or len(runs(ann)) < len(RUNS):
        assert time.monotonic() < ends, ann.dstack("ps", "-a")
        process = ann.tick()
        said = process.communicate(timeout=60)
        assert process.returncode == 0, said
    found = runs(ann)
    assert Counter(run["name"] for run in found) == Counter(RUNS)
    assert Counter((tmp_path / "starts").read_text().split()) == Counter(RUNS), "each was started once"
    for run in RUNS:
        ann.dstack("artifacts", run)
        assert (ann.root / f"{run}-artifacts/result.txt").read_text() == f"{run}\n"
    for one in team:
        assert one.dstack("plan", "--detailed-exitcode")
        assert "Nothing to do" in one.dstack("apply", "-y")
    told = Counter(entry.kind for entry in ledger(url, team[0].environ))
    assert (told["submitted"], told["finished"]) == (len(RUNS), len(RUNS))


def runs(machine: Machine) -> list[dict[str, object]]:
    return list(json.loads(machine.dstack("ps", "-a", "--json")))


def ledger(url: str, environ: dict[str, str]):  # type: ignore[no-untyped-def]
    where = location(url)
    assert isinstance(where, Bucket)
    return BucketLedger(open_bucket(where, environ=environ), "demo12345678/ledger").read()
