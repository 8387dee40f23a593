"""Compile the bytes of a project's files into one `Desired`, or list every problem in them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from reconciler.config.compile.profile import compile_profile
from reconciler.config.compile.project import NO_ENDPOINTS, compile_documents
from reconciler.config.known_hosts import Known
from reconciler.config.problems import Invalid, in_order
from reconciler.config.read import Read, is_run, read_documents
from reconciler.config.references import check_references
from reconciler.config.yaml.reader import parse_yaml, read_yaml, unreadable
from reconciler.config.yaml.values import SourceText
from schemas.desired import Desired
from schemas.profile import Profile


def compile_files(
    texts: Sequence[tuple[str, bytes | str]],
    *,
    own: Path,
    known_hosts: str = "",
    any_version: bool = False,
    endpoints: Mapping[str, str] = NO_ENDPOINTS,
) -> tuple[Desired, tuple[str, ...]]:
    """What they ask for, and what of it does not work yet. Raises `Invalid`.

    `texts` are (path from the root, bytes or why there are none). `any_version` reads them only to compare with
    others: they need not be meant for this program. `endpoints` are those that a person confirmed, by backend.
    """
    sources = [(_source(shown, data), shown.split("/")[-2:-1] == ["runs"]) for shown, data in texts]
    read = read_documents(sources)
    desired, unsupported = compile_documents(
        read, own=_own_profiles(own, read), known=Known(known_hosts), endpoints=endpoints
    )
    _references(read, sources)
    for entry in () if any_version else read.singles.get("requires", ()):
        from reconciler.config.version_pin import unmet_requirement

        if message := unmet_requirement(desired.requires):
            read.problems.append(entry.problem(message))
    if read.problems:
        raise Invalid(in_order(read.problems))
    return desired, tuple(map(str, unsupported))


def _source(shown: str, data: bytes | str) -> SourceText:
    return parse_yaml(data, shown=shown) if isinstance(data, bytes) else unreadable(shown, data)


def _own_profiles(file: Path, read: Read) -> list[Profile]:
    """`~/.dstack/profiles.yml`: profiles and nothing else. Its problems are added to `read`."""
    if not file.is_file():
        return []
    source, _ = read_yaml(file, shown="~/.dstack/profiles.yml")
    mine = read_documents([(source, False)])
    read.problems += mine.problems
    read.broken |= mine.broken & {"profiles"}
    others = [entry for kind in (mine.backends, mine.pools, mine.runs, *mine.singles.values()) for entry in kind]
    read.problems += [entry.problem("only `profiles` may stand in the user's own file") for entry in others]
    return [compile_profile(entry.form) for entry in mine.profiles]


def _references(read: Read, sources: Sequence[tuple[SourceText, bool]]) -> None:
    known = (
        None
        if "secrets" in read.broken
        else {name for entry in read.singles.get("secrets", ()) for name, _, _ in entry.form}
    )
    for source, in_runs in sources:
        run_file = is_run(source.value, in_runs=in_runs)
        read.problems.extend(check_references(source, run_file=run_file, secrets=known))
