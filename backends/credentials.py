"""The values of a backend's credentials, read from the environment when they are used. None is kept or shown."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping

from backends.errors import BackendError, LackingHere
from schemas.desired import BackendConfig

_REFERENCE = re.compile(r"\$\{\{ *(env|secrets)\.([A-Za-z_][A-Za-z0-9_]*) *\}\}")


def credential(config: BackendConfig, key: str, *, default: str, environ: Mapping[str, str] = os.environ) -> str:
    """`creds.KEY` of `config`, or the variable `default` where the configuration names none.

    Raises:
        LackingHere: the variable is not set. The message says which one to set.
    """
    written = (config.options.get("creds") or {}).get(key)
    if written:
        return referenced(key, written, environ)
    if not environ.get(default):
        raise LackingHere(f"{config.name}: no credentials. Set {default}, or `creds: {{{key}: ${{{{ env.NAME }}}}}}`.")
    return environ[default]


def referenced(key: str, written: str, environ: Mapping[str, str]) -> str:
    """The value of the variable that `written` refers to. The configuration holds a reference, never a value."""
    found = _REFERENCE.fullmatch(written.strip())
    if found is None:
        raise BackendError(f"creds.{key} is no reference: `${{{{ env.NAME }}}}`")
    value = environ.get(found[2])
    if not value:
        raise LackingHere(f"creds.{key} needs {found[2]}, not set here")
    return value
