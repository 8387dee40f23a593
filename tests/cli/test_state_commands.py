"""`dstack state …` as a person types it, on a folder and on a bucket of a real server."""

from __future__ import annotations

import itertools
import json
import os
import shutil
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from tests.doubles.buckets.buckets import KINDS, Server, boto
from tests.doubles.buckets.fault_proxy import FaultProxy
from tests.doubles.buckets.versioned import AzureVersions, GoogleVersions
from tests.doubles.commands.command import POOLS, Folder, Ran, folder_at

NUMBERS = itertools.count()
RUN = "type: task\nname: hello\ncommands: [echo hi there, echo 7 > out.txt]\nartifacts: [out.txt]\n"
PROJECT = "demo12345678"


class Team(Folder):
    """A project whose commands reach that server."""

    server: Server

    def at(self, *args: str, env: dict[str, str] | None = None) -> Ran:
        return self.dstack(*args, env={**self.server.environ, **(env or {})})

    def keep_in(self, url: str) -> None:
        """Its documents say so from here on."""
        self.write(".dstack/state.yml", f"state: {url}\n" if url else "# the folder\n")


def team(tmp_path: Path, server: Server) -> Team:
    made = Team(folder_at(tmp_path, documents=POOLS).root)
    object.__setattr__(made, "server", server)
    made.write(".dstack/runs/hello.yml", RUN)
    return made


def ran_once(project: Team, *, times: int = 1) -> None:
    """Applied until the run, or that many versions of it, are done and their results stored."""
    ends = time.monotonic() + 240
    while project.at("ps", "-a").out.count(" done ") < times:
        assert time.monotonic() < ends
        done = project.at("apply", "-y")
        assert done.code == 0, done.said


@pytest.fixture
def moto(server_of: Callable[[str], Server]) -> Server:
    return server_of("moto")


def fresh(server: Server, *, versions: bool = False) -> str:
    name = f"state-{os.getpid()}-{next(NUMBERS)}"
    server.make_bucket(name, versions=versions)
    return server.state(name, "team")


@pytest.fixture(params=["folder", *KINDS])
def project(request: pytest.FixtureRequest, tmp_path: Path, server_of: Callable[[str], Server]) -> Team:
    """Applied, its state in each kind of place."""
    server = server_of("moto" if request.param == "folder" else request.param)
    made = team(tmp_path, server)
    prefix = server.state("first-bucket", f"cli-{os.getpid()}-{next(NUMBERS)}")
    made.keep_in("" if request.param == "folder" else prefix)
    assert made.at("apply", "-y").code == 0
    return made


def generation(project: Team) -> int:
    return int(json.loads(project.at("state", "show", "--json").out)["generation"])


def test_pull_edit_and_push(project: Team) -> None:
    """Out and in again; older, foreign and broken files are refused and change nothing."""
    before = generation(project)
    pulled = project.root / "pulled.yml"
    assert project.at("state", "pull", str(pulled)).code == 0
    assert pulled.stat().st_mode & 0o777 == 0o600
    assert pulled.read_text() == project.at("state", "pull").out
    assert "exists already" in project.at("state", "pull", str(pulled)).err

    assert "add -y" in project.at("state", "push", str(pulled)).err
    assert project.at("state", "push", str(pulled), "-y").code == 0
    assert generation(project) == before + 1
    older = project.at("state", "push", str(pulled), "-y")
    assert (older.code, "somebody wrote since" in older.err) == (1, True), older.said
    foreign = project.write("foreign.yml", pulled.read_text().replace('"lineage":"', '"lineage":"x', 1))
    assert "another world" in project.at("state", "push", str(foreign), "-y").err
    assert "truncated" in project.at("state", "push", str(project.write("cut.yml", pulled.read_text()[:-9])), "-y").err
    assert generation(project) == before + 1


@pytest.mark.parametrize(
    ("sed", "code", "says"),
    [
        ("s/nobody/nobody/", 0, "nothing was changed"),
        ('s/"nodes_max":2/"nodes_max":3/', 0, "generation"),
        ("s/lineage/lineages/", 1, "your text is kept as"),
        ('s/"generation":[0-9]*/"generation":9999/', 1, "`generation` says whose state"),
    ],
)
def test_edit(tmp_path: Path, moto: Server, sed: str, code: int, says: str) -> None:
    project = team(tmp_path, moto)
    project.keep_in(fresh(moto))
    assert project.at("apply", "-y").code == 0
    before = generation(project)
    edited = project.at("state", "edit", env={"EDITOR": f"sed -i '{sed}'"})
    assert edited.code == code, edited.said
    assert says in edited.err
    assert generation(project) == before + ("generation" in says and code == 0)


@pytest.mark.parametrize(
    ("editor", "says", "keeps"),
    [
        ("no-such-editor --wait", "no-such-editor: no such file or directory; set EDITOR", False),
        ("'unbalanced", "$EDITOR: no closing quotation: 'unbalanced", False),
        ("false", "false ended with exit code 1; nothing was stored", False),
        ("sh -c 'kill -9 $$'", "sh was ended by signal 9; nothing was stored", False),
        ("sh -c 'echo >> $1; exit 3' x", "sh ended with exit code 3; nothing was stored; your text is kept as /", True),
        ("rm", "no such file or directory; nothing was stored", False),
        ("/dev/null", "/dev/null: permission denied; set EDITOR", False),
    ],
)
def test_an_editor_that_fails_is_told(tmp_path: Path, editor: str, says: str, keeps: bool) -> None:
    folder = folder_at(tmp_path)
    assert folder.dstack("apply", "-y", "-d").code == 0
    before = (folder.root / ".dstack/state/demo12345678.yml").read_bytes()
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    edited = folder.dstack("state", "edit", env={"EDITOR": editor, "VISUAL": "", "TMPDIR": str(scratch)})
    assert (edited.code, edited.out) == (1, "")
    assert says in edited.err
    assert "defect" not in edited.err
    assert (folder.root / ".dstack/state/demo12345678.yml").read_bytes() == before
    assert bool(list(scratch.glob("demo*"))) is keeps


def test_an_edit_meets_anothers_write(tmp_path: Path, moto: Server) -> None:
    project = team(tmp_path, moto)
    project.keep_in(fresh(moto))
    assert project.at("apply", "-y").code == 0
    editor = project.write(
        "editor", '#!/bin/sh\n"$DSTACK" -m reconciler.cli.main pool pause bench >/dev/null 2>&1; echo \' \' >> "$1"\n'
    )
    editor.chmod(0o755)
    import sys

    met = project.at("state", "edit", env={"EDITOR": str(editor), "DSTACK": sys.executable})
    assert met.code == 1
    assert "somebody else wrote it first; nothing was stored; your text is kept as" in met.err


# ---------------------------------------------------------------- moving


@pytest.mark.parametrize("kind", KINDS)
def test_a_state_moves_with_all_that_lies_beside_it(
    tmp_path: Path, server_of: Callable[[str], Server], kind: str
) -> None:
    """From the folder into a bucket: the run is known there, its log and artifacts too, and nothing starts twice."""
    server = server_of(kind)
    project = team(tmp_path, server)
    ran_once(project)
    url = server.state("first-bucket", f"moved-{os.getpid()}-{next(NUMBERS)}")
    moved = project.at("state", "migrate", "--to", url, "-y")
    assert moved.code == 0, moved.said
    sealed = project.at("ps")
    assert f"write `state: {url}`" in sealed.err
    assert "sealed" in project.at("state", "rebuild", "-y").err
    again = project.at("state", "migrate", "--to", url, "-y")
    assert (again.code, "0 blobs" in again.out) == (0, True), again.said

    project.keep_in(url)
    shutil.rmtree(project.root / ".dstack/state/blobs")
    assert project.at("logs", "hello").out.endswith("hi there\n")
    assert project.at("artifacts", "hello").code == 0
    applied = project.at("apply", "-y")
    assert "the configuration is applied" in applied.out, applied.said
    assert project.at("state", "show").out.count(url) == 1


def test_a_killed_move_goes_on(tmp_path: Path, moto: Server) -> None:
    """Cut after the state arrived and before the seal: the second try ends it; used meanwhile, it is refused."""
    project = team(tmp_path, moto)
    ran_once(project)
    url = fresh(moto)
    old = (project.root / f".dstack/state/{PROJECT}.yml").read_bytes()
    assert project.at("state", "migrate", "--to", url, "-y").code == 0
    (project.root / f".dstack/state/{PROJECT}.yml").write_bytes(old)
    assert project.at("state", "migrate", "--to", url, "-y").code == 0
    (project.root / f".dstack/state/{PROJECT}.yml").write_bytes(old)
    (project.root / ".dstack/state.yml").write_text("")
    elsewhere = Team(folder_at(tmp_path / "other", documents=POOLS).root)
    object.__setattr__(elsewhere, "server", moto)
    elsewhere.keep_in(url)
    assert elsewhere.at("pool", "pause", "bench").code == 0
    assert elsewhere.at("pool", "resume", "bench").code == 0
    refused = project.at("state", "migrate", "--to", url, "-y")
    assert (refused.code, "somebody goes on there already" in refused.err) == (1, True), refused.said


def test_a_bucket_without_a_state_beside_one_in_the_folder(tmp_path: Path, moto: Server) -> None:
    """`state:` was changed, and nobody migrated: no new project."""
    project = team(tmp_path, moto)
    assert project.at("apply", "-y").code == 0
    project.keep_in(fresh(moto))
    refused = project.at("apply", "-y")
    assert (refused.code, "dstack state migrate --to" in refused.err) == (1, True), refused.said


@pytest.mark.parametrize("moved", [False, True])
def test_an_emptied_bucket_under_live_instances_is_no_new_project(tmp_path: Path, moto: Server, moved: bool) -> None:
    project = team(tmp_path, moto)
    url = fresh(moto)
    project.keep_in("" if moved else url)
    project.write(
        ".dstack/more.yml", "pools: [{name: floor, nodes: 1, resources: {cpu: 1.., memory: 0.1GB.., disk: 0.1GB..}}]\n"
    )
    assert project.at("apply", "-y").code == 0
    if moved:
        assert project.at("state", "migrate", "--to", url, "-y").code == 0
        project.keep_in(url)
        assert project.at("apply", "-y").code == 0
        (project.root / f".dstack/state/{PROJECT}.yml").unlink()
    bucket = url.split("/")[2]
    for one in boto(moto).list_objects_v2(Bucket=bucket)["Contents"]:
        boto(moto).delete_object(Bucket=bucket, Key=one["Key"])
    refused = project.at("apply", "-y")
    assert refused.code == 1, refused.said
    assert "the state is missing, not empty" in refused.err
    rebuilt = project.at("state", "rebuild", "-y")
    assert rebuilt.code == 0, rebuilt.said
    assert project.at("apply", "-y").code == 0


# ---------------------------------------------------------------- putting back


VERSIONED = {"moto": FaultProxy, "seaweedfs": FaultProxy, "fake-gcs": GoogleVersions, "azurite": AzureVersions}


@pytest.mark.parametrize("kind", KINDS)
def test_a_version_is_put_back_above_everything_seen(
    tmp_path: Path, server_of: Callable[[str], Server], kind: str
) -> None:
    server = server_of(kind)
    url = fresh(server, versions=True)
    proxy = VERSIONED[kind](server.port)
    project = team(tmp_path, replace(server, environ=server.at(proxy.port)))
    project.keep_in(url)
    ran_once(project)
    before = generation(project)
    listed = project.at("state", "rollback").out.splitlines()
    assert len(listed) >= 3
    earlier = listed[1].split()[0]
    back = project.at("state", "rollback", earlier, "-y")
    assert back.code == 0, back.said
    assert generation(project) > before
    assert project.at("apply", "-y").code == 0
    assert "done" in project.at("ps", "-a").out
    never = project.at("state", "rollback", earlier[::-1], "-y")
    assert (never.code, "cannot be read" in never.err) == (1, True), never.said
    proxy.close()


def test_where_no_versions_are_kept(tmp_path: Path, moto: Server) -> None:
    project = team(tmp_path, moto)
    assert project.at("apply", "-y").code == 0
    assert "state push FILE" in project.at("state", "rollback").err
    project = team(tmp_path / "b", moto)
    project.keep_in(fresh(moto))
    assert project.at("apply", "-y").code == 0
    assert "keeps no versions" in project.at("state", "rollback").err


# ---------------------------------------------------------------- artifacts elsewhere


@pytest.mark.parametrize("kind", ["folder", "moto", "azurite"])
def test_artifacts_of_a_state_in_a_folder_go_to_their_store(
    tmp_path: Path, server_of: Callable[[str], Server], kind: str
) -> None:
    """And those of before there was one are found where they were put."""
    server = server_of("moto" if kind == "folder" else kind)
    project = team(tmp_path, server)
    ran_once(project)
    prefix = server.state("first-bucket", f"artifacts-{os.getpid()}-{next(NUMBERS)}")
    project.write(".dstack/store.yml", f"artifact_store: {tmp_path / 'kept' if kind == 'folder' else prefix}\n")
    assert project.at("artifacts", "hello").code == 0
    project.write(".dstack/runs/hello.yml", RUN.replace("echo 7", "echo a second result"))
    ran_once(project, times=2)
    beside = sum(path.is_file() for path in (project.root / ".dstack/state/blobs").glob("[0-9a-f][0-9a-f]/*"))
    shutil.rmtree(project.root / ".dstack/state/blobs/fetched", ignore_errors=True)
    got = project.at("artifacts", "hello")
    assert got.code == 0, got.said
    assert (project.root / "hello-artifacts/out.txt").read_text() == "a second result\n"
    assert beside == 4, "two bundles, the log that is the same of both, and the artifacts of before"


# ---------------------------------------------------------------- what it costs


@pytest.mark.parametrize("kind", KINDS)
def test_nothing_to_do_is_one_request(tmp_path: Path, server_of: Callable[[str], Server], kind: str) -> None:
    server = server_of(kind)
    project = team(tmp_path, server)
    project.keep_in(server.state("first-bucket", f"cost-{os.getpid()}-{next(NUMBERS)}"))
    ran_once(project)
    assert project.at("apply", "-y").code == 0
    proxy = FaultProxy(server.port)
    for words in (("apply", "-y"), ("plan",), ("ps", "-a"), ("state", "show")):
        proxy.seen.clear()
        assert project.dstack(*words, env=server.at(proxy.port)).code == 0
        assert proxy.methods() == ["GET"], words
    proxy.close()
