"""Every located message: `documents/bad/NAME.yml`, and beside it what is said of it."""

from pathlib import Path

import pytest

from reconciler.config.load import Invalid, load
from reconciler.config.problems import Problem

BAD = Path(__file__).parent / "documents" / "bad"


def problems(project: Path, name: str) -> str:
    folder = project / ".dstack"
    folder.mkdir(parents=True)
    (folder / "main.yml").write_bytes((BAD / f"{name}.yml").read_bytes())
    with pytest.raises(Invalid) as caught:
        load(project, home=project / "home")
    return "".join(f"{problem}\n" for problem in caught.value.problems)


@pytest.mark.parametrize("name", sorted(file.stem for file in BAD.glob("*.yml")))
def test_every_problem_is_located(tmp_path: Path, name: str) -> None:
    assert problems(tmp_path, name) == (BAD / f"{name}.txt").read_text()


def test_a_problem_is_one_line_whatever_it_quotes() -> None:
    """A value of several lines could pretend to be other messages."""
    problem = Problem("a.yml", 1, 2, "name: `x\nerror: all is well\x1b[2J` is no name")
    assert str(problem) == "a.yml:1:2: name: `x error: all is well\\x1b[2J` is no name"
