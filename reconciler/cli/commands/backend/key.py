"""`dstack backend key`: make the project's key, or say where it lies. The key itself is never printed."""

from __future__ import annotations

import os

from reconciler.cli.exits import Fail
from reconciler.cli.project import project_root, site
from reconciler.cli.terminal.streams import out, say
from reconciler.secrets.project_key import VARIABLE, KeyRefused, project_key


def make_key() -> int:
    """0 once there is one. CI never makes one: it would be gone with its runner, and open no machine of others."""
    where = site(project_root())
    file = where.keys / "project.key"
    if os.environ.get(VARIABLE) and not file.exists():
        say(f"The key of this project is in ${VARIABLE} here.")
        return 0
    there = file.exists()
    try:
        # What the environment holds is no reason not to make the file that is asked for.
        project_key(where.keys, environ={name: value for name, value in os.environ.items() if name != VARIABLE})
    except KeyRefused as error:
        raise Fail(str(error)) from error
    out(f"{file}\n")
    say(
        f"{'It was there already.' if there else 'Made.'} It opens the machines that dstack creates, and values of "
        "`-e`. Keep a copy, and never commit it. Another machine needs the same one: copy the file, or set "
        f"{VARIABLE} to its content, as with `gh secret set {VARIABLE} < {file}`."
    )
    return 0
