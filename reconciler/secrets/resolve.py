"""Resolve the secrets and environment variables of a run where its job starts.

No message here holds a value, or the output of a secret's command.
"""

from __future__ import annotations

import os
import platform
import re
import subprocess
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from msgspec.structs import replace

from backends.errors import BackendError, CallFailed
from reconciler.secrets.errors import SecretLacking
from schemas.backend_types import TYPES
from schemas.desired import Desired, Secret
from schemas.run import Container, RunSpec

if TYPE_CHECKING:
    from reconciler.secrets.project_key import ProjectKey

REFERENCE = re.compile(r"\$\{\{\s*(env|secrets)\.([A-Za-z_][A-Za-z0-9_]*)\s*\}\}")
TIMEOUT = 60.0
OWN_SOURCES = ("env", "file", "command")

Parameter = Callable[[str, str], str]
"""(source, name) -> the value that a backend's account keeps. Raises `BackendError`, which never holds the value."""


def lacking(
    spec: RunSpec,
    desired: Desired,
    environ: Mapping[str, str],
    *,
    root: Path = Path(),
    host: str = "",
    has_key: bool = True,
) -> str:
    """Why `spec` cannot start from here: "needs HF_TOKEN, not set on ci". "" where nothing is missing.

    Nothing is run and nothing is read for the answer. `root` is what files of secrets are relative to.
    """
    declared = {secret.name: secret for secret in desired.secrets}
    where = host or platform.node() or "this machine"
    kept, asked = _kept(desired), _references(spec)
    whys = [_why_not(kind, name, declared, environ, root=root, host=where, kept=kept) for kind, name in asked]
    sealed = [name for name, _ in spec.sealed]
    sealed += ["its registry"] if spec.container and spec.container.sealed else []
    if sealed and not has_key:
        whys.append(f"needs the project key for {sealed[0]}, not on {where}: set DSTACK_PROJECT_KEY")
    return "; ".join(dict.fromkeys(why for why in whys if why))


def undeclared(spec: RunSpec, desired: Desired) -> str:
    """Why `spec` can start from nowhere, as these documents stand; "" where some machine may have what it needs."""
    declared = {secret.name: secret for secret in desired.secrets}
    kept = _kept(desired)
    for kind, name in _references(spec):
        foreign = name in declared and declared[name].source not in (*OWN_SOURCES, *kept)
        if (kind == "secrets" and name not in declared) or foreign:
            return _why_not(kind, name, declared, {}, root=Path(), host="", kept=kept)
    return ""


def resolve(
    spec: RunSpec,
    desired: Desired,
    environ: Mapping[str, str],
    key: ProjectKey | None = None,
    *,
    root: Path = Path(),
    parameter: Parameter = lambda kind, name: _no_parameter(kind),
) -> dict[str, str]:
    """The environment of the run's jobs, values given by `-e` last. `SecretLacking` where one is missing."""
    sources = _Sources(desired, environ, root=root, parameter=parameter)
    given = {name: _unsealed(name, text, key) for name, text in spec.sealed}
    found = {name: sources.value(name, written) for name, written in spec.env if name not in given} | given
    for name, value in found.items():
        if "\0" in value:
            raise SecretLacking(f"{name}: holds a zero byte, which no environment can")
    return found


def fill(
    container: Container,
    desired: Desired,
    environ: Mapping[str, str],
    key: ProjectKey | None = None,
    *,
    root: Path = Path(),
    parameter: Parameter = lambda kind, name: _no_parameter(kind),
) -> Container:
    """With every reference of its image and its registry's login resolved. `SecretLacking` where one is missing."""
    sources = _Sources(desired, environ, root=root, parameter=parameter)
    password = container.password
    if container.sealed:
        password = _unsealed("the registry's password", password, key)
    else:
        password = sources.value("registry_auth", password)
    image, username = (sources.value("image", text) for text in (container.image, container.username))
    for what, text in (("image", image), ("registry_auth", username), ("registry_auth", password)):
        if re.search(r"[\0\r\n]", text):
            raise SecretLacking(f"{what}: has several lines or a zero byte")
    if not image or re.search(r"\s|^-", image):
        raise SecretLacking("image: not the name of an image")
    return replace(container, image=image, username=username, password=password, sealed=False)


def _unsealed(name: str, text: str, key: ProjectKey | None) -> str:
    if key is None:
        raise SecretLacking(f"needs the project key for {name}: set DSTACK_PROJECT_KEY")
    from reconciler.secrets.project_key import KeyRefused

    try:
        return os.fsdecode(key.unseal(text))  # any bytes, as they were typed
    except KeyRefused:
        raise SecretLacking(f"{name}: sealed with another project key; give the value again") from None


def _references(spec: RunSpec) -> Iterator[tuple[str, str]]:
    """(`bare` | `env` | `secrets`, name) of everything that must be known when the job starts."""
    given = {name for name, _ in spec.sealed}
    for name, written in spec.env:
        if name in given:
            continue
        if written is None:
            yield "bare", name
        else:
            yield from ((found[1], found[2]) for found in REFERENCE.finditer(written))
    box = spec.container
    for text in (box.image, box.username, "" if box.sealed else box.password) if box else ():
        yield from ((found[1], found[2]) for found in REFERENCE.finditer(text))


def _why_not(
    kind: str,
    name: str,
    declared: Mapping[str, Secret],
    environ: Mapping[str, str],
    *,
    root: Path,
    host: str,
    kept: frozenset[str],
) -> str:
    if kind != "secrets" and name in environ:
        return ""
    if kind == "env" or (kind == "bare" and name not in declared):
        return f"needs {name}, not set on {host}"
    if name not in declared:
        return f"needs secret {name}, not declared: add it under `secrets:`"
    secret = declared[name]
    if secret.source not in OWN_SOURCES:
        lacks = f"no backend {_of_type(secret.source)}is declared to read it with"
        return "" if secret.source in kept else f"needs secret {name} from {secret.source}: {lacks}"
    return _why_not_secret(secret, environ, root=root, host=host)


def _kept(desired: Desired) -> frozenset[str]:
    """Sources that an account of a declared backend keeps."""
    return frozenset(kind for one in desired.backends for kind in one.traits.parameters)


def _of_type(source: str) -> str:
    """`of type aws `, those that keep such parameters."""
    names = " or ".join(one.name for one in TYPES.values() if source in one.parameters)
    return f"of type {names} " if names else ""


def _no_parameter(kind: str) -> str:
    raise BackendError(f"nothing here reads {kind}")


def secret_files(desired: Desired) -> tuple[str, ...]:
    """The files that secrets are read from: they stay where they are, and travel with no run."""
    return tuple(secret.reference for secret in desired.secrets if secret.source == "file")


def _why_not_secret(secret: Secret, environ: Mapping[str, str], *, root: Path, host: str) -> str:
    match secret.source:
        case "env" if secret.reference not in environ:
            return f"needs {secret.reference}, not set on {host}"
        case "file" if not os.access(_file(secret, environ, root=root), os.R_OK):
            return f"needs the file {secret.reference} of secret {secret.name}, not readable on {host}"
        case _:
            return ""


class _Sources:
    """Looks each secret up once for a run."""

    def __init__(self, desired: Desired, environ: Mapping[str, str], *, root: Path, parameter: Parameter) -> None:
        self._declared = {secret.name: secret for secret in desired.secrets}
        self._kept, self._parameter = _kept(desired), parameter
        self._environ = environ
        self._root = root
        self._known: dict[str, str] = {}

    def value(self, name: str, written: str | None) -> str:
        if written is None:
            return self._environ[name] if name in self._environ else self._one("bare", name)
        return REFERENCE.sub(lambda found: self._one(found[1], found[2]), written)

    def _one(self, kind: str, name: str) -> str:
        where = platform.node()
        why = _why_not(kind, name, self._declared, self._environ, root=self._root, host=where, kept=self._kept)
        if why:
            raise SecretLacking(why)
        if kind == "env":
            return self._environ[name]
        if name not in self._known:
            self._known[name] = self._look_up(self._declared[name])
        return self._known[name]

    def _look_up(self, secret: Secret) -> str:
        if secret.source == "env":
            return self._environ[secret.reference]
        if secret.source == "file":
            return _read(secret, _file(secret, self._environ, root=self._root))
        if secret.source == "command":
            return _ask(secret, self._environ, root=self._root)
        return self._kept_elsewhere(secret)

    def _kept_elsewhere(self, secret: Secret) -> str:
        try:
            return self._parameter(secret.source, secret.reference)
        except CallFailed as error:
            raise SecretLacking(f"secret {secret.name}: {error}") from None


def _file(secret: Secret, environ: Mapping[str, str], *, root: Path) -> Path:
    """Relative to the project; `~` is the caller's home."""
    if secret.reference.startswith("~/") and "HOME" in environ:
        return Path(environ["HOME"], secret.reference[2:])
    return root / secret.reference


def _read(secret: Secret, path: Path) -> str:
    try:
        return path.read_text().removesuffix("\n")
    except (OSError, UnicodeDecodeError):
        # `from None`: a decoding error carries the bytes.
        raise SecretLacking(f"secret {secret.name}: {secret.reference} cannot be read as text") from None


def _ask(secret: Secret, environ: Mapping[str, str], *, root: Path) -> str:
    """One line for `sh`, as people write it; its errors go nowhere, since they may hold the value."""
    try:
        done = subprocess.run(  # noqa: S603 - the project's own declared command
            ["/bin/sh", "-c", secret.reference],
            cwd=root,
            env=dict(environ),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=TIMEOUT,
        )
    except (OSError, subprocess.TimeoutExpired):
        raise SecretLacking(f"secret {secret.name}: its command did not answer within {TIMEOUT:.0f} s") from None
    if done.returncode != 0:
        raise SecretLacking(f"secret {secret.name}: its command exited with {done.returncode}; run it by hand")
    try:
        return done.stdout.decode().removesuffix("\n")
    except UnicodeDecodeError:
        raise SecretLacking(f"secret {secret.name}: its command did not print text") from None
