"""The entry of the `dstack` command: checks where it was imported from, then runs a command and maps its end.

Nothing but the standard library may be imported before the check and before `--version`.
"""

from __future__ import annotations

import os
import sys
from importlib import util
from pathlib import Path

PACKAGES = ("reconciler", "schemas", "backends")


def main() -> None:
    """Run the command line; ends the process with its exit code."""
    foreign = _foreign_package()
    if foreign:
        sys.stderr.write(f"error: {foreign}\n")
        sys.exit(1)
    if sys.argv[1:] in (["--version"], ["-V"]):
        print_version()
        return
    from reconciler.cli.session import run_session

    code = run_session(sys.argv[1:])
    _flush()
    sys.exit(code)


def print_version() -> None:
    print(f"dstack {_version()}")


def _foreign_package() -> str:
    """Why the three packages are not ours, or "". A project's own `schemas/` on PYTHONPATH would shadow it."""
    ours = Path(__file__).resolve().parents[2]
    for name in PACKAGES:
        found = util.find_spec(name)
        where = Path(found.origin).resolve().parents[1] if found and found.origin else None
        if where != ours:
            seen = f"it was found in {where}" if where else "it has no __init__.py there"
            return (
                f"the package `{name}` is not dstack's own: {seen}, dstack is in {ours}; "
                "unset PYTHONPATH or run `dstack` from its own environment"
            )
    return ""


def _version() -> str:
    """The installed version; the metadata package costs 20 ms, so the folder's name is read first."""
    site = Path(__file__).resolve().parents[2]
    for folder in site.glob("dstack_pools-*.dist-info"):
        return folder.name.removeprefix("dstack_pools-").removesuffix(".dist-info")
    from importlib import metadata

    try:
        return metadata.version("dstack-pools")
    except metadata.PackageNotFoundError:
        return "0+source"


def _flush() -> None:
    """A reader that left (`dstack ps | head -1`) is not worth a word, also not at exit."""
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


if __name__ == "__main__":
    main()
