"""The `dstack` command as a person starts it: a process of its own in a folder of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.doubles.commands import warm

ROOT = Path(__file__).parents[3]
PATIENCE = 300.0  # on a busy machine
DSTACK = [sys.executable, "-m", "reconciler.cli.main"]
POOLS = """\
# what the tests need
project: {name: demo, id: demo12345678}
pools:
  - name: bench   # small
    default: true
    nodes: 0..2
    idle_duration: 30m
    resources: {cpu: 1.., memory: 0.1GB.., disk: 0.1GB..}
"""


@dataclass(frozen=True)
class Ran:
    """How a command ended and what it said."""

    code: int
    out: str
    err: str

    @property
    def said(self) -> str:
        return self.out + self.err


def begin(args: Sequence[str], *, cwd: Path, env: Mapping[str, str]) -> warm.Started | subprocess.Popen[bytes]:
    """`dstack ARGS`, with pipes for what it says: a fork, unless the environment says something to Python itself."""
    if warm.like_ours(env):
        return warm.start(args, cwd=cwd, env=env)
    return subprocess.Popen(
        [*DSTACK, *args], cwd=cwd, env=env, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )


@dataclass(frozen=True)
class Folder:
    """A project's folder with a home and a state folder that nothing else uses."""

    root: Path

    @property
    def env(self) -> dict[str, str]:
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("DSTACK_", "CI"))}
        home = self.root.parent / "home"
        home.mkdir(exist_ok=True)
        folders = {"HOME": str(home), "XDG_STATE_HOME": str(home / "state"), "XDG_CACHE_HOME": str(home / "cache")}
        return {**kept, **folders, "PYTHONPATH": str(ROOT), "DSTACK_CATALOG_URL": "off"}

    def dstack(self, *args: str, env: dict[str, str] | None = None, cwd: Path | None = None, given: str = "") -> Ran:
        """`given` is what its standard input holds."""
        where, environ = cwd or self.root, {**self.env, **(env or {})}
        if given:
            done = subprocess.run(
                [*DSTACK, *args], cwd=where, env=environ, input=given.encode(), capture_output=True, timeout=PATIENCE
            )
            return Ran(done.returncode, done.stdout.decode(errors="replace"), done.stderr.decode(errors="replace"))
        started = begin(args, cwd=where, env=environ)
        try:
            out, err = started.communicate(timeout=PATIENCE)
        except subprocess.TimeoutExpired:
            started.kill()
            raise
        return Ran(started.wait(), out.decode(errors="replace"), err.decode(errors="replace"))

    def write(self, name: str, text: str) -> Path:
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        return path


def folder_at(path: Path, *, documents: str = POOLS) -> Folder:
    """A project with those documents."""
    folder = Folder(path / "project")
    folder.write(".dstack/pools.yml", documents)
    return folder
