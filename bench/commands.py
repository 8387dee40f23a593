"""CPU seconds of the commands beside bare Python's, with and without `.pyc`.

Each figure is the median over rounds of the child's user + system time (not wall time), and
all commands take turns within a round, so that a busy machine slows every one of them alike.
Without `.pyc` means: not even the standard library's.
"""

from __future__ import annotations

import os
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from bench.budgets import Row

ROOT = Path(__file__).parents[1]
BARE = "python -c pass"
DSTACK = str(Path(sys.executable).with_name("dstack"))
ROUNDS = 11
# name -> its arguments, and the folder that it runs in
COMMANDS: dict[str, tuple[list[str], str]] = {
    BARE: ([sys.executable, "-c", "pass"], "hello"),
    "dstack --version": ([DSTACK, "--version"], "hello"),
    "dstack --help": ([DSTACK, "--help"], "hello"),
    "plan, nothing to do": ([DSTACK, "plan"], "edited"),
    "plan, documents unchanged": ([DSTACK, "plan"], "hello"),
}
IN_TIMES_OF_BARE = ("plan, nothing to do", "plan, documents unchanged")
WITHOUT = " (without .pyc)"


def measure_commands(*, rounds: int = ROUNDS) -> list[Row]:
    """`--version` and `--help` in seconds, a plan in seconds and in times of bare Python; then all without `.pyc`."""
    with tempfile.TemporaryDirectory(prefix="dstack-bench-") as temporary:
        work = Path(temporary)
        env = {**os.environ, "XDG_STATE_HOME": str(work / "state"), "HOME": str(work), "NO_COLOR": "1"}
        # Some machines forbid writing them: here they go into a folder of their own, at the first round.
        env.pop("PYTHONDONTWRITEBYTECODE", None)
        env["PYTHONPYCACHEPREFIX"] = str(work / "pyc")
        cold = {**env, "PYTHONDONTWRITEBYTECODE": "1", "PYTHONPYCACHEPREFIX": str(work / "no-pyc")}
        _make_example(work / "hello", env=env)
        try:
            _make_edited(work / "hello", work / "edited", env=env)
            warm = _medians(work, env=env, rounds=rounds)
            return [*_rows(warm), *_rows(_medians(work, env=cold, rounds=max(3, rounds // 3)), suffix=WITHOUT)]
        finally:
            _run([DSTACK, "destroy", "--confirm", "hello"], cwd=work / "hello", env=env)


def _rows(taken: dict[str, float], *, suffix: str = "") -> list[Row]:
    plain = [name for name in COMMANDS if name not in IN_TIMES_OF_BARE]
    rows = [Row(what=name + suffix, value=taken[name], unit="s") for name in plain]
    for name in IN_TIMES_OF_BARE:
        rows.append(Row(what=f"{name}, CPU{suffix}", value=taken[name], unit="s"))
        rows.append(Row(what=name + suffix, value=taken[name] / taken[BARE], unit="x bare"))
    return rows


def _make_example(folder: Path, *, env: dict[str, str]) -> None:
    """A copy of examples/hello that is applied and done, its instances idle for longer than we measure."""
    shutil.copytree(ROOT / "examples" / "hello", folder, ignore=shutil.ignore_patterns("state", "keys"))
    pools = folder / ".dstack" / "pools.yml"
    pools.write_text(pools.read_text().replace("idle_duration: 20s", "idle_duration: 1h"))
    for arguments in (["apply", "-y"], ["logs", "-f", "hello"], ["logs", "-f", "pair"], ["apply", "-y"]):
        _run([DSTACK, *arguments], cwd=folder, env=env)
    _must_be_idle(folder, env=env)


def _make_edited(steady: Path, folder: Path, *, env: dict[str, str]) -> None:
    """The same project and state with a comment more: other bytes, so that everything is read and judged anew."""
    shutil.copytree(steady, folder)
    pools = folder / ".dstack" / "pools.yml"
    pools.write_text(pools.read_text() + "# edited\n")
    _must_be_idle(folder, env=env)


def _must_be_idle(folder: Path, *, env: dict[str, str]) -> None:
    said = _run([DSTACK, "plan"], cwd=folder, env=env)
    if "No changes." not in said:
        raise SystemExit(f"{folder.name}: there is something to do, so a plan of it is not what is measured:\n{said}")


def _medians(work: Path, *, env: dict[str, str], rounds: int) -> dict[str, float]:
    taken: dict[str, list[float]] = {name: [] for name in COMMANDS}
    for turn in range(rounds + 1):
        for name, (command, folder) in COMMANDS.items():
            seconds, _ = cpu_and_memory(command, cwd=work / folder, env=env)
            if turn:  # the first is for the caches
                taken[name].append(seconds)
    return {name: statistics.median(each) for name, each in taken.items()}


def cpu_and_memory(command: Sequence[str], *, cwd: Path, env: dict[str, str]) -> tuple[float, float]:
    """User + system seconds of one child and its peak in MiB; its exit code must be 0."""
    child = subprocess.Popen(command, cwd=cwd, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    errors = child.stderr.read() if child.stderr else b""
    _, status, used = os.wait4(child.pid, 0)
    child.returncode = os.waitstatus_to_exitcode(status)
    if child.returncode:
        raise SystemExit(f"{' '.join(command)}: exit {child.returncode}\n{errors.decode(errors='replace')}")
    return used.ru_utime + used.ru_stime, used.ru_maxrss / 1024


def _run(command: list[str], *, cwd: Path, env: dict[str, str]) -> str:
    done = subprocess.run(command, cwd=cwd, env=env, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)}: exit {done.returncode}\n{done.stderr}")
    return done.stdout
