"""Write the commented starter configuration of `dstack init`, and mint the project's id."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path
from tempfile import NamedTemporaryFile

from schemas.documents.generate import text

FOLDER = ".dstack"
ID_FILE = "project.yml"

_IGNORED = "# The state and the keys of this checkout: never committed.\nstate/\nkeys/\n"

_PROJECT = """\
# The project's id: everything that dstack makes is tagged with it. Commit this file, keep the id.
project:
  id: {id}
"""

# Editors complete and check the documents by the schema that lies beside them.
_EDITOR = "# yaml-language-server: $schema={schema}\n"

_STARTER = """\
# What this project wants. `dstack plan` shows what would change, `dstack apply` does it.
# Every key: `dstack schema documents`. Any *.yml in this folder may hold any of them.

pools:
  - name: default-pool
    default: true
    # How many instances. `0..`, the default, creates them for runs; `2` keeps two; `0..4` creates four at most.
    # nodes: 0..4
    # What each instance has at least; ranges are `2`, `2..`, `..8`, `2..8`.
    # resources: {cpu: 2.., memory: 8GB.., gpu: A100:80GB:2}
    # An idle instance terminates after this long; `off` is never. Default: 5m, and 72h after `dstack pool add`.
    # idle_duration: 15m
    # Never spend more than this in an hour.
    # budget: {max_hourly: 10}

# Values that several pools or runs share; a run takes one by `profile: NAME`.
# profiles:
#   - name: cheap
#     spot_policy: auto
#     max_price: 1.5

# Where secrets are found; runs write `${{ secrets.HF_TOKEN }}` in `env`.
# secrets:
#   HF_TOKEN: {env: HF_TOKEN}
"""

_HERE = """\
# Where instances come from. Without `backends` it is this machine, as with:
# backends:
#   - type: local
"""

_RUN = """\
# A run: `dstack apply` starts it once, and again when it changes (or `rerun: 1` is added).
type: task
name: hello
commands:
  - echo "Hello from $DSTACK_RUN_NAME"
# env: [HF_TOKEN]              # taken from where the job is started
# resources: {cpu: 1.., memory: 0.5GB..}
# nodes: 1
# max_duration: 1h
# artifacts: [out/**]
"""

SCHEMAS = {"documents": "schema/documents.schema.json", "run": "schema/run.schema.json"}
"""Schema -> where it lies, in `.dstack`."""


def init(folder: Path, *, backends: Sequence[str] = ()) -> list[Path]:
    """Write what is missing of the starter into `folder/.dstack`; the paths written.

    No document that exists is touched: in a project that has some only `.gitignore` and the schemas are seen to.
    `backends` are entries of that list, as YAML in flow style.
    """
    home = folder / FOLDER
    starters = {} if started(folder) else _starters(backends)
    (home / "runs").mkdir(parents=True, exist_ok=True)
    written = [home / name for name, text in starters.items() if _create(home / name, text)]
    written += [home / name for which, name in SCHEMAS.items() if _refresh(home / name, text(which))]
    if _ignore(home):
        written.append(home / ".gitignore")
    return written


def started(folder: Path) -> bool:
    """Whether there are documents already."""
    home = folder / FOLDER
    return home.is_dir() and any(home.glob("*.y*ml"))


def _starters(backends: Sequence[str]) -> dict[str, str]:
    listed = "".join(f"  - {entry}\n" for entry in backends)
    places = f"# Where instances come from.\nbackends:\n{listed}" if backends else _HERE
    return {
        "pools.yml": _EDITOR.format(schema=SCHEMAS["documents"]) + _STARTER + "\n" + places,
        "runs/hello.yml": _EDITOR.format(schema=f"../{SCHEMAS['run']}") + _RUN,
    }


def _refresh(file: Path, text: str) -> bool:
    """Schemas are ours: one of another version is replaced."""
    if file.is_file() and file.read_text(encoding="utf-8") == text:
        return False
    file.parent.mkdir(exist_ok=True)
    file.write_text(text, encoding="utf-8")
    return True


def mint_project(root: Path, *, nonce: str, name: str = "") -> str:
    """The project's id: `nonce` (8–32 of a–z, 0–9), or the one that another caller minted first.

    `name`: what the project is called, where that is not the name of its folder.

    `.dstack/project.yml` appears whole or not at all, and once: of two racing callers both
    return the same id. Raises `OSError`, and `ValueError` where the file there holds no id.
    """
    home = root / FOLDER
    home.mkdir(exist_ok=True)
    _ignore(home)
    file = home / ID_FILE
    if _create(file, _PROJECT.format(id=nonce) + (f"  name: {name}\n" if name else "")):
        return nonce
    found = re.search(r"^\s*\{?\s*(?:project:\s*\{.*?)?\bid:\s*['\"]?([a-z0-9]{8,32})\b", file.read_text(), re.M)
    if not found:
        raise ValueError(f"{file} exists and holds no project id: add `project: {{id: {nonce}}}` to it")
    return found[1]


def _ignore(home: Path) -> bool:
    """Keys must never be committed: what an existing file lacks is added to it."""
    file = home / ".gitignore"
    if not file.exists() and _create(file, _IGNORED):
        return True
    text = file.read_text()
    missing = [name for name in ("state/", "keys/") if name not in text.split()]
    if missing:
        with file.open("a") as stream:
            stream.write(("" if text.endswith("\n") or not text else "\n") + "".join(f"{name}\n" for name in missing))
    return bool(missing)


def _create(file: Path, text: str) -> bool:
    """Whether it was us: complete content under a name that did not exist.

    A hard link fails where the name is taken, and never shows a half-written file.
    """
    with NamedTemporaryFile("w", dir=file.parent, prefix=".new-", delete=False) as draft:
        draft.write(text)
        draft.flush()
        os.fsync(draft.fileno())
    temporary = Path(draft.name)
    try:
        temporary.chmod(0o644)
        os.link(temporary, file)
    except FileExistsError:
        return False
    except OSError:
        return _create_exclusive(file, text)
    finally:
        temporary.unlink()
    return True


def _create_exclusive(file: Path, text: str) -> bool:
    """For file systems without hard links."""
    try:
        with file.open("x") as stream:
            stream.write(text)
    except FileExistsError:
        return False
    return True
