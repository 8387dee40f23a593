"""`dstack init` as a new user meets it: at a terminal, in a pipe, in a folder that has documents."""

from __future__ import annotations

from pathlib import Path

import pytest

from reconciler.config.found_here import found_here
from tests.doubles.commands.command import Folder, folder_at
from tests.doubles.commands.pseudo_terminal import at_terminal

AWS = "[default]\nregion = us-east-1\n[profile research]\nregion = eu-west-1\n[sso-session work]\nregion = x\n"
SSH = "Host gpu-a gpu-b\n  User me\nHost *.lab !x\nHost github.com\nMatch host y\n"


@pytest.fixture
def empty(tmp_path: Path) -> Folder:
    """A folder without documents, and a home with AWS profiles and servers."""
    made = folder_at(tmp_path)
    for file in sorted((made.root / ".dstack").rglob("*"), reverse=True):
        file.unlink() if file.is_file() else file.rmdir()
    (made.root / ".dstack").rmdir()
    for name, text in ((".aws/config", AWS), (".ssh/config", SSH)):
        (made.root.parent / "home" / name).parent.mkdir(parents=True, exist_ok=True)
        (made.root.parent / "home" / name).write_text(text)
    return made


def test_it_asks_for_a_name_and_for_what_is_there(empty: Folder) -> None:
    with at_terminal(empty, "init") as terminal:
        terminal.wait_for("Project name [")
        terminal.type("My Project\n")
        terminal.wait_for("a-z, then up to 40")
        terminal.type("mine\n")
        terminal.wait_for("3  host gpu-a")
        assert "2  AWS, profile research" in terminal.text
        assert "github" not in terminal.text
        terminal.wait_for("Enter for none: ")
        terminal.type("9\n")
        terminal.wait_for("numbers from 1 to 4")
        terminal.type("2, 3 4\n")
        assert terminal.ends() == 0
        assert "Next: `dstack pool add-ssh gpu-a gpu-b`" in terminal.text
        assert "Next: `dstack backend check`" in terminal.text
    said = (empty.root / ".dstack" / "pools.yml").read_text()
    assert said.endswith(
        "backends:\n  - {type: local}\n  - {type: aws, regions: [eu-west-1], creds: {profile: research}}\n"
    )
    assert "  name: mine\n" in (empty.root / ".dstack" / "project.yml").read_text()
    assert empty.dstack("validate").out == "valid\n"


@pytest.mark.parametrize("question", ["Project name [", "Enter for none: "])
def test_ctrl_c_writes_nothing(empty: Folder, question: str) -> None:
    with at_terminal(empty, "init") as terminal:
        terminal.wait_for("Project name [")
        if not question.startswith("Project"):
            terminal.type("\n")
        terminal.wait_for(question)
        terminal.interrupt()
        assert terminal.ends() == 130
        assert terminal.text.endswith("\nCancelled. Nothing was changed.\n")
    assert not (empty.root / ".dstack").exists()


def test_enter_is_this_machine_alone(empty: Folder) -> None:
    with at_terminal(empty, "init") as terminal:
        terminal.wait_for("Project name [")
        terminal.type("\n")
        terminal.wait_for("Enter for none: ")
        terminal.type("\n")
        assert terminal.ends() == 0
    assert "\nbackends:" not in (empty.root / ".dstack" / "pools.yml").read_text()
    assert "name:" not in (empty.root / ".dstack" / "project.yml").read_text()


@pytest.mark.parametrize("arguments", [(), ("-y",), ("--name", "mine")])
def test_in_a_pipe_nothing_is_asked(empty: Folder, arguments: tuple[str, ...]) -> None:
    done = empty.dstack("init", *arguments)
    assert done.code == 0
    assert "Also found here: AWS, profile default, AWS, profile research, host gpu-a, host gpu-b." in done.err
    plan = empty.dstack("plan")
    assert plan.code == 0, plan.err
    again = empty.dstack("init")
    assert (again.code, again.out) == (0, "")
    assert "everything is there already" in again.err


def test_a_name_that_is_none_is_refused(empty: Folder) -> None:
    done = empty.dstack("init", "--name", "My Project")
    assert (done.code, done.err) == (1, "error: --name My Project: a-z, then up to 40 of a-z, 0-9 and -\n")
    assert not (empty.root / ".dstack").exists()


@pytest.mark.parametrize(
    ("config", "profiles"),
    [
        ("", []),
        ("[default\n", []),
        ("[profile a b]\n[profile $(x)]\n", []),
        ("[profile ok]\nregion = ]{\n", ["{type: aws, creds: {profile: ok}}"]),
        ("[default]\n", ["{type: aws}"]),
    ],
)
def test_what_is_no_plain_name_is_not_offered(tmp_path: Path, config: str, profiles: list[str]) -> None:
    (tmp_path / ".aws").mkdir()
    (tmp_path / ".aws" / "config").write_text(config)
    assert [one.backend for one in found_here(tmp_path, {})] == profiles
