"""No mutant rots between two runs of `make mutants`: each still applies, and the page knows it."""

from __future__ import annotations

import pytest

from tests.chaos.mutants import MUTANTS, ROOT, TABLE, Mutant


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_it_still_applies(mutant: Mutant) -> None:
    for name, text, instead in mutant.changes:
        assert text != instead
        assert (ROOT / name).read_text().count(text) == 1, name


def test_the_page_has_each_and_nobody_survived() -> None:
    rows = [line for line in TABLE.read_text().splitlines() if line.startswith("| ")][1:]
    assert [row.split(" | ")[0].removeprefix("| ") for row in rows] == [mutant.name for mutant in MUTANTS]
    assert not [row for row in rows if "**nobody**" in row]
