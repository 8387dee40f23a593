"""What a later attempt takes over from those before it."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from reconciler.state.job_results import last_artifacts
from schemas.run import Attempt, Job, RunSpec
from schemas.state import State


def attempt(number: int, *artifacts: str, run: str = "r", replica: int = 0) -> Attempt:
    """Of a node for each of `artifacts`, which it left ("": none)."""
    id = f"{run}-{replica}-{number}"
    jobs = tuple(
        Job(id=f"{id}-{rank}", instance="i", rank=rank, artifacts=each, status="lost")
        for rank, each in enumerate(artifacts)
    )
    return Attempt(id=id, run=run, number=number, replica=replica, jobs=jobs)


EARLIER = (
    attempt(1, "a1", "b1"), attempt(2, "a2", ""), attempt(1, "c1", run="other"), attempt(3, "d3", replica=1),
    attempt(5, "e5"),
)  # fmt: skip


@pytest.mark.parametrize(
    ("mine", "rank", "left"),
    [
        (attempt(3, "", ""), 0, (2, "a2")),
        (attempt(3, "", ""), 1, (1, "b1")),
        (attempt(3, "", "", ""), 2, None),
        (attempt(2, "", ""), 0, (1, "a1")),
        (attempt(1, "", ""), 0, None),
        (attempt(4, "", replica=1), 0, (3, "d3")),
        (attempt(4, "", replica=2), 0, None),
        (attempt(1, "", run="another"), 0, None),
    ],
)
def test_the_newest_of_its_own_node(mine: Attempt, rank: int, left: tuple[int, str] | None) -> None:
    state = State(version=2, project="p", lineage="l", attempts=EARLIER)
    found = last_artifacts(state, RunSpec(name="r"), mine, rank=rank)
    assert (found and (found[0].number, found[1].artifacts)) == left
    assert last_artifacts(state, RunSpec(name="r", restore="none"), mine, rank=rank) is None
    mixed = replace(state, attempts=(*reversed(EARLIER), mine))
    assert last_artifacts(mixed, RunSpec(name="r"), mine, rank=rank) == found
