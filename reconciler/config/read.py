"""Read a project's YAML files into checked forms that know where each value was written.

Nothing is compiled here: values are of the right shape, names are unique, and every problem
of every file is noted.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from reconciler.config.problems import Problem
from reconciler.config.yaml.values import Mapping, Mark, Sequence, SourceText, locate
from schemas.documents.backends.forms import TYPES as BACKEND_TYPES
from schemas.documents.backends.forms import backend_form
from schemas.documents.pool import PoolForm
from schemas.documents.profile import ProfileForm
from schemas.documents.project import DOCUMENT_KEYS, LISTS, SingleKeys
from schemas.documents.run import RUN_FORMS
from schemas.documents.run import TYPES as RUN_TYPES
from schemas.documents.shape import KEY, kind_of, not_among, read_form, suggestion, unknown_key

MOST = 1000
"""Reading ends after so many problems: each costs a search for what was meant."""

Path = tuple[str | int, ...]
_OTHER_TYPES = {
    "fleet": "a fleet is a pool here: declare it in `pools`",
    "gateway": "there are no gateways here",
    "volume": "volumes are not supported yet",
}


@dataclass(frozen=True)
class FormEntry:
    """One backend, pool, profile, run, or single key: its form, what was written, and where.

    `dropped` are keys whose values could not be read: the form lacks them, so that the other
    checks still find what else is wrong.
    """

    kind: str
    form: Any
    raw: Any
    source: SourceText
    path: Path
    dropped: frozenset[str] = frozenset()

    def mark(self, *path: str | int, key: bool = False) -> Mark:
        return locate(self.source, (*self.path, *path), key=key)

    def problem(self, message: str, *path: str | int, key: bool = False) -> Problem:
        where = label((*self.path, *path))
        said = f"{where}: {message}" if where else message
        return Problem(self.source.path, *self.mark(*path, key=key), said)

    def at(self, *path: str | int, key: bool = False) -> str:
        line, col = self.mark(*path, key=key)
        return f"{self.source.path}:{line}:{col}"


@dataclass
class Read:
    """All that the files say, and all that is wrong with it."""

    backends: list[FormEntry] = field(default_factory=list)
    pools: list[FormEntry] = field(default_factory=list)
    profiles: list[FormEntry] = field(default_factory=list)
    runs: list[FormEntry] = field(default_factory=list)
    singles: dict[str, list[FormEntry]] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)
    broken: set[str] = field(default_factory=set)
    """Kinds with an entry that could not be read: references to that kind are not judged."""


def read_documents(sources: list[tuple[SourceText, bool]]) -> Read:
    """`sources` are (file, whether it lies in `.dstack/runs`)."""
    read = Read()
    for source, in_runs in sources:
        if len(read.problems) > MOST:
            break
        read.problems.extend(source.problems)
        if source.problems:
            read.broken.update(LISTS)
        if source.value is not None:
            _file(source, in_runs, read)
    _unique(read)
    return read


def read_run(source: SourceText) -> Read:
    """One run configuration, as `dstack run -f` takes it."""
    read = Read(problems=list(source.problems))
    if source.value is None and not source.problems:
        read.problems.append(Problem(source.path, *source.mark, "the file is empty: a run configuration has a `type`"))
    elif source.value is not None:
        _entry("runs", source, (), read)
    return read


def label(path: Path) -> str:
    """`pools[0].resources.gpu`."""
    text = ""
    for step in path:
        text += f"[{step}]" if isinstance(step, int) else f".{step}" if text else str(step)
    return text


def is_run(value: Any, *, in_runs: bool) -> bool:
    return isinstance(value, Mapping) and (
        "type" in value or (in_runs and bool(value) and not any(key in DOCUMENT_KEYS for key in value))
    )


def _file(source: SourceText, in_runs: bool, read: Read) -> None:
    if is_run(source.value, in_runs=in_runs):
        if in_runs:
            _entry("runs", source, (), read)
        else:
            read.problems.append(
                Problem(
                    source.path,
                    *locate(source, ("type",), key=True),
                    (
                        "a run configuration belongs in `.dstack/runs/` (declared), under `runs:`, "
                        "or beside your code (`dstack run -f`)"
                    ),
                )
            )
    elif isinstance(source.value, Mapping):
        _document(source, source.value, read)
    else:
        read.problems.append(
            Problem(
                source.path,
                *source.mark,
                (f"a document is a mapping of {', '.join(DOCUMENT_KEYS)}, not {kind_of(source.value)}"),
            )
        )


def _document(source: SourceText, value: Mapping, read: Read) -> None:
    for key, item in value.items():
        if len(read.problems) > MOST:
            break
        if key in LISTS:
            _list(key, item, source, read)
        elif key in SingleKeys.model_fields:
            _single(key, item, source, read)
        else:
            read.problems.append(Problem(source.path, *value.key_marks[key], unknown_key(key, DOCUMENT_KEYS)))


def _single(key: str, item: Any, source: SourceText, read: Read) -> None:
    entry = FormEntry(key, None, item, source, (key,))
    form, dropped = _checked(SingleKeys, {key: item}, FormEntry(key, None, item, source, ()), read)
    if key in dropped:
        read.broken.add(key)
    elif getattr(form, key) is not None:
        read.singles.setdefault(key, []).append(FormEntry(key, getattr(form, key), item, source, entry.path))


def _list(key: str, item: Any, source: SourceText, read: Read) -> None:
    if item is None:
        return
    if not isinstance(item, Sequence):
        read.broken.add(key)
        read.problems.append(
            Problem(source.path, *locate(source, (key,)), (f"{key}: should be a list, not {kind_of(item)}"))
        )
        return
    for index in range(len(item)):
        if len(read.problems) > MOST:
            break
        _entry(key, source, (key, index), read)


def _entry(kind: str, source: SourceText, path: Path, read: Read) -> None:
    raw = source.value
    for step in path:
        raw = raw[step]
    entry = FormEntry(kind, None, raw, source, path)
    model = _model(kind, raw, entry, read)
    form, dropped = _checked(model, raw, entry, read) if model else (None, frozenset())
    if form is None or "default" in dropped:
        read.broken.add(kind)
    if form is not None:
        getattr(read, kind).append(FormEntry(kind, form, raw, source, path, dropped))


def _model(kind: str, raw: Any, entry: FormEntry, read: Read) -> Any:
    if not isinstance(raw, Mapping):
        read.problems.append(entry.problem(f"should be a mapping, not {kind_of(raw)}"))
        return None
    if kind == "pools":
        return PoolForm
    if kind == "profiles":
        return ProfileForm
    known = RUN_TYPES if kind == "runs" else BACKEND_TYPES
    if raw.get("type") is None:
        read.problems.append(entry.problem(f"`type` is missing: {', '.join(known)}" + _misspelt_type(raw)))
        return None
    asked = raw["type"]
    model = RUN_FORMS.get(str(asked)) if kind == "runs" else backend_form(str(asked))
    if model is None:
        what = "a type of run" if kind == "runs" else "a type of backend"
        message = (
            _OTHER_TYPES.get(str(asked), not_among(asked, known, what))
            if kind == "runs"
            else not_among(asked, known, what)
        )
        read.problems.append(entry.problem(message, "type"))
    return model


def _misspelt_type(raw: Mapping) -> str:
    near = [key for key in raw if suggestion(key, ["type"])]
    return f" (`{near[0]}` is no key)" if near else ""


def _checked(model: Any, raw: Any, entry: FormEntry, read: Read) -> tuple[Any, frozenset[str]]:
    """The form and the keys it had to do without; no form where a key is missing."""
    form, dropped, found = read_form(model, raw)
    read.problems.extend(_fault(entry, path, message) for path, message in found)
    return form, dropped


def _fault(entry: FormEntry, path: Path, message: str) -> Problem:
    about_key = bool(path) and path[-1] == KEY
    parts = path[:-1] if about_key else path
    shown = label((*entry.path, *(parts[:-1] if about_key else parts)))
    mark = entry.mark(*parts, key=about_key)
    return Problem(entry.source.path, *mark, f"{shown}: {message}" if shown else message)


def _unique(read: Read) -> None:
    for kind in LISTS:
        first: dict[str, FormEntry] = {}
        for entry in getattr(read, kind):
            name = entry_name(entry)
            if name in first:
                read.problems.append(
                    entry.problem(f"`{name}` is declared twice, first at {first[name].at('name')}", "name")
                )
            elif name:
                first[name] = entry
        read.problems.extend(_revived(kind, first))


def _revived(kind: str, named: dict[str, FormEntry]) -> Iterator[Problem]:
    for entry in named.values():
        for index, old in enumerate(getattr(entry.form, "formerly", None) or ()):
            if old in named:
                yield entry.problem(f"`{old}` is still declared at {named[old].at('name')}", "formerly", index)


def entry_name(entry: FormEntry) -> str:
    """A backend is named by its type, a run file by its file, where no name is written."""
    if entry.form.name:
        return str(entry.form.name)
    if entry.kind == "backends":
        return str(entry.form.type)
    if entry.kind == "runs" and not entry.path:
        return entry.source.path.rsplit("/", 1)[-1].split(".")[0]
    return ""
