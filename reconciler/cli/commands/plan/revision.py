"""Prepare a checkout's configuration for an apply: with an id and its git revision."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from reconciler.cli.exits import Fail
from reconciler.cli.project import documents_of
from reconciler.cli.terminal.streams import say
from reconciler.config.load import Documents
from schemas.state import Revision


def revision(documents: Documents) -> Revision:
    """The documents by commit and digest; `Fail` where git does not read their repository."""
    found, failed = revision_if_read(documents)
    if failed:
        raise Fail(failed)
    return found


def revision_if_read(documents: Documents) -> tuple[Revision, str]:
    """The same; where git does not read their repository: by digest alone, and why, with git's words."""
    from reconciler.config.git_revision import revision_of
    from reconciler.system.git import GitFailed

    try:
        return revision_of(documents.root, documents.digest, authority=documents.desired.authority), ""
    except GitFailed as error:
        return Revision(digest=documents.digest), str(error)


def identified(root: Path, *, allow_endpoint: Iterable[str] | None = None) -> Documents:
    """The documents of a project that has an id. The first use on this machine alone mints one.

    `allow_endpoint` are backends whose new endpoints are confirmed; those of others are asked for at the prompt.
    `None` asks for nothing: what has a new endpoint is then not used.
    """
    documents = _with_id(root)
    if allow_endpoint is None:
        return documents
    from reconciler.cli.commands.plan.endpoints import with_agreed_endpoints

    return with_agreed_endpoints(documents, allowed=allow_endpoint)


def _with_id(root: Path) -> Documents:
    documents = documents_of(root)
    if documents.desired.project:
        _keep_out_of_git(root)
        return documents
    elsewhere = sorted({one.name for one in documents.desired.backends if one.traits.regional})
    if elsewhere:
        raise Fail(
            f"{root / '.dstack'}: the project has no id, and everything made at {', '.join(elsewhere)} is tagged "
            "with it; `dstack init` writes one: commit it"
        )
    say(f"note: this project is now {mint(root)} (.dstack/project.yml): commit that file")
    return documents_of(root)


def _keep_out_of_git(root: Path) -> None:
    """Before the first state or key is written, git must ignore both; minting an id sees to it by itself."""
    from reconciler.config.init import init

    ignored = root / ".dstack/.gitignore"
    try:
        if not ignored.exists() or not {"state/", "keys/"} <= set(ignored.read_text().split()):
            init(root)
    except OSError as error:
        say(f"note: {root / '.dstack/.gitignore'}: {error.strerror}; keep .dstack/state and .dstack/keys out of git")


def mint(root: Path, *, name: str = "") -> str:
    """An id, once: of callers that race, all get the first one's. `name`: the project's, where one was chosen."""
    from reconciler.config.init import mint_project
    from reconciler.system.process import nonce

    try:
        return mint_project(root, nonce=nonce(), name=name)
    except ValueError as error:
        raise Fail(str(error)) from error
