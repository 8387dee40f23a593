"""The entry of the `dstack` command: check where it was imported from, then run a command.

Nothing but `os` and `sys` may be imported before the check and before `--version`: both must cost nothing.
"""

from __future__ import annotations

import os
import sys

from reconciler.cli.version import home, print_version

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


def _foreign_package() -> str:
    """Why the three packages are not ours, or "". A project's own `schemas/` on PYTHONPATH would shadow it."""
    ours = home()
    for name in PACKAGES:
        found = next((folder for folder in sys.path if _is_package(folder, name)), None)
        # An editable install may be found by a hook instead of a folder: it is then the first to answer.
        where = os.path.realpath(found or os.curdir) if found is not None else _imported(name)
        if where != ours:
            return (
                f"the package `{name}` is not dstack's own: it was found in {where}, dstack is in {ours}; "
                "unset PYTHONPATH or run `dstack` from its own environment"
            )
    return ""


def _is_package(folder: str, name: str) -> bool:
    there = os.path.join(folder or os.curdir, name)
    return os.path.isfile(os.path.join(there, "__init__.py")) or os.path.isfile(f"{there}.py")


def _imported(name: str) -> str:
    module = __import__(name)
    return os.path.dirname(os.path.dirname(os.path.realpath(module.__file__ or os.curdir)))


def _flush() -> None:
    """A reader that left (`dstack ps | head -1`) is not worth a word, also not at exit."""
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


if __name__ == "__main__":
    main()
