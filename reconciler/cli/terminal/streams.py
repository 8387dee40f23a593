"""Write data to stdout, messages and questions to stderr."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import TYPE_CHECKING, Literal, TextIO

from reconciler.cli.exits import Fail, Finished
from reconciler.report.plan import Page
from reconciler.text.colour import Paint, ansi, plain
from reconciler.text.format import clean

if TYPE_CHECKING:
    from rich.console import Console, RenderableType


class NoTerminal(Exception):
    """A question had to be asked, and nobody is there to answer it."""


def out(text: str) -> None:
    """Data: text as it is, to stdout."""
    _write(text, to=sys.stdout, name="standard output")


def say(message: str) -> None:
    """A message: one line to stderr, safe on a terminal."""
    told = "\n".join(clean(line) for line in message.split("\n")) + "\n"
    _write(told, to=sys.stderr, name="standard error")


def _write(text: str, *, to: TextIO, name: str) -> None:
    """A failure is an `OSError` that says of what."""
    try:
        to.write(text)
        to.flush()
    except OSError as error:
        raise OSError(error.errno, error.strerror, name) from error


def page(stream: TextIO | None = None) -> Page:
    """The width and colours of stdout (or `stream`): no bounds and no colour where it is no terminal."""
    target = sys.stdout if stream is None else stream
    return Page(width=width(target), paint=painter(target), here=datetime.astimezone)


def width(stream: TextIO) -> int:
    """Columns of a terminal, `COLUMNS` where set, else 0: unbounded."""
    told = os.environ.get("COLUMNS", "")
    if told.isdigit() and int(told):
        return int(told)
    return shutil.get_terminal_size().columns if stream.isatty() else 0


def painter(stream: TextIO) -> Paint:
    return ansi if stream.isatty() and colours() else plain


def colours() -> Literal["auto"] | None:
    """What rich calls a colour system; none is no bold either."""
    return None if os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb" else "auto"


def show(table: RenderableType) -> None:
    """A rich table on stdout; where it is piped, without colour and as wide as it needs."""
    console = stdout_console()
    console.print(table)


def stdout_console() -> Console:
    from rich.console import Console

    columns = width(sys.stdout) or 1000
    return Console(
        file=sys.stdout,
        width=columns,
        highlight=False,
        markup=False,
        emoji=False,
        soft_wrap=False,
        color_system=colours(),
    )


def stderr_console() -> Console:
    from rich.console import Console

    columns = width(sys.stderr) or 1000
    return Console(
        file=sys.stderr,
        width=columns,
        highlight=False,
        markup=False,
        emoji=False,
        color_system=colours(),
    )


def interactive() -> bool:
    """Whether a person can be asked: both ends of the conversation are a terminal."""
    return sys.stdin.isatty() and sys.stderr.isatty()


def ask(question: str) -> bool:
    """`question [y/n]: ` until it is answered. Raises `NoTerminal`; an end of input is a no."""
    if not interactive():
        raise NoTerminal(question)
    while True:
        answer = _line(f"{question} [y/n]: ").strip().lower()
        if answer in ("y", "yes"):
            return True
        if answer in ("n", "no", "\x04"):
            return False


def must_agree(question: str, *, yes: bool, otherwise: str = "nothing was done; add -y") -> None:
    """Returns after a yes, or where `yes` was given beforehand. A no is `Done` with code 1.

    Where nobody can be asked it is a `Fail`, and `otherwise` says what to do instead.
    """
    try:
        if yes or ask(question):
            return
    except NoTerminal as error:
        raise Fail(f"there is no terminal to ask at; {otherwise}") from error
    say("nothing was done")
    raise Finished(1)


def ask_text(question: str) -> str:
    """A line, as typed; an end of input is an empty one. Raises `NoTerminal`."""
    if not interactive():
        raise NoTerminal(question)
    return _line(question).strip("\r\n\x04")


def ask_typed(question: str, *, word: str) -> bool:
    """Whether exactly `word` was typed: for what cannot be undone. Raises `NoTerminal`."""
    if not interactive():
        raise NoTerminal(question)
    return _line(f"{question}\nType {word} to confirm: ").strip() == word


def ask_hidden(question: str) -> str:
    """A line that is not shown as it is typed. Raises `NoTerminal`."""
    import getpass

    if not interactive():
        raise NoTerminal(question)
    with _cancelled():
        return getpass.getpass(question, stream=sys.stderr)


def _line(prompt: str) -> str:
    with _cancelled():
        sys.stderr.write(prompt)
        sys.stderr.flush()
        line = sys.stdin.readline()
    if not line:
        sys.stderr.write("\n")
        return "\x04"
    return line


@contextmanager
def _cancelled() -> Iterator[None]:
    """Ctrl-C at a question: every command asks before it changes anything."""
    try:
        yield
    except KeyboardInterrupt:
        sys.stderr.write("\n")
        say("Cancelled. Nothing was changed.")
        raise Finished(130) from None
