"""The built wheel, installed where nothing of the checkout is: what a user gets, tried where it hurts."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGES = ("schemas", "backends", "reconciler")


def ran(*command: str | Path, cwd: Path, **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(part) for part in command],
        cwd=cwd,
        env={**os.environ, **env},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built from a copy of the sources, with the build tool of this environment: nothing is fetched."""
    pytest.importorskip("hatchling", reason="the test extra is not installed: pip install -e '.[test]'")
    source = tmp_path_factory.mktemp("source")
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source / name)
    for name in PACKAGES:
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    done = ran(sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", source / "dist", cwd=source)
    assert done.returncode == 0, done.stderr
    return next((source / "dist").glob("*.whl"))


@pytest.fixture(scope="module")
def dstack(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The `dstack` of a fresh environment: our wheel, and the dependencies of this one by a .pth file.

    A .pth file inside a folder that a .pth names is not read: so our editable checkout stays out.
    """
    venv = tmp_path_factory.mktemp("installed") / "venv"
    made = ran(sys.executable, "-m", "venv", "--without-pip", venv, cwd=venv.parent)
    assert made.returncode == 0, made.stderr
    site = next((venv / "lib").glob("python*")) / "site-packages"
    for platform_path in {sysconfig.get_path("purelib"), sysconfig.get_path("platlib")}:
        (site / "dependencies.pth").write_text(f"{platform_path}\n")
    pip = (sys.executable, "-m", "pip", "--python", venv / "bin" / "python")
    done = ran(*pip, "install", "--quiet", "--no-index", "--no-deps", wheel, cwd=venv.parent)
    assert done.returncode == 0, done.stderr
    return venv / "bin" / "dstack"


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """The example, in a folder that has a `schemas/` of its own, as many projects do."""
    folder = tmp_path / "hello"
    shutil.copytree(ROOT / "examples" / "hello", folder, ignore=shutil.ignore_patterns("state", "keys"))
    (folder / "schemas").mkdir()
    (folder / "schemas" / "__init__.py").write_text("raise SystemExit('the wrong schemas')\n")
    return folder


def test_the_wheel_holds_the_packages_and_nothing_else(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
    tops = {name.split("/")[0] for name in names}
    assert {top for top in tops if not top.endswith(".dist-info")} == set(PACKAGES)
    assert {f"{package}/py.typed" for package in PACKAGES} <= set(names)
    assert any(name.endswith(".schema.json") for name in names)
    assert "reconciler/hosts/programs/supervisor.sh" in names
    assert any(name.endswith("licenses/LICENSE") for name in names)


def test_version(dstack: Path, wheel: Path, tmp_path: Path) -> None:
    done = ran(dstack, "--version", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert wheel.name.split("-")[1] in done.stdout


def test_plan_beside_a_foreign_schemas_folder(dstack: Path, project: Path) -> None:
    done = ran(dstack, "plan", cwd=project)
    assert done.returncode == 0, done.stderr
    assert "hello" in done.stdout


def test_a_foreign_package_first_on_the_path_is_a_clear_error(dstack: Path, project: Path) -> None:
    done = ran(dstack, "plan", cwd=project, PYTHONPATH=".")
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert str(project) in done.stderr
    assert "PYTHONPATH" in done.stderr


def test_a_foreign_folder_without_a_package_does_no_harm(dstack: Path, project: Path) -> None:
    (project / "schemas" / "__init__.py").unlink()
    done = ran(dstack, "plan", cwd=project, PYTHONPATH=".")
    assert done.returncode == 0, done.stderr
