"""The installed command on a double of Vast.ai: nothing is rented twice, and what was outbid does not bill on."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.doubles.commands.command import DSTACK, ROOT, Folder, Ran
from tests.doubles.gpu_clouds.served import Fault, Refusal, served
from tests.doubles.gpu_clouds.vast_double import KEY, Vast, vast_judge

ASK = "/api/v0/asks/101/"
POOL = "pools: [{name: v, backends: [vastai], nodes: 1, resources: {gpu: RTX4090}}]\n"
BIDS = "pools: [{name: v, backends: [vastai], nodes: 1, resources: {gpu: RTX4090}, spot_policy: spot}]\n"


@dataclass
class Market:
    """A project that has Vast.ai. No container of it has an sshd."""

    folder: Path
    cloud: Vast
    endpoint: str

    @property
    def env(self) -> dict[str, str]:
        return {**Folder(self.folder).env, "VASTAI_API_KEY": KEY, "PYTHONPATH": str(ROOT)}

    def declare(self, text: str) -> None:
        backend = f"backends: [{{type: vastai, endpoint: '{self.endpoint}'}}]\n"
        (self.folder / ".dstack").mkdir(exist_ok=True)
        project = "project: {name: gpus, id: gpus12345678}\nstate: local\n"
        (self.folder / ".dstack/pools.yml").write_text(project + backend + text)

    def run(self, *args: str) -> Ran:
        done = subprocess.run(
            [*DSTACK, *args], cwd=self.folder, env=self.env, capture_output=True, text=True, timeout=300, check=False
        )
        assert KEY not in done.stdout + done.stderr
        return Ran(done.returncode, done.stdout, done.stderr)

    def apply(self, *args: str) -> Ran:
        return self.run("apply", "-y", "-d", *args)

    def rented(self) -> int:
        return len(self.cloud.sent("/asks/"))


@pytest.fixture
def market(tmp_path: Path) -> Iterator[Market]:
    folder = tmp_path / "project"
    folder.mkdir()
    cloud = Vast()
    with served(cloud, vast_judge()) as endpoint:
        yield Market(folder, cloud, endpoint)
    assert cloud.wrong == []


@pytest.mark.parametrize("answer", [None, Refusal(503, text="<html>Bad gateway</html>")])
def test_a_lost_answer_is_never_a_second_contract(market: Market, answer: Refusal | None) -> None:
    market.declare(POOL)
    market.cloud.faults = [Fault("PUT", ASK, after=True, answer=answer)]
    for _ in range(3):
        market.apply()
    assert market.rented() == len(market.cloud.contracts) == 1
    assert "vastai" in market.run("pool", "ps").out


@pytest.mark.parametrize("after", [True, False], ids=["made", "not made"])
def test_a_kill_while_the_request_is_under_way_doubles_and_leaks_nothing(market: Market, after: bool) -> None:
    market.declare(POOL)
    sent = Fault("PUT", ASK, after=after, answer=None if after else Refusal(503, text="cut"))
    market.cloud.faults = [sent]
    command = subprocess.Popen(
        [*DSTACK, "apply", "-y", "-d"],
        cwd=market.folder,
        env=market.env,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    sent.then = lambda: os.kill(command.pid, signal.SIGKILL)
    assert command.wait(timeout=300) == -signal.SIGKILL
    for _ in range(2):
        market.apply()
    assert market.rented() == 1
    assert len(market.cloud.contracts) == (1 if after else 0)


def test_a_balance_of_zero_is_said_and_nothing_is_rented(market: Market) -> None:
    market.declare(POOL)
    market.cloud.balance = False
    assert "credit" in market.apply().said
    assert market.cloud.contracts == {}


def test_an_outbid_contract_is_destroyed_and_does_not_come_back(market: Market) -> None:
    market.declare(BIDS)
    market.apply()
    (first,) = market.cloud.contracts.values()
    assert first["is_bid"]
    market.cloud.settle()
    first.update(dict.fromkeys(("cur_state", "next_state", "intended_status"), "stopped"), actual_status="exited")
    for _ in range(2):
        market.apply()
    assert first["id"] not in market.cloud.contracts


def test_offers_need_no_region_and_say_what_is_billed_apart(market: Market) -> None:
    market.declare("pools: [{name: v, default: true}]\n")
    shown = market.run("offers", "--gpu", "RTX4090").out
    assert "1x-rtx-4090" in shown
    assert "traffic is billed apart" in shown


def test_a_removed_pool_ends_its_contract(market: Market) -> None:
    market.declare(POOL)
    market.apply()
    assert len(market.cloud.contracts) == 1
    market.declare("pools: []\n")
    market.apply("--allow-destroy", "v")
    assert market.cloud.contracts == {}
