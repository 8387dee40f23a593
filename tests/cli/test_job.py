"""The main job as a person types it: plan, apply, look, run, stop, reap; on real processes of this machine."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import jsonschema
import pytest

from reconciler.cli.commands.run.logs import LastLines
from schemas.documents.generate import schema
from tests.doubles.commands.command import DSTACK, POOLS, Folder, folder_at
from tests.doubles.commands.pseudo_terminal import at_terminal

HELLO = """\
type: task
name: hello
commands:
  - echo "hello from $DSTACK_RUN_NAME"
  - echo 1,1 > squares.csv
artifacts: [squares.csv]
"""
SLEEPER = "type: task\nname: sleeper\ncommands: [echo asleep, sleep 600]\n"


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Folder]:
    made = folder_at(tmp_path)
    yield made
    made.dstack("destroy", "--confirm", "demo")


def until(met: Callable[[], object], *, patience: float = 240.0) -> None:
    deadline = time.monotonic() + patience
    while not met():
        assert time.monotonic() < deadline, "it never came to be"
        time.sleep(0.05)


def runs(folder: Folder) -> dict[str, dict[str, object]]:
    found = json.loads(folder.dstack("ps", "-a", "--json").out)
    jsonschema.validate(found, schema("ps-json"))
    return {run["name"]: run for run in found}


def instances(folder: Folder) -> list[dict[str, object]]:
    found = json.loads(folder.dstack("pool", "ps", "--json").out)
    jsonschema.validate(found, schema("pool-ps-json"))
    return list(found)


def the_state(folder: Folder) -> str:
    return (folder.root / ".dstack/state/demo12345678.yml").read_text()


def ticked_until(folder: Folder, name: str, status: str) -> None:
    until(lambda: folder.dstack("apply", "-y", "-d").code == 0 and runs(folder)[name]["status"] == status)


def test_artifacts_can_be_had_while_a_run_goes_on(folder: Folder) -> None:
    task = "type: task\nname: long\nartifacts: [out/*]\nartifacts_every: 1s\n"
    folder.write(".dstack/runs/long.yml", task + "commands: [mkdir out, echo 1 > out/step, sleep 600]\n")
    assert folder.dstack("apply", "-y").code == 0
    until(lambda: folder.dstack("apply", "-y", "-d").code == 0 and folder.dstack("artifacts", "long", "got").code == 0)
    assert runs(folder)["long"]["status"] == "running"
    assert (folder.root / "got/out/step").read_text() == "1\n"


def test_under_another_home_nothing_has_ended_and_nothing_starts_twice(folder: Folder, tmp_path: Path) -> None:
    folder.write(".dstack/runs/sleeper.yml", SLEEPER.replace("task", "service"))
    assert folder.dstack("apply", "-y").code == 0
    elsewhere = {"HOME": str(tmp_path / "other"), "XDG_STATE_HOME": ""}
    applied = folder.dstack("apply", "-y", "-d", env=elsewhere)
    assert f"and this command looks in {tmp_path}/other/.local/state/dstack" in applied.said
    assert (applied.code, "error: local is unknown, nothing was done there" in applied.err) == (1, True)
    assert runs(folder)["sleeper"]["status"] == "running"
    assert not list((tmp_path / "other").rglob("instance.json"))
    assert folder.dstack("apply", "-y", "-d").out.count("No changes.") == 1
    assert [one["status"] for one in instances(folder)] == ["busy"]


SAVES = """\
type: task
name: saves
commands:
  - trap 'echo saved; exit 0' TERM
  - echo begun
  - while :; do sleep 600 & wait $!; done
"""


def test_a_task_that_saves_and_exits_with_0_when_told_is_not_done(folder: Folder) -> None:
    folder.write(".dstack/runs/saves.yml", SAVES)
    assert folder.dstack("apply", "-y").code == 0
    until(lambda: "begun" in folder.dstack("logs", "saves").out)
    assert folder.dstack("pool", "drain", "bench", "--stop-after", "0s").code == 0
    ticked_until(folder, "saves", "submitted")
    assert "saved" in folder.dstack("logs", "saves").out
    assert folder.dstack("pool", "resume", "bench").code == 0
    ticked_until(folder, "saves", "running")
    until(lambda: "begun" in folder.dstack("logs", "saves").out)
    stopped = folder.dstack("stop", "saves", "-y")
    assert stopped.code == 0, stopped.said
    run = runs(folder)["saves"]
    assert (run["status"], run["exit_code"]) == ("terminated", 0)
    assert "stopped by" in str(run["reason"])
    assert not list((folder.root / ".dstack/state").glob("done/*"))


def test_a_copied_folder_touches_nothing_of_the_original(folder: Folder) -> None:
    folder.write(".dstack/runs/sleeper.yml", SLEEPER)
    folder.write(".dstack/runs/hello.yml", HELLO)
    assert folder.dstack("apply", "-y").code == 0
    ticked_until(folder, "hello", "done")
    copy = Folder(folder.root.parent / "copy")
    shutil.copytree(folder.root, copy.root)
    state = the_state(copy)
    run = ("run", ".", "-f", ".dstack/runs/hello.yml", "-y", "-d")
    for line in (("stop", "sleeper", "-y"), ("stop", "sleeper", "-x", "-y"), ("destroy", "--confirm", "demo"),
                 ("apply", "-y"), run, ("pool", "add", "-y"), ("pool", "remove", "bench-0", "-y")):  # fmt: skip
        ran = copy.dstack(*line)
        assert ran.code == 1, ran.said
        assert f"is a copy of the state at {folder.root}/.dstack/state/demo12345678.yml, which still exists" in ran.err
        assert "`dstack state new-lineage`" in ran.err
    assert the_state(copy) == state
    assert runs(folder)["sleeper"]["status"] == "running"

    asked = copy.dstack("state", "new-lineage")
    assert (asked.code, the_state(copy) == state) == (1, True), "not a terminal"
    made = copy.dstack("state", "new-lineage", "-y")
    assert made.code == 0, made.said
    assert "1 active run stay with the original state" in made.err
    assert "held until `dstack apply --first-run`: sleeper" in made.err
    assert copy.dstack("apply", "-y").code == 0
    assert (runs(copy)["sleeper"]["status"], runs(copy)["hello"]["status"]) == ("submitted", "done")
    assert copy.dstack("logs", "hello").out == "hello from hello\n"
    assert copy.dstack("apply", "-y", "--first-run").code == 0
    assert runs(copy)["sleeper"]["status"] == "running"
    assert copy.dstack("destroy", "--confirm", "demo").code == 0
    assert folder.dstack("apply", "-y", "-d").code == 0
    assert runs(folder)["sleeper"]["status"] == "running"


def test_a_moved_folder_goes_on_while_its_runs_run(folder: Folder) -> None:
    folder.write(".dstack/runs/sleeper.yml", SLEEPER)
    assert folder.dstack("apply", "-y").code == 0
    moved = Folder(folder.root.rename(folder.root.parent / "moved"))
    assert moved.dstack("apply", "-y", "-d").code == 0
    assert runs(moved)["sleeper"]["status"] == "running"
    assert "No other copy of this state was found" in moved.dstack("state", "new-lineage", "-y").err
    assert moved.dstack("stop", "sleeper", "-y").code == 0
    moved.root.rename(folder.root)


def test_artifacts_are_sought_from_the_runs_folder(folder: Folder) -> None:
    folder.write("src/code", "")
    task = "type: task\nname: {0}\nworking_dir: src\nartifacts: [{1}]\ncommands: [echo 1 > out]\n"
    folder.write("within.yml", task.format("within", "src/out"))
    folder.write("beside.yml", task.format("beside", "out"))
    assert folder.dstack("run", ".", "-f", "within.yml", "-y").code == 0
    assert folder.dstack("artifacts", "within").out == "1 file in within-artifacts\n"
    assert folder.dstack("run", ".", "-f", "beside.yml", "-y").code == 0
    assert "not at its `working_dir`" in folder.dstack("artifacts", "beside").err


def test_the_main_job(folder: Folder) -> None:
    folder.write(".dstack/runs/hello.yml", HELLO)
    planned = folder.dstack("plan")
    assert planned.code == 0
    assert "+ bench-0  local " in planned.out
    assert planned.out.splitlines()[-1].startswith("Plan: 1 instance to create, 1 run to start")

    applied = folder.dstack("apply", "-y")
    assert applied.code == 0, applied
    assert "Done: 1 instance created, 1 run added." in applied.out
    ticked_until(folder, "hello", "done")

    assert folder.dstack("logs", "hello").out == "hello from hello\n"
    assert folder.dstack("artifacts", "hello").out == "1 file in hello-artifacts\n"
    assert (folder.root / "hello-artifacts/squares.csv").read_text() == "1,1\n"
    (one,) = instances(folder)
    assert (one["name"], one["status"], one["backend"], one["price"]) == ("bench-0", "idle", "local", 0)
    assert one["reap_at"] is not None

    again = folder.dstack("apply", "-y")
    assert again.code == 0
    assert "Nothing to do." in again.out
    assert folder.dstack("plan", "--detailed-exitcode").code == 0
    assert "bench-0: terminates in " in again.out
    table = folder.dstack("ps", "-a").out
    heads = ["NAME", "BACKEND", "REGION", "RESOURCES", "SPOT", "PRICE", "STATUS", "SUBMITTED", "ERROR"]
    assert table.splitlines()[0].split() == heads
    assert " done " in table


def test_a_run_is_followed_and_its_result_is_the_exit_code(folder: Folder) -> None:
    folder.write("ok.yml", "type: task\nname: ok\ncommands: [echo one, echo two]\n")
    folder.write("bad.yml", "type: task\nname: bad\ncommands: [echo before, exit 3]\n")
    good = folder.dstack("run", ".", "-f", "ok.yml", "-y")
    assert (good.code, good.out.splitlines()[-2:]) == (0, ["one", "two"])
    assert "Shown 1 of 1 offer, $0.00 max" in good.out
    assert good.err.splitlines()[-1] == "run ok is done"
    bad = folder.dstack("run", ".", "-f", "bad.yml", "-y")
    assert (bad.code, bad.out.splitlines()[-1]) == (1, "before")
    assert "run bad is failed (exit 3)" in bad.err
    assert "idle" in bad.out
    assert runs(folder)["bad"]["exit_code"] == 3


def test_arguments_environment_and_folder_of_a_run(folder: Folder) -> None:
    folder.write("sub/where.txt", "here\n")
    folder.write("r.yml", 'type: task\ncommands: ["cat where.txt; echo $COLOUR ${{ run.args }}"]\n')
    ran = folder.dstack("run", "sub", "-f", "r.yml", "-n", "argy", "-e", "COLOUR=blue", "-y", "--epochs", "5", "a b")
    assert ran.code == 0, ran
    assert ran.out.splitlines()[-2:] == ["here", "blue --epochs 5 a b"]
    wrong = folder.dstack("run", ".", "-f", ".dstack/../sub/none.yml", "-y")
    assert wrong.code == 1


def test_a_detached_run_is_stopped(folder: Folder) -> None:
    folder.write("s.yml", SLEEPER)
    ran = folder.dstack("run", ".", "-f", "s.yml", "-y", "-d")
    assert (ran.code, ran.out.splitlines()[-1]) == (0, "run sleeper is running; `dstack logs -f sleeper` follows it")
    until(lambda: folder.dstack("logs", "sleeper").out == "asleep\n")
    assert folder.dstack("ps").out.splitlines()[1].split()[0] == "sleeper"
    busy = folder.dstack("pool", "remove", "bench-0", "-y")
    assert (busy.code, busy.err) == (1, "error: bench-0 is busy (sleeper): stop that first, or --force ends it\n")
    asked = folder.dstack("stop", "sleeper")
    assert (asked.code, asked.err) == (1, "error: there is no terminal to ask at; `dstack stop sleeper -y` stops it\n")
    stopped = folder.dstack("stop", "sleeper", "-y")
    assert (stopped.code, "run sleeper is terminated" in stopped.out) == (0, True)
    assert folder.dstack("stop", "sleeper", "-y").code == 1
    removed = folder.dstack("pool", "remove", "bench-0", "-y")
    assert (removed.code, removed.out) == (0, "instance bench-0 is ended\n")
    assert instances(folder) == []


def test_a_log_is_followed_to_its_end(folder: Folder) -> None:
    folder.write("slow.yml", "type: task\nname: slow\ncommands: ['for i in 1 2 3; do echo $i; sleep 0.4; done']\n")
    assert folder.dstack("run", ".", "-f", "slow.yml", "-y", "-d").code == 0
    followed = folder.dstack("logs", "-f", "slow")
    assert (followed.code, followed.out) == (0, "1\n2\n3\n")
    assert '"confirmed_price":"0"' in the_state(folder), "what was agreed to is what later ticks are held to"


def test_instances_are_added_named_and_counted(folder: Folder) -> None:
    added = folder.dstack("pool", "add", "--count", "2", "-y")
    assert (added.code, added.out.splitlines()[-1]) == (0, "added bench-0, bench-1")
    assert {one["reason"] for one in instances(folder)} != set()
    none = folder.dstack("pool", "add", "--gpu", "H100:8", "-y")
    assert none.code == 1
    assert "error: 1 of 1 cannot be had now: 1 offer → 0 with gpu " in none.err
    assert none.err.endswith("; --retry waits for them\n")
    full = folder.dstack("pool", "add", "-y")
    assert full.code == 1
    assert "the pool is at its maximum: 2 of 2 nodes" in full.err
    assert folder.dstack("pool", "list").out.splitlines()[1].split() == ["bench", "default", "2/2"]
    kept = folder.dstack("pool", "delete", "-n", "bench")
    assert kept.err.startswith("error: pool bench has live instances: bench-0, bench-1; `dstack pool remove")


def test_overrides_are_shown_until_they_are_taken_back(folder: Folder) -> None:
    folder.dstack("apply", "-y")
    paused = folder.dstack("pool", "pause", "bench", "--for", "1h", "--reason", "maintenance")
    assert paused.code == 0
    assert "bench: paused by" in folder.dstack("plan").out
    assert folder.dstack("pool", "resume", "bench").code == 0
    assert "paused" not in folder.dstack("plan").out


def test_a_saved_plan_does_no_more_than_it_says(folder: Folder) -> None:
    folder.write(".dstack/runs/hello.yml", HELLO)
    assert folder.dstack("plan", "--out", "plan.json").code == 0
    assert (folder.root / "plan.json").stat().st_mode & 0o077 == 0
    applied = folder.dstack("apply", "plan.json")
    assert applied.code == 0, applied
    assert "Done: 1 instance created" in applied.out
    folder.write(".dstack/runs/more.yml", HELLO.replace("hello", "more"))
    stale = folder.dstack("apply", "plan.json")
    assert (stale.code, "made from another configuration" in stale.err) == (1, True)


def test_a_first_apply_mints_the_project(tmp_path: Path) -> None:
    folder = folder_at(tmp_path, documents="pools: [{name: p, default: true, nodes: 0..1}]\n")
    assert json.loads(folder.dstack("plan", "--json").out)["project"] == ""
    applied = folder.dstack("apply", "-y")
    assert applied.code == 0
    assert "commit that file" in applied.err
    assert json.loads(folder.dstack("plan", "--json").out)["project"] != ""
    assert (folder.root / ".dstack/.gitignore").exists()


def test_a_missing_state_over_live_instances_is_rebuilt_by_hand(folder: Folder) -> None:
    folder.dstack("pool", "add", "-y")
    state = folder.root / ".dstack/state/demo12345678.yml"
    state.unlink()
    refused = folder.dstack("apply", "-y")
    assert refused.code == 1
    assert "the state is missing, not empty" in refused.err
    assert "dstack state rebuild" in refused.err
    assert folder.dstack("state", "rebuild", "-y").code == 0
    assert len(instances(folder)) == 1
    assert folder.dstack("state", "forget", "local").code == 1


def test_destroy_needs_the_name(folder: Folder) -> None:
    folder.dstack("pool", "add", "-y")
    asked = folder.dstack("destroy")
    assert "error: there is no terminal to type the project's name at; --confirm demo stands for it" in asked.err
    assert folder.dstack("destroy", "--confirm", "other").code == 1
    done = folder.dstack("destroy", "--confirm", "demo")
    assert (done.code, done.out.splitlines()[-1]) == (0, "Destroyed: 1 instance terminated, 0 remain.")
    assert instances(folder) == []


FLOOR = """\
project: {name: demo, id: demo12345678}
pools:
  - {name: bench, default: true, nodes: 1, resources: {cpu: 1.., memory: 0.1GB.., disk: 0.1GB..}}
"""


def test_a_destroyed_project_stays_destroyed(folder: Folder) -> None:
    folder.write(".dstack/pools.yml", FLOOR)
    folder.write(".dstack/runs/sleeper.yml", SLEEPER)
    assert folder.dstack("apply", "-y").code == 0
    assert folder.dstack("destroy", "--confirm", "demo").code == 0
    state = the_state(folder)
    saved = folder.dstack("plan", "--out", "plan.json")
    assert "Project demo was destroyed by " in saved.out
    assert "+ bench-0" in saved.out, "the plan shows what a revival creates"
    assert "Project demo was destroyed by " in folder.dstack("plan", "--refresh").out
    for line in (("apply", "-y"), ("apply", "-y", "-d"), ("apply", "plan.json"), ("apply",),
                 ("run", ".", "-f", ".dstack/runs/sleeper.yml", "-y"), ("pool", "add", "-y")):  # fmt: skip
        ran = folder.dstack(*line)
        assert ran.code == 1, ran.said
        assert "error: Project demo was destroyed by " in ran.err
        assert "To create it again: `dstack apply --revive`" in ran.err
    folder.write(".dstack/runs/sleeper.yml", SLEEPER.replace("600", "601"))  # nor another commit
    assert folder.dstack("apply", "-y").code == 1
    assert the_state(folder) == state
    assert "destroyed_by" in folder.dstack("state", "show", "--json").out

    rebuilt = folder.dstack("state", "rebuild", "-y")
    assert "note: the project stays destroyed" in rebuilt.err
    assert folder.dstack("apply", "-y").code == 1
    assert folder.dstack("destroy", "--confirm", "demo").code == 0
    assert instances(folder) == []

    assert folder.dstack("apply", "-y", "--revive").code == 0
    assert [one["pool"] for one in instances(folder)] == ["bench"]
    assert folder.dstack("apply", "-y").code == 0
    assert '"destroyed":' not in the_state(folder)


def test_removing_a_pool_destroys_no_project(folder: Folder) -> None:
    folder.write(".dstack/pools.yml", FLOOR)
    assert folder.dstack("apply", "-y").code == 0
    folder.write(".dstack/pools.yml", FLOOR.replace("bench", "other"))
    assert folder.dstack("apply", "-y", "--allow-destroy", "bench").code == 0
    assert folder.dstack("apply", "-y").code == 0
    assert [one["pool"] for one in instances(folder)] == ["other"]


def test_a_canary_secret_is_nowhere(folder: Folder) -> None:
    canary = "canary-5d1f0c9a"
    folder.write("s.yml", "type: task\nname: quiet\nenv: [TOKEN]\ncommands: ['test -n \"$TOKEN\"', sleep 600]\n")
    started = folder.dstack("run", ".", "-f", "s.yml", "-y", "-d", "-e", f"TOKEN={canary}")
    assert started.code == 0, started
    said = folder.dstack("plan").said + folder.dstack("plan", "--json").said + folder.dstack("ps", "-av").said
    listed = subprocess.run(["ps", "axww", "-o", "args"], capture_output=True, text=True, check=False).stdout
    assert canary not in started.said + said + listed
    kept = [path for path in (folder.root / ".dstack").rglob("*") if path.is_file()]
    assert [path for path in kept if canary.encode() in path.read_bytes()] == []
    assert folder.dstack("stop", "quiet", "-y", "-x").code == 0
    left = [path for path in folder.root.parent.rglob("*") if path.is_file() and canary.encode() in path.read_bytes()]
    assert left == []


def test_interrupted_following_leaves_the_run(folder: Folder) -> None:
    """Without a terminal nobody can be asked: the run goes on."""
    import signal

    folder.write("s.yml", SLEEPER)
    process = subprocess.Popen(
        [*DSTACK, "run", ".", "-f", "s.yml", "-y"],
        cwd=folder.root,
        env={**folder.env, "PYTHONUNBUFFERED": "1"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    os.set_blocking(process.stdout.fileno(), True)
    for line in process.stdout:
        if line == "asleep\n":
            break
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "left run sleeper: it goes on" in err
    assert runs(folder)["sleeper"]["status"] == "running"


def test_a_plan_of_an_older_commit_says_that_apply_would_refuse_it(folder: Folder) -> None:
    def git(*args: str) -> None:
        subprocess.run(["git", *args], cwd=folder.root, env=folder.env, check=True, capture_output=True)

    folder.write(".dstack/.gitignore", "state/\nkeys/\n")
    git("init", "-q")
    git("add", "-A")
    git("commit", "-q", "-m", "one")
    assert folder.dstack("apply", "-y").code == 0
    folder.write(".dstack/runs/hello.yml", HELLO)
    git("add", "-A")
    git("commit", "-q", "-m", "two")
    assert folder.dstack("apply", "-y").code == 0
    git("checkout", "-q", "HEAD~1")
    planned = folder.dstack("plan")
    assert planned.code == 0
    assert "apply would refuse these documents: " in planned.out
    refused = folder.dstack("apply", "-y")
    assert (refused.code, "--config-force" in refused.err) == (1, True)


@pytest.mark.parametrize(
    ("added", "number", "shown"),
    [
        ((b"a\nb\nc\n",), 2, b"b\nc\n"),
        ((b"a\nb\nc",), 2, b"b\nc"),
        ((b"a\nb", b"b\nc\n"), 2, b"bb\nc\n"),
        ((b"a\n", b"b\n"), 9, b"a\nb\n"),
        ((b"10%\r20%\r\nend\n",), 2, b"10%\r20%\r\nend\n"),
        ((b"a\n",), 0, b""),
        ((), 3, b""),
    ],
)
def test_the_last_lines(added: tuple[bytes, ...], number: int, shown: bytes) -> None:
    lines = LastLines(number)
    for data in added:
        lines.add(data)
    assert lines.text == shown


def test_the_end_of_a_log_and_several_runs_stopped_at_once(folder: Folder) -> None:
    for name in ("one", "two", "three"):
        folder.write(f".dstack/runs/{name}.yml", f"type: task\nname: {name}\ncommands: [seq 9, sleep 600]\n")
    folder.write(".dstack/pools.yml", POOLS.replace("nodes: 0..2", "nodes: 0..3"))
    assert folder.dstack("apply", "-y").code == 0
    until(lambda: folder.dstack("logs", "one", "--tail", "2").out == "8\n9\n")
    assert folder.dstack("logs", "one", "-f", "--tail", "1", "--deadline", "1s").out == "9\n"
    refused = folder.dstack("stop", "one", "nosuch", "-y")
    assert (refused.code, "no run nosuch" in refused.err) == (1, True)
    assert folder.dstack("stop", "-y").err == "error: name the runs to stop, or give --all\n"
    asked = folder.dstack("stop", "one", "two")
    assert "`dstack stop one two -y` stops it" in asked.err
    stopped = folder.dstack("stop", "one", "two", "one", "-y")
    assert (stopped.code, stopped.out.count("is terminated")) == (0, 2), stopped.said
    stopped = folder.dstack("stop", "--all", "-y")
    assert (stopped.code, stopped.out.count("run three is terminated")) == (0, 1), stopped.said
    assert folder.dstack("stop", "--all", "-y").out == "no run is active\n"


# ---------------------------------------------------------------- again and again


def test_apply_until_done(folder: Folder) -> None:
    folder.write(".dstack/runs/hello.yml", "type: task\nname: hello\ncommands: ['sleep 2', 'echo hello']\n")
    ran = folder.dstack("apply", "-y", "--until-done", "--watch", "1s")
    assert ran.code == 0, ran.said
    assert "Done: no run waits or runs." in ran.err
    assert ran.out.count("dstack plan · ") < 5, "a pass without changes prints no plan"
    assert "Nothing to do." not in ran.out
    folder.write(".dstack/runs/bad.yml", "type: task\nname: bad\ncommands: ['exit 3']\n")
    ran = folder.dstack("apply", "-y", "--until-done", "--watch=1s")
    assert (ran.code, ran.err.splitlines()[-1]) == (1, "Failed: bad."), ran.said


def test_apply_again_until_interrupted_with_the_configuration_as_it_is_then(folder: Folder) -> None:
    with at_terminal(folder, "apply", "-y", "--watch", "1s") as terminal:
        terminal.wait_for("Done: the configuration is applied.")
        folder.write(".dstack/runs/hello.yml", "type: [\n")
        terminal.wait_for("error: ")
        folder.write(".dstack/runs/hello.yml", "type: task\nname: hello\ncommands: [echo]\n")
        terminal.wait_for("instance created")
        terminal.type("\x03")
        assert terminal.ends() == 130
    assert "hello" in runs(folder)


def test_what_watch_takes(folder: Folder) -> None:
    assert folder.dstack("plan", "--out", "5m").code == 0
    refused = folder.dstack("apply", "a.plan", "--watch")
    assert "a.plan: a saved plan is applied once" in refused.err
    refused = folder.dstack("apply", "--watch", "a.plan")
    assert "a.plan: a saved plan is applied once" in refused.err, "its name is no interval"
    assert "--watch: the text `soon` is not a duration" in folder.dstack("apply", "-y", "--watch=soon").err
