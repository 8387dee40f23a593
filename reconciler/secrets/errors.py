"""Why a run's secrets cannot be resolved."""

from __future__ import annotations


class SecretLacking(Exception):
    """A value is not to be had here and now. The message names it and never holds it."""
