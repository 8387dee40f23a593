"""Each case is one situation: its plan is a snapshot, and the plan on its own result is empty."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from syrupy.assertion import SnapshotAssertion

from tests.worlds.planning import rounds_of, text_of, world_of

CASES = sorted((Path(__file__).parent / "cases").glob("*.yml"))


@pytest.mark.parametrize("path", CASES, ids=[path.stem for path in CASES])
def test_case(path: Path, snapshot: SnapshotAssertion) -> None:
    case: dict[str, Any] = yaml.safe_load(path.read_text())
    plans = rounds_of(world_of(case), most=case.get("rounds", 6))
    assert f"{case['title']}\n\n{text_of(plans)}\n" == snapshot


def test_there_are_many_cases() -> None:
    assert len(CASES) >= 40
