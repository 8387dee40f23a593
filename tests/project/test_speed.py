"""What speed rests on: which modules a command imports, what counts as a miss, and that the page tells the budgets.

The figures themselves are `make bench`'s, which CI runs after the tests: a machine busy with tests measures nothing.
"""

from __future__ import annotations

import ast
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from bench import run
from bench.budgets import BUDGETS, MISSED, Row, better, lines, missed
from tests.doubles.commands.command import Folder, folder_at

ROOT = Path(__file__).parents[2]
# What nothing on this machine may pay for: clouds, hosts elsewhere, keys, editing, servers.
ELSEWHERE = {
    "boto3", "botocore", "google", "azure", "kubernetes", "obstore", "fabric", "paramiko", "asyncssh", "numpy",
    "requests", "httpx", "ruamel", "jsonschema",
}  # fmt: skip
READING = {"pydantic", "pydantic_core", "yaml"}
DRAWING = {"typer", "click", "rich"}

RUN_AND_LIST = """
import json, sys
from reconciler.cli.main import main
sys.argv = ["dstack", *json.loads(sys.argv[1])]
code = 0
try:
    main()
except SystemExit as end:
    code = end.code or 0
names = sorted({name.partition(".")[0] for name in sys.modules})
print(json.dumps([code, names]), file=sys.stderr)
"""


@pytest.fixture(scope="module")
def applied(tmp_path_factory: pytest.TempPathFactory) -> Folder:
    """A project that was applied, with nothing to do."""
    folder = folder_at(tmp_path_factory.mktemp("applied"))
    ran = folder.dstack("apply", "-y")
    assert ran.code == 0, ran.err
    return folder


def imported(folder: Folder, *arguments: str) -> set[str]:
    """The packages that a command has imported at its end; it must go well."""
    done = subprocess.run(
        [sys.executable, "-c", RUN_AND_LIST, json.dumps(arguments)],
        cwd=folder.root,
        env=folder.env,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    code, names = json.loads(done.stderr.splitlines()[-1])
    assert (done.returncode, code) == (0, 0), done.stderr
    return set(names)


def test_unchanged_documents_are_not_read(applied: Folder) -> None:
    names = imported(applied, "plan")
    assert names & (READING | DRAWING | ELSEWHERE) == set()
    assert "msgspec" in names


def test_changed_documents_are_read_and_nothing_more(applied: Folder) -> None:
    path = applied.root / ".dstack/pools.yml"
    before = path.read_text()
    path.write_text(before + "# a comment\n")
    names = imported(applied, "plan")
    path.write_text(before)
    assert names >= {"pydantic", "yaml"}
    assert names & (DRAWING | ELSEWHERE) == set()


def test_a_persons_own_profiles_are_remembered_too(tmp_path: Path) -> None:
    folder = folder_at(tmp_path)
    own = Path(folder.env["HOME"]) / ".dstack/profiles.yml"
    own.parent.mkdir()
    own.write_text("profiles: [{name: mine, max_price: 3}]\n")
    assert folder.dstack("apply", "-y").code == 0
    assert imported(folder, "plan") & READING == set()
    own.write_text("profiles: [{name: mine, max_price: 4}]\n")
    assert imported(folder, "plan") >= READING


@pytest.mark.parametrize("arguments", [["ps"], ["pool", "ps"], ["ps", "--json"], ["plan", "--json"]], ids=" ".join)
def test_lists_read_no_documents(applied: Folder, arguments: list[str]) -> None:
    names = imported(applied, *arguments)
    assert names & ({"pydantic", "typer"} | ELSEWHERE) == set()


@pytest.mark.parametrize("arguments", [["apply", "-y"], ["--help"], ["validate"]], ids=" ".join)
def test_what_is_on_this_machine_needs_nothing_from_elsewhere(applied: Folder, arguments: list[str]) -> None:
    assert imported(applied, *arguments) & (ELSEWHERE - {"ruamel"}) == set()


def test_the_version_costs_nothing(applied: Folder) -> None:
    names = imported(applied, "--version")
    assert names & {"msgspec", "dataclasses", "typing", "pathlib", "typer", "schemas"} == set()


SDKS = {"boto3", "botocore", "google", "azure", "kubernetes", "obstore", "fabric", "paramiko", "cryptography"}


def test_sdks_are_imported_where_they_are_used() -> None:
    """At the top of a module only in a vendor's own file or on the way to servers: imported when needed."""
    wrong = [
        f"{path.relative_to(ROOT)}:{node.lineno}: {name}"
        for package in ("schemas", "backends", "reconciler")
        for path in sorted((ROOT / package).rglob("*.py"))
        if "ssh" not in path.relative_to(ROOT).as_posix()
        if package != "backends" or path.parent.name in ("backends", "local", "fake")
        for node in ast.parse(path.read_text()).body
        for name in _imports(node)
        if name.partition(".")[0] in SDKS
    ]
    assert wrong == []


def _imports(node: ast.stmt) -> list[str]:
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    return [str(node.module)] if isinstance(node, ast.ImportFrom) else []


# ---------------------------------------------------------------- budgets

HELP = "dstack --help"


@pytest.mark.parametrize(
    ("value", "pace", "verdict"),
    [
        (0.20, 1.0, "met"),
        (0.21, 1.0, "over"),
        (0.30, 1.0, "over"),
        (0.31, 1.0, "missed"),
        (0.31, 2.0, "met"),  # a machine half as fast may take twice as long
        (0.61, 2.0, "missed"),
        (0.21, 0.5, "over"),  # a faster one keeps the budget as it is written
    ],
)
def test_a_budget_in_seconds_is_of_the_machine(value: float, pace: float, verdict: str) -> None:
    assert Row(what=HELP, value=value, unit="s", pace=pace).verdict == verdict


@pytest.mark.parametrize(
    ("what", "value", "verdict"),
    [
        ("plan, documents unchanged", 16, "met"),
        ("plan, documents unchanged", 24.1, "missed"),
        ("its memory", 376, "missed"),
        ("its writes", 6, "over"),
        ("writes of a tick with nothing to do", 0, "met"),
        ("writes of a tick with nothing to do", 1, "missed"),
    ],
)
def test_other_budgets_are_the_same_everywhere(what: str, value: float, verdict: str) -> None:
    row = Row(what=what, value=value, unit=BUDGETS[what][1], pace=3.0)
    assert row.verdict == verdict
    assert missed([row]) == ([row] if verdict == "missed" else [])


def test_a_row_without_a_budget_is_told_and_misses_nothing() -> None:
    row = Row(what="python -c pass", value=9.0, unit="s")
    assert (row.verdict, missed([row])) == ("", [])
    assert lines([row]) == ["python -c pass                                        9.000 s"]


def test_a_budget_is_in_its_rows_unit() -> None:
    with pytest.raises(ValueError, match="its budget is in s"):
        _ = Row(what=HELP, value=1, unit="MiB").verdict


def test_of_two_looks_the_less_noisy_counts() -> None:
    first = [Row(what=HELP, value=0.9, unit="s"), Row(what="python -c pass", value=0.1, unit="s")]
    slower = Row(what=HELP, value=0.5, unit="s", pace=3.0)  # more of its budget is left than of the first
    assert better(first, [slower]) == [slower, first[1]]
    assert better([slower], first) == [slower]


def test_growth_is_shown_and_fails_nothing() -> None:
    assert Row(what="growth of plan, 10k to 100k", value=9.0, unit="x n log n").verdict == "over"


def test_the_page_has_every_budget_and_no_other() -> None:
    page = (ROOT / "docs/speed.md").read_text()
    units = "s|x bare|x plain ssh|MiB|MB|writes|requests|reconcilers|x n log n"
    table = re.findall(rf"^\| ([^|]+?) \| ([\d.]+) ({units}) \| [\d.]+ \| [^|]+ \|$", page, re.M)
    assert {what: (float(budget), unit) for what, budget, unit in table} == BUDGETS
    assert f"{MISSED:g} times" in page


def test_a_part_that_fails_takes_no_other_along(capsys: pytest.CaptureFixture[str]) -> None:
    def fails() -> list[Row]:
        raise ValueError("no such server")

    def ends() -> list[Row]:
        raise SystemExit("python -m bench.aws: exit 3")

    row = Row(what="its writes", value=4, unit="writes")
    rows, failed = run._measured({"one": fails, "two": lambda: [row], "three": ends})
    assert [one.what for one in rows] == ["its writes"]
    assert failed == {"one": "ValueError: no such server", "three": "SystemExit: python -m bench.aws: exit 3"}
    assert "no such server" in capsys.readouterr().err
