"""Run git, and tell a folder without git from one whose git fails."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

TIMEOUT = 10.0
# `None` is this process's own.
Environ = Mapping[str, str] | None

# What leads git to another repository than the folder's own: a hook sets some of them.
_ELSEWHERE = frozenset(
    {
        "GIT_DIR", "GIT_WORK_TREE", "GIT_IMPLICIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_PREFIX", "GIT_COMMON_DIR",
        "GIT_OBJECT_DIRECTORY", "GIT_ALTERNATE_OBJECT_DIRECTORIES", "GIT_NAMESPACE", "GIT_GRAFT_FILE",
        "GIT_SHALLOW_FILE", "GIT_REPLACE_REF_BASE", "GIT_INTERNAL_SUPER_PREFIX", "GIT_QUARANTINE_PATH",
    }
)  # fmt: skip


class GitOutput(NamedTuple):
    """What a git process left behind."""

    code: int
    """Its exit status."""
    output: bytes
    why: str
    """Its first fatal error, else the first line of its errors; "" where there is none."""


class GitFailed(Exception):
    """Git cannot be asked about a folder that has a repository. The message has git's own words and a way out."""

    def __init__(self, root: Path, said: str, *, remedy: str = "") -> None:
        next_step = remedy or "Make `git status` work there"
        super().__init__(f"git cannot read the repository of {root}: {said}. {next_step}")


class GitMissing(GitFailed):
    """There is no git program here."""


def run_git(
    root: Path, *words: str, environ: Environ = None, said: bytes = b"", timeout: float | None = TIMEOUT
) -> GitOutput:
    """Run `git WORDS` in `root`; `said` is its input, `timeout` in seconds.

    Raises `GitFailed` where git did not run, did not end in time, or refuses the repository whatever is asked.
    A failure that is an answer ("no such commit") is an exit status.
    """
    # fsmonitor is a program that the repository's own configuration would have us start.
    command = ["git", "-c", "core.fsmonitor=false", "-c", "core.quotePath=false", "-C", str(root), *words]
    try:
        done = subprocess.run(  # noqa: S603 - a fixed program, no shell
            command, env=_environment(environ), input=said, capture_output=True, timeout=timeout
        )
    except FileNotFoundError as error:
        raise GitMissing(root, "git is not on PATH", remedy="Install git") from error
    except subprocess.TimeoutExpired as error:
        raise GitFailed(root, f"no answer within {timeout:.0f}s (`git {words[0]}`)") from error
    except OSError as error:
        raise GitFailed(root, f"git does not start: {error.strerror}") from error
    except ValueError:  # a zero byte in a word: git knows no such thing
        return GitOutput(129, b"", "a zero byte")
    text = done.stderr.decode(errors="replace")
    if done.returncode and (trusting := re.search(r"git config --global --add safe\.directory .+", text)):
        raise GitFailed(root, _first_error(text), remedy=f"To trust it: `{trusting[0].strip()}`")
    if done.returncode < 0:
        raise GitFailed(root, f"`git {words[0]}` was ended by signal {-done.returncode}")
    return GitOutput(done.returncode, done.stdout, _first_error(text))


def ask_git(root: Path, *words: str, environ: Environ = None, timeout: float | None = TIMEOUT) -> bytes:
    """The output of a command that succeeds in every repository; `GitFailed` with git's words where it does not."""
    answer = run_git(root, *words, environ=environ, timeout=timeout)
    if answer.code:
        raise GitFailed(root, answer.why or f"`git {words[0]}` ended with status {answer.code}")
    return answer.output


def repository_of(root: Path, *, environ: Environ = None) -> Path | None:
    """The nearest `.git` at or above `root`, readable or not, where git itself would look; `None`: without git."""
    variables = os.environ if environ is None else environ
    ceilings = {os.path.realpath(one) for one in variables.get("GIT_CEILING_DIRECTORIES", "").split(":") if one}
    across = variables.get("GIT_DISCOVERY_ACROSS_FILESYSTEM", "").lower() in ("1", "true", "yes", "on")
    here = Path(os.path.realpath(root))
    device = _device(here)
    for folder in (here, *here.parents):
        if folder != here and (str(folder) in ceilings or (not across and _device(folder) != device)):
            return None
        if os.path.lexists(folder / ".git"):
            return folder / ".git"
    return None


def _first_error(text: str) -> str:
    """The first fatal error, else the first line, without its "fatal: "."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    chosen = next((line for line in lines if line.startswith("fatal: ")), lines[0] if lines else "")
    return chosen.removeprefix("fatal: ").removeprefix("error: ").rstrip(".")


def _device(folder: Path) -> int | None:
    try:
        return folder.stat().st_dev
    except OSError:
        return None


def _environment(environ: Environ) -> dict[str, str]:
    """Ours, without what points git elsewhere, without prompts and without writing an index."""
    kept = {name: value for name, value in (os.environ if environ is None else environ).items()
            if name not in _ELSEWHERE}  # fmt: skip
    return {**kept, "GIT_TERMINAL_PROMPT": "0", "GIT_OPTIONAL_LOCKS": "0", "LC_ALL": "C"}
