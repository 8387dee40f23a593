"""What one waits for is shown on a terminal while one waits, and is nowhere else."""

from __future__ import annotations

import io
import json
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from rich.console import Console

from reconciler.cli.terminal.progress import Progress
from reconciler.system.concurrent import awaited
from tests.doubles.commands.command import Folder, folder_at
from tests.doubles.commands.pseudo_terminal import ESCAPES, at_terminal
from tests.doubles.hosts.real_host import until

CLOUD = """\
project: {name: demo, id: demo12345678}
backends:
  - {type: aws, regions: [eu-west-1]}
pools:
  - {name: gpu, default: true, nodes: 0..2, resources: {cpu: 2}}
"""


def test_whom_one_waits_for_is_told_as_they_answer() -> None:
    told = list[tuple[list[str], int]]()
    names = {number: f"place-{number}" for number in range(5)}
    answers = iter([(1, "a"), (0, "b")])
    got = list(awaited(answers, names, asking=lambda some, count: told.append((list(some), count))))
    assert got == [(1, "a"), (0, "b")]
    assert [count for _, count in told] == [5, 4, 3, 0]
    assert told[-2] == (["place-2", "place-3", "place-4"], 3)


def test_what_takes_a_while_is_shown_and_taken_away() -> None:
    screen = io.StringIO()
    console = Console(file=screen, force_terminal=True, width=80, color_system=None)
    with Progress(console=console, slow=0.0) as progress:
        progress.asking(["aws/eu-west-1", "a\x1b[2Jb"], 5)
        until(lambda: "Waiting for" in screen.getvalue())
        progress.asking([], 0)
        shown = len(screen.getvalue())
        progress.asking(["late"], 1)
        progress.asking([], 0)
    drawn = ESCAPES.sub("", screen.getvalue())
    assert "Waiting for aws/eu-west-1, a\\x1b[2Jb and 3 more: 0 s" in drawn
    assert shown


@pytest.fixture
def silent() -> Iterator[socket.socket]:
    """It takes connections, and says nothing until it is closed."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    return folder_at(tmp_path, documents=CLOUD)


def nowhere(server: socket.socket) -> dict[str, str]:
    url = f"http://127.0.0.1:{server.getsockname()[1]}"
    return {
        "DSTACK_CATALOG_URL": url, "AWS_ENDPOINT_URL": "http://127.0.0.1:9", "AWS_ACCESS_KEY_ID": "AKIAX",
        "AWS_SECRET_ACCESS_KEY": "x", "AWS_EC2_METADATA_DISABLED": "true", "AWS_MAX_ATTEMPTS": "1",
    }  # fmt: skip


@pytest.mark.parametrize("command", ["plan --refresh", "pool add"])
def test_commands_that_ask_the_world_say_whom_they_wait_for(
    folder: Folder, silent: socket.socket, command: str
) -> None:
    with at_terminal(folder, *command.split(), env=nowhere(silent)) as terminal:
        terminal.wait_for("Waiting for gpuhunt's prices of aws: ")
        silent.close()
        terminal.type("\x03")
        terminal.ends()


def test_without_a_terminal_nothing_of_it_is_said(folder: Folder) -> None:
    with socket.create_server(("127.0.0.1", 0)) as gone:
        env = nowhere(gone)
    ran = folder.dstack("offers", "--refresh", "--json", env=env)
    assert "Waiting" not in ran.said
    assert "\x1b" not in ran.said
    assert json.loads(ran.out)["warnings"]
