"""The names that a command line may hold: of pools, profiles, backends, runs and instances.

Asked at each press of Tab, so nothing is compiled and no network is used: names are taken from the YAML as it stands
and from the state in its folder. Of a state in a bucket it is what the last command on this machine read.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from yaml import SafeLoader

    from reconciler.app.site import Site
    from schemas.state import State

FOLDER, STATE, NAMES = ".dstack", ".dstack/state", "names.json"
LARGEST = 1_000_000
"""Bytes of a document that are read."""
_PLAIN = re.compile(r"[A-Za-z0-9._@/:+-]{1,128}")
"""What is offered: a shell evaluates what it is given, and a state or a document may come from anybody."""

Complete = Callable[[str], list[str]]
"""What begins with a word that is not finished -> the names, sorted."""


def pools(incomplete: str) -> list[str]:
    return _beginning(incomplete, lambda: (*_written("pools"), *_stored("pools")))


def profiles(incomplete: str) -> list[str]:
    return _beginning(incomplete, lambda: _written("profiles"))


def backends(incomplete: str) -> list[str]:
    return _beginning(incomplete, lambda: (*_written("backends"), *_stored("backends")))


def runs(incomplete: str) -> list[str]:
    """All that the state knows, also those that ended."""
    return _beginning(incomplete, lambda: _stored("runs"))


def instances(incomplete: str) -> list[str]:
    return _beginning(incomplete, lambda: _stored("instances"))


def pools_and_instances(incomplete: str) -> list[str]:
    return sorted({*pools(incomplete), *instances(incomplete)})


def places_and_instances(incomplete: str) -> list[str]:
    return sorted({*_beginning(incomplete, lambda: _stored("places")), *instances(incomplete)})


def run_paths(incomplete: str) -> list[str]:
    """`RUN:`, to be followed by a path."""
    return [f"{name}:" for name in runs(incomplete)]


def one_of(*words: str) -> Complete:
    """Of these words."""
    return lambda incomplete: [word for word in words if word.startswith(incomplete)]


spot_policies = one_of("spot", "on-demand", "auto")


def schemas(incomplete: str) -> list[str]:
    from schemas.documents.generate import NAMES as known

    return _beginning(incomplete, lambda: known)


def remember(site: Site, state: State) -> None:
    """Keep the names of a state that lies in a bucket, for the next press of Tab. Failing to is no failure."""
    from schemas.location import Bucket

    if not isinstance(site.location, Bucket):
        return
    import json
    import tempfile

    found = {
        "pools": sorted({one.pool for one in state.instances if one.pool}),
        "backends": sorted({place.config.name for place in state.places}),
        "places": sorted({place.name for place in state.places}),
        "runs": sorted({run.spec.name for run in state.runs}),
        "instances": sorted({one.name for one in state.instances if one.phase != "terminated"}),
    }
    text = json.dumps(found)
    file = site.beside / NAMES
    try:
        if file.is_file() and file.read_text(encoding="utf-8") == text:
            return
        file.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile("w", dir=file.parent, prefix=".new-", delete=False, encoding="utf-8") as new:
            new.write(text)
        os.replace(new.name, file)
    except OSError:
        return  # completion is a convenience: a folder that cannot be written to says so where it matters


def _beginning(incomplete: str, names: Callable[[], Iterable[str]]) -> list[str]:
    return sorted({name for name in names() if name.startswith(incomplete) and _PLAIN.fullmatch(name)})


def _root() -> Path | None:
    """As `reconciler.cli.project.project_root` has it, which imports more than may be waited for."""
    here, home = Path.cwd().resolve(), Path.home().resolve()
    return next((each for each in (here, *here.parents) if (each / FOLDER).is_dir() and each != home), None)


def _documents() -> list[dict[str, Any]]:
    """The mappings at the top of every document that can be read, runs aside; nothing is judged."""
    import yaml

    root = _root()
    found = []
    for file in sorted((root / FOLDER).glob("*.y*ml")) if root is not None else ():
        try:
            value = yaml.load(file.read_bytes()[:LARGEST], _loader())  # noqa: S506 (a safe one, either way)
        except (OSError, ValueError, RecursionError, yaml.YAMLError):
            continue
        if isinstance(value, dict):
            found.append(value)
    return found


def _loader() -> type[SafeLoader]:
    import yaml

    return getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def _written(key: str) -> list[str]:
    """The `name` of each entry under `key`; a backend's type where it has none."""
    lists = (document.get(key) for document in _documents())
    entries = (entry for each in lists if isinstance(each, list) for entry in each if isinstance(entry, dict))
    return [str(entry.get("name") or entry.get("type") or "") for entry in entries]


def _stored(key: str) -> list[str]:
    """Names under `key` of the state, read without judging it: a damaged one completes nothing."""
    root = _root()
    if root is None:
        return []
    project, state = "", ""
    for document in _documents():
        if isinstance(found := document.get("project"), dict):
            project = str(found.get("id") or project)
        state = _url(document.get("state")) or state
    if "://" in state:
        data = _bytes(root / STATE / NAMES)
        return _kept(data, key) if data else []
    folder = root / Path(state).expanduser() if state else root / STATE
    data = _bytes(folder / f"{project}.yml")
    return _in_state(data, key) if data else []


def _url(written: object) -> str:
    return str((written.get("url") if isinstance(written, dict) else written) or "")


def _bytes(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError:
        return b""


def _kept(data: bytes, key: str) -> list[str]:
    import msgspec

    try:
        return msgspec.json.decode(data, type=dict[str, list[str]]).get(key, [])
    except msgspec.MsgspecError:
        return []


def _in_state(data: bytes, key: str) -> list[str]:
    import msgspec

    from reconciler.cli.completion.state_names import StateNames

    try:
        return msgspec.json.decode(data, type=StateNames).of(key)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return []
