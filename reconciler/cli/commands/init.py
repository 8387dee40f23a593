"""`dstack init`: ask for what a new project needs, and write its first documents."""

from __future__ import annotations

import os
import re
from pathlib import Path

from reconciler.cli.commands.plan.revision import mint
from reconciler.cli.exits import Fail
from reconciler.cli.project import site
from reconciler.cli.terminal.streams import ask_text, interactive, out, say
from reconciler.config.found_here import Found, found_here
from reconciler.config.init import FOLDER, init, started
from schemas.base import NAME


def start_project(folder: Path, *, name: str = "", yes: bool = False) -> int:
    """Files that exist are never overwritten. Nothing is written before the last answer."""
    if not folder.is_dir():
        raise Fail(f"{folder}: no such folder")
    if name and not re.fullmatch(NAME, name):
        raise Fail(f"--name {name}: {NAME_RULE}")
    new = not started(folder)
    asks = new and interactive() and not yes
    there = found_here(Path.home(), os.environ) if new else []
    name = name or (_name(folder) if asks else "")
    chosen = _chosen(there) if asks and there else []
    backends = ["{type: local}", *(one.backend for one in chosen if one.backend)]
    made = init(folder, backends=backends if len(backends) > 1 else ())
    if not site(folder).project:
        mint(folder, name=name)
        made.append(folder / FOLDER / "project.yml")
    for path in made:
        out(f"{path}\n")
    if not made:
        say(f"{folder / FOLDER}: everything is there already; `dstack plan` shows what would be done")
        return 0
    _tell_next(chosen if asks else there, chosen=asks)
    return 0


NAME_RULE = "a-z, then up to 40 of a-z, 0-9 and -"


def _name(folder: Path) -> str:
    """What was typed; "" for the folder's name, which is the default."""
    default = folder.resolve().name
    while True:
        answer = ask_text(f"Project name [{default}]: ").strip()
        if answer in ("", default) or re.fullmatch(NAME, answer):
            return "" if answer == default else answer
        say(f"{answer}: {NAME_RULE}")


def _chosen(there: list[Found]) -> list[Found]:
    """Those whose numbers were typed; none for an empty answer."""
    say("This machine can have runs. Also found here:")
    for number, one in enumerate(there, start=1):
        say(f"  {number}  {one.what}  ({one.where})")
    while True:
        words = ask_text("Which of them, too? Numbers such as `1 3`, or Enter for none: ").replace(",", " ").split()
        if all(word.isdigit() and 1 <= int(word) <= len(there) for word in words):
            return [there[int(word) - 1] for word in dict.fromkeys(words)]
        say(f"numbers from 1 to {len(there)}")


def _tell_next(there: list[Found], *, chosen: bool) -> None:
    hosts = [one.command.rpartition(" ")[2] for one in there if one.command]
    if chosen and hosts:
        say(f"Next: `dstack pool add-ssh {' '.join(hosts)}` looks at the servers and declares them.")
    elif there:
        found = ", ".join(one.what for one in there)
        say(f"Also found here: {found}. See `dstack aws configure --help` and `dstack pool add-ssh --help`.")
    if chosen and any("type: aws" in one.backend for one in there):
        say("Next: `dstack backend check` asks AWS what these credentials may do.")
    say("Next: look at the files, then `dstack plan`.")
