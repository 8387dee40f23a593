"""docs/adding-a-backend.md, followed to the letter in a copy of the sources, and the cloud that comes of it used."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.doubles.sketch.sketch_double import KEY, Sketch, served

ROOT = next(folder for folder in Path(__file__).parents if (folder / "pyproject.toml").exists())
PAGE = ROOT / "docs" / "adding-a-backend.md"
PACKAGES = ("schemas", "backends", "reconciler")
OF_TESTS = {
    "backend_contract.py": "tests/contracts",
    "sketch_cloud.py": "tests/doubles/sketch",
    "sketch_double.py": "tests/doubles/sketch",
}
"""What the page uses of the tests, and where it stands in the copy."""
STEP = re.compile(
    r"^Create `(?P<new>[^`]+)`:\n\n```\w+\n(?P<whole>.*?)^```$"
    r"|^Add to `(?P<old>[^`]+)`, below the line `(?P<line>[^`]+)`:\n\n```\w+\n(?P<more>.*?)^```$"
    r"|Run:\n\n```sh\n(?P<commands>.*?)^```$",
    re.MULTILINE | re.DOTALL,
)
PATIENCE = 120.0
DOCUMENTS = """\
project: {{name: demo, id: demo12345678}}
state: local
backends:
  - type: sketch
    regions: [r1]
    endpoint: {endpoint}
    creds: {{api_key: "${{{{ env.MY_KEY }}}}"}}
pools:
  - name: bench
    default: true
    nodes: 1..3
    backends: [sketch]
    resources: {{cpu: 2.., memory: 1GB.., disk: 10GB..}}
"""


@dataclass(frozen=True)
class Tree:
    """A copy of the sources with the new backend in it."""

    root: Path
    ran: tuple[subprocess.CompletedProcess[str], ...] = ()
    """How each command block of the page ended."""

    def run(self, *command: str, cwd: Path, **env: str) -> subprocess.CompletedProcess[str]:
        kept = {name: text for name, text in os.environ.items() if not name.startswith(("DSTACK_", "CI", "PYTEST"))}
        home = self.root.parent / "home"
        folders = {"HOME": home, "XDG_STATE_HOME": home / "state", "XDG_CACHE_HOME": home / "cache"}
        environ = {**kept, **{name: str(path) for name, path in folders.items()}, "PYTHONPATH": str(self.root), **env}
        return subprocess.run(
            command, cwd=cwd, env=environ, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=PATIENCE
        )


def copied(root: Path) -> None:
    """The sources, and the parts of the tests that a new backend needs."""
    for name in PACKAGES:
        shutil.copytree(ROOT / name, root / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "CHANGELOG.md"):
        shutil.copy(ROOT / name, root / name)
    for name, folder in OF_TESTS.items():
        (root / folder).mkdir(parents=True, exist_ok=True)
        (found,) = (ROOT / "tests").rglob(name)
        shutil.copy(found, root / folder / name)


def applied(tree: Tree, step: re.Match[str]) -> Iterator[subprocess.CompletedProcess[str]]:
    """Do what one step of the page says; a command block's end is told."""
    if step["new"]:
        path = tree.root / step["new"]
        assert not path.exists()
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(step["whole"])
    elif step["old"]:
        path = tree.root / step["old"]
        before, line, after = path.read_text().partition(f"\n{step['line']}\n")
        assert line, f"{step['old']} has no line {step['line']}"
        path.write_text(before + line + step["more"] + after)
    else:
        python = f"python() {{ '{sys.executable}' \"$@\"; }}\n"
        yield tree.run("sh", "-euc", python + step["commands"], cwd=tree.root)


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Tree:
    root = tmp_path_factory.mktemp("adding") / "sources"
    copied(root)
    steps = STEP.finditer(PAGE.read_text())
    return Tree(root, tuple(ended for step in steps for ended in applied(Tree(root), step)))


def test_every_block_of_the_page_is_a_step() -> None:
    text = PAGE.read_text()
    assert len(re.findall(r"^```\w+$", text, re.MULTILINE)) == len(list(STEP.finditer(text)))
    assert len(text.splitlines()) < 200


def test_the_cloud_is_one_small_file() -> None:
    (module,) = (ROOT / "tests").rglob("sketch_cloud.py")
    assert len(module.read_text().splitlines()) < 300


def test_every_command_of_the_page_succeeds_and_the_contract_holds(tree: Tree) -> None:
    failed = [ended.stdout + ended.stderr for ended in tree.ran if ended.returncode]
    assert failed == []
    assert re.search(r"\d+ passed", tree.ran[-1].stdout)


def test_sources_with_the_new_cloud_are_typed_and_linted(tree: Tree) -> None:
    new = ["backends/sketch.py", "schemas/documents/backends/sketch.py"]
    for tool in (["ruff", "check", "--no-cache"], ["mypy", "--cache-dir", os.devnull, "--no-error-summary"]):
        pytest.importorskip(tool[0], reason="the quality extra is not installed: pip install -e '.[quality]'")
        done = tree.run(sys.executable, "-m", *tool, *new, cwd=tree.root)
        assert done.returncode == 0, done.stdout + done.stderr


@dataclass(frozen=True)
class Project:
    """A project in a folder of its own, and the account that it buys in."""

    tree: Tree
    cloud: Sketch
    root: Path

    def dstack(self, *args: str, code: int = 0) -> str:
        done = self.tree.run(sys.executable, "-m", "reconciler.cli.main", *args, cwd=self.root, MY_KEY=KEY)
        assert done.returncode == code, done.stdout + done.stderr
        assert KEY not in done.stdout + done.stderr
        return done.stdout

    def shown(self) -> list[tuple[str, str, str]]:
        """Status and place of each instance."""
        listed = json.loads(self.dstack("pool", "ps", "--json"))
        return [(one["status"], one["backend"], one["region"]) for one in listed]

    def creations(self) -> int:
        return self.cloud.requests.count(("POST", "/v1/machines"))


@pytest.fixture
def project(tree: Tree, tmp_path: Path) -> Iterator[Project]:
    cloud = Sketch()
    with served(cloud) as endpoint:
        (tmp_path / ".dstack").mkdir()
        (tmp_path / ".dstack" / "all.yml").write_text(DOCUMENTS.format(endpoint=endpoint))
        yield Project(tree, cloud, tmp_path)


def test_the_command_plans_buys_lists_and_ends(project: Project) -> None:
    cloud, dstack = project.cloud, project.dstack
    assert dstack("validate") == "valid\n"
    assert "+ bench-0  sketch r1 small" in dstack("plan")
    assert cloud.machines == {}
    dstack("apply", "-y", "--detach")
    dstack("apply", "-y", "--detach")
    (machine,) = cloud.living()
    assert re.fullmatch(r"dstack-[0-9a-f]{8}-[a-z0-9]+-0", machine["name"])
    assert project.shown() == [("provisioning", "sketch", "r1")]
    assert "sketch" in dstack("backend", "list")
    assert len(re.findall(r"^ok +sketch ", dstack("backend", "check"), re.MULTILINE)) == 3
    dstack("pool", "remove", "bench-0", "-y")
    assert cloud.machines[machine["id"]]["status"] == "deleted"
    dstack("apply", "-y", "--detach")
    assert len(cloud.living()) == 1
    dstack("destroy", "--confirm", "demo", "--deadline", "60s")
    assert cloud.living() == []


def test_a_creation_whose_answer_was_lost_is_found_and_not_repeated(project: Project) -> None:
    project.cloud.lost = 1
    for _ in range(3):
        project.dstack("apply", "-y", "--detach")
    assert len(project.cloud.living()) == 1
    assert project.shown() == [("provisioning", "sketch", "r1")]
    assert project.creations() == 1


def test_what_is_sold_out_is_bought_as_the_next_type(project: Project) -> None:
    project.cloud.room["t-1"] = 0
    project.dstack("apply", "-y", "--detach")
    project.dstack("apply", "-y", "--detach")
    assert [machine["type"] for machine in project.cloud.living()] == ["gpu-large"]
