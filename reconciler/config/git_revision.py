"""Find out which git revision the configuration is at, as far as git can prove it.

Never fails: without git, without a repository or with a broken one, the answers are "not known".
"""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Mapping
from pathlib import Path

from reconciler.state.authority import GitFacts
from schemas.state import Revision

FOLDER = ".dstack"
TIMEOUT = 10.0
# `None` is this process's own.
Environ = Mapping[str, str] | None


def revision_of(root: Path, digest: str, *, authority: str = "", environ: Environ = None) -> Revision:
    """The documents under `root` with that digest. `commit` is "" where no document is tracked by git."""
    if not _git(root, "ls-files", "--", FOLDER, environ=environ):
        return Revision(digest=digest)
    head = (_git(root, "log", "-1", "--format=%H %ct", environ=environ) or "").split()
    if len(head) != 2:
        return Revision(digest=digest)
    return Revision(
        digest=digest,
        commit=head[0],
        committed_at=int(head[1]),
        # Unreadable counts as edited: fewer rights.
        dirty=_git(root, "status", "--porcelain", "--", FOLDER, environ=environ) != "",
        on_authority=_holds(root, head[0], authority, environ=environ),
    )


def facts_of(
    root: Path, mine: Revision, applied: Revision | None, *, authority: str = "", environ: Environ = None
) -> GitFacts:
    """What git can prove of `mine` against `applied`."""
    theirs = applied.commit if applied else ""
    if not mine.commit or (applied and (applied.digest, theirs) == (mine.digest, mine.commit)):
        return GitFacts()
    shallow = _git(root, "rev-parse", "--is-shallow-repository", environ=environ) != "false"
    return GitFacts(
        behind=_ancestor(root, mine.commit, theirs, shallow=shallow, environ=environ),
        ahead=_ancestor(root, theirs, mine.commit, shallow=shallow, environ=environ),
        applied_on_authority=_holds(root, theirs, authority, environ=environ),
        shallow=shallow,
        left_out=_left_out(root, environ=environ),
    )


def _ancestor(root: Path, old: str, new: str, *, shallow: bool, environ: Environ) -> bool | None:
    """A yes is a proof in every clone; a no is one only where the whole history is here."""
    if not _is_commit(old) or not _is_commit(new) or old == new:
        return None
    code, _ = _ask(root, "merge-base", "--is-ancestor", old, new, environ=environ)
    if code == 0:
        return True
    return False if code == 1 and not shallow else None


def _holds(root: Path, commit: str, branch: str, *, environ: Environ) -> bool | None:
    """Whether `branch` has the commit: as the remotes show it, else the local one."""
    if not branch or not _is_commit(commit):
        return None
    refs = (_git(root, "for-each-ref", "--format=%(refname)", environ=environ) or "").split()
    remote = [ref for ref in refs if re.fullmatch(rf"refs/remotes/[^/]+/{re.escape(branch)}", ref)]
    chosen = remote or [ref for ref in refs if ref == f"refs/heads/{branch}"]
    codes = [_ask(root, "merge-base", "--is-ancestor", commit, ref, environ=environ)[0] for ref in chosen]
    if 0 in codes:
        return True
    shallow = _git(root, "rev-parse", "--is-shallow-repository", environ=environ) != "false"
    return False if 1 in codes and not shallow else None


def _left_out(root: Path, *, environ: Environ) -> tuple[str, ...]:
    """Documents that git tracks and a sparse checkout left out: their absence is not an omission."""
    lines = (_git(root, "ls-files", "-t", "--", FOLDER, environ=environ) or "").splitlines()
    return tuple(line[2:] for line in lines if line.startswith("S ") and not (root / line[2:]).exists())


def sparse(folder: Path, *, environ: Environ = None) -> str:
    """A `.dstack` that git tracks around `folder` and a sparse checkout left out, from the repository's root; or ""."""
    lines = (_git(folder, "ls-files", "-t", "--full-name", "--", ":(top)", environ=environ) or "").splitlines()
    found = (re.match(rf"S ((?:.*/)?{re.escape(FOLDER)})/", line) for line in lines)
    return next((match[1] for match in found if match), "")


def _is_commit(text: str) -> bool:
    return re.fullmatch("[0-9a-f]{40}|[0-9a-f]{64}", text) is not None


def _git(root: Path, *words: str, environ: Environ) -> str | None:
    code, output = _ask(root, *words, environ=environ)
    return output.strip("\n") if code == 0 else None


def _ask(root: Path, *words: str, environ: Environ) -> tuple[int, str]:
    """Exit status and output; 127 where git is not there or does not answer in time."""
    code, output = run_git(root, *words, environ=environ)
    return code, output.decode(errors="replace")


def run_git(root: Path, *words: str, environ: Environ = None, said: bytes = b"") -> tuple[int, bytes]:
    """The same, as bytes; `said` is its input."""
    # fsmonitor is a program that the repository's own configuration would have us start.
    command = ["git", "-c", "core.fsmonitor=false", "-c", "core.quotePath=false", "-C", str(root), *words]
    try:
        done = subprocess.run(  # noqa: S603 - a fixed program, no shell
            command, env=_environment(environ), input=said, capture_output=True, timeout=TIMEOUT
        )
    except (OSError, subprocess.TimeoutExpired, ValueError):
        return 127, b""
    return done.returncode, done.stdout


def _environment(environ: Environ) -> dict[str, str]:
    """Ours, without what points git elsewhere (a hook sets GIT_DIR), without prompts and without writing an index."""
    kept = {name: value for name, value in (os.environ if environ is None else environ).items()
            if name not in ("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_PREFIX")}  # fmt: skip
    return {**kept, "GIT_TERMINAL_PROMPT": "0", "GIT_OPTIONAL_LOCKS": "0", "LC_ALL": "C"}
