"""What a page claims: links lead somewhere, keys and variables exist, the commands of the README do what it shows."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[1]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "examples").rglob("*.md")])
DSTACK = [sys.executable, "-m", "reconciler.cli.main"]


def page(name: str) -> str:
    return (ROOT / name).read_text()


def in_code(text: str) -> set[str]:
    """Every word that stands in backquotes."""
    return {word for span in re.findall(r"`([^`\n]+)`", text) for word in re.findall(r"[A-Za-z_][\w-]*", span)}


def dstack(*args: str, cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*DSTACK, *args],
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.mark.parametrize("path", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_lead_somewhere(path: Path) -> None:
    targets = re.findall(r"\]\(([^)#\s]+)", path.read_text())
    missing = [one for one in targets if "://" not in one and not (path.parent / one).exists()]
    assert missing == []


@pytest.mark.parametrize("path", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_within_a_page_have_their_heading(path: Path) -> None:
    text = path.read_text()
    headings = {
        re.sub(r"[^\w -]", "", line.lower()).strip().replace(" ", "-") for line in re.findall(r"^#+ (.*)$", text, re.M)
    }
    assert [one for one in re.findall(r"\]\(#([^)]+)\)", text) if one not in headings] == []


@pytest.mark.parametrize("path", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_files_that_are_named_exist(path: Path) -> None:
    named = re.findall(r"`((?:schemas|backends|reconciler|tests|bench|examples|docs)/[\w./-]+)`", path.read_text())
    assert [one for one in named if not (ROOT / one).exists() and "NAME" not in one] == []


def test_decisions_have_their_parts() -> None:
    for path in (ROOT / "docs" / "decisions").glob("*.md"):
        text = path.read_text()
        assert re.match(rf"# {int(path.name[:4])}\. ", text), path.name
        assert all(f"**{part}.**" in text for part in ("Context", "Decision", "Given up")), path.name
        assert len(text.splitlines()) <= 40, path.name


def keys_of(schema: object) -> set[str]:
    """Every property name anywhere in a JSON Schema."""
    if isinstance(schema, list):
        return set().union(*map(keys_of, schema))
    if not isinstance(schema, dict):
        return set()
    own = schema.get("properties")
    names = set(own) if isinstance(own, dict) else set()
    return names.union(*map(keys_of, schema.values()))


def schema_named(name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((ROOT / "schemas" / f"{name}.schema.json").read_text())
    return found


@pytest.mark.parametrize("name", ["documents", "pool", "profiles", "run"])
def test_every_key_of_the_documents_is_described(name: str) -> None:
    """Keys inside a key (a host's port, a model's prefix) are the schema's to explain."""
    assert own_keys(schema_named(name)) - in_code(page("docs/documents.md")) == set()


def own_keys(schema: dict[str, Any]) -> set[str]:
    forms = [schema, *(one["then"] for one in schema.get("allOf", ())), *listed(schema)]
    return set().union(*(form.get("properties", {}) for form in forms))


def listed(schema: dict[str, Any]) -> list[dict[str, Any]]:
    """The forms of which a key holds a list, as profiles.yml has them."""
    values = schema.get("properties", {}).values()
    kinds = (kind for value in values for kind in value.get("anyOf", ()))
    return [kind["items"] for kind in kinds if "properties" in kind.get("items", {})]


@pytest.mark.parametrize("name", ["plan-json", "ps-json", "pool-ps-json"])
def test_every_key_of_the_json_outputs_is_described(name: str) -> None:
    assert keys_of(schema_named(name)) - in_code(page("docs/json.md")) == set()


def test_every_variable_of_a_job_is_described() -> None:
    given = set(re.findall(r"\bDSTACK_[A-Z_]+\b", (ROOT / "reconciler" / "environment.py").read_text()))
    described = set(re.findall(r"\bDSTACK_[A-Z_]+\b", page("docs/documents.md")))
    assert given == described


def test_every_command_that_is_named_exists() -> None:
    text = "\n".join(path.read_text() for path in PAGES)
    named = set(re.findall(r"`dstack (pool [a-z-]+|state [a-z-]+|[a-z]+)", text))
    unknown = [one for one in sorted(named) if dstack(*one.split(), "--help").returncode != 0]
    assert unknown == []


@pytest.mark.parametrize("folder", [".", "examples/hello"])
def test_the_committed_documents_are_valid(folder: str) -> None:
    done = dstack("validate", cwd=ROOT / folder)
    assert done.returncode == 0, done.stdout + done.stderr


def test_nothing_names_an_index_or_a_machine() -> None:
    assert "://" not in page("requirements.lock")
    assert "--index" not in page("requirements.lock")
