"""How the newest dstack spells what is spelt otherwise here: the right command, in one sentence. Pure."""

from __future__ import annotations

from collections.abc import Sequence

# A command line that begins so, as far as it names commands and options -> what to do instead.
ANSWERS = {
    ("apply", "-f"): "`dstack apply` acts on all documents in .dstack/. Start one run with `dstack run . -f FILE`",
    ("apply", "--file"): "`dstack apply` acts on all documents in .dstack/. Start one run with `dstack run . -f FILE`",
    ("apply", "-n"): "Name a run in its file, or with `dstack run . -f FILE -n NAME`",
    ("apply", "--name"): "Name a run in its file, or with `dstack run . -f FILE -n NAME`",
    ("apply", "-P"): "A project is a folder: `dstack -C DIR apply`",
    ("apply", "--project"): "A project is a folder: `dstack -C DIR apply`",
    ("apply", "--force"): "Replace a run that goes on with `dstack apply --replace RUN`",
    ("ps", "-n"): "`dstack ps -a` lists all runs",
    ("ps", "--last"): "`dstack ps -a` lists all runs",
    ("logs", "-d"): "Why a run waits or failed: `dstack ps -v` and `dstack events --run RUN`",
    ("logs", "--diagnose"): "Why a run waits or failed: `dstack ps -v` and `dstack events --run RUN`",
    ("attach", "--logs"): "`dstack attach RUN` shows the log too; `dstack logs -f RUN` shows it alone",
    ("delete", "-f"): "End a run with `dstack stop RUN`; take a pool out of the YAML with `dstack pool delete -n NAME`",
    ("fleet", "list"): "Did you mean `dstack pool ps`?",
    ("fleet", "get"): "Did you mean `dstack pool ps`?",
    ("fleet", "create"): "Did you mean `dstack pool create`?",
    ("fleet", "delete"): "Did you mean `dstack pool delete`? One instance: `dstack pool remove NAME`",
    ("run", "list"): "Did you mean `dstack ps`?",
    ("run", "get"): "Did you mean `dstack ps`?",
    ("offer",): "Did you mean `dstack offers`?",
    ("event", "list"): "Did you mean `dstack events`?",
    ("metrics",): "Did you mean `dstack ps -v`?",
    ("stats",): "Did you mean `dstack ps -v`?",
    ("server",): "There is no server: `dstack apply` does everything, from a laptop, from CI or from cron",
    ("login",): "There is no server to log in to: `dstack backend check` looks at the credentials of this machine",
    ("project",): "A project is a folder with .dstack/: `dstack init` makes one, `dstack -C DIR` works in another",
    ("secret",): "Secrets are declared in the YAML, under `secrets`, by where they are: `dstack schema documents`",
    ("secrets",): "Secrets are declared in the YAML, under `secrets`, by where they are: `dstack schema documents`",
    ("volume",): "Volumes are folders of a host, declared in a run's `volumes`: `dstack schema run`",
    ("volumes",): "Volumes are folders of a host, declared in a run's `volumes`: `dstack schema run`",
    ("gateway",): "Services are reached by `dstack attach RUN`, or by their port on a server of yours",
    ("prebuild",): "There are no prebuilt images: name the image in the run",
    ("tags",): "There are no tags of runs: `dstack artifacts RUN` copies what a run left",
    ("export",): "A project is shared through its repository and its state: see `dstack state migrate --help`",
    ("import",): "A project is shared through its repository and its state: see `dstack state migrate --help`",
}  # fmt: skip


def answer(arguments: Sequence[str], *, known: Sequence[str] = ()) -> str:
    """The sentence for that command line, or "". `known` are commands that there are by now."""
    command = next((word for word in arguments if not word.startswith("-")), "")
    if command not in known:
        second = next(iter(arguments[1:]), "")
        return ANSWERS.get((command, second)) or ANSWERS.get((command,), "")
    for word in arguments:
        option = word.partition("=")[0]
        if option.startswith("-") and (found := ANSWERS.get((command, option))):
            return found
    return ""
