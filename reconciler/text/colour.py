"""Colours for terminal output. Pure: the caller decides whether to use them."""

from __future__ import annotations

from collections.abc import Callable

Paint = Callable[[str, str], str]
"""`paint(text, colour)`; the colours are those of `CODES`."""

CODES = {"green": "32", "yellow": "33", "red": "31", "cyan": "36", "dim": "2", "bold": "1"}


def plain(text: str, colour: str) -> str:
    """No colour at all."""
    del colour
    return text


def ansi(text: str, colour: str) -> str:
    return f"\x1b[{CODES[colour]}m{text}\x1b[0m" if text else text
