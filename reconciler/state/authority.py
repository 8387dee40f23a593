"""Decide whether a checkout may replace the applied configuration, and what it may delete. Pure.

                                        replaces   ends
--config-force                          yes        yes
the same documents                      yes        yes      nothing changes
a repository that git does not read     no
a sparse checkout without documents     no
off the branch of `authority`           no
on it, the applied ones off it          yes        yes      main always wins
nothing applied yet                     yes        yes
at the applied commit, with edits       yes        asked
applied earlier, or a proven ancestor   no
without git, here or there              yes        asked
a proven descendant                     yes        yes      with edits: asked
not provable, later committer date      yes        no       on the branch of `authority`: yes
not provable, else                      no
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from schemas.state import Applied, Revision

FORCE = "`--config-force`"
ONCE_MERGED = "apply takes these documents once they are on "
"""How the warning of a plan begins that is made off the branch of `authority`."""


@dataclass(frozen=True)
class GitFacts:
    """What git proved of a checkout against the applied commit; `None` is not provable here.

    behind  HEAD is an ancestor of the applied commit      ahead  a descendant
    left_out  documents that git tracks and a sparse checkout left out
    failed  why git could not be asked, with its own words and a way out
    """

    behind: bool | None = None
    ahead: bool | None = None
    applied_on_authority: bool | None = None
    shallow: bool = False
    left_out: tuple[str, ...] = ()
    failed: str = ""


@dataclass(frozen=True)
class Verdict:
    """`accept`: these documents may replace the applied ones. `may_end`: they may end what those keep.

    `ask_end`: ending anything needs the prompt or `--allow-destroy POOL` besides.
    `keep_revision`: the same documents from a commit not proven newer; the applied revision stays
    remembered. Otherwise an older checkout would set back what later ones are compared with.
    `why` is one sentence with the next command wherever something is not allowed.
    """

    accept: bool
    may_end: bool
    why: str
    ask_end: bool = False
    keep_revision: bool = False
    once_merged: str = ""
    """Where nothing but the branch is wrong, what a plan says instead: it is made as if they were merged."""

    @property
    def planned(self) -> Verdict:
        """As a plan takes it: documents of a pull request are refused today, and are to rule once they are merged."""
        return Verdict(True, True, self.once_merged, once_merged=self.once_merged) if self.once_merged else self


def judge(
    mine: Revision,
    *,
    applied: Applied | None,
    history: Sequence[Revision],
    facts: GitFacts,
    authority: str = "",
    config_force: bool = False,
) -> Verdict:
    """The table above, first match. `history` are all revisions applied, `facts` against `applied`."""
    first = applied is None or not applied.revision.digest
    if config_force:
        return Verdict(True, True, "forced by --config-force")
    if applied is not None and not first and mine.digest == applied.revision.digest:
        return Verdict(True, True, "the applied documents", keep_revision=not facts.ahead)
    if facts.failed:
        return _refused(f"The age of this configuration is unknown: {facts.failed}. To apply it anyway: {FORCE}")
    if facts.left_out:
        missing = facts.left_out[0]
        return _refused(f"a sparse checkout left out {missing}: `git sparse-checkout add .dstack`, or {FORCE}")
    if authority and (mine.on_authority is not True or mine.dirty):
        merged = f"{ONCE_MERGED}{authority} (`authority: {authority}`)" if mine.commit and not mine.dirty else ""
        return Verdict(False, False, _off(mine, authority), once_merged=merged)
    if applied is None or first:
        return Verdict(True, True, "the first apply")
    if authority and False in (applied.revision.on_authority, facts.applied_on_authority):
        return Verdict(True, True, f"{authority} wins over what was applied off it")
    return _by_age(mine, applied=applied, history=history, facts=facts, authority=authority)


def _by_age(
    mine: Revision, *, applied: Applied, history: Sequence[Revision], facts: GitFacts, authority: str
) -> Verdict:
    theirs = applied.revision
    if mine.commit and mine.commit == theirs.commit:
        return Verdict(True, True, f"edits at the applied commit {_short(theirs)}: {_ASKED}", ask_end=True)
    if mine.commit and any(each.commit == mine.commit for each in history):
        return _refused(f"{_behind(mine, applied)} (it was applied before): `git pull`, or {FORCE}")
    if facts.behind:
        return _refused(f"{_behind(mine, applied)}: `git pull`, or {FORCE}")
    if not mine.commit or not theirs.commit:
        side = "this checkout" if not mine.commit else "the applied documents"
        return Verdict(True, True, f"{side} without git: taken as newer; {_ASKED}", ask_end=True)
    if facts.ahead:
        why = f"edits on top of {_short(mine)}, newer than the applied {_short(theirs)}: {_ASKED}"
        return Verdict(True, True, why if mine.dirty else "newer than the applied commit", ask_end=mine.dirty)
    return _by_date(mine, applied=applied, facts=facts, authority=authority)


_ASKED = "ending what they declare no more needs the prompt or `--allow-destroy POOL`"


def _by_date(mine: Revision, *, applied: Applied, facts: GitFacts, authority: str) -> Verdict:
    theirs = applied.revision
    fetch = "`git fetch --unshallow`" if facts.shallow else "`git fetch`"
    unproven = f"git cannot prove here that {_short(mine)} is newer than the applied {_short(theirs)}"
    if (mine.committed_at or 0) <= (theirs.committed_at or 0):
        return _refused(f"{unproven}, and it is not dated later: {fetch} and `git pull`, or {FORCE}")
    if authority:
        return Verdict(True, True, f"later on {authority} than the applied {_short(theirs)}")
    return Verdict(True, False, f"{unproven}; it may add or change. Ending anything: {fetch} first, or {FORCE}")


def _refused(why: str) -> Verdict:
    return Verdict(False, False, why)


def _off(mine: Revision, authority: str) -> str:
    if mine.dirty:
        return f"edits that are not committed on {authority} (`authority: {authority}`): commit and push, or {FORCE}"
    if not mine.commit:
        return f"without git nothing shows that this is {authority} (`authority: {authority}`): use {FORCE}"
    if mine.on_authority is None:
        return (
            f"git cannot prove here that {_short(mine)} is on {authority} (`authority: {authority}`): "
            f"`git fetch origin {authority}`, or {FORCE}"
        )
    return f"{_short(mine)} is not on {authority} (`authority: {authority}`): merge it there, or {FORCE}"


def _behind(mine: Revision, applied: Applied) -> str:
    return f"{_short(mine)} is behind the applied commit {_short(applied.revision)} (by {applied.by})"


def _short(revision: Revision) -> str:
    return revision.commit[:10] or "documents without git"
