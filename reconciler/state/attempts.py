"""Limits on the attempts of a run. Pure."""

from __future__ import annotations

# More attempts than this, that a rebuild finds no trace of, no run has had.
UNSEEN = 100
