"""What a host was told, told apart from what its jobs wrote there."""

from __future__ import annotations

from functools import partial

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reconciler.state.fences import MANY, fences, seal_of

SECRET = b"s" * 32
seal = partial(lambda generation, instance: seal_of(SECRET, instance=instance, generation=generation), instance="l-0")


def mark(generation: int, *, instance: str = "l-0", secret: bytes = SECRET) -> str:
    return f"{generation}.{seal_of(secret, instance=instance, generation=generation)}"


def test_what_is_sealed_is_proven_and_nothing_else() -> None:
    told = fences([mark(5), mark(6, instance="l-1"), mark(7, secret=b"x" * 32), "8", "9.", "junk"], seal=seal)
    assert (told.told, told.claimed) == (5, 8)
    assert "8" in told.unproven
    assert mark(5) not in told.unproven


def test_on_this_machine_and_without_a_key() -> None:
    assert fences(["8", "9"], seal=None).told == 9
    without = fences([mark(5), "8"], seal=lambda generation: "")
    assert (without.told, without.claimed) == (0, 8)


def test_a_flood_hides_no_claim_and_costs_nothing() -> None:
    told = fences([*(f"{number:04}" for number in range(MANY * 10)), mark(9999)], seal=seal)
    assert len(told.unproven) <= MANY


@given(st.lists(st.text(alphabet="0123456789abcdef.", min_size=1, max_size=60)))
@pytest.mark.filterwarnings("error")
def test_nothing_that_a_job_can_think_of_is_proven(marks: list[str]) -> None:
    told = fences(marks, seal=seal)
    assert told.told == 0
    assert told.claimed < 10**15
