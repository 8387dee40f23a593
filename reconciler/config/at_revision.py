"""Read the configuration of another git revision, without touching the work tree."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from reconciler.config.files import FOLDER, KNOWN_HOSTS, MAX_BYTES, own_file
from reconciler.config.load import Documents, digest_of
from reconciler.config.problems import Invalid, Problem
from reconciler.system.git import GitFailed, ask_git, repository_of, run_git


class NoRevision(Exception):
    """Git has no such revision here; the message has the next command."""


class Base(NamedTuple):
    """Where a branch began, as git has it."""

    documents: Documents
    commit: str
    behind: int
    """Commits that the other revision has since, and that are not in this branch."""


def documents_at(root: Path, revision: str, *, home: Path, endpoints: Mapping[str, str] | None = None) -> Base:
    """The documents under `root` as the last commit has them that HEAD and `revision` share; without one, `revision`.

    What `revision` has of its own since is no change of this branch. `endpoints` as `load` takes them. Raises
    `NoRevision`, `Invalid`.
    """
    from reconciler.config.compile.from_bytes import compile_files

    commit, behind = _merge_base(root, revision)
    every = _texts(root, commit)
    texts = [one for one in every if one[0] != KNOWN_HOSTS]
    pins = [one for one in every if one[0] == KNOWN_HOSTS]
    keys = "".join(data.decode("utf-8", "replace") for _, data in pins if isinstance(data, bytes))
    try:
        desired, unsupported = compile_files(
            texts, own=own_file(home), known_hosts=keys, any_version=True, endpoints=endpoints or {}
        )
    except Invalid as invalid:
        found = [Problem(f"{commit[:10]}:{one.path}", one.line, one.col, one.message) for one in invalid.problems]
        raise Invalid(found) from invalid
    documents = Documents(root, desired, digest_of([*texts, *pins]), (), desired.warnings, unsupported)
    return Base(documents, commit, behind)


def _merge_base(root: Path, revision: str) -> tuple[str, int]:
    """The commit, and how many `revision` has since."""
    commit = _commit(root, revision)
    try:
        found = run_git(root, "merge-base", commit, "HEAD")
        shared = found.output.decode(errors="replace").split()[:1]
        if found.code == 0 and shared:
            counted = ask_git(root, "rev-list", "--count", f"{shared[0]}..{commit}")
            return shared[0], int(counted)
        shallow = ask_git(root, "rev-parse", "--is-shallow-repository").strip() != b"false"
    except GitFailed as error:
        raise NoRevision(f"--against {revision}: {error}") from error
    if shallow:
        raise NoRevision(
            f"--against {revision}: this clone is shallow, and the commit where the branch began is not in it: "
            "`git fetch --unshallow`, in a workflow `fetch-depth: 0`"
        )
    return commit, 0  # nothing in common: an orphan branch, or a HEAD without commits


def _commit(root: Path, revision: str) -> str:
    name = f"{revision}^{{commit}}"
    if repository_of(root) is None:
        raise NoRevision(f"--against {revision}: {root} is not in a git repository. Run this in a clone")
    try:
        code, said, why = run_git(root, "rev-parse", "--verify", "--quiet", "--end-of-options", name)
        if why:
            raise GitFailed(root, why)
    except GitFailed as error:
        raise NoRevision(f"--against {revision}: {error}") from error
    commit = said.decode(errors="replace").split()[-1:]
    if code != 0 or not commit:
        raise NoRevision(
            f"--against {revision}: git has no such commit here; `git fetch origin`, "
            "in a shallow clone `git fetch --unshallow`"
        )
    return commit[0]


def _texts(root: Path, commit: str) -> list[tuple[str, bytes | str]]:
    """(path from `root`, bytes or why there are none), as `load` reads them from a folder."""
    code, listed, why = run_git(root, "ls-tree", "-r", "-z", commit, "--", FOLDER)
    if code != 0:
        raise NoRevision(f"git cannot list {FOLDER} of {commit[:10]}: {why}. Is the repository whole? `git fsck`")
    entries = [re.fullmatch(r"(\d+) (\w+) ([0-9a-f]+)\t(.*)", one, re.S) for one in _split(listed)]
    chosen = sorted((match[4], match[1], match[3]) for match in entries if match and _is_document(match[4]))
    contents = _contents(root, [digest for _, mode, digest in chosen if mode in ("100644", "100755")])
    return [(path, contents.get(digest, "is a link there, which is not followed")) for path, _, digest in chosen]


def _split(listed: bytes) -> list[str]:
    return listed.decode(errors="surrogateescape").split("\0")


def _is_document(path: str) -> bool:
    parts = PurePosixPath(path)
    folder = str(parts.parent)
    return path == KNOWN_HOSTS or (
        folder in (FOLDER, f"{FOLDER}/runs") and parts.suffix in (".yml", ".yaml") and not parts.name.startswith(".")
    )


def _contents(root: Path, digests: list[str]) -> dict[str, bytes | str]:
    """Of all of them by one process: `DIGEST blob SIZE`, the bytes, a line's end; and so on."""
    asked = "".join(f"{digest}\n" for digest in dict.fromkeys(digests))
    if not digests:
        return {}
    code, said, why = run_git(root, "cat-file", "--batch", said=asked.encode())
    if code != 0:
        raise NoRevision(f"git cannot read the documents of that revision: {why}. Is the repository whole? `git fsck`")
    found: dict[str, bytes | str] = {}
    while said:
        head, _, rest = said.partition(b"\n")
        digest, kind, *size = head.decode(errors="replace").split()
        if kind != "blob":
            found[digest], said = "git does not have it here", rest
            continue
        found[digest], said = rest[: min(int(size[0]), MAX_BYTES + 1)], rest[int(size[0]) + 1 :]
    return found
