"""What is left out is said in one line a reason, and fails a run that must have all."""

from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from tests.worlds import skips

ROOT = Path(__file__).parents[2]
SOME = """
import pytest
@pytest.mark.parametrize("n", [1, 2])
def test_needs(n):
    pytest.skip({reason!r})
def test_runs():
    pass
"""


def test_one_line_a_reason() -> None:
    found = Counter({"needs root": 3, "DSTACK_TEST_SPECS is not set": 2})
    assert skips.lines(found) == [
        "left out: 2 tests: DSTACK_TEST_SPECS is not set", "NOT TESTED: 3 tests: needs root",
    ]  # fmt: skip
    assert skips.lacking(found) == ["needs root"]


@pytest.mark.parametrize("value", ["", "0", "false"])
def test_who_does_not_promise_all(value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CI", value)
    assert not skips.must_have_all()


@pytest.mark.parametrize(
    ("reason", "ci", "code", "line"),
    [
        ("needs root", "true", 1, "NOT TESTED: 2 tests: needs root"),
        ("needs root", "", 0, "NOT TESTED: 2 tests: needs root"),
        ("DSTACK_TEST_SPECS is not set", "true", 0, "left out: 2 tests: DSTACK_TEST_SPECS is not set"),
    ],
)
@pytest.mark.parametrize("workers", ["0", "2"])
def test_a_run_that_leaves_something_out(
    reason: str, ci: str, code: int, line: str, workers: str, tmp_path: Path
) -> None:
    (tmp_path / "test_some.py").write_text(SOME.format(reason=reason))
    (tmp_path / "conftest.py").write_text((ROOT / "tests" / "conftest.py").read_text())
    env = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_XDIST")}
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "pytest",
            "-q",
            "-p",
            "no:cacheprovider",
            "-n",
            workers,
            "--rootdir",
            str(tmp_path),
            "--basetemp",
            str(tmp_path / "base"),
            str(tmp_path),
        ],
        cwd=tmp_path,
        env={**env, "PYTHONPATH": str(ROOT), "CI": ci},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, line in done.stdout.splitlines()) == (code, True), done.stdout + done.stderr
    assert ("this run fails" in done.stdout) is bool(code)
