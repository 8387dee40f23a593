"""Answer a shell that asks, at a press of Tab, what may come next. typer does the work."""

from __future__ import annotations

from collections.abc import Mapping

from reconciler.cli.completion.shells import ASKED


def words(environ: Mapping[str, str]) -> list[str]:
    """The command line so far without `dstack`, as the shell tells it: only its commands need to be built."""
    if "COMP_WORDS" in environ:
        return environ["COMP_WORDS"].split()[1:]
    return environ.get("_TYPER_COMPLETE_ARGS", "").split()[1:]


def complete(environ: Mapping[str, str]) -> int:
    """Answer a shell that asks what may come next, on stdout."""
    import typer
    from typer import completion

    from reconciler.cli.app import build
    from reconciler.cli.directory import enter
    from reconciler.cli.exits import Fail

    completion.completion_init()  # type: ignore[attr-defined]
    try:
        given = enter(words(environ), quiet=True)
    except Fail:
        return 1
    command = typer.main.get_command(build(given[:1]))
    try:
        command.main(args=[], prog_name="dstack", complete_var=ASKED)
    except SystemExit as ended:
        return ended.code if isinstance(ended.code, int) else 0
    return 0
