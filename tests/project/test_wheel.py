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
import yaml

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
    assert {f"reconciler/report/html/page.{kind}" for kind in ("html", "css", "js")} <= set(names)
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


# ---------------------------------------------------------------- the install lines of the examples

GITHUB = ROOT / "examples/ci-github/.github/workflows"


def install_lines() -> dict[str, str]:
    """File -> the step that installs us, as it stands there; a comment behind it is the shell's to leave out."""
    found = {
        "gitlab": "\n".join(
            yaml.safe_load((ROOT / "examples/ci-gitlab/.gitlab-ci.yml").read_text())["default"]["before_script"]
        )
    }
    for file in sorted(GITHUB.glob("*.yml")):
        (job,) = yaml.safe_load(file.read_text())["jobs"].values()
        found[file.stem] = next(step["run"] for step in job["steps"] if step.get("name") == "Install")
    return {name: line.partition("  #")[0].strip() for name, line in found.items()}


def environment_without(folder: Path, *packages: str) -> Path:
    """A fresh environment that has the dependencies of this one but those, and not us; its `pip` fetches nothing."""
    folder.mkdir()
    made = ran(sys.executable, "-m", "venv", "--without-pip", folder / "venv", cwd=folder)
    assert made.returncode == 0, made.stderr
    links = folder / "dependencies"
    links.mkdir()
    left_out = ("dstack", "_editable", "__editable", *packages)
    for path in {sysconfig.get_path("purelib"), sysconfig.get_path("platlib")}:
        for each in Path(path).iterdir():
            if not each.name.startswith(left_out) and not each.name.endswith(".pth"):
                (links / each.name).symlink_to(each)
    site = next((folder / "venv/lib").glob("python*")) / "site-packages"
    (site / "dependencies.pth").write_text(f"{links}\n")
    pip = folder / "venv/bin/pip"
    pip.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m pip --python "{folder}/venv/bin/python" "$@"\n')
    pip.chmod(0o755)
    return folder / "venv/bin"


@pytest.mark.parametrize("line", sorted(set(install_lines().values())))
def test_the_examples_install_what_their_state_needs(wheel: Path, line: str, tmp_path: Path) -> None:
    """The line as it stands, from a folder of wheels; without boto3 at hand it asks for it: that is the extra's."""
    offline = {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(wheel.parent), "PIP_DISABLE_PIP_VERSION_CHECK": "1"}
    path = {"PATH": f"{environment_without(tmp_path / 'all')}:{os.environ['PATH']}"}
    done = ran("bash", "-e", "-c", line, cwd=tmp_path, **offline, **path)
    assert done.returncode == 0, done.stderr
    assert ran("bash", "-c", "dstack --version", cwd=tmp_path, **path).stdout.startswith("dstack ")
    checkout = {"DSTACK_PACKAGE": f"dstack-pools[aws] @ {wheel.as_uri()}"}
    again = ran("bash", "-e", "-c", line, cwd=tmp_path, **offline, **path, **checkout)
    assert again.returncode == 0, again.stderr
    bare = {"PATH": f"{environment_without(tmp_path / 'bare', 'boto3')}:{os.environ['PATH']}"}
    lacking = ran("bash", "-e", "-c", line, cwd=tmp_path, **offline, **bare)
    assert lacking.returncode != 0
    assert "boto3" in lacking.stderr
