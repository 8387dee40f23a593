"""Suggest corrections for a wrong command line. Pure."""

from __future__ import annotations

import re
from collections.abc import Sequence
from difflib import get_close_matches

# What other tools, and dstack's later versions, call ours.
SYNONYMS = {
    "up": "apply", "deploy": "apply", "submit": "run", "exec": "run", "start": "run", "status": "ps",
    "list": "pool list", "ls": "ps", "jobs": "ps", "runs": "ps", "queue": "ps", "kill": "stop",
    "cancel": "stop", "delete": "stop",
    "rm": "pool remove", "remove": "pool remove", "add": "pool add", "create": "pool create", "down": "destroy",
    "fleet": "pool", "fleets": "pool", "instances": "pool ps", "nodes": "pool ps", "diff": "plan", "preview": "plan",
    "log": "logs", "tail": "logs -f", "check": "validate", "lint": "validate", "config": "init", "setup": "init",
    "bill": "cost", "billing": "cost", "price": "cost", "history": "events", "event": "events", "audit": "events",
    "refresh": "plan --refresh", "forget": "state forget", "rebuild": "state rebuild", "drain": "pool drain",
    "pause": "pool pause", "resume": "pool resume", "server": "apply", "help": "--help", "version": "--version",
    "set-default": "pool set-default", "add-ssh": "pool add-ssh", "output": "artifacts", "download": "artifacts",
}  # fmt: skip
COMMANDS = (
    "plan",
    "apply",
    "run",
    "offers",
    "ps",
    "logs",
    "stop",
    "artifacts",
    "pool",
    "cost",
    "events",
    "report",
    "validate",
    "schema",
    "init",
    "show",
    "explain",
    "destroy",
    "gc",
    "state",
    "autoscale",
    "backend",
    "aws",
    "attach",
    "cp",
    "completion",
)
GROUPS = {
    "dstack": COMMANDS,
    "dstack pool": (
        "list", "ps", "create", "delete", "set-default", "add", "add-ssh", "remove", "drain", "pause", "resume",
    ),
    "dstack state": ("show", "rebuild", "forget", "pull", "push", "edit", "migrate", "rollback", "new-lineage"),
    "dstack backend": ("list", "check", "policy", "key"),
    "dstack aws": ("configure",),
    "dstack autoscale": ("allow", "info", "clear", "enable", "disable"),
}  # fmt: skip
WRONG = re.compile(r"No such command '(.*?)'")
OPTIONS = re.compile(r"\s*\(Possible options: (.*?)\)|\s*Did you mean (.*?)\?")


def suggest(message: str, *, where: str, told: str = "") -> str:
    """`message` with a "did you mean" where one fits, and always the next command. `where`: `dstack pool`.

    `told`: what to do instead, where the whole command line is known to be another tool's.
    """
    wrong = WRONG.search(message)
    if told:
        said = f"No such command '{wrong[1]}'" if wrong else OPTIONS.sub("", message).rstrip(".")
        return f"{said}. {told}"
    if wrong is not None:
        return _of_command(wrong[1], where=where)
    close = OPTIONS.search(message)
    text = OPTIONS.sub("", message).rstrip(".")
    if close is not None:
        return f"{text}. Did you mean {close[1] or close[2]}?"
    return f"{text}. See `{where} --help`"


def _of_command(wrong: str, *, where: str) -> str:
    text = f"No such command '{wrong}'"
    known = GROUPS.get(where, ())
    meant = _meant(wrong, where=where, known=known)
    if meant:
        return f"{text}. Did you mean `dstack {meant}`?"
    return f"{text}; the commands are {', '.join(known)}. See `{where} --help`"


def _meant(wrong: str, *, where: str, known: Sequence[str]) -> str:
    """What other tools call it, else what looks like it: here first, then anywhere."""
    group = where.removeprefix("dstack").strip()
    if not group and wrong in SYNONYMS:
        return SYNONYMS[wrong]
    close = get_close_matches(wrong, known, n=1, cutoff=0.6)
    if close:
        return f"{group} {close[0]}".strip()
    if wrong in SYNONYMS or wrong in COMMANDS:
        return SYNONYMS.get(wrong, wrong)
    close = [] if group else get_close_matches(wrong, SYNONYMS, n=1, cutoff=0.6)
    return SYNONYMS[close[0]] if close else ""


RUN_OPTIONS = (
    "--file",
    "--name",
    "--detach",
    "--yes",
    "--yes-above",
    "--max-offers",
    "--profile",
    "--max-price",
    "--max-duration",
    "--backend",
    "--region",
    "--instance-type",
    "--pool",
    "--reuse",
    "--dont-destroy",
    "--idle-duration",
    "--instance",
    "--spot",
    "--on-demand",
    "--spot-auto",
    "--spot-policy",
    "--retry",
    "--no-retry",
    "--retry-duration",
    "--env",
    "--gpu",
    "--cpu",
    "--memory",
    "--disk",
    "--port",
    "--help",
)


def close_option(wrong: str) -> str:
    """The option of `dstack run` that is like `wrong`, or ""."""
    close = get_close_matches(wrong.partition("=")[0], RUN_OPTIONS, n=1, cutoff=0.7)
    return close[0] if close else ""
