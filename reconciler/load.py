"""Read a project's documents: `.dstack/*.yml`, `.dstack/runs/*.yml` and the user's profiles."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

from reconciler.check_references import check_references
from reconciler.compile import compile_documents
from reconciler.compile_profile import compile_profile
from reconciler.read_documents import Read, is_run, read_documents
from reconciler.requires import unmet_requirement
from reconciler.yaml_source import Invalid as Invalid
from reconciler.yaml_source import Problem as Problem
from reconciler.yaml_source import Source, read_yaml
from schemas.desired import Desired
from schemas.profile import Profile

FOLDER = ".dstack"


@dataclass(frozen=True)
class Documents:
    """A project's documents, all valid. `root` is the folder that holds `.dstack`.

    `digest` is sha256 of the files' names and bytes. `warnings` are `path:line:col: message`.
    """

    root: Path
    desired: Desired
    digest: str
    files: tuple[Path, ...]
    warnings: tuple[str, ...]


def find_project(start: Path, *, home: Path | None = None) -> Path | None:
    """The nearest of `start` and its parents that holds `.dstack`; never the home folder."""
    home = (home or Path.home()).resolve()
    for folder in (start.resolve(), *start.resolve().parents):
        if folder != home and (folder / FOLDER).is_dir():
            return folder
    return None


def load(root: Path, *, home: Path) -> Documents:
    """Raises `Invalid` with every problem of every file."""
    files = document_files(root)
    sources: list[tuple[Source, bool]] = []
    digest = hashlib.sha256()
    for file in files:
        shown = file.relative_to(root).as_posix()
        source, data = read_yaml(file, shown=shown)
        sources.append((source, file.parent.name == "runs"))
        digest.update(f"{shown}\0{len(data)}\0".encode() + data)
    read = read_documents(sources)
    own = own_profiles(home, read)
    desired, warnings = compile_documents(read, own=own)
    _references(read, sources)
    _requirement(read, desired)
    if read.problems:
        raise Invalid(in_order(read.problems))
    return Documents(root, desired, digest.hexdigest(), tuple(files), tuple(map(str, in_order(warnings))))


def document_files(root: Path) -> list[Path]:
    """Every `*.yml` and `*.yaml` of `.dstack` and `.dstack/runs`, sorted; hidden ones are not documents."""
    folders = (root / FOLDER, root / FOLDER / "runs")
    return sorted(
        file for folder in folders if folder.is_dir() for file in folder.iterdir()
        if file.suffix in (".yml", ".yaml") and not file.name.startswith("."))


def in_order(problems: list[Problem]) -> list[Problem]:
    """By file and position, each once."""
    return sorted(dict.fromkeys(problems), key=lambda problem: problem[:3])


def own_profiles(home: Path, read: Read) -> list[Profile]:
    """`~/.dstack/profiles.yml`: profiles and nothing else. Its problems are added to `read`."""
    file = home / FOLDER / "profiles.yml"
    if not file.is_file():
        return []
    source, _ = read_yaml(file, shown="~/.dstack/profiles.yml")
    mine = read_documents([(source, False)])
    read.problems += mine.problems
    read.broken |= mine.broken & {"profiles"}
    others = [entry for kind in (mine.backends, mine.pools, mine.runs, *mine.singles.values()) for entry in kind]
    read.problems += [entry.problem("only `profiles` may stand in the user's own file") for entry in others]
    return [compile_profile(entry.form) for entry in mine.profiles]


def _references(read: Read, sources: list[tuple[Source, bool]]) -> None:
    known = None if "secrets" in read.broken else {
        name for entry in read.singles.get("secrets", ()) for name, _, _ in entry.form}
    for source, in_runs in sources:
        run_file = is_run(source.value, in_runs=in_runs)
        read.problems.extend(check_references(source, run_file=run_file, secrets=known))


def _requirement(read: Read, desired: Desired) -> None:
    for entry in read.singles.get("requires", ()):
        if message := unmet_requirement(desired.requires):
            read.problems.append(entry.problem(message))
