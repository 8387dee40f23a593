"""The committed JSON Schemas: generated, and of one mind with the loader."""

import json
from collections.abc import Iterator
from copy import deepcopy
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from reconciler.config.compile.run_faults import run_faults
from reconciler.config.init import init
from reconciler.config.read import read_documents, read_run
from reconciler.config.references import check_references
from reconciler.config.yaml.reader import parse_yaml
from schemas.documents.generate import NAMES, file_of, schema, text

DOCUMENTS = Path(__file__).parents[1] / "config" / "documents"
# What only the whole document shows, or what a pattern cannot say: the loader alone refuses these.
BEYOND = {
    "all-at-once": False,
    "duplicate-pool": True,
    "duplicate-run": True,
    "formerly-still-there": True,
    "ingress": True,
    "no-default-pool": True,
    "two-default-pools": True,
    "two-default-profiles": True,
    "unknown-references": True,
    "services": False,
    "references": False,
}
UNREADABLE = {
    "tab",
    "second-document",
    "unclosed",
    "yaml-syntax",
    "foreign-tag",
    "alias-unknown",
    "alias-of-itself",
    "duplicate-key",
    "merge-key",
}


def validator(name: str) -> jsonschema.Draft7Validator:
    return jsonschema.Draft7Validator(schema(name))


@pytest.mark.parametrize("name", NAMES)
def test_the_committed_schema_is_the_generated_one(name: str) -> None:
    assert file_of(name).read_text() == text(name), "run `python -m schemas.documents.generate`"
    jsonschema.Draft7Validator.check_schema(schema(name))
    assert schema(name)["$schema"] == "http://json-schema.org/draft-07/schema#"


def test_no_other_schema_is_committed() -> None:
    assert sorted(file_of("run").parent.glob("*.schema.json")) == sorted(map(file_of, NAMES))


@pytest.mark.parametrize("file", sorted((DOCUMENTS / "good").glob("*.yml")), ids=lambda file: file.stem)
def test_good_documents_fit_the_schema(file: Path) -> None:
    assert list(validator("documents").iter_errors(parse_yaml(file.read_bytes(), shown=file.name).value)) == []


@pytest.mark.parametrize("file", sorted((DOCUMENTS / "dstack018").glob("*.yml")), ids=lambda file: file.stem)
def test_older_run_configurations_fit_the_schema(file: Path) -> None:
    name = "profiles" if file.stem == "profiles" else "run"
    assert list(validator(name).iter_errors(parse_yaml(file.read_bytes(), shown=file.name).value)) == []


@pytest.mark.parametrize("backends", [(), ("{type: local}", "{type: aws, regions: [eu-west-1]}")])
def test_the_starter_fits_the_schema(backends: tuple[str, ...], tmp_path: Path) -> None:
    made = [file for file in init(tmp_path, backends=backends) if file.suffix == ".yml"]
    for file in made:
        kind = "run" if file.parent.name == "runs" else "documents"
        assert list(validator(kind).iter_errors(parse_yaml(file.read_bytes(), shown=file.name).value)) == []
    assert len(made) == 2


def _bad() -> list[Path]:
    """What is no YAML, a schema never sees."""
    return [file for file in sorted((DOCUMENTS / "bad").glob("*.yml")) if file.stem not in UNREADABLE]


@pytest.mark.parametrize("file", _bad(), ids=lambda file: file.stem)
def test_bad_documents_are_refused_by_the_schema(file: Path) -> None:
    accepted = validator("documents").is_valid(parse_yaml(file.read_bytes(), shown=file.name).value)
    assert accepted == BEYOND.get(file.stem, False)


# ---- generated documents: mutate one that is good; both must say the same of it

VALUES: list[Any] = [
    None,
    True,
    False,
    "text",
    "x1",
    "",
    " ",
    0,
    1,
    5,
    64,
    101,
    -1,
    2.5,
    0.25,
    1e3,
    "1",
    "5m",
    "1h30m",
    "2 h",
    "off",
    "no",
    "2..",
    "..4",
    "1..4",
    "8GB",
    "8GB..",
    "16GB..64GB",
    "5 minutes",
    "8GiB",
    "A100:2",
    "spot",
    "on-demand",
    "auto",
    "reuse",
    "cluster",
    "80:8000",
    "task",
    "3.10",
    3.12,
    [],
    ["a"],
    [1],
    [None],
    [[]],
    {},
    {"min": 1},
    {"min": 1, "max": 4},
    {"max_hourly": 5},
    {"a": "b"},
    {"a": 1},
    {"a": None},
    {"name": "zz"},
    "/health",
    "out/x",
    "../x",
    "/x",
    "a:/b",
    {"on_events": ["error"]},
    {"on_events": []},
    {"path": "/x"},
    {"size": "5GB"},
    {"env": "A"},
    {"type": "task"},
]


def paths(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in items:
        yield (*path, key)
        yield from paths(item, (*path, key))


def plain(value: Any) -> Any:
    return json.loads(json.dumps(value))


GOOD = plain(parse_yaml((DOCUMENTS / "good" / "everything.yml").read_bytes(), shown="x").value)
GOOD_PATHS = list(paths(GOOD))
OLD = {
    file.stem: plain(parse_yaml(file.read_bytes(), shown="x").value)
    for file in sorted((DOCUMENTS / "dstack018").glob("*.yml"))
    if file.stem != "profiles"
}
OLD_PATHS = [(name, path) for name, document in OLD.items() for path in paths(document)]


def holder(document: Any, path: tuple[Any, ...]) -> Any:
    for step in path[:-1]:
        document = document[step]
    return document


def mutated(document: Any, path: tuple[Any, ...], how: str, value: Any) -> Any:
    document = deepcopy(document)
    inside = holder(document, path)
    match how:
        case "replace":
            inside[path[-1]] = value
        case "remove":
            del inside[path[-1]]
        case "rename" if isinstance(inside, dict):
            inside[f"{path[-1]}x"] = inside.pop(path[-1])
        case "add" if isinstance(inside, dict):
            inside["surplus"] = value
    return document


def loader_refuses(document: Any) -> list[str]:
    source = parse_yaml(json.dumps(document).encode(), shown="x.yml")
    read = read_documents([(source, False)])
    faults = [*read.problems, *(fault for entry in read.runs for fault in run_faults(entry))]
    faults += [entry.problem("no name") for entry in read.runs if not entry.form.name]
    return [str(fault) for fault in faults if not beyond(fault.message)]


def run_loader_refuses(document: Any) -> list[str]:
    source = parse_yaml(json.dumps(document).encode(), shown="x.yml")
    read = read_run(source)
    faults = [*read.problems, *(fault for entry in read.runs for fault in run_faults(entry))]
    return [
        str(fault)
        for fault in (*faults, *check_references(source, run_file=True, secrets=None))
        if not beyond(fault.message)
    ]


def beyond(message: str) -> bool:
    """Judged on more than one value: not the schema's business."""
    parts = (
        "declared twice",
        "still declared",
        "outside of",
        "below the minimum",
        "needs `scaling`",
        "`scaling` needs",
        "ends before",
        "given twice",
        "is not a network",
        "highest number",
        "not resolved here",
        "gives the",
    )
    return any(part in message for part in parts)


@settings(max_examples=400, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    st.sampled_from(GOOD_PATHS),
    st.sampled_from(["replace", "replace", "remove", "rename", "add"]),
    st.sampled_from(VALUES),
)
def test_schema_and_loader_agree_on_mutated_documents(path: tuple[Any, ...], how: str, value: Any) -> None:
    document = mutated(GOOD, path, how, value)
    refusals = [error.message[:200] for error in validator_of_documents.iter_errors(document)]
    told = loader_refuses(document)
    assert bool(refusals) == bool(told), (path, how, value, refusals, told)


@settings(max_examples=400, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    st.sampled_from(OLD_PATHS),
    st.sampled_from(["replace", "replace", "remove", "rename", "add"]),
    st.sampled_from(VALUES),
)
def test_schema_and_loader_agree_on_mutated_runs(where: tuple[str, tuple[Any, ...]], how: str, value: Any) -> None:
    document = mutated(OLD[where[0]], where[1], how, value)
    refusals = [error.message[:200] for error in validator_of_runs.iter_errors(document)]
    told = run_loader_refuses(document)
    assert bool(refusals) == bool(told), (where, how, value, refusals, told)


validator_of_documents = validator("documents")
validator_of_runs = validator("run")
