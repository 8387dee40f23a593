"""The command line: suggestions, exit codes, errors of one line, and nothing done that was not asked for."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import typer
from syrupy.assertion import SnapshotAssertion

from reconciler.cli.app import build
from reconciler.cli.suggest import GROUPS, suggest
from tests.doubles.commands.command import DSTACK, POOLS, ROOT, Folder, folder_at


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Folder]:
    made = folder_at(tmp_path)
    yield made
    made.dstack("destroy", "--confirm", "demo")


@pytest.fixture(scope="module")
def quiet(tmp_path_factory: pytest.TempPathFactory) -> Folder:
    """A folder that no test applies."""
    return folder_at(tmp_path_factory.mktemp("quiet"))


# ---------------------------------------------------------------- wrong command lines


@pytest.mark.parametrize(
    ("line", "meant"),
    [
        ("plann", "`dstack plan`"),
        ("aply", "`dstack apply`"),
        ("status", "`dstack ps`"),
        ("kill x", "`dstack stop`"),
        ("fleet", "`dstack pool`"),
        ("create", "`dstack pool create`"),
        ("pool lst", "`dstack pool list`"),
        ("pool ad", "`dstack pool add`"),
        ("plan --refrsh", "--refresh"),
        ("plan --pol x", "--pool"),
        ("pool add --gpus 1", "--gpu"),
        ("run . --max-prise 2", "--max-price"),
        ("state forgt x", "`dstack state forget`"),
        ("schema pol", "pool"),
        ("plan --pool bnch", "bench"),
        ("xyzzy", "plan, apply, run"),
        ("apply -f train.dstack.yml", "`dstack run . -f FILE`"),
        ("apply --file=train.dstack.yml -y", "`dstack run . -f FILE`"),
        ("-C . apply -f x", "`dstack run . -f FILE`"),
        ("fleet list", "`dstack pool ps`"),
        ("fleet delete x", "`dstack pool remove NAME`"),
        ("server", "There is no server"),
        ("offer --gpu 1", "`dstack offers`"),
        ("volume list", "`dstack schema run`"),
        ("secret set a b", "under `secrets`"),
        ("project add x", "`dstack init`"),
        ("logs r --diagnose", "`dstack events --run RUN`"),
    ],
)
def test_whatever_is_wrong_has_a_suggestion(quiet: Folder, line: str, meant: str) -> None:
    quiet.write("run.yml", "type: task\nname: r\ncommands: [echo hi]\n")
    args = line.split() + (["-f", "run.yml"] if line.startswith("run") else [])
    ran = quiet.dstack(*args)
    assert (ran.code, ran.out) == (1, "")
    assert meant in ran.err
    assert ran.err.startswith("error: ")
    assert len(ran.err.splitlines()) == 1


def test_what_is_suggested_exists() -> None:
    """The names are written down, since to build all commands costs more than a plan; they are compared here."""
    root = typer.main.get_command(build([]))
    groups = {f"dstack {name}": one for name, one in root.commands.items() if hasattr(one, "commands")}
    found = {name: {each for each, one in group.commands.items() if not one.hidden} for name, group in groups.items()}
    found["dstack"] = {name for name, one in root.commands.items() if not one.hidden}
    assert {name: set(known) for name, known in GROUPS.items()} == found


def test_suggestions_name_the_next_command() -> None:
    assert suggest("No such command 'up'", where="dstack") == "No such command 'up'. Did you mean `dstack apply`?"
    assert suggest("No such option: --x", where="dstack plan") == "No such option: --x. See `dstack plan --help`"
    assert suggest("No such option: --pol Did you mean --pool?", where="dstack plan").endswith(
        "--pol. Did you mean --pool?"
    )


def test_errors(quiet: Folder, snapshot: SnapshotAssertion) -> None:
    lines = (
        "logs nobody",
        "stop nobody",
        "artifacts nobody",
        "state show",
        "destroy",
        "plan --pool nope",
        "apply nofile.json",
        "run .",
        "run . -f none.yml",
        "run nowhere",
        "pool delete -n nope",
        "pool create -n Bad_Name",
        "pool create -n bench",
        "pool set-default --pool nope",
        "pool add --gpu 1:1",
        "pool add --idle-duration soon",
        "pool add --spot --on-demand",
        "pool add --pool nope",
        "attach r",
        "cp r x",
        "cp r:x y",
        "autoscale allow t --max 1",
        "autoscale allow t --max 0",
        "validate nowhere",
        "schema nope",
        "apply -y --deadline soon",
        "pool drain nope",
        "apply --yes-above much",
    )
    said = []
    for line in lines:
        ran = quiet.dstack(*line.split())
        assert (ran.code, ran.out) == (1, ""), ran
        assert "Traceback" not in ran.err
        said.append(f"$ dstack {line}\n{ran.err}")
    text = "".join(said).replace(str(quiet.root.resolve()), "PROJECT").replace(os.uname().nodename, "HOST")
    assert text == snapshot


def test_a_plan_that_cannot_be_saved_names_its_file(quiet: Folder) -> None:
    ran = quiet.dstack("plan", "--out", "nowhere/p.json")
    assert (ran.code, ran.err.splitlines()[-1]) == (1, "error: --out nowhere/p.json: No such file or directory")


def test_outside_a_project(tmp_path: Path) -> None:
    ran = Folder(tmp_path).dstack("plan")
    assert ran.code == 1
    assert "no .dstack folder here or in a parent; `dstack init` makes one" in ran.err


def test_every_problem_of_the_documents_is_said_at_once(tmp_path: Path) -> None:
    folder = folder_at(tmp_path, documents="pools:\n  - nam: x\n    nodes: many\n")
    ran = folder.dstack("plan")
    assert ran.code == 1
    assert ".dstack/pools.yml:2:5: " in ran.err
    assert ".dstack/pools.yml:3:" in ran.err


# ---------------------------------------------------------------- help and version


def test_version() -> None:
    done = subprocess.run([*DSTACK, "--version"], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.startswith("dstack 0")


@pytest.mark.parametrize("line", ["--help", "plan --help", "apply --help", "run --help", "pool --help", "pool add -h"])
def test_help_tells_the_exit_codes(quiet: Folder, line: str) -> None:
    ran = quiet.dstack(*line.split())
    assert (ran.code, ran.err) == (0, "")
    if line != "pool add -h":
        told = " ".join(ran.out.split())
        assert "Exit codes: 0 done or nothing to do; 1 error" in told
        assert "130 Ctrl-C" in told


def test_without_a_command_there_is_help(quiet: Folder) -> None:
    ran = quiet.dstack()
    assert ran.code == 0
    assert "Usage: dstack" in ran.out


def test_a_foreign_schemas_package_is_named(tmp_path: Path) -> None:
    folder = folder_at(tmp_path)
    folder.write("schemas/__init__.py", "")
    ran = folder.dstack("ps", env={"PYTHONPATH": f"{folder.root}:{ROOT}"})
    assert ran.code == 1
    assert ran.err.startswith("error: the package `schemas` is not dstack's own: it was found in ")
    assert str(folder.root) in ran.err


def test_a_broken_pipe_is_silent(quiet: Folder) -> None:
    process = subprocess.Popen(
        [*DSTACK, "schema", "documents"], cwd=quiet.root, env=quiet.env, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.read(1)
    process.stdout.close()
    assert process.stderr.read() == b""
    assert process.wait(timeout=60) == 0


def test_a_defect_is_told_where_to_report_and_shows_its_trace_only_on_demand(tmp_path: Path) -> None:
    folder = folder_at(tmp_path)
    folder.write(".dstack/state/demo12345678.yml", "not a state\n")
    ran = folder.dstack("ps")
    assert ran.code == 1
    assert "demo12345678.yml" in ran.err
    assert "Traceback" not in ran.err


# ---------------------------------------------------------------- plans


def test_plan_writes_nothing_and_tells_changes_by_its_exit_code(quiet: Folder) -> None:
    before = sorted(quiet.root.rglob("*"))
    assert quiet.dstack("plan").code == 0
    ran = quiet.dstack("plan", "--json", "--detailed-exitcode")
    assert json.loads(ran.out)["project"] == "demo12345678"
    assert sorted(quiet.root.rglob("*")) == before


def test_apply_without_a_terminal_needs_yes(tmp_path: Path) -> None:
    folder = folder_at(tmp_path)
    folder.write(".dstack/runs/hello.yml", "type: task\nname: hello\ncommands: [echo hi]\n")
    ran = folder.dstack("apply")
    assert ran.code == 1
    assert "there is no terminal to ask at; nothing was done. Look at the plan, then add -y" in ran.err
    assert not (folder.root / ".dstack/state").exists() or not list((folder.root / ".dstack/state").glob("*.yml"))
    assert folder.dstack("plan", "--detailed-exitcode").code == 2


# ---------------------------------------------------------------- YAML edits


def test_pools_are_edited_and_the_diff_is_shown(tmp_path: Path) -> None:
    folder = folder_at(tmp_path)
    ran = folder.dstack("pool", "create", "-n", "gpu")
    assert ran.code == 0
    assert "+  - name: gpu" in ran.out
    assert "commit this, or main undoes it" in ran.err
    text = (folder.root / ".dstack/pools.yml").read_text()
    assert "# what the tests need" in text
    assert "- name: bench   # small" in text
    assert folder.dstack("pool", "set-default", "--pool", "gpu").code == 0
    listed = folder.dstack("pool", "list").out
    words = [line.split()[:2] for line in listed.splitlines()]
    assert words == [["NAME", "DEFAULT"], ["bench", "0/0"], ["gpu", "default"]]
    assert folder.dstack("pool", "delete", "-n", "bench").code == 0
    assert "bench" not in folder.dstack("pool", "list").out


def test_an_edit_that_would_not_load_is_not_written(tmp_path: Path) -> None:
    folder = folder_at(tmp_path)
    run = "type: task\nname: r\npool_name: bench\ncommands: [echo]\n"
    folder.write(".dstack/runs/r.yml", run)
    folder.dstack("pool", "create", "-n", "gpu")
    before = (folder.root / ".dstack/pools.yml").read_text()
    ran = folder.dstack("pool", "delete", "-n", "bench")
    assert ran.code == 1
    assert "nothing was written: the documents would not be valid" in ran.err
    assert ".dstack/runs/r.yml:3:" in ran.err
    assert (folder.root / ".dstack/pools.yml").read_text() == before


# ---------------------------------------------------------------- documents


def test_init_writes_a_starter_that_is_valid(tmp_path: Path) -> None:
    folder = Folder(tmp_path / "new")
    folder.root.mkdir()
    ran = folder.dstack("init")
    assert ran.code == 0
    assert "project.yml" in ran.out
    assert folder.dstack("validate").out == "valid\n"
    again = folder.dstack("init")
    assert (again.code, again.out) == (0, "")


def test_schemas_are_printed_as_committed(quiet: Folder) -> None:
    names = quiet.dstack("schema").out.split()
    assert {"documents", "run", "plan-json", "ps-json", "pool-ps-json"} <= set(names)
    assert quiet.dstack("schema", "run").out == (ROOT / "schemas/json/run.schema.json").read_text()


def test_a_pause_is_seen_where_people_look(quiet: Folder) -> None:
    assert quiet.dstack("apply", "-y", "-d").code == 0
    assert quiet.dstack("pool", "pause", "bench", "--for", "2h", "--reason", "disk swap").code == 0
    seen = quiet.dstack("pool", "ps")
    assert "note: pool bench creates nothing new: paused by " in seen.err
    assert seen.err.count("(disk swap)") == 1
    listed = quiet.dstack("pool", "list").out
    assert "CLOSED" in listed
    assert "(disk swap)" in listed
    quiet.dstack("pool", "resume", "bench")
    assert "creates nothing new" not in quiet.dstack("pool", "ps").err
    assert "CLOSED" not in quiet.dstack("pool", "list").out
    quiet.write(".dstack/pools.yml", POOLS.replace("nodes: 0..2", "nodes: 0..2\n    paused: true"))
    assert "paused in the documents" in quiet.dstack("pool", "list").out


def test_an_old_name_of_a_pool_is_understood(quiet: Folder) -> None:
    quiet.write(".dstack/pools.yml", POOLS.replace("name: bench", "name: new\n    formerly: [bench]"))
    quiet.write("run.yml", "type: task\nname: r\npool_name: bench\ncommands: [echo hi]\n")
    for line in ("plan --pool bench", "apply -y -d --pool bench"):
        ran = quiet.dstack(*line.split())
        assert ran.code == 0, ran.said
        assert "pool `bench` is called `new` now" in ran.err
    ran = quiet.dstack("run", ".", "-f", "run.yml", "-y", "-d")
    assert ran.code == 0, ran.said
    assert "run.yml:3:12: pool_name: pool `bench` is called `new` now" in ran.err
    assert json.loads(quiet.dstack("ps", "--json", "-a").out)[0]["pool"] == "new"
    assert quiet.dstack("destroy", "--confirm", "demo").code == 0
