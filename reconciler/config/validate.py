"""Validate folders, files of `.dstack` and single run configurations for `dstack validate`."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from reconciler.config.compile.project import compile_documents, pick_profile, run_layers
from reconciler.config.compile.run import compile_run
from reconciler.config.compile.run_faults import run_faults
from reconciler.config.files import FOLDER
from reconciler.config.load import find_project, load
from reconciler.config.problems import Invalid, Problem, in_order
from reconciler.config.read import Read, is_run, read_documents, read_run
from reconciler.config.references import check_references
from reconciler.config.warnings import run_notices, unsupported_notices
from reconciler.config.yaml.reader import read_yaml
from reconciler.config.yaml.values import SourceText
from schemas.backend_types import LOCAL
from schemas.desired import BackendConfig
from schemas.documents.project import LISTS
from schemas.pool import Pool


def validate(paths: Iterable[Path], *, home: Path | None = None) -> tuple[list[Problem], list[str]]:
    """(problems, located warnings) of everything at `paths`. The environment is never read.

    A folder holding `.dstack` (or the `.dstack` itself) is a project; another folder is
    searched for the project that it lies in. A file in a `.dstack` is judged with its whole
    project, any other file is a run configuration.
    """
    problems: list[Problem] = []
    warnings: list[str] = []
    for root, file in dict.fromkeys(_subject(path) for path in paths):
        found = _run_file(file) if root is None else _project(root, home or Path.home())
        problems += found[0]
        warnings += found[1]
    return list(dict.fromkeys(problems)), list(dict.fromkeys(warnings))


def _subject(path: Path) -> tuple[Path | None, Path]:
    """(the project's root, or `None` for a run configuration on its own; the path)."""
    if path.is_dir():
        if path.resolve().name == FOLDER:
            return path.parent if path.name == FOLDER else path.resolve().parent, Path()
        if (path / FOLDER).is_dir():
            return path, Path()
        return find_project(path) or path, Path()
    for folder in path.parents:
        if folder.name == FOLDER:
            return folder.parent, Path()
    return None, path


def _project(root: Path, home: Path) -> tuple[list[Problem], list[str]]:
    if not (root / FOLDER).is_dir():
        return [Problem(root.as_posix(), 1, 1, "holds no `.dstack`: `dstack init` makes one")], []
    try:
        documents = load(root, home=home)
        return [], [*documents.warnings, *documents.unsupported]
    except Invalid as invalid:
        return invalid.problems, []


def _run_file(path: Path) -> tuple[list[Problem], list[str]]:
    source, _ = read_yaml(path, shown=path.as_posix())
    if source.value is not None and not is_run(source.value, in_runs=True):
        return _document(source)
    read = read_run(source)
    read.problems.extend(check_references(source, run_file=True, secrets=None))
    warnings: list[Problem] = []
    for entry in read.runs:
        read.problems.extend(run_faults(entry))
        spec = compile_run(
            entry.form,
            name=entry.form.name or "",
            hash_="",
            layers=run_layers(entry.form, pick_profile("", {})),
            pool=Pool(name="default-pool"),
            backends=_any_backend(entry.form.backends),
        )
        warnings += [*run_notices(entry, boxed=spec.need.container), *unsupported_notices(entry, spec.unsupported)]
    return in_order(read.problems), [str(warning) for warning in in_order(warnings)]


def _document(source: SourceText) -> tuple[list[Problem], list[str]]:
    """A document on its own, such as a `profiles.yml`: what it names may be declared elsewhere."""
    read: Read = read_documents([(source, False)])
    read.broken.update(LISTS)
    desired, unsupported = compile_documents(read)
    read.problems.extend(check_references(source, run_file=False, secrets=None))
    return in_order(read.problems), [*desired.warnings, *map(str, unsupported)]


def _any_backend(asked: tuple[str, ...] | None) -> dict[str, BackendConfig]:
    """A file on its own cannot know what its project declares."""
    return {name: BackendConfig(name=name, type=name) for name in asked or (LOCAL.name,)}
