"""The rights in docs/shared-state.md are enough for every command, and no more than that is ever asked for."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from reconciler.store.objects.open import open_bucket
from schemas.location import Bucket, location
from tests.cli.test_state_commands import PROJECT, Team, ran_once, team
from tests.doubles.buckets.buckets import Server, boto
from tests.doubles.buckets.policies import (
    BUCKET,
    PREFIX,
    Allows,
    Asked,
    Enforcing,
    Shape,
    aws_allows,
    azure_allows,
    azure_asked,
    blocks,
    google_allows,
    google_asked,
    s3_asked,
)

WRITE, READ, ROLLBACK, BUCKET_POLICY = blocks("### S3", "json")
ROLE, CONDITION = blocks("### Google Cloud Storage", "yaml")[0], blocks("### Google Cloud Storage", "cel")[0]
AZURE = blocks("### Azure Blob", "json")[0]
CHANGES = ("storage.objects.create", "storage.objects.delete")
CLOUDS: dict[str, tuple[Shape, Allows, Allows]] = {
    "moto": (s3_asked, aws_allows(WRITE, ROLLBACK, BUCKET_POLICY), aws_allows(READ, BUCKET_POLICY)),
    "fake-gcs": (google_asked, google_allows(ROLE, CONDITION), google_allows(ROLE, CONDITION, without=CHANGES)),
    "azurite": (azure_asked, azure_allows(AZURE), azure_allows(AZURE, only="/read")),
}
MADE: set[str] = set()


@pytest.fixture(params=CLOUDS)
def kind(request: pytest.FixtureRequest, server_of: Callable[[str], Server]) -> str:
    made_once(server_of(request.param))
    return str(request.param)


def made_once(server: Server) -> None:
    if server.url not in MADE:
        server.make_bucket(BUCKET, versions=True)
        MADE.add(server.url)


@pytest.fixture
def enforced(kind: str, server_of: Callable[[str], Server]) -> Iterator[Callable[[Allows], tuple[Server, Enforcing]]]:
    made: list[Enforcing] = []

    def enforce(allows: Allows) -> tuple[Server, Enforcing]:
        server = server_of(kind)
        made.append(Enforcing(server.port, shape=CLOUDS[kind][0], allows=allows))
        return replace(server, environ=server.at(made[-1].port)), made[-1]

    yield enforce
    for one in made:
        one.close()


def elsewhere(project: Team, server: Server) -> Team:
    """The same checkout, with other rights."""
    made = Team(project.root)
    object.__setattr__(made, "server", server)
    return made


def test_every_command_does_with_the_rights_of_the_page(
    kind: str, tmp_path: Path, enforced: Callable[[Allows], tuple[Server, Enforcing]]
) -> None:
    """From nothing, through a bucket where what is not there is denied, as it is where not all may be listed."""
    _, write, read = CLOUDS[kind]
    server, proxy = enforced(write)
    project = team(tmp_path, server)
    prefix = f"{PREFIX}/policies-{os.getpid()}"
    project.keep_in(server.state(BUCKET, prefix))
    ran_once(project)
    more = [("artifacts", "hello"), ("events",), ("state", "edit"), ("state", "rebuild", "-y")]
    moved = server.state(BUCKET, f"{prefix}-moved")
    for words in (("logs", "hello"), *(more if kind == "moto" else ()), ("state", "migrate", "--to", moved, "-y")):
        done = project.at(*words, env={"EDITOR": 'sed -i \'s/"nodes_max":2/"nodes_max":3/\''})
        assert done.code == 0, (words, done.said)
    project.keep_in(moved)
    assert project.at("apply", "-y").code == 0
    if kind != "azurite":
        versions = project.at("state", "rollback")
        assert versions.code == 0, versions.said
        assert project.at("state", "rollback", versions.out.split()[0], "-y").code == 0
    where = location(server.state(BUCKET, prefix))
    assert isinstance(where, Bucket)
    open_bucket(where, environ=server.environ).delete(f"{PROJECT}/results/r1/end")  # as what is old goes
    assert proxy.denied == []
    assert {asked.action for asked in proxy.allowed} == everything(kind), "and each right is needed"

    looking, watched = enforced(read)
    planned = elsewhere(project, looking).at("plan")
    assert planned.code == 0, planned.said
    assert watched.denied == []
    changed = elsewhere(project, looking).at("pool", "pause", "bench")
    assert changed.code == 1, changed.said
    assert watched.denied != []


def everything(kind: str) -> set[str]:
    if kind == "moto":
        found = (one["Action"] for policy in (WRITE, ROLLBACK) for one in json.loads(policy)["Statement"])
        return {action for each in found for action in ([each] if isinstance(each, str) else each)}
    return set(json.loads(AZURE)["DataActions"]) if kind == "azurite" else {
        f"storage.objects.{verb}" for verb in ("create", "delete", "get", "list")
    }  # fmt: skip


def test_nobody_writes_a_state_without_a_condition(server_of: Callable[[str], Server]) -> None:
    """Whoever may do everything, with a tool of another make, is refused by the bucket's policy."""
    server = server_of("moto")
    everything = json.dumps({"Statement": [{"Effect": "Allow", "Action": "s3:*", "Resource": "*"}]})
    proxy = Enforcing(server.port, shape=s3_asked, allows=aws_allows(everything, BUCKET_POLICY))
    state, client = f"{PREFIX}/{PROJECT}.yml.gz", boto(replace(server, port=proxy.port))
    made_once(server)
    with pytest.raises(client.exceptions.ClientError, match="AccessDenied"):
        client.put_object(Bucket=BUCKET, Key=state, Body=b"x")
    boto(server).delete_object(Bucket=BUCKET, Key=state)
    tag = client.put_object(Bucket=BUCKET, Key=state, Body=b"x", IfNoneMatch="*")["ETag"]
    client.put_object(Bucket=BUCKET, Key=state, Body=b"y", IfMatch=tag)
    client.put_object(Bucket=BUCKET, Key=f"{PREFIX}/{PROJECT}/blobs/ab/{'ab' * 32}.gz", Body=b"x")
    proxy.close()


@pytest.mark.parametrize(
    ("action", "resource"),
    [
        ("s3:DeleteObject", f"{BUCKET}/{PREFIX}/{PROJECT}.yml.gz"),
        ("s3:GetObject", f"{BUCKET}/other/x.yml.gz"),
        ("s3:PutObject", f"{BUCKET}/production/x"),
        ("s3:GetObject", f"others/{PREFIX}/x"),
        ("s3:PutBucketPolicy", BUCKET),
        ("s3:ListBucket", BUCKET),
        ("s3:GetObjectVersion", f"{BUCKET}/{PREFIX}/x.gz"),
    ],
)
def test_what_the_rights_do_not_give(action: str, resource: str) -> None:
    context = {"s3:if-match": "x", **({"s3:prefix": "production/"} if action == "s3:ListBucket" else {})}
    assert not aws_allows(WRITE, ROLLBACK, BUCKET_POLICY)(Asked(action, f"arn:aws:s3:::{resource}", context))


@pytest.mark.parametrize("change", [("GetObject", "GetOject"), ("prod/*", "prod/x/*"), ("Allow", "Deny")])
def test_rights_that_are_wrong_are_noticed(change: tuple[str, str]) -> None:
    """The judge of this file is one."""
    asked = Asked("s3:GetObject", f"arn:aws:s3:::{BUCKET}/{PREFIX}/{PROJECT}.yml.gz")
    assert aws_allows(WRITE)(asked)
    assert not aws_allows(WRITE.replace(*change))(asked)


def test_a_condition_that_the_judge_does_not_know_is_an_error() -> None:
    asked = Asked("s3:PutObject", f"arn:aws:s3:::{BUCKET}/{PREFIX}/{PROJECT}.yml.gz")
    with pytest.raises(AssertionError, match="Bool"):
        aws_allows(BUCKET_POLICY.replace('"Null"', '"Bool"'))(asked)
