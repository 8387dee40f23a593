"""Errors of resolving a run's secrets."""

from __future__ import annotations


class SecretLacking(Exception):
    """A value is not to be had here and now. The message names it and never holds it."""
