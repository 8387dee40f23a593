"""Documents that an unattended apply refuses: what costs money, and a memory that lies on one disk."""

from __future__ import annotations

from pathlib import Path

import pytest

from reconciler.planner.local_state_guard import alone
from schemas.desired import BackendConfig, Desired
from tests.doubles.commands.command import folder_at


@pytest.mark.parametrize(
    ("kinds", "state", "refused"),
    [
        (("local",), "", False),
        (("local", "aws"), "", True),
        (("kubernetes",), "", True),
        (("aws",), "/mnt/shared", True),
        (("aws",), "local", False),
        (("aws",), "s3://bucket/prefix", False),
        ((), "", False),
    ],
)
def test_what_costs_money_and_is_remembered_here_alone(kinds: tuple[str, ...], state: str, refused: bool) -> None:
    backends = tuple(BackendConfig(name=f"{kind}-one", type=kind) for kind in kinds)
    why = alone(Desired(backends=backends, state=state))
    assert bool(why) == refused
    assert not refused or f"{kinds[-1]}-one costs money" in why


def test_a_plan_says_it_before_a_cron_job_finds_out(tmp_path: Path) -> None:
    documents = "project: {name: demo, id: demo12345678}\nbackends: [{type: aws, regions: [eu-west-1]}]\n"
    folder = folder_at(tmp_path, documents=documents)
    said = "an apply without a terminal (cron, CI) will refuse this: aws costs money, and the state is a folder"
    assert said in folder.dstack("plan").out
    assert "costs money, and the state is a folder" in folder.dstack("apply", "-y", given="\n").err
    assert "will refuse this" not in folder_at(tmp_path, documents=f"{documents}state: local\n").dstack("plan").said
