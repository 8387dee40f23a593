"""Help: whole descriptions at every width, commands under headings, examples that are command lines."""

from __future__ import annotations

import contextlib
import io
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer

from reconciler.cli.app import build
from reconciler.cli.directory import split
from reconciler.cli.exits import Fail
from reconciler.cli.options.examples import EXAMPLES
from reconciler.cli.options.sections import COMMANDS
from reconciler.cli.session import run_session

ROOT: Any = typer.main.get_command(build([]))


def commands(group: Any = ROOT, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    for name, command in group.commands.items():
        if command.hidden:
            continue
        yield (*path, name), command
        if hasattr(command, "commands"):
            yield from commands(command, (*path, name))


ALL = dict(commands())
ORDERS = {
    "Add",
    "Apply",
    "Check",
    "Copy",
    "Create",
    "Delete",
    "Edit",
    "Explain",
    "Follow",
    "Inspect",
    "Limit",
    "List",
    "Make",
    "Manage",
    "Move",
    "Print",
    "Rebuild",
    "Replace",
    "Restore",
    "Run",
    "Set",
    "Show",
    "Start",
    "Stop",
    "Terminate",
    "Undo",
    "Write",
}


def shown(*arguments: str) -> str:
    with contextlib.redirect_stdout(io.StringIO()) as said:
        assert run_session(arguments) == 0
    return said.getvalue()


@pytest.mark.parametrize("columns", [60, 80, 120])
@pytest.mark.parametrize("path", [(), *ALL], ids=" ".join)
def test_help_is_never_cut(path: tuple[str, ...], columns: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    text = shown(*path, "--help")
    assert "..." not in text.replace("]...", "").replace("}...", "")
    command = ALL.get(path, ROOT)
    parts = [command.help, *(each.help for each in command.params if getattr(each, "help", None))]
    flat = " ".join(text.split())
    for part in filter(None, parts):
        assert " ".join(part.split()) in flat


def test_help_of_the_whole_has_every_command_under_a_heading(snapshot: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    known = {name for names in COMMANDS.values() for name in names}
    assert {path[0] for path in ALL} <= known
    assert shown("--help") == snapshot
    assert shown("run", "--help") == snapshot


def test_every_command_has_two_examples() -> None:
    leaves = {path for path, command in ALL.items() if not hasattr(command, "commands")}
    assert {tuple(name.split()) for name in EXAMPLES} == {(), *leaves}
    assert [name for name, lines in EXAMPLES.items() if len(lines) < 2] == []
    assert [line for lines in EXAMPLES.values() for line in lines if len(line) > 98] == []


@pytest.mark.parametrize("path", ALL, ids=" ".join)
def test_the_first_line_of_help_is_short_and_an_order(path: tuple[str, ...]) -> None:
    first = ALL[path].help.partition("\n")[0]
    assert len(first) <= 60
    assert first.endswith(".")
    assert re.split("[ ,]", first)[0] in ORDERS


@pytest.mark.parametrize("line", [line for lines in EXAMPLES.values() for line in lines])
def test_every_example_is_a_command_line(line: str) -> None:
    words = shlex.split(line.partition(">")[0], comments=True)
    assert words.pop(0) == "dstack"
    command, context, path = ROOT, None, ["dstack"]
    words = split(words)[1]
    while hasattr(command, "commands") and words and not words[0].startswith("-"):
        context = command.make_context(path[-1], [], parent=context, resilient_parsing=True)
        path.append(words.pop(0))
        command = command.commands[path[-1]]
    if words != ["--install-completion"]:
        command.make_context(path[-1], words, parent=context)


# ---------------------------------------------------------------- -C DIR


@pytest.mark.parametrize(
    ("given", "folders", "left"),
    [
        (["-C", "a", "plan"], ["a"], ["plan"]),
        (["plan", "-C", "a"], ["a"], ["plan"]),
        (["plan", "--json", "-Ca"], ["a"], ["plan", "--json"]),
        (["-C", "a", "-C", "b", "ps"], ["a", "b"], ["ps"]),
        (["run", ".", "--", "-C", "a"], [], ["run", ".", "--", "-C", "a"]),
        (["pool", "add-ssh", "-C", "h"], [], ["pool", "add-ssh", "-C", "h"]),
        (["-C", "a", "pool", "add-ssh", "h"], ["a"], ["pool", "add-ssh", "h"]),
    ],
)
def test_the_folder_is_taken_out_of_the_command_line(given: list[str], folders: list[str], left: list[str]) -> None:
    assert split(given) == (folders, left)


def test_a_folder_that_is_missing_is_asked_for() -> None:
    with pytest.raises(Fail, match="-C needs a folder"):
        split(["plan", "-C"])


@pytest.mark.parametrize("before", [True, False])
def test_another_folder_is_worked_in(tmp_path: Path, before: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "there" / ".dstack").mkdir(parents=True)
    (tmp_path / "there" / ".dstack" / "pools.yml").write_text("pools: [{name: a, nodes: 0}]\n")
    monkeypatch.chdir(tmp_path)
    where = ("-C", "there")
    assert shown(*(where if before else ()), "validate", *(() if before else where)) == "valid\n"


@pytest.mark.parametrize(("folder", "why"), [("nowhere", "no such folder"), ("file", "not a directory")])
def test_a_folder_that_is_not_there_is_said(
    tmp_path: Path, folder: str, why: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.chdir(tmp_path)
    assert run_session(["-C", folder, "plan"]) == 1
    assert capsys.readouterr().err.startswith(f"error: -C {folder}: {why}")
