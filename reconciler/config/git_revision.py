"""Find out which git revision the configuration is at, as far as git can prove it.

A folder without a repository has no commit. A repository that git does not read raises `GitFailed`: taking it for a
folder without git would let an old checkout replace a newer configuration.
"""

from __future__ import annotations

import re
from pathlib import Path

from reconciler.state.authority import GitFacts
from reconciler.system.git import Environ, GitFailed, ask_git, repository_of, run_git
from schemas.state import Revision

FOLDER = ".dstack"


def revision_of(root: Path, digest: str, *, authority: str = "", environ: Environ = None) -> Revision:
    """The documents under `root` with that digest. `commit` is "" where no document is tracked by git.

    Raises `GitFailed` where there is a repository that git does not read.
    """
    if repository_of(root, environ=environ) is None or not _told(root, "ls-files", "--", FOLDER, environ=environ):
        return Revision(digest=digest)
    head = run_git(root, "log", "-1", "--format=%H %ct", environ=environ)
    if head.code:
        refs = run_git(root, "for-each-ref", "--count=1", environ=environ)
        if refs.code or refs.output:
            raise GitFailed(root, head.why, remedy="Check out a commit that git can read (`git fsck`)")
        return Revision(digest=digest)  # nothing was ever committed
    commit, seconds = head.output.decode(errors="replace").split()
    return Revision(
        digest=digest,
        commit=commit,
        committed_at=int(seconds),
        # Unreadable counts as edited: fewer rights.
        dirty=run_git(root, "status", "--porcelain", "--", FOLDER, environ=environ)[:2] != (0, b""),
        on_authority=_holds(root, commit, authority, environ=environ),
    )


def facts_of(
    root: Path, mine: Revision, applied: Revision | None, *, authority: str = "", environ: Environ = None
) -> GitFacts:
    """What git can prove of `mine` against `applied`; where it cannot be asked, `failed` has its words."""
    theirs = applied.commit if applied else ""
    if not mine.commit or (applied and (applied.digest, theirs) == (mine.digest, mine.commit)):
        return GitFacts()
    try:
        return _proved(root, mine, theirs, authority=authority, environ=environ)
    except GitFailed as error:
        return GitFacts(failed=str(error))


def _proved(root: Path, mine: Revision, theirs: str, *, authority: str, environ: Environ) -> GitFacts:
    shallow = _told(root, "rev-parse", "--is-shallow-repository", environ=environ) != "false"
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
    code = run_git(root, "merge-base", "--is-ancestor", old, new, environ=environ).code
    if code == 0:
        return True
    return False if code == 1 and not shallow else None


def _holds(root: Path, commit: str, branch: str, *, environ: Environ) -> bool | None:
    """Whether `branch` has the commit: as the remotes show it, else the local one."""
    if not branch or not _is_commit(commit):
        return None
    refs = _told(root, "for-each-ref", "--format=%(refname)", environ=environ).split()
    remote = [ref for ref in refs if re.fullmatch(rf"refs/remotes/[^/]+/{re.escape(branch)}", ref)]
    chosen = remote or [ref for ref in refs if ref == f"refs/heads/{branch}"]
    codes = [run_git(root, "merge-base", "--is-ancestor", commit, ref, environ=environ).code for ref in chosen]
    if 0 in codes:
        return True
    shallow = _told(root, "rev-parse", "--is-shallow-repository", environ=environ) != "false"
    return False if 1 in codes and not shallow else None


def _left_out(root: Path, *, environ: Environ) -> tuple[str, ...]:
    """Documents that git tracks and a sparse checkout left out: their absence is not an omission."""
    lines = _told(root, "ls-files", "-t", "--", FOLDER, environ=environ).splitlines()
    return tuple(line[2:] for line in lines if line.startswith("S ") and not (root / line[2:]).exists())


def is_shallow(root: Path, *, environ: Environ = None) -> bool | None:
    """Whether older commits are left out; `None` without a repository. Raises `GitFailed`."""
    if repository_of(root, environ=environ) is None:
        return None
    return _told(root, "rev-parse", "--is-shallow-repository", environ=environ) != "false"


def why_absent(folder: Path, *, environ: Environ = None) -> str:
    """Why documents may be in the repository around `folder` and not in its work tree; "" where nothing hints at it."""
    try:
        left_out = sparse(folder, environ=environ)
    except GitFailed as error:
        return f"no .dstack folder here or in a parent, and whether a sparse checkout left it out is unknown: {error}"
    return f"a sparse checkout left out {left_out}: `git sparse-checkout add {left_out}`" if left_out else ""


def sparse(folder: Path, *, environ: Environ = None) -> str:
    """A `.dstack` that git tracks around `folder` and a sparse checkout left out, from the repository's root; or "".

    Raises `GitFailed` where there is a repository that git does not read.
    """
    if repository_of(folder, environ=environ) is None:
        return ""
    lines = _told(folder, "ls-files", "-t", "--full-name", "--", ":(top)", environ=environ).splitlines()
    found = (re.match(rf"S ((?:.*/)?{re.escape(FOLDER)})/", line) for line in lines)
    return next((match[1] for match in found if match), "")


def _is_commit(text: str) -> bool:
    return re.fullmatch("[0-9a-f]{40}|[0-9a-f]{64}", text) is not None


def _told(root: Path, *words: str, environ: Environ) -> str:
    """The output of a command that every repository answers. Raises `GitFailed`."""
    return ask_git(root, *words, environ=environ).decode(errors="replace").strip("\n")
