"""What a person may have meant by a command line that is wrong. Pure."""

from __future__ import annotations

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
    "refresh": "plan --refresh", "forget": "state forget", "rebuild": "state rebuild", "drain": "pool drain",
    "pause": "pool pause", "resume": "pool resume", "server": "apply", "help": "--help", "version": "--version",
    "set-default": "pool set-default", "add-ssh": "pool add-ssh", "output": "artifacts", "download": "artifacts",
}  # fmt: skip
COMMANDS = (
    "plan", "apply", "run", "ps", "logs", "stop", "artifacts", "pool", "validate", "schema", "init", "destroy", "state",
    "attach", "autoscale",
)  # fmt: skip


def suggest(message: str, *, arguments: Sequence[str], where: str) -> str:
    """`message` with a "did you mean" where one fits, and always the next command."""
    text = message.rstrip(".")
    wrong = _wrong_command(text)
    if wrong and "Did you mean" not in text:
        meant = _meant(wrong, where=where)
        if meant:
            return f"{text}. Did you mean `dstack {meant}`?"
        text += f"; the commands are {', '.join(COMMANDS)}" if where == "dstack" else ""
    end = "" if text.endswith("?") else "."
    return f"{text}{end} See `{where} --help`"


def _wrong_command(message: str) -> str:
    """The name in `No such command 'x'`, or ""."""
    _, found, rest = message.partition("No such command ")
    return rest.strip("'\" .").split("'")[0] if found else ""


def _meant(wrong: str, *, where: str) -> str:
    if wrong in SYNONYMS:
        return SYNONYMS[wrong]
    close = get_close_matches(wrong, [*COMMANDS, *SYNONYMS], n=1, cutoff=0.6)
    if not close or where != "dstack":
        return ""
    return SYNONYMS.get(close[0], close[0])


RUN_OPTIONS = (
    "--file", "--name", "--detach", "--yes", "--yes-above", "--max-offers", "--profile", "--max-price",
    "--max-duration", "--backend", "--region", "--instance-type", "--pool", "--reuse", "--dont-destroy",
    "--idle-duration", "--instance", "--spot", "--on-demand", "--spot-auto", "--spot-policy", "--retry", "--no-retry",
    "--retry-duration", "--env", "--gpu", "--cpu", "--memory", "--disk", "--port", "--help",
)  # fmt: skip


def close_option(wrong: str) -> str:
    """The option of `dstack run` that is like `wrong`, or ""."""
    close = get_close_matches(wrong.partition("=")[0], RUN_OPTIONS, n=1, cutoff=0.7)
    return close[0] if close else ""
