"""Allow `${{ … }}` in a few text fields, and report it as a located problem elsewhere.

`${{ env.NAME }}` and `${{ secrets.NAME }}` are resolved where and when they are used,
`${{ run.args }}` is what follows the options of `dstack run`. `$${{` is the text `${{`.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator
from typing import Any

from reconciler.config.problems import Problem
from reconciler.config.read import label
from reconciler.config.yaml.values import SourceText, locate
from schemas.documents.shape import suggestion

_OPEN = re.compile(r"(?<!\$)\$\{\{")
_REFERENCE = re.compile(r"(?<!\$)\$\{\{([^{}]*)\}\}")
_NAME = re.compile(r"(env|secrets)\.([A-Za-z_][A-Za-z0-9_]*)")
_EVERYWHERE = ("env", "secrets")
_COMMANDS = ("env", "secrets", "run")
_RUN_FIELDS = {
    "env": _COMMANDS,
    "commands": _COMMANDS,
    "setup": _COMMANDS,
    "init": _COMMANDS,
    "entrypoint": _COMMANDS,
    "image": _EVERYWHERE,
    "registry_auth": _EVERYWHERE,
    "probe": _EVERYWHERE,
    "volumes": ("dstack",),
}
_BACKEND_FIELDS = {"creds": _EVERYWHERE, "kubeconfig": _EVERYWHERE}

Path = tuple[str | int, ...]


def check_references(source: SourceText, *, run_file: bool, secrets: Collection[str] | None) -> Iterator[Problem]:
    """Every wrong `${{ … }}` of a file. `secrets` `None`: their names are not known here."""
    for path, text in _texts(source.value):
        if _OPEN.search(text):
            allowed = _allowed(path, run_file)
            for message in _wrong(text, allowed, secrets):
                where = label(path)
                yield Problem(source.path, *locate(source, path), f"{where}: {message}" if where else message)


def _texts(value: Any) -> Iterator[tuple[Path, str]]:
    pending: list[tuple[Path, Any]] = [((), value)]
    while pending:
        path, each = pending.pop()
        if isinstance(each, str):
            yield path, each
        elif isinstance(each, dict):
            pending.extend(((*path, key), item) for key, item in reversed(each.items()))
        elif isinstance(each, list):
            pending.extend(((*path, index), each[index]) for index in reversed(range(len(each))))


def _allowed(path: Path, run_file: bool) -> tuple[str, ...]:
    """The namespaces that may stand at `path`; none: no reference may."""
    inside = path if run_file else path[2:]
    if not inside:
        return ()
    if run_file or path[0] == "runs":
        return _RUN_FIELDS.get(str(inside[0]), ())
    return _BACKEND_FIELDS.get(str(inside[0]), ()) if path[0] == "backends" else ()


def _wrong(text: str, allowed: tuple[str, ...], secrets: Collection[str] | None) -> Iterator[str]:
    if not allowed:
        yield (
            "`${{ … }}` is not resolved here: only in `env`, `commands`, `setup`, `init`, `entrypoint`, "
            "`image`, `registry_auth`, `probe` and the credentials of backends"
        )
        return
    if len(_OPEN.findall(text)) != len(_REFERENCE.findall(text)):
        yield "`${{` is not closed: `${{ env.NAME }}`, or `$${{` for the text itself"
    for reference in _REFERENCE.findall(text):
        if message := _unknown(reference.strip(), allowed, secrets):
            yield message


def _unknown(reference: str, allowed: tuple[str, ...], secrets: Collection[str] | None) -> str:
    space = reference.partition(".")[0]
    if reference == "run.args" and "run" in allowed:
        return ""
    if "dstack" in allowed and space == "dstack":
        return ""
    found = _NAME.fullmatch(reference)
    if not found or space not in allowed:
        known = [f"{name}.{'args' if name == 'run' else 'NAME'}" for name in allowed]
        return f"`${{{{ {reference} }}}}` is not known here: {', '.join(known)}{suggestion(reference, ['run.args'])}"
    if space == "secrets" and secrets is not None and found[2] not in secrets:
        return f"unknown secret `{found[2]}`" + (
            suggestion(found[2], secrets) or ": declare where it is found in `secrets`"
        )
    return ""
