"""Whose documents rule, lived through: real clones, one shared state, and the command itself."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from reconciler.store.statefile import loads
from schemas.state import State
from tests.doubles.commands.command import Folder, Ran

PROJECT = "teams1234567"
DAY = 86_400
IDLE = "idle_duration: 30m, resources: {cpu: 1.., memory: 0.1GB.., disk: 0.1GB..}"
RUN = "type: task\nname: mine\ncommands: [echo mine]\n"


def pools(*names: str) -> str:
    lines = [f"  - {{name: {name}, nodes: 1, {IDLE}}}\n" for name in names]
    return f"pools:\n  - {{name: main, default: true, nodes: 0..4, {IDLE}}}\n" + "".join(lines)


@dataclasses.dataclass(frozen=True)
class Checkout(Folder):
    """A checkout of the project. All of them lie side by side: the same home, the same state."""

    def git(self, *words: str, day: int = 0) -> str:
        when = f"@{1_700_000_000 + day * DAY} +0000"
        done = subprocess.run(
            ["git", "-c", "protocol.file.allow=always", "-C", str(self.root), *words],
            env={**os.environ, "GIT_AUTHOR_DATE": when, "GIT_COMMITTER_DATE": when} if day else None,
            capture_output=True,
            text=True,
            check=True,
        )
        return done.stdout.strip()

    def commit(self, *names: str, day: int, options: tuple[str, ...] = ()) -> None:
        self.write(".dstack/pools.yml", pools(*names))
        self.git("add", ".dstack")
        self.git("commit", "-q", "-m", f"{names}", *options, day=day)

    def clone(self, name: str, *options: str) -> Checkout:
        root = self.root.parent / name
        self.git("clone", "-q", *options, f"file://{self.root}", str(root))
        return Checkout(root)

    def head(self) -> str:
        return self.git("rev-parse", "HEAD")[:10]

    @property
    def state(self) -> State:
        path = self.root.parent / "shared" / f"{PROJECT}.yml"
        return loads(path.read_bytes(), str(path))

    def living(self) -> list[str]:
        return sorted(one.pool for one in self.state.instances if one.phase != "terminated")


@pytest.fixture
def origin(tmp_path: Path) -> Iterator[Checkout]:
    """main: day 1 has the pool `a`, day 2 also `b`. Nothing is applied yet."""
    made = Checkout(tmp_path / "origin")
    made.root.mkdir()
    made.git("init", "-q", "-b", "main")
    documents = f"project: {{name: team, id: {PROJECT}}}\nstate: {tmp_path / 'shared'}\n"
    documents += "backends: [{type: local, instances: 12}]\n"
    made.write(".dstack/project.yml", documents)
    made.write(".dstack/.gitignore", "state/\nkeys/\n")
    made.commit("a", day=1)
    made.commit("a", "b", day=2)
    yield made
    made.git("checkout", "-q", "-f", "main")
    ended = made.dstack("destroy", "--confirm", "team")
    assert ended.code == 0 or "nothing was applied" in ended.err, ended.said


def apply(checkout: Checkout, *flags: str) -> Ran:
    return checkout.dstack("apply", "-y", *flags)


def applied(checkout: Checkout, *flags: str) -> Ran:
    ran = apply(checkout, *flags)
    assert ran.code == 0, ran.said
    return ran


def refused(checkout: Checkout, *said: str) -> None:
    """Neither plan nor apply ends anything: apply says why and what to do, plan says that it would."""
    before = checkout.state
    ran = apply(checkout, "--allow-destroy", "a", "--allow-destroy", "b")
    assert (ran.code, ran.out) == (1, ""), ran.said
    assert len(ran.err.splitlines()) == 1
    plan = checkout.dstack("plan")
    assert plan.code == 0
    for words in said:
        assert words in ran.err
        assert words in plan.out
    assert "apply would refuse these documents: " in plan.out
    assert "to terminate" not in plan.out
    assert checkout.state == before
    only_its_run(checkout)
    assert ran.err.startswith("error: ")
    forced = applied(checkout, "--config-force", "--allow-destroy", "a", "--allow-destroy", "b")
    assert "Done: " in forced.out


def add_only(checkout: Checkout, *said: str) -> None:
    """Accepted, but it may end nothing: its pool comes, the one that it lacks stays, and both are told why."""
    plan = checkout.dstack("plan", "--refresh")
    assert plan.code == 0
    assert "to terminate" not in plan.out
    ran = applied(checkout, "--allow-destroy", "b")
    for words in said:
        assert words in ran.err
        assert words in plan.out
    assert "b" in checkout.living()
    only_its_run(checkout)


def only_its_run(checkout: Checkout) -> None:
    """`dstack run` from here: its own run and its instance are all that is new; whatever else was stays as it was."""
    before = checkout.state
    checkout.write("run.yml", RUN)
    ran = checkout.dstack("run", ".", "-f", "run.yml", "-y", "-d")
    assert ran.code == 0, ran.said
    after = checkout.state
    assert (after.applied, after.history, after.overrides) == (before.applied, before.history, before.overrides)
    known = {run.id for run in before.runs}
    assert [run.spec.name for run in after.runs if run.id not in known] == ["mine"]
    assert [run for run in after.runs if run.id in known and run.origin == "declared"] == [
        run for run in before.runs if run.origin == "declared"
    ]
    mine = {one.id: one for one in before.instances}
    assert all(one.pool == "main" for one in after.instances if one.id not in mine)
    assert all(still(one) == still(mine[one.id]) for one in after.instances if one.id in mine and one.pool != "main")


def still(one: Any) -> Any:
    """Without what a look alone may change."""
    return (one.id, one.name, one.pool, one.external_id, one.phase, one.draining, one.terminate_at)


# ---------------------------------------------------------------- the stories


def test_ci_on_main_with_a_clone_of_depth_1(origin: Checkout) -> None:
    applied(origin)
    origin.commit("a", "c", day=3)
    ci = origin.clone("ci", "--depth=1")
    add_only(ci, "git cannot prove here that", "Ending anything: `git fetch --unshallow` first, or `--config-force`")
    assert ci.living() == ["a", "b", "c", "main"]
    ci.git("fetch", "-q", "--unshallow")
    origin.commit("a", day=4)
    ci.git("pull", "-q")
    assert "Done: " in applied(ci, "--allow-destroy", "b", "--allow-destroy", "c").out
    assert ci.living() == ["a", "main"]


def test_ci_with_authority_main_and_a_clone_of_depth_1_ends_what_left(origin: Checkout) -> None:
    origin.write(".dstack/authority.yml", "authority: main\n")
    origin.commit("a", "b", day=3)
    applied(origin)
    origin.commit("a", day=4)
    ci = origin.clone("ci", "--depth=1")
    applied(ci, "--allow-destroy", "b")
    assert ci.living() == ["a"]


def test_a_laptop_on_an_older_commit(origin: Checkout) -> None:
    laptop = origin.clone("laptop")
    laptop.git("checkout", "-q", "HEAD~1")
    applied(origin)
    refused(
        laptop, f"{laptop.head()} is behind the applied commit {origin.head()} (by ", "`git pull`, or `--config-force`"
    )


def test_one_that_was_applied_before_is_known_without_its_history(origin: Checkout) -> None:
    old = origin.clone("old", "--depth=1")
    applied(old)
    origin.commit("a", day=3)
    applied(origin, "--allow-destroy", "b")
    refused(old, "is behind the applied commit", "(it was applied before): `git pull`, or `--config-force`")


def test_one_that_has_not_fetched_the_applied_commit(origin: Checkout) -> None:
    laptop = origin.clone("laptop")
    origin.commit("a", "b", "c", day=4)
    applied(origin)
    laptop.commit("a", day=3)
    refused(laptop, "and it is not dated later: `git fetch` and `git pull`, or `--config-force`")


def test_one_that_has_not_fetched_it_and_is_dated_later(origin: Checkout) -> None:
    laptop = origin.clone("laptop")
    origin.commit("a", "b", "c", day=3)
    applied(origin)
    laptop.commit("a", "d", day=4)
    add_only(laptop, "Ending anything: `git fetch` first, or `--config-force`")
    assert laptop.living() == ["a", "b", "c", "d", "main"]


def test_a_branch(origin: Checkout) -> None:
    branch = origin.clone("branch")
    applied(origin)
    branch.git("checkout", "-q", "-b", "feature", "HEAD~1")
    branch.commit("a", "c", day=5)
    add_only(branch, f"git cannot prove here that {branch.head()} is newer than the applied {origin.head()}")


def test_a_branch_where_main_is_the_authority(origin: Checkout) -> None:
    origin.write(".dstack/authority.yml", "authority: main\n")
    origin.commit("a", "b", day=3)
    applied(origin)
    branch = origin.clone("branch")
    branch.git("checkout", "-q", "-b", "feature")
    branch.commit("a", day=5)
    ran = apply(branch, "--allow-destroy", "b")
    assert (ran.code, ran.out) == (1, ""), ran.said
    assert f"{branch.head()} is not on main (`authority: main`): merge it there, or `--config-force`" in ran.err
    only_its_run(branch)
    for look in ((), ("--refresh",)):
        plan = branch.dstack("plan", *look)
        assert plan.code == 0, plan.said
        assert "pool b  was removed from the configuration" in plan.out  # as if it were merged
        assert "apply takes these documents once they are on main (`authority: main`)" in plan.out
        assert "config-force" not in plan.said
        review = branch.dstack("plan", "--against", "origin/main", *look)
        assert (review.code, "once they are on main" in review.said) == (0, False), review.said
    won = applied(origin)  # what was forced off main does not keep main out
    assert "refused" not in won.said
    assert "b" in origin.living()


def test_an_amended_commit(origin: Checkout) -> None:
    applied(origin)
    origin.commit("a", "c", day=3, options=("--amend",))
    add_only(origin, "Ending anything: `git fetch` first, or `--config-force`")


def test_a_commit_amended_at_once(origin: Checkout) -> None:
    applied(origin)
    origin.commit("c", day=2, options=("--amend",))
    refused(origin, "and it is not dated later: `git fetch` and `git pull`, or `--config-force`")


def test_uncommitted_edits(origin: Checkout) -> None:
    applied(origin)
    origin.write(".dstack/pools.yml", pools("a", "c"))
    asked = "ending what they declare no more needs the prompt or `--allow-destroy POOL`"
    ran = applied(origin)
    assert f"warning: edits at the applied commit {origin.head()}: {asked}" in ran.err
    assert origin.living() == ["a", "b", "c"]
    only_its_run(origin)
    origin.write(".dstack/pools.yml", pools("a"))
    applied(origin, "--allow-destroy", "b", "--allow-destroy", "c")
    assert origin.living() == ["a", "main"]


def test_uncommitted_edits_that_end_nothing_need_no_warning(origin: Checkout) -> None:
    applied(origin)
    origin.write(".dstack/pools.yml", pools("a", "b", "c"))
    assert "warning: edits" not in applied(origin).err
    assert origin.living() == ["a", "b", "c"]


def test_uncommitted_edits_where_main_is_the_authority(origin: Checkout) -> None:
    origin.write(".dstack/authority.yml", "authority: main\n")
    origin.commit("a", "b", day=3)
    applied(origin)
    origin.write(".dstack/pools.yml", pools("a"))
    refused(origin, "edits that are not committed on main (`authority: main`): commit and push, or `--config-force`")


def test_a_checkout_without_git(origin: Checkout) -> None:
    applied(origin)
    export = Checkout(origin.root.parent / "export")
    shutil.copytree(origin.root, export.root, ignore=shutil.ignore_patterns(".git"))
    export.write(".dstack/pools.yml", pools("a", "c"))
    ran = applied(export)
    assert "warning: this checkout without git: taken as newer; ending what they declare no more needs" in ran.err
    assert "`--allow-destroy POOL`" in ran.err
    assert export.living() == ["a", "b", "c"]
    only_its_run(export)
    applied(export, "--allow-destroy", "b")
    assert export.living() == ["a", "c", "main"]


UNTRUSTED = {"GIT_TEST_ASSUME_DIFFERENT_OWNER": "1"}
TRUST = "git config --global --add safe.directory"


def untouched(checkout: Checkout, env: dict[str, str], *said: str) -> None:
    """A repository that git does not read: nothing is launched, the applied configuration stays."""
    before = checkout.state
    ran = checkout.dstack("apply", "-y", "--allow-destroy", "b", env=env)
    assert (ran.code, ran.out) == (1, ""), ran.said
    for plan in (checkout.dstack("plan", env=env), checkout.dstack("plan", "--refresh", env=env)):
        assert all(words in plan.said for words in (*said, "`--config-force`"))
        assert "to terminate" not in plan.out
    assert all(words in ran.err for words in (*said, "`--config-force`")), ran.err
    assert checkout.state == before


@pytest.fixture
def old(origin: Checkout) -> Checkout:
    """A clone of the first commit, after the newest one was applied."""
    applied(origin)
    found = origin.clone("old")
    found.git("checkout", "-q", "HEAD~1")
    return found


def test_a_checkout_that_git_does_not_trust(old: Checkout, origin: Checkout) -> None:
    untouched(old, UNTRUSTED, "detected dubious ownership in repository at", f"`{TRUST} {old.root}`")
    assert "Nothing to do" in applied(origin).out, "the newest one is not refused afterwards"
    forced = old.dstack("apply", "-y", "--config-force", "--allow-destroy", "b", env=UNTRUSTED)
    assert forced.code == 0, forced.said
    assert old.living() == ["a"]


def test_a_worktree_and_a_submodule_that_git_does_not_trust(origin: Checkout) -> None:
    applied(origin)
    tree = Checkout(origin.root.parent / "tree")
    origin.git("worktree", "add", "-q", str(tree.root), "HEAD~1")
    untouched(tree, UNTRUSTED, "detected dubious ownership", TRUST)
    outer = Checkout(origin.root.parent / "outer" / "repository")
    outer.root.mkdir(parents=True)
    outer.git("init", "-q")
    outer.git("submodule", "add", "-q", str(origin.root), "inner")
    inner = Checkout(origin.root.parent / "inner")
    Checkout(outer.root / "inner").git("checkout", "-q", "HEAD~1")
    (outer.root / "inner").rename(inner.root)  # its `.git` leads nowhere now
    untouched(inner, {}, "not a git repository: ")


def test_a_checkout_where_git_is_not_installed_or_broken(old: Checkout, tmp_path: Path) -> None:
    programs = tmp_path / "programs"
    programs.mkdir()
    for name in ("sh", "env", "cat", "sed", "ps", "sleep", "mkdir", "rm", "mv", "ls", "uname"):
        (programs / name).symlink_to(shutil.which(name) or "/bin/false")
    untouched(old, {"PATH": str(programs)}, "git is not on PATH", "Install git")
    (programs / "git").write_text("#!/bin/sh\nkill -9 $$\n")
    (programs / "git").chmod(0o755)
    untouched(old, {"PATH": str(programs)}, "was ended by signal 9")
    (old.root / ".git" / "HEAD").write_text("garbage")
    untouched(old, {}, "not a git repository")


def test_an_unchanged_configuration_needs_no_git(origin: Checkout) -> None:
    """Cron without git on its PATH goes on with what was applied: nothing else is brought."""
    applied(origin)
    ran = origin.dstack("apply", "-y", env=UNTRUSTED)
    assert (ran.code, "Nothing to do" in ran.out) == (0, True), ran.said
    assert origin.state.applied is not None
    assert origin.state.applied.revision.commit == origin.git("rev-parse", "HEAD")


def test_the_first_apply_of_a_checkout_that_git_does_not_trust(origin: Checkout) -> None:
    ran = origin.dstack("apply", "-y", env=UNTRUSTED)
    assert (ran.code, "detected dubious ownership" in ran.err) == (1, True), ran.said
    assert "apply would refuse these documents" in origin.dstack("plan", env=UNTRUSTED).out
    assert not (origin.root.parent / "shared" / f"{PROJECT}.yml").exists()


def test_comparing_with_a_revision_where_git_fails_has_its_words(origin: Checkout) -> None:
    applied(origin)
    ran = origin.dstack("plan", "--against", "HEAD~1", env=UNTRUSTED)
    assert (ran.code, "detected dubious ownership" in ran.err, TRUST in ran.err) == (1, True, True), ran.said


def test_a_sparse_checkout(origin: Checkout) -> None:
    """It lacks a document: that is no removal of its pools."""
    origin.write("src/train.py", "pass\n")
    origin.write(".dstack/more/notes.txt", "")
    origin.write(".dstack/extra.yml", f"pools:\n  - {{name: x, nodes: 1, {IDLE}}}\n")
    origin.git("add", "src")
    origin.commit("a", "b", day=3)
    applied(origin)
    origin.commit("a", day=4)
    sparse = origin.clone("sparse")
    sparse.git("sparse-checkout", "set", "--no-cone", "/*", "!/.dstack/extra.yml")
    refused(sparse, "a sparse checkout left out .dstack/extra.yml: `git sparse-checkout add .dstack`")


def test_a_sparse_checkout_without_any_document_has_no_project(origin: Checkout) -> None:
    origin.write("src/train.py", "pass\n")
    origin.git("add", "src")
    origin.commit("a", "b", day=3)
    applied(origin)
    sparse = origin.clone("sparse", "--sparse")
    sparse.git("sparse-checkout", "set", "src")
    ran = sparse.dstack("plan")
    assert ran.code == 1
    assert "a sparse checkout left out .dstack: `git sparse-checkout add .dstack`" in ran.err
    sparse.git("sparse-checkout", "add", ".dstack")
    assert "No changes." in sparse.dstack("plan").out


def test_the_applied_documents_from_an_older_commit_do_not_become_older(origin: Checkout) -> None:
    """CI applies a commit that changed no document; a laptop that lacks it applies the same documents."""
    laptop = origin.clone("laptop")
    origin.write("train.py", "pass\n")
    origin.git("add", "train.py")
    origin.git("commit", "-q", "-m", "code", day=3)
    applied(origin)
    newest = origin.state.applied
    applied(laptop)
    assert laptop.state.applied == newest
    assert json.loads(laptop.dstack("state", "show", "--json").out)["commit"].startswith(origin.head())
