"""`backends`: the form of each type, imported only when one is declared."""

from __future__ import annotations

from importlib import import_module

from schemas.backend_types import TYPES as KNOWN
from schemas.documents.backends.base import BackendForm

TYPES = tuple(one.name for one in KNOWN.values() if one.form)
"""Those that `backends` may declare."""


def backend_form(name: str) -> type[BackendForm] | None:
    """The form of a type, `None` for one that cannot be declared."""
    if name not in TYPES:
        return None
    module, _, form = KNOWN[name].form.partition(":")
    found: type[BackendForm] = getattr(import_module(module), form)
    return found
