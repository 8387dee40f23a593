"""Warn of settings without effect, of secrets in plain text, and of access that is open to everybody."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

from reconciler.config.compile.container import ANYBODY
from reconciler.config.problems import Problem
from reconciler.config.read import FormEntry

_NO_EFFECT = {
    "gateway": "there is no gateway here",
    "model": "there is no gateway here",
    "https": "there is no gateway here",
    "auth": "there is no gateway here",
    "strip_prefix": "there is no gateway here",
    "scaling": "there is no gateway here to measure requests: the lowest number of replicas is kept",
    "single_branch": "the project's folder is taken as it is",
    "home_dir": "older files have it",
    "nvcc": "it chooses an image of dstack's",
}
EVERYBODY = ("0.0.0.0/0", "::/0")
_TELLING_NAME = r"(?i)(token|secret|passw(or)?d|api_?key|access_?key|private_?key|credential)"
_TELLING_VALUE = (
    r"(hf_[A-Za-z0-9]{16,}|gh[pousr]_[A-Za-z0-9]{20,}|github_pat_\w{20,}|sk-[A-Za-z0-9_-]{16,}|AKIA[0-9A-Z]{12,}"
    r"|xox[abps]-[\w-]{10,}|eyJ[\w-]{10,}\.[\w-]{10,}|glpat-[\w-]{16,}|-----BEGIN [A-Z ]*PRIVATE KEY-----)"
)


def unsupported_notices(entry: FormEntry, reasons: Iterable[str]) -> Iterator[Problem]:
    """What is valid and does not work yet: a plan shows it as unmet, `validate` as a warning."""
    for reason in reasons:
        yield entry.problem(reason)


def backend_notices(entry: FormEntry) -> Iterator[Problem]:
    """An `ingress` that keeps nobody out. Host keys and logins still do; those who try are many."""
    said = getattr(entry.form, "ingress", None)
    listed = isinstance(entry.raw.get("ingress"), list)
    for index, each in enumerate((said,) if isinstance(said, str) else said or ()):
        if each in EVERYBODY:
            where = ("ingress", index) if listed else ("ingress",)
            yield entry.problem(
                f"`{each}` is everybody: port 22 is open to the whole world; name your own ranges, or `own`", *where
            )


def run_notices(entry: FormEntry, *, boxed: bool) -> Iterator[Problem]:
    """What is said in vain, located. `boxed`: the run has an image, its own or its pool's."""
    for key, why in _NO_EFFECT.items():
        if getattr(entry.form, key, None) not in (None, False):
            yield entry.problem(f"has no effect: {why}", key, key=True)
    if getattr(entry.form, "python", None) == "3.8":
        yield entry.problem("Python 3.8 gets no fixes any more: few hosts have it", "python", key=True)
    auth = getattr(entry.form, "registry_auth", None)
    if auth is not None and auth.username is None:
        why = f"no `username`: `{ANYBODY}` is sent, which registries take that look at the token alone (ghcr.io)"
        yield entry.problem(why, "registry_auth")
    for key, used in (("entrypoint", boxed), ("registry_auth", entry.form.image is not None)):
        if not used and getattr(entry.form, key) is not None:
            yield entry.problem("has no effect without `image`", key, key=True)
    yield from _literal_secrets(entry)


def _literal_secrets(entry: FormEntry) -> Iterator[Problem]:
    listed = isinstance(entry.raw.get("env"), list)
    for index, (name, value) in enumerate(entry.form.env or ()):
        if value and looks_secret(name, value):
            yield entry.problem(
                f"`{name}` looks like a secret in plain text: declare it in `secrets` and write "
                f"`${{{{ secrets.{name} }}}}`",
                "env",
                index if listed else name,
            )
    auth = entry.form.registry_auth
    if auth is not None and "${{" not in auth.password:
        yield entry.problem("a password in plain text: write `${{ secrets.NAME }}`", "registry_auth", "password")


def looks_secret(name: str, value: str) -> bool:
    """A literal that should not be committed, judged by its form or by its name."""
    if "${{" in value:
        return False
    return bool(re.search(_TELLING_VALUE, value[:2000])) or (
        bool(re.search(_TELLING_NAME, name)) and len(value) >= 8 and not value.startswith(("/", "./", "~"))
    )
