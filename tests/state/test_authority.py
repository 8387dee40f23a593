"""Whose documents rule, lived through with real clones, and the table of the pure judge."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from reconciler.config.git_revision import facts_of, revision_of, sparse
from reconciler.state.authority import FORCE, GitFacts, Verdict, judge
from reconciler.system.git import GitFailed, repository_of, run_git
from schemas.desired import Desired
from schemas.state import Applied, Revision

DAY = 86_400


class Checkout:
    """A clone, judged against whatever was applied from any other."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def git(self, *words: str, at: int = 0) -> str:
        environ = {**os.environ, "GIT_AUTHOR_DATE": f"@{at} +0000", "GIT_COMMITTER_DATE": f"@{at} +0000"}
        done = subprocess.run(
            ["git", "-c", "protocol.file.allow=always", "-C", str(self.root), *words],
            env=environ if at else None,
            capture_output=True,
            text=True,
            check=True,
        )
        return done.stdout.strip()

    def edit(self, text: str) -> None:
        (self.root / ".dstack").mkdir(exist_ok=True)
        (self.root / ".dstack" / "pools.yml").write_text(text)

    def commit(self, text: str, at: int, *, amend: bool = False) -> None:
        self.edit(text)
        self.git("add", ".")
        self.git("commit", "-q", "-m", text, *(["--amend"] if amend else []), at=at * DAY)

    def clone(self, name: str, *options: str) -> Checkout:
        root = self.root.parent / name
        self.git("clone", "-q", *options, f"file://{self.root}", str(root))
        return Checkout(root)

    def revision(self, authority: str = "") -> Revision:
        files = sorted((self.root / ".dstack").glob("*.yml"))
        digest = hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()
        return revision_of(self.root, digest, authority=authority)

    def judged(self, applied: Applied | None, *history: Revision, authority: str = "", force: bool = False) -> Verdict:
        mine = self.revision(authority)
        facts = facts_of(self.root, mine, applied.revision if applied else None, authority=authority)
        return judge(mine, applied=applied, history=history, facts=facts, authority=authority, config_force=force)

    def applied(self, authority: str = "") -> Applied:
        return Applied(revision=self.revision(authority), by="ana@laptop", at=0, desired=Desired())


FREELY, ASKED, ADD_ONLY, REFUSED = (True, True, False), (True, True, True), (True, False, False), (False, False, False)


def rights(verdict: Verdict) -> tuple[bool, bool, bool]:
    return verdict.accept, verdict.may_end, verdict.ask_end


@pytest.fixture
def origin(tmp_path: Path) -> Checkout:
    """main with three commits, of days 1, 2 and 3."""
    made = Checkout(tmp_path / "origin")
    made.root.mkdir()
    made.git("init", "-q", "-b", "main")
    made.git("config", "uploadpack.allowFilter", "true")
    for day in (1, 2, 3):
        made.commit(f"v{day}", day)
    return made


def test_the_first_apply_and_the_same_again(origin: Checkout) -> None:
    assert rights(origin.judged(None)) == FREELY
    assert rights(origin.judged(origin.applied(), origin.revision())) == FREELY


def test_a_descendant_is_newer(origin: Checkout) -> None:
    applied = origin.applied()
    origin.commit("v4", 4)
    assert rights(origin.judged(applied)) == FREELY


def test_the_same_documents_on_an_older_commit_change_nothing_of_the_memory(origin: Checkout) -> None:
    laptop = origin.clone("laptop")
    (origin.root / "train.py").write_text("new")
    origin.commit("v3", 4)
    verdict = laptop.judged(origin.applied())
    assert (rights(verdict), verdict.keep_revision) == (FREELY, True)
    verdict = origin.judged(laptop.applied())
    assert (rights(verdict), verdict.keep_revision) == (FREELY, False)


def test_a_laptop_on_an_older_commit(origin: Checkout) -> None:
    laptop = origin.clone("laptop")
    laptop.git("checkout", "-q", "HEAD~1")
    verdict = laptop.judged(origin.applied())
    assert rights(verdict) == REFUSED
    assert "behind the applied commit" in verdict.why
    assert "(by ana@laptop): `git pull`, or `--config-force`" in verdict.why
    assert rights(laptop.judged(origin.applied(), force=True)) == FREELY


def test_an_older_commit_is_known_by_the_history_where_git_cannot_tell(origin: Checkout) -> None:
    old = origin.clone("old", "--depth=1")
    earlier = old.revision()
    origin.commit("v4", 4)
    verdict = old.judged(origin.applied(), earlier, origin.revision())
    assert rights(verdict) == REFUSED
    assert "it was applied before" in verdict.why


def test_ci_on_main_with_a_clone_of_depth_1(origin: Checkout) -> None:
    applied = origin.applied()
    origin.commit("v4", 4)
    ci = origin.clone("ci", "--depth=1")
    verdict = ci.judged(applied, applied.revision)
    assert rights(verdict) == ADD_ONLY
    assert "`git fetch --unshallow` first, or `--config-force`" in verdict.why
    ci.git("fetch", "-q", "--unshallow")
    assert rights(ci.judged(applied, applied.revision)) == FREELY


def test_ci_of_depth_1_with_authority_main_ends_freely(origin: Checkout) -> None:
    applied = origin.applied("main")
    origin.commit("v4", 4)
    ci = origin.clone("ci", "--depth=1")
    assert rights(ci.judged(applied, applied.revision, authority="main")) == FREELY


def test_one_that_has_not_fetched_the_applied_commit(origin: Checkout) -> None:
    laptop = origin.clone("laptop")
    origin.commit("v4", 4)
    behind = laptop.judged(origin.applied())
    assert rights(behind) == REFUSED
    assert "it is not dated later: `git fetch` and `git pull`, or `--config-force`" in behind.why
    laptop.commit("mine", 5)
    later = laptop.judged(origin.applied())
    assert rights(later) == ADD_ONLY
    assert "Ending anything: `git fetch` first, or `--config-force`" in later.why


def test_a_branch(origin: Checkout) -> None:
    branch = origin.clone("branch")
    branch.git("checkout", "-q", "-b", "feature", "HEAD~1")
    branch.commit("feature", 9)
    assert rights(branch.judged(origin.applied())) == ADD_ONLY
    off = branch.judged(origin.applied("main"), authority="main")
    assert rights(off) == REFUSED
    assert "is not on main (`authority: main`): merge it there, or `--config-force`" in off.why
    assert rights(branch.judged(origin.applied("main"), authority="main", force=True)) == FREELY


def test_main_wins_over_what_was_forced_off_it(origin: Checkout) -> None:
    branch = origin.clone("branch")
    branch.git("checkout", "-q", "-b", "feature")
    before = origin.revision("main")
    branch.commit("feature", 9)
    forced = branch.applied("main")
    verdict = origin.judged(forced, before, forced.revision, authority="main")
    assert rights(verdict) == FREELY
    assert "main wins" in verdict.why
    assert rights(origin.judged(forced, before, forced.revision)) == REFUSED


def test_an_amended_commit(origin: Checkout) -> None:
    applied = origin.applied()
    origin.commit("v3, amended", 4, amend=True)
    assert rights(origin.judged(applied, applied.revision)) == ADD_ONLY
    origin.commit("v3, amended at once", 3, amend=True)
    assert rights(origin.judged(applied, applied.revision)) == REFUSED


def test_uncommitted_edits(origin: Checkout) -> None:
    applied = origin.applied()
    origin.edit("v3 and more")
    assert origin.revision().dirty
    verdict = origin.judged(applied)
    assert rights(verdict) == ASKED
    assert "ending what they declare no more needs the prompt or `--allow-destroy POOL`" in verdict.why
    off = origin.judged(applied, authority="main")
    assert rights(off) == REFUSED
    assert "commit and push, or `--config-force`" in off.why


def test_edits_on_top_of_a_newer_or_an_older_commit(origin: Checkout) -> None:
    applied = origin.applied()
    laptop = origin.clone("laptop")
    laptop.git("checkout", "-q", "HEAD~1")
    laptop.edit("edits")
    assert rights(laptop.judged(applied)) == REFUSED
    origin.commit("v4", 4)
    origin.edit("edits")
    assert rights(origin.judged(applied)) == ASKED


def test_edits_elsewhere_are_not_edits(origin: Checkout) -> None:
    (origin.root / "train.py").write_text("new")
    assert not origin.revision().dirty
    (origin.root / ".dstack" / "new.yml").write_text("new")
    assert origin.revision().dirty


def test_a_checkout_without_git(origin: Checkout) -> None:
    applied = origin.applied()
    shutil.rmtree(origin.root / ".git")
    origin.edit("an export")
    assert origin.revision().commit == ""
    verdict = origin.judged(applied)
    assert rights(verdict) == ASKED
    assert "without git" in verdict.why
    assert rights(origin.judged(applied, authority="main")) == REFUSED


def test_documents_that_git_does_not_track(origin: Checkout) -> None:
    (origin.root / ".gitignore").write_text(".dstack\n")
    origin.git("rm", "-q", "-r", "--cached", ".dstack")
    origin.git("add", ".gitignore")
    origin.git("commit", "-q", "-m", "untracked", at=5 * DAY)
    assert origin.revision().commit == ""


def test_a_sparse_checkout(origin: Checkout) -> None:
    applied = origin.applied()
    (origin.root / "src").mkdir()
    (origin.root / "src" / "a.py").write_text("")
    origin.commit("v4", 4)
    sparse = origin.clone("sparse", "--sparse")
    sparse.git("sparse-checkout", "set", "src")
    verdict = sparse.judged(applied)
    assert rights(verdict) == REFUSED
    assert "`git sparse-checkout add .dstack`" in verdict.why
    sparse.git("sparse-checkout", "add", ".dstack")
    assert rights(sparse.judged(applied)) == FREELY


def test_authority_that_cannot_be_proved(origin: Checkout) -> None:
    lone = origin.clone("lone", "--depth=1")
    lone.git("checkout", "-q", "--detach")
    lone.git("update-ref", "-d", "refs/heads/main")
    lone.git("remote", "remove", "origin")
    verdict = lone.judged(None, authority="main")
    assert rights(verdict) == REFUSED
    assert "`git fetch origin main`, or `--config-force`" in verdict.why


def test_the_remote_branch_counts_not_the_local_one(origin: Checkout) -> None:
    laptop = origin.clone("laptop")
    laptop.commit("not pushed", 5)
    assert laptop.revision("main").on_authority is False
    assert origin.revision("main").on_authority is True


def test_a_folder_without_a_repository_needs_no_git(tmp_path: Path) -> None:
    bare = Revision(digest="d")
    empty = tmp_path / "empty"
    (empty / ".dstack").mkdir(parents=True)
    assert revision_of(empty, "d", authority="main") == bare
    assert revision_of(tmp_path / "nowhere", "d") == bare
    assert revision_of(empty, "d", environ={"PATH": "/nowhere"}) == bare
    subprocess.run(["git", "init", "-q", str(empty)], check=True)
    (empty / ".dstack" / "a.yml").write_text("")
    assert revision_of(empty, "d") == bare
    subprocess.run(["git", "-C", str(empty), "add", "."], check=True)
    assert revision_of(empty, "d") == bare, "nothing was ever committed"


@pytest.mark.parametrize(
    ("harm", "words"),
    [
        ("path", "git is not on PATH. Install git"),
        ("owner", "detected dubious ownership in repository at"),
        ("config", "bad config line 1 in file"),
        ("HEAD", "not a git repository"),
        ("index", "index file"),
        ("objects", "bad object HEAD. Check out a commit that git can read"),
        ("gitfile", "not a git repository: "),
    ],
)
def test_a_repository_that_git_does_not_read_is_not_without_git(origin: Checkout, harm: str, words: str) -> None:
    known, environ = origin.revision(), dict(os.environ)
    folder = origin.root / ".git"
    match harm:
        case "path":
            environ["PATH"] = "/nowhere"
        case "owner":
            environ["GIT_TEST_ASSUME_DIFFERENT_OWNER"] = "1"
        case "config" | "HEAD" | "index":
            (folder / harm).write_text("[garbage\n")
        case "objects":
            shutil.rmtree(folder / "objects")
            (folder / "objects").mkdir()
        case "gitfile":
            folder.rename(origin.root / "moved")
            folder.write_text("gitdir: ../gone/.git\n")
    with pytest.raises(GitFailed, match=re.escape(words)) as caught:
        revision_of(origin.root, "d", environ=environ)
    below = origin.root / "below" / "deeper"
    below.mkdir(parents=True)
    if harm != "objects":  # the index alone tells it
        with pytest.raises(GitFailed):
            sparse(below, environ=environ)
    verdict = judge(
        Revision(digest="d"),
        applied=Applied(revision=known, by="x", at=0, desired=Desired()),
        history=(),
        facts=GitFacts(failed=str(caught.value)),
    )
    assert rights(verdict) == REFUSED
    assert words in verdict.why
    assert FORCE in verdict.why


def test_a_git_that_fails_between_two_questions(origin: Checkout) -> None:
    applied = origin.applied()
    origin.commit("v4", 4)
    mine = origin.revision()
    facts = facts_of(origin.root, mine, applied.revision, environ={"PATH": "/nowhere"})
    assert "git is not on PATH" in facts.failed
    assert rights(judge(mine, applied=applied, history=(), facts=facts)) == REFUSED


def test_a_git_that_does_not_answer(origin: Checkout, tmp_path: Path) -> None:
    (tmp_path / "git").write_text("#!/bin/sh\nexec sleep 60\n")
    (tmp_path / "git").chmod(0o755)
    environ = {"PATH": f"{tmp_path}:{os.environ['PATH']}"}
    with pytest.raises(GitFailed, match=r"no answer within 0s \(`git status`\)"):
        run_git(origin.root, "status", environ=environ, timeout=0.1)


def test_a_repository_is_looked_for_where_git_looks(origin: Checkout) -> None:
    below = origin.root / "a" / "b"
    below.mkdir(parents=True)
    assert repository_of(below) == origin.root.resolve() / ".git"
    ceiling = {"GIT_CEILING_DIRECTORIES": str(origin.root.resolve())}
    assert repository_of(below, environ=ceiling) is None
    assert repository_of(origin.root, environ=ceiling) is not None


def test_what_a_hook_sets_does_not_lead_elsewhere(origin: Checkout, tmp_path: Path) -> None:
    environ = {**os.environ, "GIT_DIR": str(tmp_path / "nowhere"), "GIT_INDEX_FILE": str(tmp_path / "index")}
    assert revision_of(origin.root, "d", environ=environ).commit == origin.git("rev-parse", "HEAD")


def test_a_tampered_commit_is_no_option_of_git(origin: Checkout) -> None:
    facts = facts_of(origin.root, origin.revision(), Revision(digest="d", commit="--help"))
    assert (facts.behind, facts.ahead) == (None, None)


A, B = "a" * 40, "b" * 40
MINE = Revision(digest="mine", commit=A, committed_at=10)
THEIRS = Applied(revision=Revision(digest="theirs", commit=B, committed_at=5), by="x", at=0, desired=Desired())
CARRIED = Applied(revision=Revision(digest=""), by="", at=0, desired=Desired())
ON_MAIN = Revision(digest="mine", commit=A, on_authority=True)
NONE = GitFacts()


@pytest.mark.parametrize(
    ("mine", "applied", "facts", "authority", "expected"),
    [
        (MINE, None, NONE, "", FREELY),
        (MINE, CARRIED, NONE, "", FREELY),
        (MINE, THEIRS, NONE, "", ADD_ONLY),
        (MINE, THEIRS, GitFacts(ahead=True), "", FREELY),
        (MINE, THEIRS, GitFacts(behind=True), "", REFUSED),
        (MINE, THEIRS, GitFacts(left_out=("a",)), "", REFUSED),
        (Revision(digest="mine"), THEIRS, GitFacts(failed="no `git`"), "", REFUSED),
        (Revision(digest="mine"), None, GitFacts(failed="no `git`"), "", REFUSED),
        (Revision(digest="theirs"), THEIRS, GitFacts(failed="no `git`"), "", FREELY),
        (Revision(digest="mine"), THEIRS, NONE, "", ASKED),
        (Revision(digest="theirs"), THEIRS, GitFacts(behind=True, left_out=("a",)), "main", FREELY),
        (Revision(digest="mine", commit=A, committed_at=5), THEIRS, NONE, "", REFUSED),
        (Revision(digest="mine", commit=A, committed_at=4), THEIRS, NONE, "", REFUSED),
        (ON_MAIN, THEIRS, GitFacts(applied_on_authority=False), "main", FREELY),
        (ON_MAIN, THEIRS, GitFacts(behind=True), "main", REFUSED),
        (Revision(digest="mine", commit=A, committed_at=4, on_authority=True), THEIRS, NONE, "main", REFUSED),
        (Revision(digest="mine", commit=A, committed_at=6, on_authority=True), THEIRS, NONE, "main", FREELY),
        (Revision(digest="mine", commit=A, committed_at=6), None, NONE, "main", REFUSED),
    ],
)
def test_the_table(mine: Revision, applied: Applied | None, facts: GitFacts, authority: str, expected: object) -> None:
    verdict = judge(mine, applied=applied, history=(), facts=facts, authority=authority)
    assert rights(verdict) == expected
    if not verdict.accept:
        assert "`" in verdict.why, "a refusal names the next command"
    forced = judge(mine, applied=applied, history=(), facts=facts, authority=authority, config_force=True)
    assert rights(forced) == FREELY
