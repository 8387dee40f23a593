"""Run one command line: arguments in, exit code out. Every error is printed once, here."""

from __future__ import annotations

import gc
import io
import os
import sys
from collections.abc import Sequence

from reconciler.cli.exits import Fail, Finished
from reconciler.cli.terminal.streams import NoTerminal, out, say


def run_session(arguments: Sequence[str]) -> int:
    """The exit code; nothing is raised but what ends the process."""
    # A command builds many records, keeps them all, and ends: looking for garbage among them is half of a load.
    gc.set_threshold(200_000, 20, 100)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            # A terminal of another character set shows an arrow as an escape, instead of ending the command.
            stream.reconfigure(errors="backslashreplace")
    try:
        return _dispatch(arguments)
    except Finished as done:
        return done.code
    except Fail as error:
        say(f"error: {error}")
        return error.code
    except NoTerminal as question:
        say(f"error: this asks {str(question).splitlines()[0]!r}, and there is no terminal; add -y to say yes")
        return 1
    except KeyboardInterrupt:
        return _interrupted()
    except BrokenPipeError:
        _silence_stdout()
        return 0
    except Exception as error:
        return _mapped(error, arguments)


def _dispatch(arguments: Sequence[str]) -> int:
    from reconciler.cli.directory import enter
    from reconciler.cli.fast_path import quick

    arguments = enter(arguments)
    code = quick(arguments)
    if code is not None:
        return code
    import typer

    from reconciler.cli.app import build

    result = typer.main.get_command(build(arguments)).main(
        args=list(arguments), prog_name="dstack", standalone_mode=False
    )
    return result if isinstance(result, int) else 0


def _mapped(error: Exception, arguments: Sequence[str]) -> int:
    """typer's own errors by their names: 0.2x carries its own click, older ones import it."""
    kinds = {kind.__name__ for kind in type(error).__mro__}
    if "UsageError" in kinds:
        return _usage(error, arguments)
    if "Abort" in kinds:
        return _interrupted()
    return _unexpected(error)


def _interrupted() -> int:
    say("interrupted")
    return 130


def _usage(error: Exception, arguments: Sequence[str]) -> int:
    from reconciler.cli.directory import split
    from reconciler.cli.other_spellings import answer
    from reconciler.cli.suggest import COMMANDS, suggest

    message = error.format_message() if hasattr(error, "format_message") else str(error)
    if type(error).__name__ == "NoArgsIsHelpError":
        out(message.rstrip() + "\n")
        return 0
    context = getattr(error, "ctx", None)
    where = context.command_path if context is not None else "dstack"
    told = answer(split(arguments)[1], known=COMMANDS)
    say(f"error: {suggest(message, where=where, told=told)}")
    return 1


def _unexpected(error: Exception) -> int:
    """An error with a known meaning is one line; a defect says where to report it."""
    import traceback

    from reconciler.cli.errors import explain_error

    known = explain_error(error)
    if known:
        say(f"error: {known}")
        return 1
    if os.environ.get("DSTACK_DEBUG"):
        traceback.print_exc()
    else:
        where = traceback.extract_tb(error.__traceback__)[-1]
        say(
            f"error: unexpected {type(error).__name__} at {os.path.basename(where.filename)}:{where.lineno}: {error}\n"
            f"this is a defect: report it{_address()}, with the output of DSTACK_DEBUG=1"
        )
    return 1


def _address() -> str:
    """` at URL`, as the package says; "" where it says none: a fork's defects are not ours."""
    from importlib.metadata import PackageNotFoundError, metadata

    try:
        urls = metadata("dstack-pools").get_all("Project-URL") or []
    except PackageNotFoundError:
        return ""
    named = dict(one.split(", ", 1) for one in urls)
    return f" at {named['Issues']}" if "Issues" in named else " to whoever gave you this package"


def _silence_stdout() -> None:
    """What is still buffered has no reader: drop it, so that the exit says nothing about it."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
