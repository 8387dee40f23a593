"""Whose credentials open a bucket: the named backend's, those of the only one of its cloud, or the default chain."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from reconciler.app.bucket_access import access_of, chosen
from reconciler.config.edit.backend import set_aws
from reconciler.config.identity import identity
from reconciler.config.load import Invalid, load
from reconciler.state.errors import StateRefused
from schemas.location import Bucket
from tests.doubles.buckets.buckets import Server
from tests.doubles.commands.command import POOLS, folder_at

S3 = Bucket(scheme="s3", bucket="team-states", prefix="prod")
ONE = "backends:\n- {type: aws, name: one, regions: [eu-west-1], creds: {profile: team}}\n"
TWO = ONE + "- {type: aws, name: two, regions: [eu-west-1], creds: {profile: other}}\n"
BARE = "backends:\n- {type: aws, regions: [eu-west-1]}\n"
GCP = "backends:\n- {type: gcp, name: google, project_id: p1}\n"
SECRET = "averysecretkey"


def written(root: Path, text: str) -> Path:
    (root / ".dstack").mkdir()
    (root / ".dstack/d.yml").write_text(text)
    return root


@pytest.mark.parametrize(
    ("text", "backend", "opens", "profile", "why"),
    [
        (ONE, "", "one", "team", "the only one of type aws"),
        (TWO, "two", "two", "other", "as the configuration says"),
        (TWO, "", "", "", "there are 2 backends (one, two)"),
        (BARE, "", "aws", "", "default credentials"),
        (GCP, "", "", "", "AWS's default credentials"),
        ("", "", "", "", "AWS's default credentials"),
    ],
)
def test_a_backend_opens_the_bucket(
    tmp_path: Path, text: str, backend: str, opens: str, profile: str, why: str
) -> None:
    found = chosen(S3, written(tmp_path, text), backend=backend)
    assert found.backend == opens
    assert why in found.why
    config = found.config.config if found.config else None
    assert (config.options["creds"]["profile"] if config else "") == profile


@pytest.mark.parametrize(
    ("text", "where", "backend", "says"),
    [
        (ONE, S3, "three", "backend three is not declared"),
        (GCP, S3, "google", "is not declared, or is of another cloud"),
        (GCP, Bucket(scheme="gs", bucket="x-states"), "google", "cannot open buckets yet"),
    ],
)
def test_a_backend_that_cannot_open_it_is_refused(
    tmp_path: Path, text: str, where: Bucket, backend: str, says: str
) -> None:
    with pytest.raises(StateRefused, match=says):
        chosen(where, written(tmp_path, text), backend=backend)


def test_an_endpoint_elsewhere_gets_no_credentials(tmp_path: Path) -> None:
    text = "backends:\n- {type: aws, regions: [eu-west-1], endpoint: 'https://evil.example.com'}\n"
    found = chosen(S3, written(tmp_path, text), backend="")
    assert found.config is not None
    with pytest.raises(StateRefused, match=r"nothing is sent to https://evil\.example\.com"):
        access_of(found.config).session()


PROJECT = "project: {name: demo, id: abcd12345678}\n"
STORES = "state: {url: s3://team-states/prod, backend: two}\nartifact_store: {url: s3://team-art}\n"


def test_both_forms_of_a_store_are_read(tmp_path: Path) -> None:
    root = written(tmp_path, PROJECT + TWO + STORES)
    desired = load(root, home=tmp_path / "home").desired
    assert (desired.state, desired.state_backend) == ("s3://team-states/prod", "two")
    assert (desired.artifact_store, desired.artifact_backend) == ("s3://team-art", "")
    found, unreadable = identity(root)
    assert (found["state"], found["state_backend"], unreadable) == ("s3://team-states/prod", "two", "")
    assert (found["artifact_store"], found.get("artifact_backend")) == ("s3://team-art", None)


@pytest.mark.parametrize(
    ("store", "says"),
    [
        ("state: {url: s3://team-states, backend: three}", "backend `three` is not declared; there is one, two"),
        ("state: {url: gs://team-states, backend: two}", "is of type aws, which opens no gs:// bucket; there is none"),
        ("state: {url: ./states, backend: two}", "a folder needs no credentials"),
        ("state: {backend: two}", "url"),
    ],
)
def test_a_store_that_cannot_be_meant_is_a_problem(tmp_path: Path, store: str, says: str) -> None:
    with pytest.raises(Invalid, match=says):
        load(written(tmp_path, f"{PROJECT}{TWO}{store}\n"), home=tmp_path / "home")


@pytest.mark.parametrize(
    ("text", "line"),
    [(ONE, "artifact_store: s3://art-x\n"), (TWO, "artifact_store: {url: s3://art-x, backend: one}\n")],
)
def test_configure_names_the_backend_where_there_are_several(tmp_path: Path, text: str, line: str) -> None:
    folder = written(tmp_path, text) / ".dstack"
    creds = {"profile": "new"}
    *_, edit = set_aws(folder, "one", type="aws", creds=creds, region="eu-west-1", store="s3://art-x")
    assert edit.after.endswith(line)


@pytest.mark.parametrize(("named", "code"), [("team", "nothing was applied yet"), ("nope", "could not be found")])
def test_a_bucket_opens_with_the_profile_of_its_backend(
    tmp_path: Path, server_of: Callable[[str], Server], named: str, code: str
) -> None:
    """The environment names no credentials: only the backend does."""
    moto = server_of("moto")
    project = folder_at(tmp_path, documents=POOLS)
    project.write(".dstack/state.yml", f"state: {moto.state('first-bucket', 'of-backend')}\n")
    project.write(".dstack/b.yml", f"backends:\n- {{type: aws, regions: [eu-west-1], creds: {{profile: {named}}}}}\n")
    home = Path(project.env["HOME"])
    (home / ".aws").mkdir()
    keys = f"[team]\naws_access_key_id = AKIATEAM\naws_secret_access_key = {SECRET}\n"
    (home / ".aws/credentials").write_text(keys)
    environ = {"AWS_ENDPOINT_URL": moto.url, "AWS_EC2_METADATA_DISABLED": "true"}
    shown = project.dstack("state", "show", env=environ)
    assert (shown.code, code in shown.err) == (1, True), shown.said
    assert SECRET not in shown.said
