"""Every located message: `documents/bad/NAME.yml`, and beside it what is said of it."""

from pathlib import Path

import pytest

from reconciler.load import Invalid, load

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
