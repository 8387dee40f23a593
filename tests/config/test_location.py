"""Where a state may lie, as data; and who may not reconcile alone."""

from __future__ import annotations

from pathlib import Path

import pytest

from reconciler.config.load import Invalid, load
from reconciler.planner.local_state_guard import alone
from schemas.desired import BackendConfig, Desired
from schemas.documents.backends.forms import TYPES
from schemas.location import Bucket, Folder, Location, location

GOOD: dict[str, Location] = {
    "": Folder(),
    "local": Folder(chosen=True),
    "./local": Folder(path="./local", chosen=True),
    "/srv/states": Folder(path="/srv/states", chosen=True),
    "~/states": Folder(path="~/states", chosen=True),
    "s3://team-states": Bucket(scheme="s3", bucket="team-states"),
    "s3://team-states/": Bucket(scheme="s3", bucket="team-states"),
    "s3://team.states/a/b=c/": Bucket(scheme="s3", bucket="team.states", prefix="a/b=c"),
    "gs://team_states/x": Bucket(scheme="gs", bucket="team_states", prefix="x"),
    "az://teamacc/states": Bucket(scheme="az", account="teamacc", bucket="states"),
    "az://teamacc/states/p/q": Bucket(scheme="az", account="teamacc", bucket="states", prefix="p/q"),
}
BAD = {
    "s3://": "names no bucket",
    "s3:///prefix": "names no bucket",
    "s3:/bucket": "neither a folder nor a bucket",
    "s3://ab": "not the name of a bucket: 3 to 63",
    "s3://Team": "not the name of a bucket",
    "s3://a..b": "not the name of a bucket",
    "s3://bucket//x": "`` cannot be part of a prefix",
    "s3://bucket/../x": "`..` cannot be part of a prefix",
    "s3://bucket/a b": "`a b` cannot be part of a prefix",
    "s3://bucket/x?region=eu": "options come from the environment",
    "s3://key:secret@bucket/x": "credentials and options come from the environment",
    "az://account": "names no container",
    "az://Account/states": "not a storage account",
    "az://account/a--b": "not the name of a container",
    "https://host/x": "`https://` is not a place for it",
    "file:///x": "`file://` is not a place for it",
}


@pytest.mark.parametrize("text", GOOD)
def test_a_location_is_read(text: str) -> None:
    assert location(text) == GOOD[text]


@pytest.mark.parametrize("text", BAD)
def test_a_malformed_one_says_why(text: str) -> None:
    with pytest.raises(ValueError, match=r"^[^\n]*$") as refused:
        location(text)
    assert BAD[text] in str(refused.value)
    assert "secret" not in str(refused.value)


@pytest.mark.parametrize("text", ["s3://team-states/a/b=c", "gs://team_states", "az://teamacc/states/p"])
def test_a_url_is_written_as_it_was_read(text: str) -> None:
    found = location(text)
    assert isinstance(found, Bucket)
    assert found.url == text


def test_documents_say_where_it_is_wrong(tmp_path: Path) -> None:
    (tmp_path / ".dstack").mkdir()
    (tmp_path / ".dstack/main.yml").write_text(
        "project: {id: demo12345678}\nstate: s3://Bad\nartifact_store: ftp://x\n"
    )
    with pytest.raises(Invalid) as refused:
        load(tmp_path, home=tmp_path / "home")
    where = [str(one).split(": ")[0] for one in refused.value.problems]
    assert where == [".dstack/main.yml:2:8", ".dstack/main.yml:3:17"]


def test_an_artifact_store_beside_a_bucket_has_no_effect(tmp_path: Path) -> None:
    (tmp_path / ".dstack").mkdir()
    (tmp_path / ".dstack/main.yml").write_text("state: s3://abc\nartifact_store: s3://def\n")
    (warning,) = load(tmp_path, home=tmp_path / "home").warnings
    assert "main.yml:2:1" in warning
    assert "has no effect" in warning


BILLED = [name for name in TYPES if name != "local"]


@pytest.mark.parametrize("type", BILLED)
@pytest.mark.parametrize("state", ["", "./states", "/srv/states"])
def test_what_costs_money_is_not_reconciled_alone_from_a_folder(type: str, state: str) -> None:
    desired = Desired(
        state=state, backends=(BackendConfig(name="local", type="local"), BackendConfig(name="big", type=type))
    )
    assert "big costs money" in alone(desired)


@pytest.mark.parametrize(
    ("type", "state", "unsupported"),
    [
        ("local", "", ()),
        ("aws", "local", ()),
        ("aws", "s3://abc", ()),
        ("gcp", "gs://abc/x", ()),
        ("azure", "az://account/abc", ()),
        ("aws", "", ("not supported yet",)),
    ],
)
def test_else_it_is(type: str, state: str, unsupported: tuple[str, ...]) -> None:
    assert alone(Desired(state=state, backends=(BackendConfig(name="a", type=type, unsupported=unsupported),))) == ""
