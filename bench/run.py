"""`make bench`: CPU seconds of the commands beside bare Python, then of the planner as it grows.

Each figure is the median over rounds of the child's user + system time (not wall time), and
all commands take turns within a round, so that a busy machine slows every one of them alike.
Without `.pyc` means: not even the standard library's.
`python -m bench.run [--rounds N] [--no-planner]` prints tables and writes bench/out/bench.json.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from bench import planner

ROOT = Path(__file__).parents[1]
OUT = ROOT / "bench" / "out" / "bench.json"
BARE = [sys.executable, "-c", "pass"]
DSTACK = str(Path(sys.executable).with_name("dstack"))
COMMANDS = {
    "python -c pass": BARE,
    "dstack --version": [DSTACK, "--version"],
    "dstack --help": [DSTACK, "--help"],
    "dstack plan (nothing to do)": [DSTACK, "plan"],
}


def cpu_seconds(command: Sequence[str], *, cwd: Path, env: dict[str, str]) -> float:
    """User + system seconds of one child, waited for alone; its exit code must be 0."""
    child = subprocess.Popen(command, cwd=cwd, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    errors = child.stderr.read() if child.stderr else b""
    _, status, used = os.wait4(child.pid, 0)
    child.returncode = os.waitstatus_to_exitcode(status)
    if child.returncode:
        raise SystemExit(f"{' '.join(command)}: exit {child.returncode}\n{errors.decode(errors='replace')}")
    return used.ru_utime + used.ru_stime


def steady_example(folder: Path, *, env: dict[str, str]) -> None:
    """A copy of examples/hello that is applied and done, its instances idle for longer than we measure."""
    shutil.copytree(ROOT / "examples" / "hello", folder, ignore=shutil.ignore_patterns("state", "keys"))
    pools = folder / ".dstack" / "pools.yml"
    pools.write_text(pools.read_text().replace("idle_duration: 20s", "idle_duration: 1h"))
    for arguments in (["apply", "-y"], ["logs", "-f", "hello"], ["logs", "-f", "pair"], ["apply", "-y"]):
        subprocess.run([DSTACK, *arguments], cwd=folder, env=env, check=True, capture_output=True)


def end_example(folder: Path, *, env: dict[str, str]) -> None:
    subprocess.run([DSTACK, "destroy", "--confirm", "hello"], cwd=folder, env=env, check=True, capture_output=True)


def medians(*, folder: Path, env: dict[str, str], rounds: int) -> dict[str, float]:
    for command in COMMANDS.values():
        cpu_seconds(command, cwd=folder, env=env)
    taken: dict[str, list[float]] = {name: [] for name in COMMANDS}
    for _ in range(rounds):
        for name, command in COMMANDS.items():
            taken[name].append(cpu_seconds(command, cwd=folder, env=env))
    return {name: statistics.median(each) for name, each in taken.items()}


def commands(*, rounds: int) -> dict[str, dict[str, float]]:
    """name -> CPU seconds with and without `.pyc` files (a container image often has none)."""
    with tempfile.TemporaryDirectory() as temporary:
        work = Path(temporary)
        env = {**os.environ, "XDG_STATE_HOME": str(work / "state"), "NO_COLOR": "1"}
        # Some machines forbid writing them: here they go into a folder of their own, at the first round.
        env.pop("PYTHONDONTWRITEBYTECODE", None)
        env["PYTHONPYCACHEPREFIX"] = str(work / "pyc")
        folder = work / "hello"
        steady_example(folder, env=env)
        cold = {**env, "PYTHONDONTWRITEBYTECODE": "1", "PYTHONPYCACHEPREFIX": str(work / "no-pyc")}
        try:
            return {
                "with .pyc": medians(folder=folder, env=env, rounds=rounds),
                "without .pyc": medians(folder=folder, env=cold, rounds=max(3, rounds // 3)),
            }
        finally:
            end_example(folder, env=env)


def show_commands(found: dict[str, dict[str, float]]) -> None:
    print(f"\n{'CPU seconds (median)':<32}" + "".join(f"{kind:>16}{'x bare':>9}" for kind in found))
    for name in COMMANDS:
        cells = (f"{each[name]:>16.3f}{each[name] / each['python -c pass']:>9.1f}" for each in found.values())
        print(f"{name:<32}" + "".join(cells))


def show_planner(rows: list[dict[str, float]]) -> None:
    print(f"\n{'planner: instances':<20}{'runs':>10}{'offers':>10}{'CPU s':>10}{'us per instance':>18}")
    for row in rows:
        each = row["seconds"] / row["instances"] * 1e6
        print(f"{row['instances']:<20,}{row['runs']:>10,}{row['offers']:>10,}{row['seconds']:>10.2f}{each:>18.1f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--no-planner", action="store_true")
    asked = parser.parse_args()
    found = commands(rounds=asked.rounds)
    show_commands(found)
    rows: list[dict[str, float]] = []
    if not asked.no_planner:
        rows = planner.rows()
        show_planner(rows)
    machine = {"python": platform.python_version(), "machine": platform.machine(), "cpus": os.cpu_count()}
    OUT.parent.mkdir(parents=True, exist_ok=True)
    OUT.write_text(json.dumps({"machine": machine, "commands": found, "planner": rows}, indent=2) + "\n")
    print(f"\nwritten to {OUT.relative_to(ROOT)}")


if __name__ == "__main__":
    main()
