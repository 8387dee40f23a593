"""The entry of the `dstack` command: check where it was imported from, then run a command.

Nothing but `os` and `sys` may be imported before the check and before `--version`: both must cost nothing.
"""

from __future__ import annotations

import os
import sys

from reconciler.cli.standard_streams import open_closed_streams
from reconciler.cli.version import home, version

PACKAGES = ("reconciler", "schemas", "backends")


def main() -> None:
    """Run the command line; ends the process with its exit code."""
    open_closed_streams()
    foreign = _foreign_package()
    if foreign:
        sys.stderr.write(f"error: {foreign}\n")
        sys.exit(1)
    sys.exit(_run())


def _run() -> int:
    if sys.argv[1:] in (["--version"], ["-V"]):
        return _write(f"dstack {version()}\n")
    # Looking for plugins of others costs a twentieth of a plan, and none has anything to do with our documents.
    os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "__all__")
    if os.environ.get("_DSTACK_COMPLETE"):
        from reconciler.cli.completion.answer import complete

        return complete(os.environ)
    from reconciler.cli.session import run_session

    code = run_session(sys.argv[1:])
    unwritten = _write("", quiet=code != 0)
    return code or unwritten


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


def _write(text: str, *, quiet: bool = False) -> int:
    """Write it after what is still buffered. 0, or 1 where that could not be written, which is said unless `quiet`.

    A reader that left (`dstack ps | head -1`) is not worth a word.
    """
    try:
        sys.stdout.write(text)
        sys.stdout.flush()
    except OSError as error:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if not isinstance(error, BrokenPipeError):
            if not quiet:
                sys.stderr.write(f"error: standard output: {error.strerror}\n")
            return 1
    return 0


if __name__ == "__main__":
    main()
