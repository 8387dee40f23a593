"""Suggest known names that are close to an unknown one."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches

from reconciler.text.format import few

MOST = 8


def near(name: str, known: Iterable[str], *, there: str = "there are", most: int = 1) -> str:
    """`did you mean a?`, of up to `most` names; without any close one `there are a, b`."""
    names = [one for one in known if one]
    close = get_close_matches(name, names, n=most)
    return f"did you mean {' or '.join(close)}?" if close else f"{there} {few(names, most=MOST)}"
