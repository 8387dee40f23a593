"""What a page claims: links lead somewhere, keys and variables exist, the commands of the README do what it shows."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from tests.doubles.commands.command import PATIENCE, Ran, begin

ROOT = Path(__file__).parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "examples").rglob("*.md")])


def page(name: str) -> str:
    return (ROOT / name).read_text()


def in_code(text: str) -> set[str]:
    """Every word that stands in backquotes."""
    return {word for span in re.findall(r"`([^`\n]+)`", text) for word in re.findall(r"[A-Za-z_][\w-]*", span)}


def dstack(*args: str, cwd: Path = ROOT) -> Ran:
    started = begin(args, cwd=cwd, env={**os.environ, "PYTHONPATH": str(ROOT)})
    out, err = started.communicate(timeout=PATIENCE)
    return Ran(started.wait(), out.decode(), err.decode())


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
    text = path.read_text()
    named = re.findall(r"`((?:schemas|backends|reconciler|tests|bench|examples|docs)/[\w./-]+)`", text)
    made = re.findall(r"^Create `([^`]+)`:$", text, re.MULTILINE)
    assert [one for one in named if not (ROOT / one).exists() and one not in made and "NAME" not in one] == []


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
    found: dict[str, Any] = json.loads((ROOT / "schemas/json" / f"{name}.schema.json").read_text())
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


@pytest.mark.parametrize(
    "name",
    [
        "plan-json",
        "ps-json",
        "pool-ps-json",
        "offers-json",
        "cost-json",
        "events-json",
        "autoscale-json",
        "backend-list-json",
        "backend-check-json",
        "aws-configure-json",
    ],
)
def test_every_key_of_the_json_outputs_is_described(name: str) -> None:
    assert keys_of(schema_named(name)) - in_code(page("docs/json.md")) == set()


def test_every_variable_of_a_job_is_described() -> None:
    given = set(re.findall(r"\bDSTACK_[A-Z_]+\b", (ROOT / "reconciler/hosts/environment.py").read_text()))
    described = set(re.findall(r"\bDSTACK_[A-Z_]+\b", page("docs/documents.md")))
    assert given == described


def test_every_command_that_is_named_exists() -> None:
    text = "\n".join(path.read_text() for path in PAGES)
    groups = "pool|state|autoscale|backend|aws"
    named = set(re.findall(rf"`dstack ((?:{groups}) [a-z-]+|[a-z]+)", text))
    unknown = [one for one in sorted(named) if dstack(*one.split(), "--help").code != 0]
    assert unknown == []


def test_every_option_of_the_page_for_teams_exists() -> None:
    """Of a command as it is named, and of the blocks that are to be typed."""
    text = page("docs/teams.md")
    lines = [*re.findall(r"`(dstack [^`]+)`", text), *re.findall(r"^    (dstack .*)$", text, re.M)]
    wrong = []
    for line in lines:
        words = line.split()[1:]
        options = [word for word in words if word.startswith("-")]
        if options:
            known = dstack(words[0], "--help").out
            wrong += [f"{line}: {one}" for one in options if not re.search(rf"(?<![\w-]){one}(?![\w-])", known)]
    assert wrong == []
    assert len(lines) > 5


@pytest.mark.parametrize(
    "folder",
    [
        ".",
        "examples/hello",
        "examples/lab",
        "examples/aws-spot-training",
        "examples/kubernetes-pool",
        "examples/azure-pool",
    ],
)
def test_the_committed_documents_are_valid(folder: str) -> None:
    done = dstack("validate", cwd=ROOT / folder)
    assert done.code == 0, done.said


def yaml_blocks() -> list[str]:
    return re.findall(r"```yaml\n(.*?)```", page("README.md"), re.S)


def test_the_yaml_of_the_readme_is_the_example() -> None:
    files = [path.read_text() for path in (ROOT / "examples" / "hello" / ".dstack").rglob("*.yml")]
    assert [block for block in yaml_blocks() if not any(block in text for text in files)] == []


def tour() -> list[tuple[str, list[str]]]:
    """Each command of the README's consoles, with the lines that it is said to print."""
    blocks = re.findall(r"```console\n(.*?)```", page("README.md"), re.S)
    steps = [step.splitlines() for block in blocks for step in re.split(r"^\$ ", block, flags=re.M) if step.strip()]
    return [(lines[0], [line for line in lines[1:] if line.strip() not in ("", "…")]) for lines in steps]


def likened(line: str) -> str:
    """Without what differs between machines and moments: ages, sizes, who, which ended first, widths of columns."""
    line = re.sub(r"\bbench-\d(, bench-\d)+", lambda names: ", ".join(sorted(names[0].split(", "))), line)
    line = re.sub(r"^Runs: .*", "Runs", line)
    line = re.sub(r"^dstack plan · .*", "dstack plan", line)
    line = re.sub(r"bench-\d(\.\.\d)?", "bench-N", line)
    line = re.sub(r"\S+@\S+[^\s;):]", "SOMEONE", line)
    line = re.sub(r"\d+xCPU, [\d.]+[MGT]B(, \d+x\w+ \([\d.]+[MGT]B\))?", "RESOURCES", line)
    line = re.sub(r"\ba moment\b|\b(\d+[smhd])+\b", "AGE", line)
    line = line.replace("termination due", "terminates in AGE")  # on a machine so slow that its time came
    return re.sub(r"\s+", " ", line).strip()


def until_changes(folder: Path, environment: dict[str, str]) -> None:
    """Wait until a plan has something to do: here, until all idle instances have had their 20 seconds."""
    for _ in range(240):
        asked = subprocess.run(
            ["dstack", "plan", "--detailed-exitcode"],
            cwd=folder,
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        if asked.returncode == 2 and "terminates in" not in asked.stdout:
            return
        assert asked.returncode in (0, 2), asked.stderr
        time.sleep(0.25)
    raise AssertionError("no idle instance went")


@pytest.fixture
def example(tmp_path: Path) -> Iterator[tuple[Path, dict[str, str]]]:
    """A copy of examples/hello and an environment whose `dstack` is this checkout's. Ended afterwards."""
    command = tmp_path / "bin" / "dstack"
    command.parent.mkdir()
    command.write_text(f'#!/bin/sh\nPYTHONPATH="{ROOT}" exec "{sys.executable}" -m reconciler.cli.main "$@"\n')
    command.chmod(0o755)
    environment = {
        **os.environ,
        "PATH": f"{command.parent}:{os.environ['PATH']}",
        "XDG_STATE_HOME": str(tmp_path / "state"),
        "COLUMNS": "160",
    }
    folder = tmp_path / "hello"
    shutil.copytree(ROOT / "examples" / "hello", folder, ignore=shutil.ignore_patterns("state", "keys"))
    yield folder, environment
    subprocess.run(
        ["dstack", "destroy", "--confirm", "hello"],
        cwd=folder,
        env=environment,
        stdin=subprocess.DEVNULL,
        timeout=60,
        check=True,
    )


def test_the_tour_of_the_readme(example: tuple[Path, dict[str, str]]) -> None:
    folder, environment = example
    for command, said in tour():
        if any("idle for 20s" in line for line in said):
            until_changes(folder, environment)
        done = subprocess.run(
            command.split(),
            cwd=folder,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 0, f"{command}\n{done.stdout}"
        printed = {likened(line) for line in done.stdout.splitlines()}
        assert [line for line in said if likened(line) not in printed] == [], f"{command}\n{done.stdout}"
        check_json(folder, environment)


def check_json(folder: Path, environment: dict[str, str]) -> None:
    """Whatever the project has come to, the JSON outputs keep their schemas."""
    for command, name in (
        ("plan", "plan-json"),
        ("ps -a", "ps-json"),
        ("pool ps", "pool-ps-json"),
        ("cost", "cost-json"),
        ("events", "events-json"),
    ):
        done = subprocess.run(
            ["dstack", *command.split(), "--json"],
            cwd=folder,
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=60,
            check=True,
        )
        jsonschema.validate(json.loads(done.stdout), schema_named(name))


def test_nothing_names_an_index_or_a_machine() -> None:
    assert "://" not in page("requirements.lock")
    assert "--index" not in page("requirements.lock")
