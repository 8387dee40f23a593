"""Load a project's configuration: `.dstack/*.yml`, `.dstack/runs/*.yml` and the user's profiles.

Cheap to import: YAML and pydantic come with the first document that must be read.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from msgspec.structs import replace

from reconciler.config.endpoints import NewEndpoint, new_endpoints
from reconciler.config.files import FOLDER, KNOWN_HOSTS, document_files, own_file, read_bytes
from reconciler.config.problems import Invalid as Invalid
from reconciler.config.problems import Problem as Problem
from schemas.desired import COMPILER, Desired


@dataclass(frozen=True)
class Documents:
    """A project's documents, all valid. `root` is the folder that holds `.dstack`.

    `digest` is sha256 of the files' names and bytes, the pinned host keys (`known_hosts`) among them.
    `warnings` are `path:line:col: message`, and so is `unsupported`: what a plan shows as unmet
    (empty where `known` was taken). `new_endpoints` must be confirmed before they are used;
    `endpoints` are those that are.
    """

    root: Path
    desired: Desired
    digest: str
    files: tuple[Path, ...]
    warnings: tuple[str, ...]
    unsupported: tuple[str, ...] = ()
    new_endpoints: tuple[NewEndpoint, ...] = ()
    endpoints: Mapping[str, str] = field(default_factory=dict)


def find_project(start: Path, *, home: Path | None = None) -> Path | None:
    """The nearest of `start` and its parents that holds `.dstack`; never the home folder."""
    home = (home or Path.home()).resolve()
    for folder in (start.resolve(), *start.resolve().parents):
        if folder != home and (folder / FOLDER).is_dir():
            return folder
    return None


def load(
    root: Path,
    *,
    home: Path,
    known: tuple[str, Desired] | None = None,
    endpoints: Mapping[str, str] | None = None,
) -> Documents:
    """Raises `Invalid` with every problem of every file.

    `known` is a digest and what it was compiled to (the applied documents): the same files, beside the
    same profiles of the user, are then not read again, which saves half of a plan's time.
    `endpoints` (backend -> endpoint) are those that are applied or confirmed: a backend with another one on another
    machine is not used.
    """
    files = document_files(root)
    texts = [(file.relative_to(root).as_posix(), read_bytes(file)) for file in files]
    pins = root / KNOWN_HOSTS
    pinned = read_bytes(pins) if pins.exists() else b""
    digest = digest_of([*texts, *([(KNOWN_HOSTS, pinned)] if pinned else [])])
    own = own_file(home)
    compiler = _compiler(own)
    unsupported: tuple[str, ...]
    if known and known[0] == digest and _holds(known[1], compiler=compiler):
        desired, unsupported = known[1], ()
    else:
        from reconciler.config.compile.from_bytes import compile_files

        keys = pinned.decode("utf-8", "replace") if isinstance(pinned, bytes) else ""
        desired, unsupported = compile_files(texts, own=own, known_hosts=keys, endpoints=endpoints or {})
        desired = replace(desired, compiler=compiler)
    return Documents(
        root,
        desired,
        digest,
        tuple(files),
        desired.warnings,
        unsupported,
        tuple(new_endpoints(desired, endpoints or {})),
        endpoints or {},
    )


def _holds(desired: Desired, *, compiler: str) -> bool:
    """Whether it is what this program would compile; where it may not, that is said with its line."""
    if desired.compiler != compiler:
        return False
    if not desired.requires:
        return True
    from reconciler.config.version_pin import unmet_requirement

    return not unmet_requirement(desired.requires)


def _compiler(own: Path) -> str:
    """The rules that compile here: ours, and the user's own profiles where there are any."""
    if not own.is_file():
        return COMPILER
    return f"{COMPILER}+{digest_of([(own.name, read_bytes(own))])[:16]}"


def digest_of(texts: Iterable[tuple[str, bytes | str]]) -> str:
    digest = hashlib.sha256()
    for shown, data in texts:
        content = data if isinstance(data, bytes) else b""
        digest.update(f"{shown}\0{len(content)}\0".encode() + content)
    return digest.hexdigest()
