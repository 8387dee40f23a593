"""The installed command, from an empty folder to an empty account: EC2 is the double, its machines are real servers.

What a person types, against the cloud that `cloud_by_hand` gives a person. Only the time is moved, for all at once.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.doubles.aws.aws_double import KEY, Account, AwsServer
from tests.doubles.aws.cloud_by_hand import Hand, environment, prepared
from tests.doubles.aws.cloud_hosts import CloudHost, why_not
from tests.doubles.aws.cloud_machines import Machines
from tests.doubles.commands.command import PATIENCE
from tests.doubles.hosts.real_host import until
from tests.doubles.hosts.ssh_hosts import a_lab

pytestmark = pytest.mark.skipif(bool(why_not()), reason=why_not() or "-")
POOLS = """\
state: local
pools:
  - name: gpu
    default: true
    nodes: 0..2
    spot_policy: spot
    instance_types: [m5.large]
    idle_duration: 10m
    hold: 2h
"""
RUN = """\
type: task
name: %s
commands:
  - echo "from $DSTACK_RUN_NAME"
  - until [ -e ~/go-%s ]; do sleep 0.05; done
  - echo all > out.txt
artifacts: [out.txt]
max_duration: 1h
retry: true
"""


@dataclass
class Person:
    """Types in the project's folder."""

    folder: Path
    account: Account
    machines: Machines
    hand: Hand

    def types(self, line: str, *, code: int = 0, given: str = "") -> str:
        """`CI` would make it an unattended one, which a folder's state is not for."""
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("CI", "DSTACK_", "AWS_"))}
        done = subprocess.run(
            ["dstack", *line.split()],
            cwd=self.folder / "project",
            input=given,
            text=True,
            timeout=PATIENCE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            check=False,
            env={**kept, **environment(self.folder, self.account), "COLUMNS": "160"},
        )
        assert done.returncode == code, f"dstack {line}\n{done.stdout}"
        return done.stdout

    def writes(self, name: str, text: str) -> None:
        path = self.folder / "project/.dstack" / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)

    def host_of(self, run: str) -> CloudHost:
        """That it runs on."""
        job = f"DSTACK_RUN_NAME={run}"
        for host in self.machines.hosts.values():
            if host.enter("sh", "-c", f"grep -zls '^{job}$' /proc/[0-9]*/environ || true"):
                return host
        raise AssertionError(f"{run} runs nowhere")

    def ends(self, run: str) -> None:
        """What it does comes to its end: seen on its machine, and told to nobody."""
        host = self.host_of(run)
        host.enter("touch", f"/home/dstack/go-{run}")
        until(lambda: list((host.login_home / ".dstack-host/jobs").glob("*/end")))


@pytest.fixture
def person(tmp_path: Path, aws_server: AwsServer) -> Iterator[Person]:
    account = aws_server.account()
    with a_lab(tmp_path / "lab") as lab:
        machines = Machines(lab, account)
        folder = tmp_path / "cloud"
        yield Person(folder, account, machines, Hand(machines, account, prepared(folder, account)))


def begun(person: Person, *runs: str) -> str:
    """A project on AWS, applied, its machines booted, met and at work. What the plan said."""
    person.types("init")
    key = f"--key-id {KEY}{person.account.number} --secret-stdin --region eu-west-1"
    person.types(f"aws configure {key}", given="secretSECRET0123456789secretSECRET012345\n")
    (person.folder / "project/.dstack/runs/hello.yml").unlink()
    person.writes("pools.yml", POOLS)
    for run in runs:
        person.writes(f"runs/{run}.yml", RUN % (run, run))
    planned = person.types("plan")
    assert person.account.living("") == []
    person.types("apply -y --detach")
    assert len(person.machines.attend()) == len(runs)
    person.types("apply -y --detach")
    return planned


def test_a_whole_life(person: Person) -> None:
    planned = begun(person, "train")
    assert "m5.large spot  ≤$0.11/h  for run train" in planned
    assert planned.endswith("$0.00/h now → ≤$0.11/h after.\n")
    (host,) = person.machines.hosts.values()
    booted_with = host.user_data.split("BEGIN OPENSSH PRIVATE KEY", 1)[1]
    (file,) = (person.folder / "project/.dstack/state").glob("*.yml")
    id, state = file.stem, file.read_text()
    assert host.shown in state, "the key that it shows now is pinned"
    assert host.shown not in host.user_data, "which is not the one that it booted with"
    assert booted_with.split()[3] not in state
    assert person.types("logs train") == "from train\n"
    person.ends("train")
    assert "done" in settled(person, "train")
    assert person.types("artifacts train").startswith("1 file in ")
    asked = person.types("run . -n other --on-demand -f .dstack/runs/train.yml", code=1)
    assert "other: 1 new instance at $0.11/h; idle, and not for it: gpu-0 (on-demand accepted, it is spot)\n" in asked

    before = host.enter("cat", "/home/dstack/.dstack-host/lease")
    assert person.hand.passes("5m") == []
    person.types("apply -y --detach")
    assert host.enter("cat", "/home/dstack/.dstack-host/lease") != before, "renewed by whoever comes"
    assert "idle, terminates in 4m" in person.types("pool ps")
    assert person.hand.passes("6m") == []
    ended = person.types("apply -y --detach")
    assert "- gpu-0  -$0.11/h  idle for 10m (pool gpu)" in ended
    assert person.account.living("") == []
    assert len(person.machines.attend()) == 1
    assert "0 remain." in person.types(f"destroy --confirm {id}")


def settled(person: Person, run: str) -> str:
    """Its line of `ps`, after a tick that takes what there is of it."""
    person.types("apply -y --detach")
    return next(line for line in person.types("ps -a").splitlines() if line.startswith(run))


def test_nobody_comes_any_more(person: Person) -> None:
    """One machine is empty when the last tick sees it, on the other a result is waiting when its time is over."""
    begun(person, "taken", "left")
    person.ends("taken")
    assert "done" in settled(person, "taken")
    person.ends("left")
    assert person.hand.passes("24m") == []
    (one,) = person.hand.passes("3m")
    assert "powered itself off" in one
    (other,) = [*person.machines.hosts]
    assert person.hand.passes("85m") == []
    assert person.hand.passes("10m") == [f"{other}: powered itself off"]
    assert person.account.living("") == []
    lost = settled(person, "left")
    assert "failed" in lost
    assert "result lost" in lost
    assert (person.machines.attend(), person.machines.made) == ([], 2), "nothing is tried again in silence"
    assert "no instances" in person.types("pool ps")


def test_a_forgotten_region_is_ended_with_the_rest(person: Person) -> None:
    """Its machine bills on, which no apply counts: `destroy` must neither call that nothing nor leave it there."""
    begun(person, "left")
    assert len(person.account.living("")) == 1
    told = person.types("state forget aws/eu-west-1 --confirm aws/eu-west-1")
    assert "Keeps running and billing, as last seen: 1 instance, $" in told
    (file,) = (person.folder / "project/.dstack/state").glob("*.yml")
    ended = person.types(f"destroy --confirm {file.stem}")
    assert "0 remain." in ended
    assert person.account.living("") == []


def test_a_forgotten_region_that_cannot_be_asked_is_named(person: Person) -> None:
    begun(person, "left")
    person.types("state forget aws/eu-west-1 --confirm aws/eu-west-1")
    (file,) = (person.folder / "project/.dstack/state").glob("*.yml")
    person.account.fault("GetCallerIdentity", code="InvalidClientTokenId", status=403, times=99)
    ended = person.types(f"destroy --confirm {file.stem}", code=1)
    assert (
        f"error: aws/eu-west-1 of aws:{person.account.number} was forgotten and cannot say what lives there (" in ended
    )
    assert "last known: 1 instance, $" in ended
    assert "0 remain." not in ended
