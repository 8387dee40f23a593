"""What a runner lacks is told before anything is asked; the project's key is made by a command, and never shown."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from tests.doubles.commands.command import POOLS, ROOT, Folder, folder_at

CLOUD = "backends: [{type: local}, {type: aws, regions: [eu-west-1]}]\n"
NOBODY = {"AWS_ACCESS_KEY_ID": "", "AWS_EC2_METADATA_DISABLED": "true", "AWS_CONFIG_FILE": "/dev/null"}


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    return folder_at(tmp_path, documents=POOLS + CLOUD)


def checks(folder: Folder, **env: str) -> tuple[int, dict[str, dict[str, Any]]]:
    """The exit code, and what was told of this machine, by check."""
    ran = folder.dstack("backend", "check", "--json", env={**NOBODY, **env})
    found = json.loads(ran.out)
    jsonschema.validate(found, json.loads((ROOT / "schemas/json/backend-check-json.schema.json").read_text()))
    return ran.code, {one["check"]: one for one in found["checks"] if one["backend"] == "here"}


def test_a_runner_is_told_what_it_lacks(folder: Folder, tmp_path: Path) -> None:
    folder.write(".dstack/secrets.yml", "secrets: {TOKEN: {env: NOWHERE_SET}}\n")
    run = "type: task\nname: train\nenv: {A: '${{ secrets.TOKEN }}'}\ncommands: [x]\n"
    folder.write(".dstack/runs/train.yml", run)
    subprocess.run(["git", "init", "-q", "-b", "main"], cwd=folder.root, check=True)
    subprocess.run(["git", "add", "."], cwd=folder.root, check=True)
    me = ["-c", "user.name=a", "-c", "user.email=a@b"]
    for name in ("one", "two"):
        subprocess.run(["git", *me, "commit", "-q", "--allow-empty", "-m", name], cwd=folder.root, check=True)
    clone = Folder(tmp_path / "clone")
    url = f"file://{folder.root}"
    subprocess.run(["git", "clone", "-q", "--depth=1", url, str(clone.root)], check=True)
    code, found = checks(clone, CI="true")
    assert code == 1
    assert {name: one["status"] for name, one in found.items()} == {
        "packages": "ok", "project key": "failed", "secrets": "failed", "git history": "failed",
    }  # fmt: skip
    assert "`dstack backend key` makes it" in found["project key"]["next"]
    assert found["secrets"]["said"].startswith("run train: needs NOWHERE_SET, not set on ")
    assert "fetch-depth: 0" in found["git history"]["next"]
    made = folder.dstack("backend", "key")
    key = (folder.root / ".dstack/keys/project.key").read_text()
    assert (made.code, made.out) == (0, f"{folder.root}/.dstack/keys/project.key\n")
    assert key.strip() not in made.said
    _, found = checks(folder, CI="true", NOWHERE_SET="x", DSTACK_PROJECT_KEY=key)
    assert {one["status"] for one in found.values()} == {"ok"}
    assert key.strip() not in json.dumps(found)


def test_a_missing_package_of_the_state_is_told_first(folder: Folder, tmp_path: Path) -> None:
    (tmp_path / "shadow" / "obstore").mkdir(parents=True)
    folder.write(".dstack/state.yml", "state: gs://bucket/x\n")
    code = "import sys; sys.modules['google.cloud.storage'] = None; sys.modules['google.cloud'] = None\n"
    (tmp_path / "shadow" / "sitecustomize.py").write_text(code)
    path = f"{tmp_path / 'shadow'}:{ROOT}"
    ran = folder.dstack("backend", "check", env={**NOBODY, "PYTHONPATH": path})
    assert ran.code == 1
    first, then = ran.out.splitlines()[:2]
    assert first.endswith("gs://bucket/x needs google-cloud-storage, not installed here")
    assert then == "       next: pip install 'dstack-pools[gcp]'"


def test_the_key_is_made_once_and_never_in_ci(folder: Folder) -> None:
    refused = folder.dstack("backend", "key", env={"CI": "true"})
    assert refused.code == 1
    assert "CI never mints a key" in refused.err
    first = folder.dstack("backend", "key")
    key = (folder.root / ".dstack/keys/project.key").read_bytes()
    again = folder.dstack("backend", "key")
    assert (first.code, again.code) == (0, 0)
    assert "It was there already." in again.err
    assert (folder.root / ".dstack/keys/project.key").read_bytes() == key
    assert (folder.root / ".dstack/keys/project.key").stat().st_mode & 0o777 == 0o600


def test_before_the_first_machine_a_laptop_lacks_no_key(folder: Folder) -> None:
    assert checks(folder)[1]["project key"]["status"] == "not known"
