"""A laptop and CI tick one project of AWS against one bucket: killed, their answers lost, refused, interrupted, edited.

`make test` has one short life, `make chaos` (DSTACK_TEST_STORM=all) longer ones, also with clocks an hour apart.

In the end there are exactly the machines that are wanted, each is known, none was made twice or ended with work on it,
and the ledger has what each of them cost, once.
"""

from __future__ import annotations

import os
import random
import shutil
import time
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from reconciler.state.job_results import RESULT_LOST
from reconciler.store.bucket import BucketStore
from reconciler.store.objects.open import open_bucket
from schemas.ledger import Entry
from schemas.location import Bucket, location
from schemas.run import RUN_ENDED
from schemas.state import State
from tests.doubles.aws.aws_double import Account, AwsServer
from tests.doubles.buckets.fault_proxy import Fault, FaultProxy
from tests.doubles.commands import warm
from tests.doubles.commands.command import ROOT
from tests.doubles.commands.doomed import Doomed, doom, killed
from tests.engine.test_three_machines import ledger

PROJECT = "demo12345678"
REGIONS = ("eu-west-1", "us-east-1")
ALL = os.environ.get("DSTACK_TEST_STORM") == "all"
ROUNDS = 45 if ALL else 6
HOUR = 3600
LIVES = [(seed, skew) for seed in range(1, 4) for skew in (0, HOUR, -HOUR)] if ALL else [(1, 0)]
KILLS = ROUNDS // 2 + 1
PATIENCE = 60.0  # seconds for one tick that nobody kills
LONGEST = 240.0  # no round begins after so many seconds
SETTLE = 180.0  # for all of them in the end
DOCUMENTS = """\
project: {{name: demo, id: demo12345678}}
state: {state}
backends: [{{type: aws, regions: [eu-west-1, us-east-1]}}]
pools:
  - name: floor
    default: true
    nodes: {floor}..5
    idle_duration: 2s
    instance_types: [m5.large, m5a.large, t3a.large]
    resources: {{cpu: 2, memory: 8GB, disk: 20GB}}
  - name: spot
    nodes: 0..4
    idle_duration: 2s
    spot_policy: spot
    instance_types: [m5.large, m5a.large, t3.large]
    resources: {{cpu: 2, memory: 8GB, disk: 20GB}}
"""
RUN = """\
type: task
name: {name}
pool_name: {pool}
rerun: {rerun}
retry: {{on_events: [no-capacity, interruption], duration: 7d}}
commands: ["true"]
"""
RUNS = {"train": "spot", "tune": "spot", "check": "floor"}


@dataclass
class Member:
    """A checkout and a home of its own, and a line to the bucket that fails as `random` says."""

    root: Path
    hosts: Path
    account: Account
    name: str
    skew: int
    random: random.Random
    faulty: bool = True

    def __post_init__(self) -> None:
        port = int(self.account.url.rsplit(":", 1)[1])
        self.proxy = FaultProxy(port, choose=self._choose, delay=lambda: self.random.uniform(0.02, 0.2))
        kept = {key: value for key, value in os.environ.items() if not key.startswith(("AWS_", "CI", "DSTACK_"))}
        self.environ = {
            **kept, **self.account.environ, "AWS_ENDPOINT_URL_S3": f"http://127.0.0.1:{self.proxy.port}",
            "DOUBLE": self.account.url, "HOME": str(self.root.parent),
            "XDG_STATE_HOME": str(self.root.parent / "state"), "XDG_CACHE_HOME": str(self.root.parent / "cache"),
            "PYTHONPATH": str(ROOT), "USER": self.name, "DSTACK_CATALOG_URL": "off",
            "DSTACK_PROJECT_KEY": "A" * 43 + "=", "DSTACK_ADDRESS": "203.0.113.7",
        }  # fmt: skip

    def _choose(self, method: str, path: str, number: int) -> Fault:
        if not self.faulty or self.random.random() > 0.2:
            return ""
        return self.random.choice(("lose answer", "reset", "refuse", "503", "slow"))

    def tick(self) -> warm.Started:
        arguments = [str(self.root), str(self.hosts), str(self.skew)]
        return warm.start(arguments, cwd=self.root, env=self.environ, module="tests.doubles.aws.one_aws_machine")

    def write(self, name: str, text: str) -> None:
        path = self.root / ".dstack" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


@dataclass
class Storm:
    """One life. `taken` are the spot instances that EC2 took away."""

    team: list[Member]
    account: Account
    hosts: Path
    random: random.Random
    kills: int = 0
    rerun: int = 1
    usual: int = 1
    """Requests to the bucket of a tick that nobody kills."""
    taken: set[str] = field(default_factory=set)

    @property
    def state(self) -> str:
        return f"s3://states-{self.account.number}/prod"

    def edit(self, *, floor: int) -> None:
        for one in self.team:
            one.write("pools.yml", DOCUMENTS.format(floor=floor, state=self.state))
            for name, pool in RUNS.items():
                one.write(f"runs/{name}.yml", RUN.format(name=name, pool=pool, rerun=self.rerun))

    def round(self) -> None:
        """The world changes, and both tick; most of them are killed."""
        if self.random.random() < 0.4:
            self.rerun += self.random.random() < 0.5
            self.edit(floor=self.random.randint(0, 3))
        self._trouble()
        ticks = [self._begun(one) for one in self.team]
        self.kills += killed(ticks, patience=PATIENCE)
        for one in ticks:
            assert b"Traceback" not in (said := b"".join(one.process.communicate())), said.decode()

    def _begun(self, one: Member) -> Doomed:
        sent, dies = len(one.proxy.seen), self.random.random() < 0.7
        process = one.tick()
        return (
            doom(process, one.proxy, sent=sent, usual=self.usual, dice=self.random)
            if dies
            else Doomed(process, one.proxy)
        )

    def _trouble(self) -> None:
        chance, account = self.random.random, self.account
        for action, share in (("RunInstances", 0.3), ("TerminateInstances", 0.2), ("CreateSecurityGroup", 0.2)):
            if chance() < share:
                account.fault(action, after=True, cut=True)
        if chance() < 0.2:
            account.fault(self.random.choice(("DescribeInstances", "RunInstances", "TerminateInstances")))
        account.set(lag=self.random.choice((0, 0, 1, 3)), ending=self.random.choice((0, 2)), boot=0)
        if chance() < 0.4:
            kind, code = self.random.choice(("m5.large", "m5a.large")), self.random.choice(("", "VcpuLimitExceeded"))
            account.room(kind, self.random.choice((0, 1, 99)), code=code)
        for one in self.living():
            if one["spot"] and chance() < 0.2:
                self.taken.add(one["id"])
                account.interrupt(one["id"], reason=chance() < 0.5)

    def living(self) -> list[dict[str, Any]]:
        return [one for region in REGIONS for one in self.account.living(region)]

    def calm(self) -> None:
        for one in self.team:
            one.faulty = False
        self.account.set(lag=0, ending=0)
        for kind in ("m5.large", "m5a.large"):
            self.account.room(kind, 99)


@pytest.fixture(params=LIVES, ids=lambda life: f"{life[0]}{life[1]:+d}")
def storm(request: pytest.FixtureRequest, tmp_path: Path, aws_server: AwsServer) -> Iterator[Storm]:
    seed, skew = request.param
    account, hosts = aws_server.account(), tmp_path / "hosts"
    hosts.mkdir()
    account.client("s3", "us-east-1").create_bucket(Bucket=f"states-{account.number}")
    team = []
    for name, off in (("ann", 0), ("ci", skew)):
        dice = random.Random(f"{seed} {name}")  # noqa: S311 - the same each time
        team.append(Member(tmp_path / name / "checkout", hosts, account, name=name, skew=off, random=dice))
    made = Storm(team, account, hosts, random.Random(seed))  # noqa: S311 - the same each time
    made.edit(floor=2)
    for one in (team[0], *team):  # the first waits for what forks them
        sent = len(one.proxy.seen)
        assert one.tick().wait(PATIENCE) == 0
        made.usual = len(one.proxy.seen) - sent
    yield made
    for one in team:
        one.proxy.close()
    shutil.rmtree(hosts)


def test_what_is_wanted_is_there_once_and_paid_once(storm: Storm) -> None:
    ends, rounds = time.monotonic() + LONGEST, 0
    while (rounds < ROUNDS or storm.kills < KILLS) and time.monotonic() < ends:
        storm.round()
        rounds += 1
    assert storm.kills >= KILLS
    storm.calm()
    storm.rerun += 1
    storm.edit(floor=2)
    state = settled(storm)
    made = {one.external_id: one for one in state.instances if one.external_id}
    alive = {id for id, one in made.items() if one.phase != "terminated"}
    assert {one["id"] for one in storm.living()} == alive, "owned, every one of them"
    assert Counter(one.pool for one in state.instances if one.phase != "terminated") == {"floor": 2}
    tokens = Counter(asked["ClientToken"] for asked in storm.account.requests())
    assert max(tokens.values()) == 1, "launched twice"
    assert len(made) == sum(int(asked["MaxCount"]) for asked in storm.account.requests()), "one that nobody remembers"
    nothing_lost(storm, state)
    every_cost(storm, state)


def settled(storm: Storm) -> State:
    ends = time.monotonic() + SETTLE
    turn = 0
    while time.monotonic() < ends:
        turn += 1
        process = storm.team[turn % 2].tick()
        out = b"".join(process.communicate(timeout=PATIENCE)).decode()
        assert process.wait() == 0, out
        state = stored(storm)
        over = all(run.status in RUN_ENDED for run in state.runs) and not state.intents
        if over and Counter(one.pool for one in state.instances if one.phase != "terminated") == {"floor": 2}:
            last = [run for run in state.runs if run.status == "done"]
            if set(RUNS) <= {run.spec.name for run in last}:
                return state
        time.sleep(0.3)
    raise AssertionError(f"still under way: {out}\n{[(one.name, one.phase, one.reason) for one in state.instances]}")


def stored(storm: Storm) -> State:
    state, _ = BucketStore(_objects(storm), PROJECT).read()
    assert state is not None
    return state


def _objects(storm: Storm):  # type: ignore[no-untyped-def]
    where = location(storm.state)
    assert isinstance(where, Bucket)
    return open_bucket(where, environ=storm.team[0].environ)


def nothing_lost(storm: Storm, state: State) -> None:
    """Work ends early only on a machine that EC2 took, and a job is begun once."""
    claims: Counter[str] = Counter(
        text for claim in storm.hosts.glob("*/*.job") if not (text := claim.read_text()).endswith("began\n")
    )
    assert max(claims.values(), default=1) == 1, "an attempt was begun twice"
    where = {one.id: one.external_id for one in state.instances}
    for attempt in state.attempts:
        for job in attempt.jobs:
            if job.status == "lost" or job.reason == RESULT_LOST:
                assert where[job.instance] in storm.taken, attempt
    mine = (run for run in state.runs if not run.superseded_by)  # an edited run is not tried again, its successor runs
    told = [(run.spec.name, run.status, run.reason) for run in mine if run.status not in ("done", "terminated")]
    assert all(reason == RESULT_LOST for _, _, reason in told), told


def every_cost(storm: Storm, state: State) -> None:
    told: dict[str, list[Entry]] = defaultdict(list)
    for entry in ledger(storm.state, storm.team[0].environ):
        told[entry.instance].append(entry)
    for one in state.instances:
        if not one.external_id:
            continue
        kinds = Counter(entry.kind for entry in told[one.id])
        ended = one.phase == "terminated"
        assert (kinds["launched"], kinds["seen"], kinds["ended"]) == (1, 1, int(ended)), (one, told[one.id])
        if ended:
            billed = sum(entry.seconds for entry in told[one.id] if entry.kind == "billed")
            assert kinds["billed"] == 1, told[one.id]
            assert 0 <= billed <= 600, (one, told[one.id])
