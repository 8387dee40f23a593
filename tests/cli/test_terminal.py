"""Prompts, colours and Ctrl-C at a real pseudo-terminal."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.doubles.commands.command import Folder, folder_at
from tests.doubles.commands.pseudo_terminal import at_terminal

SLEEPER = "type: task\nname: sleeper\ncommands: [echo asleep, sleep 600]\n"
HELLO = "type: task\nname: hello\ncommands: [echo hi]\n"


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Folder]:
    made = folder_at(tmp_path)
    yield made
    made.dstack("destroy", "--confirm", "demo")


def status(folder: Folder, name: str) -> object:
    return {run["name"]: run["status"] for run in json.loads(folder.dstack("ps", "-a", "--json").out)}.get(name)


def test_apply_shows_and_asks(folder: Folder) -> None:
    folder.write(".dstack/runs/hello.yml", HELLO)
    with at_terminal(folder, "apply") as terminal:
        terminal.wait_for("Continue? [y/n]: ")
        assert "Plan: 1 instance to create, 1 run to start" in terminal.text
        terminal.type("what\n")
        terminal.wait_for("Continue? [y/n]: what\nContinue? [y/n]: ")
        terminal.type("n\n")
        assert terminal.ends() == 1
        assert "nothing was done" in terminal.text
    assert status(folder, "hello") is None
    with at_terminal(folder, "apply") as terminal:
        terminal.wait_for("Continue? [y/n]: ")
        terminal.type("y\n")
        assert terminal.ends() == 0
        assert "Done: 1 instance created, 1 run added." in terminal.text


def test_ctrl_c_at_the_prompt_does_nothing(folder: Folder) -> None:
    folder.write(".dstack/runs/hello.yml", HELLO)
    with at_terminal(folder, "apply") as terminal:
        terminal.wait_for("Continue? [y/n]: ")
        terminal.interrupt()
        assert terminal.ends() == 130
        assert terminal.text.endswith("\nCancelled. Nothing was changed.\n")
    assert status(folder, "hello") is None


def test_the_end_of_input_is_a_no(folder: Folder) -> None:
    folder.write(".dstack/runs/hello.yml", HELLO)
    with at_terminal(folder, "apply") as terminal:
        terminal.wait_for("Continue? [y/n]: ")
        terminal.type("\x04")
        assert terminal.ends() == 1


def test_colour_is_for_terminals_that_want_it(folder: Folder) -> None:
    folder.write(".dstack/runs/hello.yml", HELLO)
    with at_terminal(folder, "plan", columns=80) as terminal:
        assert terminal.ends() == 0
        painted = terminal.seen
        assert "\x1b[32m+\x1b[0m bench-0" in painted
        assert all(len(line) <= 80 for line in terminal.text.splitlines()[:-1])
    for asked in ({"NO_COLOR": "1"}, {"TERM": "dumb"}):
        with at_terminal(folder, "plan", env=asked) as terminal:
            assert terminal.ends() == 0
            assert "\x1b" not in terminal.seen
    assert "\x1b" not in folder.dstack("plan").out


def test_ctrl_c_once_stops_beginning_and_says_what_is_under_way(folder: Folder) -> None:
    """A launch is held up by a job that ignores its end for a while: apply waits, and is interrupted."""
    stubborn = "type: task\nname: stubborn\ncommands: [\"trap '' TERM; echo up; while :; do sleep 0.2; done\"]\n"
    folder.write(".dstack/runs/s.yml", stubborn)
    assert folder.dstack("apply", "-y").code == 0
    (folder.root / ".dstack/runs/s.yml").unlink()
    with at_terminal(folder, "apply") as terminal:
        terminal.wait_for("Continue? [y/n]: ")
        terminal.type("y\n")
        terminal.wait_for("stopping on")
        terminal.interrupt()
        terminal.wait_for("stopping: nothing more is begun; Ctrl-C again leaves at once")
        assert terminal.ends() == 130
        assert "stubborn: stopping on bench-0" in terminal.text
    assert folder.dstack("stop", "stubborn", "-x", "-y").code == 0


def test_ctrl_c_in_a_run_asks_and_stops_it(folder: Folder) -> None:
    folder.write("s.yml", SLEEPER)
    with at_terminal(folder, "run", ".", "-f", "s.yml") as terminal:
        terminal.wait_for("Continue? [y/n]: ")
        assert "Shown 1 of 1 offer, $0.00 max" in terminal.text
        terminal.type("y\n")
        terminal.wait_for("asleep\n")
        terminal.interrupt()
        terminal.wait_for("Stop the run before leaving? [y/n]: ")
        terminal.type("y\n")
        assert terminal.ends() == 130
    assert status(folder, "sleeper") == "terminated"


def test_ctrl_c_in_a_run_leaves_it_going(folder: Folder) -> None:
    folder.write("s.yml", SLEEPER)
    with at_terminal(folder, "run", ".", "-f", "s.yml", "-y") as terminal:
        terminal.wait_for("asleep\n")
        terminal.interrupt()
        terminal.wait_for("Stop the run before leaving? [y/n]: ")
        terminal.type("n\n")
        assert terminal.ends() == 130
        assert "left run sleeper: it goes on" in terminal.text
    assert status(folder, "sleeper") == "running"


def test_a_namesake_is_asked_about(folder: Folder) -> None:
    folder.write("s.yml", SLEEPER)
    assert folder.dstack("run", ".", "-f", "s.yml", "-y", "-d").code == 0
    with at_terminal(folder, "run", ".", "-f", "s.yml", "-d") as terminal:
        terminal.wait_for("A run sleeper is running already. Start another beside it? [y/n]: ")
        terminal.type("n\n")
        assert terminal.ends() == 1
    assert len(json.loads(folder.dstack("ps", "-a", "--json").out)) == 1


def test_a_removed_pool_is_confirmed_by_its_name(folder: Folder) -> None:
    assert folder.dstack("apply", "-y").code == 0
    assert folder.dstack("pool", "add", "-y").code == 0
    text = (folder.root / ".dstack/pools.yml").read_text().replace("name: bench ", "name: other ")
    folder.write(".dstack/pools.yml", text)
    refused = folder.dstack("apply", "-y")
    assert "was removed from the configuration but still has 1 instance (bench-0)." in refused.out
    assert "--allow-destroy POOL" in refused.err
    with at_terminal(folder, "apply") as terminal:
        terminal.wait_for("Type bench to confirm: ")
        assert "bench-0" in terminal.text
        terminal.type("bench\n")
        terminal.wait_for("Continue? [y/n]: ")
        terminal.type("y\n")
        assert terminal.ends() == 0
    assert json.loads(folder.dstack("pool", "ps", "--json").out) == []


def test_destroy_wants_the_name_typed(folder: Folder) -> None:
    assert folder.dstack("pool", "add", "-y").code == 0
    with at_terminal(folder, "destroy") as terminal:
        terminal.wait_for("Type demo to confirm: ")
        terminal.type("yes\n")
        assert terminal.ends() == 1
    with at_terminal(folder, "destroy") as terminal:
        terminal.wait_for("Type demo to confirm: ")
        terminal.type("demo\n")
        assert terminal.ends() == 0
    assert json.loads(folder.dstack("pool", "ps", "--json").out) == []


def test_a_person_revives_a_destroyed_project(folder: Folder) -> None:
    assert folder.dstack("pool", "add", "-y").code == 0
    assert folder.dstack("destroy", "--confirm", "demo").code == 0
    for answer, code in (("n", 1), ("y", 0)):
        with at_terminal(folder, "apply") as terminal:
            terminal.wait_for("Create it again?")
            assert "Project demo was destroyed by " in terminal.text
            terminal.type(f"{answer}\n")
            assert terminal.ends() == code
    assert folder.dstack("apply", "-y").code == 0


def test_a_list_at_a_terminal_is_refreshed_and_nothing_is_written(folder: Folder) -> None:
    folder.write("quick.yml", "type: task\nname: quick\ncommands: ['until [ -f ../go ]; do sleep 0.1; done']\n")
    assert folder.dstack("run", ".", "-f", "quick.yml", "-y", "-d").code == 0
    file = folder.root / ".dstack/state/demo12345678.yml"
    deadline = time.monotonic() + 60
    while json.loads(folder.dstack("ps", "--json").out)[0]["status"] != "running":
        assert time.monotonic() < deadline
        assert folder.dstack("apply", "-y", "-d").code == 0
    before = file.read_bytes()
    while not (found := list((folder.root.parent / "home").rglob("work"))):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    (work,) = found
    (work.parent / "go").touch()
    while not (work.parent / "end").exists():
        assert time.monotonic() < deadline
        time.sleep(0.05)
    for line, shown in ((("ps",), "finished"), (("ps", "--cached"), "note: observed_at "), (("pool", "ps"), "bench-0")):
        with at_terminal(folder, *line) as terminal:
            terminal.wait_for(shown)
            assert terminal.ends() == 0
            assert ("observed_at" in terminal.text) == ("--cached" in line)
    with at_terminal(folder, "ps", "-w") as terminal:
        terminal.wait_for("finished")
        terminal.type("\x03")
        assert terminal.ends() == 0
    piped = folder.dstack("ps")
    assert "note: observed_at 20" in piped.err
    assert "finished" not in piped.out
    assert json.loads(folder.dstack("ps", "--json").out)[0]["observed_at"].startswith("20")
    assert file.read_bytes() == before


def test_watching_ends_at_ctrl_c(folder: Folder) -> None:
    assert folder.dstack("pool", "add", "-y").code == 0
    with at_terminal(folder, "pool", "ps", "-w") as terminal:
        terminal.wait_for("bench-0")
        terminal.interrupt()
        assert terminal.ends() == 0
