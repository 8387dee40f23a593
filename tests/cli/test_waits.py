"""Every command that waits says for what, and ends: by that, at `--deadline`, or naming the command that helps."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from msgspec.structs import replace

from reconciler.cli.exits import Fail
from reconciler.cli.terminal.bounded_wait import BoundedWait
from reconciler.cli.terminal.progress import Progress
from reconciler.store.statefile import dumps, loads
from schemas.state import State
from tests.cli.test_job import SLEEPER, runs, the_state, until
from tests.doubles.commands.command import DSTACK, Folder, Ran, folder_at
from tests.doubles.hosts.ssh_hosts import a_lab, why_not
from tests.hosts.test_ssh_runs import Shop

STATE = ".dstack/state/demo12345678.yml"


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Folder]:
    made = folder_at(tmp_path)
    yield made
    made.dstack("destroy", "--confirm", "demo")


def begun(folder: Folder, *args: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [*DSTACK, *args],
        cwd=folder.root,
        env=folder.env,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def changed(folder: Folder, change: Callable[[State], State]) -> None:
    """Write the state by hand, once nobody else does just now."""
    path = folder.root / STATE
    written = path.with_name(".changed")
    written.write_bytes(dumps(change(loads(path.read_bytes(), STATE))))
    written.replace(path)  # whole: a command may be reading it


def without_runs(state: State) -> State:
    return replace(state, runs=(), attempts=())


# ---------------------------------------------------------------- nothing can change it


@pytest.mark.parametrize("detach", [(), ("-d",)])
def test_a_run_whose_environment_lacks_a_variable_is_refused_at_once(folder: Folder, detach: tuple[str, ...]) -> None:
    folder.write("needy.yml", "type: task\nname: needy\nenv: [FOO_BAR]\ncommands: [echo $FOO_BAR]\n")
    refused = folder.dstack("run", ".", "-f", "needy.yml", "-y", *detach)
    assert refused.code == 1
    assert "needs FOO_BAR, not set on" in refused.err
    assert not (folder.root / STATE).exists()
    assert folder.dstack("run", ".", "-f", "needy.yml", "-y", *detach, "-e", "FOO_BAR=1").code == 0
    assert folder.dstack("run", ".", "-f", "needy.yml", "-y", *detach, env={"FOO_BAR": "2"}).code == 0


@pytest.mark.parametrize("command", [("run", ".", "-y"), ("logs", "-f", "sleeper"), ("attach", "sleeper", "-y")])
def test_whoever_follows_a_run_that_is_gone_ends_with_an_error(folder: Folder, command: tuple[str, ...]) -> None:
    folder.write(".dstack.yml", SLEEPER)
    if command[0] != "run":
        assert folder.dstack("run", ".", "-y", "-d").code == 0
    follower = begun(folder, *command)
    try:
        assert follower.stdout is not None
        until(lambda: "asleep" in follower.stdout.readline())  # type: ignore[union-attr]
        changed(folder, without_runs)
        said, _ = follower.communicate(timeout=60)
        assert (follower.returncode, "is not in the state any more" in said) == (1, True), said
    finally:
        follower.kill()


# ---------------------------------------------------------------- the table


WAITS = {
    "run": ("run", ".", "-y", "--deadline", "1s"),
    "logs -f": ("logs", "-f", "sleeper", "--deadline", "1s"),
    "attach": ("attach", "sleeper", "-y", "--deadline", "1s"),
}


@pytest.mark.parametrize("name", WAITS)
def test_followers_end_at_their_deadline_and_the_run_goes_on(folder: Folder, name: str) -> None:
    folder.write(".dstack.yml", SLEEPER)
    if name != "run":
        assert folder.dstack("run", ".", "-y", "-d").code == 0
    ran = folder.dstack(*WAITS[name])
    assert ran.code == 3, ran.said
    assert "deadline" in ran.err
    assert runs(folder)["sleeper"]["status"] in ("provisioning", "running")


WAITING = {
    "run": "--deadline",
    "run -d": "--deadline",
    "attach": "--deadline",
    "logs -f": "--deadline",
    "stop": "--deadline",
    "pool add": "--deadline",
    "pool remove": "--deadline",
    "apply": "--deadline",
    "apply -d": "--deadline",
    "destroy": "--deadline",
    "plan --refresh": "one look at each place: 60 s",
    "pool drain": "one pass",
    "pool pause": "one pass",
    "pool resume": "one pass",
    "pool add-ssh": "one look at each server: 90 s",
    "gc": "one look at each place: 60 s",
    "cp": "--deadline",
    "artifacts": "--deadline",
    "ps -w": "Ctrl-C",
    "pool ps -w": "Ctrl-C",
    "events -f": "Ctrl-C",
}
"""Every command that may take long, and what ends it besides what it waits for."""


@pytest.mark.parametrize("name", [name for name, end in WAITING.items() if end == "--deadline"])
def test_each_of_them_takes_a_deadline(folder: Folder, name: str) -> None:
    words = [word for word in name.split() if not word.startswith("-")]
    assert "--deadline" in folder.dstack(*words, "--help").out


def test_silence_is_broken_by_what_is_waited_for(capsys: pytest.CaptureFixture[str]) -> None:
    said: list[str] = []

    def heard() -> bool:
        said.append(capsys.readouterr().err)
        return "".join(said).count("Waiting for") >= 2

    with Progress(waits="run train to end", quiet=0.02) as progress:
        progress.asking(("lab-1",), 1)
        until(heard)
    lines = [line for line in "".join(said).splitlines() if line]
    assert lines[0].startswith("Waiting for run train to end (0s): no answer yet from lab-1")


def test_one_silent_call_is_told_of_and_ended_at_the_deadline(capsys: pytest.CaptureFixture[str]) -> None:
    reads, writes = os.pipe()
    try:
        with (
            pytest.raises(Fail) as ended,
            BoundedWait("gpu-0 to answer", deadline="1s", left="; it goes on", quiet=0.05),
        ):
            os.read(reads, 1)
    finally:
        os.close(reads)
        os.close(writes)
    assert (str(ended.value), ended.value.code) == (
        "The deadline came while waiting for gpu-0 to answer; it goes on",
        3,
    )
    assert capsys.readouterr().err.startswith("Waiting for gpu-0 to answer (0s). Ctrl-C stops waiting")


def test_a_copy_ends_at_its_deadline(folder: Folder) -> None:
    folder.write(".dstack.yml", "type: task\nname: sleeper\ncommands: ['truncate -s 20G endless', 'exec sleep 600']\n")
    assert folder.dstack("run", ".", "-y", "-d").code == 0
    until(lambda: folder.dstack("cp", "sleeper:endless", "there", "--deadline", "1s").code == 3)
    ran = folder.dstack("cp", "sleeper:endless", "there", "--deadline", "1s")
    assert (
        "The deadline came while waiting for files of run sleeper; what arrived is in there, and it is not all"
        in ran.err
    )
    (folder.root / "there").unlink(missing_ok=True)


# ---------------------------------------------------------------- what cannot come


def test_a_run_whose_result_finds_no_room_here_says_why_and_ends(folder: Folder) -> None:
    state = folder.root / ".dstack/state"
    state.mkdir(parents=True)
    if (
        os.geteuid()
        or subprocess.run(
            ["mount", "-t", "tmpfs", "-o", "size=120k", "tmpfs", str(state)], check=False, capture_output=True
        ).returncode
    ):
        pytest.skip("needs root, and leave to mount")
    try:
        folder.write(".dstack.yml", "type: task\nname: r1\ncommands: ['head -c 200000 /dev/urandom | base64']\n")
        ran = folder.dstack("run", ".", "-y")
        assert ran.code == 3, ran.said
        assert "Run r1 finished, and its result on bench-0 cannot be stored: " in ran.err
        assert "No space left on device" in ran.err
        subprocess.run(["mount", "-o", "remount,size=10m", str(state)], check=True)
        assert folder.dstack("apply", "-y").code == 0
        assert runs(folder)["r1"]["status"] == "done"
        assert len(folder.dstack("logs", "r1").out) > 200_000
        folder.dstack("destroy", "--confirm", "demo")
    finally:
        subprocess.run(["umount", "-l", str(state)], check=True)


def test_destroy_under_another_home_says_which_and_ends(folder: Folder, tmp_path: Path) -> None:
    folder.write(".dstack.yml", SLEEPER)
    assert folder.dstack("run", ".", "-y", "-d").code == 0
    elsewhere = {"HOME": str(tmp_path / "other"), "XDG_STATE_HOME": ""}
    ran = folder.dstack("destroy", "--confirm", "demo", env=elsewhere)
    assert ran.code == 3, ran.said
    last = ran.err.strip().splitlines()[-1]
    assert last.startswith("bench-0 cannot be terminated from here: its jobs on this machine belong to another home")
    assert f"and this command looks in {tmp_path}/other/.local/state/dstack" in last
    assert runs(folder)["sleeper"]["status"] != "terminated"


@pytest.fixture
def shop(tmp_path: Path) -> Iterator[Shop]:
    if why_not():
        pytest.skip(why_not())
    with a_lab(tmp_path / "lab") as lab:
        yield Shop(lab, Folder(tmp_path / "project"))


def stopped(shop: Shop, *words: str) -> Ran:
    began = time.monotonic()
    ran = shop.dstack("stop", "train", "-y", *words, ok=False)
    assert time.monotonic() - began < 200
    return ran


def test_a_stop_on_a_server_that_is_down_says_so_and_names_what_helps(shop: Shop) -> None:
    host = shop.lab.host("one")
    shop.documents(host)
    shop.run_file("train", "sleep 600")
    shop.comes_to("train", "running")
    host.stop()
    for words in ((), ("-x",)):
        ran = stopped(shop, *words)
        assert ran.code == 3, ran.said
        assert "train: stopping on one (" in ran.err
        assert ran.err.strip().endswith("If it never will: dstack apply --assume-lost train")
    refused = shop.dstack("pool", "remove", "one", "--force", "-y", ok=False)
    assert (refused.code, "dstack apply --assume-lost train" in refused.err) == (1, True), refused.said
    assert the_state(shop.folder)
