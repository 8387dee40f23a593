"""Print and install what completes a command line in a shell, and read what a shell asks. typer does the work."""

from __future__ import annotations

import os.path

ASKED = "_DSTACK_COMPLETE"
SHELLS = ("bash", "zsh", "fish")


def print_script(shell: str) -> int:
    """Print what the shell must evaluate at its start."""
    from typer import completion

    from reconciler.cli.did_you_mean import near
    from reconciler.cli.exits import Fail
    from reconciler.cli.terminal.streams import out

    if shell not in SHELLS:
        raise Fail(f"no completion for {shell}; {near(shell, SHELLS)}")
    completion.completion_init()  # type: ignore[attr-defined]
    out(completion.get_completion_script(prog_name="dstack", complete_var=ASKED, shell=shell).strip() + "\n")  # type: ignore[attr-defined]
    return 0


def install(shell: str) -> int:
    """Write it where that shell reads it. `shell`: its name or path, as in $SHELL."""
    from typer import completion

    from reconciler.cli.exits import Fail
    from reconciler.cli.terminal.streams import out, say

    completion.completion_init()  # type: ignore[attr-defined]
    shell = os.path.basename(shell)
    if shell not in SHELLS:
        raise Fail(f"$SHELL is {shell or 'not set'}: run `dstack completion SHELL` with {', '.join(SHELLS)}")
    _, path = completion.install(shell=shell, prog_name="dstack", complete_var=ASKED)  # type: ignore[attr-defined]
    out(f"{path}\n")
    say(f"Completion for {shell} is installed. It works in the next {shell} that you start.")
    return 0
