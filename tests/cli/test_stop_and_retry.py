"""What a stop gives a run, and what a second attempt has of the first: by the command, on real processes."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cli.test_job import runs, ticked_until, until
from tests.doubles.commands.command import DSTACK, Folder, folder_at


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Folder]:
    made = folder_at(tmp_path)
    yield made
    made.dstack("destroy", "--confirm", "demo")


def orders(folder: Folder) -> str:
    """What the hosts were told of every job that has not ended."""
    return "".join(path.read_text() for path in (folder.root.parent / "home").rglob("jobs/*/order"))


@pytest.mark.parametrize(("said", "seconds"), [("stop_duration: 2m", "120"), ("stop_duration: off", "999999999")])
def test_the_host_knows_how_long_a_stop_waits(folder: Folder, said: str, seconds: str) -> None:
    saves = "trap 'sleep 1; echo saved; exit 1' TERM; echo up; while :; do sleep 0.1; done"
    folder.write(".dstack/runs/long.yml", f'type: task\n{said}\ncommands: ["{saves}"]\n')
    assert folder.dstack("apply", "-y").code == 0
    ticked_until(folder, "long", "running")
    assert f"grace={seconds}\n" in orders(folder)
    until(lambda: "up" in folder.dstack("logs", "long").out)
    assert folder.dstack("stop", "long", "-y").code == 0
    ticked_until(folder, "long", "terminated")
    assert "saved" in folder.dstack("logs", "long").out
    assert runs(folder)["long"]["status"] == "terminated"


LISTS = "type: task\nname: lists\ncommands: [find . -type f | sort]\n"
WRITES = "type: task\nname: writes\ncommands: [mkdir out, echo 1 > out/a, echo 2 > b, echo told]\nartifacts: [out, b]\n"


def test_results_do_not_travel_back_out(folder: Folder) -> None:
    folder.write("own.txt", "mine")
    folder.write(".dstack/runs/writes.yml", WRITES)
    assert folder.dstack("apply", "-y").code == 0
    ticked_until(folder, "writes", "done")
    (folder.root / "sub").mkdir()
    for command in (["artifacts", "writes"], ["artifacts", "writes", "sub/results"], ["cp", "writes:b", "copied"],
                    ["cp", "writes:out", "sub"], ["artifacts", "writes", "."]):  # fmt: skip
        assert folder.dstack(*command).code == 0
    with (folder.root / "writes.log").open("wb") as log:
        command = subprocess.run([*DSTACK, "logs", "writes"], cwd=folder.root, env=folder.env, stdout=log, check=False)
        assert command.returncode == 0
    assert (folder.root / "writes.log").read_text() == "told\n"
    assert (folder.root / "sub/out/a").read_text() == "1\n"
    folder.write("lists.yml", LISTS)
    ran = folder.dstack("run", ".", "-f", "lists.yml", "-y")
    assert "note: 9 files that dstack fetched (b, …) are not sent." in ran.err
    listed = [line for line in folder.dstack("logs", "lists").out.splitlines() if not line.startswith("./.dstack")]
    assert listed == ["./lists.yml", "./own.txt"]


TRAINS = """\
type: task
name: train
{more}
retry: true
files: []
artifacts: [out]
setup: ["mkdir -p out; echo had $(cat out/step-$DSTACK_NODE_RANK 2> /dev/null || echo nothing)"]
commands:
  - echo "attempt $DSTACK_ATTEMPT" | tee -a out/step-$DSTACK_NODE_RANK
  - sh -c '{then}'
"""
ENDS = '[ "$DSTACK_ATTEMPT" -ge 2 ]'
STAYS = '[ "$DSTACK_ATTEMPT" -ge 2 ] || sleep 600'


def supervisors(folder: Folder) -> list[int]:
    return [int(path.read_text().split()[0]) for path in (folder.root.parent / "home").rglob("jobs/*/pid")]


@pytest.mark.parametrize(
    ("more", "had"), [("", "attempt 1"), ("restore: none", "nothing"), ("restore: artifacts\nnodes: 2", "attempt 1")]
)
def test_a_retry_begins_with_what_the_last_attempt_left(folder: Folder, more: str, had: str) -> None:
    folder.write(".dstack/runs/train.yml", TRAINS.format(more=more, then=ENDS))
    assert folder.dstack("apply", "-y").code == 0
    ticked_until(folder, "train", "done")
    for rank in range(2 if "nodes" in more else 1):
        log = folder.dstack("logs", "train", "--job", str(rank)).out
        assert log.endswith(f"had {had}\nattempt 2\n")
        assert log.count("the artifacts of attempt 1 were put back") == (had != "nothing")
    assert folder.dstack("artifacts", "train", "got").code == 0
    kept = sorted(path.read_text() for path in (folder.root / "got").rglob("step-*"))
    assert kept == ["attempt 1\nattempt 2\n" if had != "nothing" else "attempt 2\n"] * len(kept) != []


def test_what_was_stored_while_it_ran_survives_its_host(folder: Folder) -> None:
    """Its machine is lost before it ends: the last copy is what there is."""
    folder.write(".dstack/runs/train.yml", TRAINS.format(more="artifacts_every: 1s", then=STAYS))
    assert folder.dstack("apply", "-y").code == 0
    until(lambda: folder.dstack("apply", "-y", "-d").code == 0 and folder.dstack("artifacts", "train", "got").code == 0)
    for supervisor in supervisors(folder):
        os.kill(supervisor, signal.SIGKILL)
    ticked_until(folder, "train", "done")
    assert folder.dstack("logs", "train").out.endswith("were put back\nhad attempt 1\nattempt 2\n")


@pytest.mark.parametrize("change", ["rerun: 1", "env: {COLOUR: blue}"])
def test_a_new_run_of_the_name_has_nothing(folder: Folder, change: str) -> None:
    folder.write(".dstack/runs/train.yml", TRAINS.format(more="", then="exit 0"))
    assert folder.dstack("apply", "-y").code == 0
    ticked_until(folder, "train", "done")
    folder.write(".dstack/runs/train.yml", TRAINS.format(more=change, then="exit 0"))
    assert folder.dstack("apply", "-y").code == 0
    until(lambda: folder.dstack("apply", "-y", "-d").code == 0 and "attempt" in folder.dstack("logs", "train").out)
    assert folder.dstack("logs", "train").out == "had nothing\nattempt 1\n"


def test_restore_is_no_part_of_what_a_run_is(folder: Folder) -> None:
    folder.write(".dstack/runs/train.yml", TRAINS.format(more="", then="exit 0"))
    assert folder.dstack("apply", "-y").code == 0
    ticked_until(folder, "train", "done")
    folder.write(".dstack/runs/train.yml", TRAINS.format(more="restore: none", then="exit 0"))
    said = folder.dstack("plan").out
    assert "restore: artifacts → none (does not run again)" in said
    assert " to start" not in said


def test_what_a_result_lacks_is_told(folder: Folder) -> None:
    commands = "[mkdir out, echo 1 > out/a, ln -s /etc/passwd out/b]"
    folder.write(".dstack/runs/links.yml", f"type: task\nartifacts: ['out/**', none]\ncommands: {commands}\n")
    said = ""

    def done() -> bool:
        nonlocal said
        said += folder.dstack("apply", "-y").said
        return runs(folder)["links"]["status"] == "done"

    until(done)
    assert said.count("left out, it leaves the folder: out/b") == 1
    assert "no file matches" not in said
    assert folder.dstack("artifacts", "links").out.startswith("1 file in")


@pytest.mark.parametrize(
    ("command", "options", "code"),
    [("exit 7", ("--exit-code-from", "0"), 7), ("exit 0", ("--exit-code-from", "0"), 0), ("exit 7", (), 1),
     ("exit 7", ("--exit-code-from", "3"), 1)],
)  # fmt: skip
def test_the_exit_code_of_a_job_can_be_had(folder: Folder, command: str, options: tuple[str, ...], code: int) -> None:
    folder.write("ends.yml", f"type: task\nname: ends\nfiles: []\ncommands: ['{command}']\n")
    ran = folder.dstack("run", ".", "-f", "ends.yml", "-y", *options)
    assert ran.code == code, ran
    assert ("has no node 3" in ran.err) == ("3" in options)


def test_an_exit_code_is_waited_for(folder: Folder) -> None:
    folder.write("ends.yml", "type: task\nname: ends\ncommands: [exit 7]\n")
    ran = folder.dstack("run", ".", "-f", "ends.yml", "-y", "-d", "--exit-code-from", "0")
    assert (ran.code, "leave out -d" in ran.err) == (1, True)
