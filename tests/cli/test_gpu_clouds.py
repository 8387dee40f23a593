"""The installed command on doubles of GPU clouds: what is lost on the way is never bought twice, and nothing leaks."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.doubles.commands.command import DSTACK, ROOT, Folder, Ran
from tests.doubles.gpu_clouds import lambda_double, runpod_double
from tests.doubles.gpu_clouds.lambda_double import Lambda
from tests.doubles.gpu_clouds.runpod_double import Runpod
from tests.doubles.gpu_clouds.served import Fault, Refusal, served

LAUNCH = "/instance-operations/launch"
PODS = "/v2/pods"
PROJECT = "{name: gpus, id: gpus12345678}"


@dataclass
class Clouds:
    """Both, and a project that has them. No machine of theirs has an sshd."""

    folder: Path
    ours: Lambda = field(default_factory=Lambda)
    pods: Runpod = field(default_factory=Runpod)
    addresses: tuple[str, str] = ("", "")

    @property
    def env(self) -> Mapping[str, str]:
        own = {"LAMBDA_API_KEY": lambda_double.KEY, "RUNPOD_API_KEY": runpod_double.KEY}
        return {**Folder(self.folder).env, **own, "PYTHONPATH": str(ROOT)}

    def declare(self, text: str) -> None:
        lambda_at, runpod_at = self.addresses
        backends = (
            f"backends:\n  - {{type: lambda, regions: [us-west-1], endpoint: '{lambda_at}'}}\n"
            f"  - {{type: runpod, regions: [US-KS-2], endpoint: '{runpod_at}'}}\n"
        )
        (self.folder / ".dstack").mkdir(exist_ok=True)
        (self.folder / ".dstack/pools.yml").write_text(f"project: {PROJECT}\nstate: local\n{backends}{text}")

    def run(self, *args: str, code: int | None = 0) -> Ran:
        done = subprocess.run(
            [*DSTACK, *args], cwd=self.folder, env=self.env, capture_output=True, text=True, timeout=300, check=False
        )
        assert code is None or done.returncode == code, done.stdout + done.stderr
        return Ran(done.returncode, done.stdout, done.stderr)

    def killed_once(self, sent: Fault, *args: str) -> None:
        """Kill the command while the cloud makes what it asked for: the answer meets nobody."""
        command = subprocess.Popen(
            [*DSTACK, *args], cwd=self.folder, env=self.env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        sent.then = lambda: os.kill(command.pid, signal.SIGKILL)
        assert command.wait(timeout=300) == -signal.SIGKILL


@pytest.fixture
def clouds(tmp_path: Path) -> Iterator[Clouds]:
    folder = tmp_path / "project"
    folder.mkdir()
    found = Clouds(folder)
    with ExitStack() as stack:
        found.addresses = (stack.enter_context(served(found.ours)), stack.enter_context(served(found.pods)))
        yield found


LAMBDA = "pools: [{name: a, backends: [lambda], nodes: 1, resources: {gpu: A10}}]\n"
RUNPOD = "pools: [{name: b, backends: [runpod], nodes: 1, resources: {gpu: RTX4090}}]\n"


def bought(clouds: Clouds, which: str) -> int:
    return len(clouds.ours.machines if which == "lambda" else clouds.pods.pods)


@pytest.mark.parametrize(("which", "text", "path"), [("lambda", LAMBDA, LAUNCH), ("runpod", RUNPOD, PODS)])
@pytest.mark.parametrize("answer", [None, Refusal(503, text="<html>Bad gateway</html>")])
def test_a_lost_answer_is_never_a_second_purchase(
    clouds: Clouds, which: str, text: str, path: str, answer: Refusal | None
) -> None:
    clouds.declare(text)
    cloud = clouds.ours if which == "lambda" else clouds.pods
    cloud.faults = [Fault("POST", path, after=True, answer=answer)]
    clouds.run("apply", "-y", "-d", code=None)
    for _ in range(2):
        clouds.run("apply", "-y", "-d", code=None)
    assert bought(clouds, which) == 1
    assert which in clouds.run("pool", "ps").out


@pytest.mark.parametrize(("which", "text", "path"), [("lambda", LAMBDA, LAUNCH), ("runpod", RUNPOD, PODS)])
@pytest.mark.parametrize("after", [True, False], ids=["made", "not made"])
def test_a_kill_while_the_request_is_under_way_doubles_and_leaks_nothing(
    clouds: Clouds, which: str, text: str, path: str, after: bool
) -> None:
    clouds.declare(text)
    cloud = clouds.ours if which == "lambda" else clouds.pods
    sent = Fault("POST", path, after=after, answer=None if after else Refusal(503, text="cut"))
    cloud.faults = [sent]
    clouds.killed_once(sent, "apply", "-y", "-d")
    for _ in range(2):
        clouds.run("apply", "-y", "-d", code=None)
    writes = [body for method, at, body in cloud.requests if method == "POST" and at.endswith(path)]
    assert len(writes) == 1  # what was never made is only looked for until it is proven not to come
    assert bought(clouds, which) == (1 if after else 0)


def test_a_balance_of_zero_is_said_and_nothing_is_bought(clouds: Clouds) -> None:
    clouds.declare(RUNPOD)
    clouds.pods.balance = False
    said = clouds.run("apply", "-y", "-d", code=None).said
    assert "balance" in said
    assert clouds.pods.pods == {}


def test_offers_of_both_stand_in_one_table_by_price_and_no_key_is_shown(clouds: Clouds) -> None:
    clouds.declare("pools: [{name: a, default: true}]\n")
    ran = clouds.run("offers", "--gpu", "1")
    assert ran.out.index("runpod") < ran.out.index("lambda")
    assert "disk is billed apart" in ran.out
    assert lambda_double.KEY not in ran.said
    clouds.declare(LAMBDA)
    clouds.run("apply", "-y", "-d", code=None)
    for path in (clouds.folder / ".dstack").rglob("*"):
        if path.is_file():
            assert lambda_double.KEY not in path.read_text(errors="replace")


def test_a_removed_pool_ends_its_machine(clouds: Clouds) -> None:
    clouds.declare(RUNPOD)
    clouds.run("apply", "-y", "-d", code=None)
    assert [one["status"] for one in clouds.pods.pods.values()] == ["RUNNING"]
    clouds.declare("pools: []\n")
    clouds.run("apply", "-y", "-d", "--allow-destroy", "b", code=None)
    assert [one["status"] for one in clouds.pods.pods.values()] == ["TERMINATED"]
