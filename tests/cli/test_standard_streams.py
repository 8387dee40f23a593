"""A command whose standard streams are closed, full or left by their reader ends with its own exit code."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

DSTACK = str(Path(sys.executable).with_name("dstack"))

PROJECT = """\
project: {name: streams, id: strms001}
backends: [{type: local}]
pools: [{name: here, nodes: 0..1}]
"""

COMMANDS = (
    ["plan"], ["plan", "--json"], ["validate"], ["ps"], ["pool", "ps"], ["pool", "list"], ["offers"], ["cost"],
    ["apply", "-y", "-d"], ["state", "show"], ["--version"], ["--help"],
)  # fmt: skip
CLOSED = ("<&-", ">&-", "2>&-", ">&- 2>&-", "<&- >&- 2>&-")


@pytest.fixture
def project(tmp_path: Path) -> Path:
    (tmp_path / "home").mkdir()
    (tmp_path / "project" / ".dstack").mkdir(parents=True)
    (tmp_path / "project" / ".dstack" / "project.yml").write_text(PROJECT)
    return tmp_path / "project"


def shell(project: Path, line: str, *command: str) -> subprocess.CompletedProcess[bytes]:
    """The command with its streams redirected as the line says; what is left open is collected."""
    return subprocess.run(
        ["/bin/sh", "-c", f'"$0" "$@" {line}', DSTACK, *command],
        cwd=project,
        env={"PATH": "/usr/bin:/bin", "HOME": str(project.parent / "home"), "LC_ALL": "C.UTF-8"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=60,
    )


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_closed_streams_change_no_exit_code(project: Path, command: list[str]) -> None:
    plain = shell(project, "", *command)
    for line in CLOSED:
        closed = shell(project, line, *command)
        assert closed.returncode == plain.returncode, line
        assert b"Traceback" not in closed.stderr, line
        assert b"defect" not in closed.stderr, line


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_a_full_device_is_one_line_and_a_reader_that_left_is_none(project: Path, command: list[str]) -> None:
    said = shell(project, "", *command).stdout
    full = shell(project, ">/dev/full", *command)
    assert b"Traceback" not in full.stderr
    if said:
        assert full.returncode == 1
        assert b"No space left on device" in full.stderr
    left = shell(project, "| true", *command)
    assert b"Traceback" not in left.stderr
    assert b"Broken pipe" not in left.stderr


def test_what_is_started_gets_no_file_of_ours_as_its_output(project: Path) -> None:
    """A closed descriptor is the next to be handed out: the state's file must not become a program's stdout."""
    (project / ".dstack" / "runs").mkdir()
    (project / ".dstack" / "runs" / "one.yml").write_text("type: task\nname: one\ncommands: [echo hello]\n")
    assert shell(project, "<&- >&- 2>&-", "apply", "-y").returncode == 0
    assert shell(project, "", "logs", "one").stdout == b"hello\n"
