"""Lay rows out in columns that wrap between words. Pure."""

from __future__ import annotations

import textwrap
from collections.abc import Collection, Sequence

GAP = 2
LEAST = 24
"""Columns that the last cell needs beside the others; where there are fewer, it goes below them."""
BELOW = 6
"""Columns by which that is indented."""
_WHOLE = "\u00a0"


def columns(rows: Sequence[Sequence[str]], *, width: int, indent: int = 2, right: Collection[int] = ()) -> list[str]:
    """Lines of at most `width` columns, unless one word is longer; 0 is as wide as needed.

    Cells of a column begin (`right`: end) below each other, but for the last one of a row, which wraps. Where the
    others leave it too little room it goes below them, indented; where they do not fit themselves, they wrap, too.
    """
    if not rows:
        return []
    count = max(map(len, rows))
    widths = [max((len(row[at]) for row in rows if at < len(row) - 1), default=0) for at in range(count)]
    last = [at for at in right if at == count - 1]
    if last:
        widths[-1] = max(len(row[-1]) for row in rows if len(row) == count)
    return [line for row in rows for line in _laid(row, widths, width=width, indent=indent, right=right)]


def _laid(row: Sequence[str], widths: Sequence[int], *, width: int, indent: int, right: Collection[int]) -> list[str]:
    lead = " " * indent
    for at, cell in enumerate(row[:-1]):
        room = widths[at]
        if room:
            lead += (cell.rjust(room) if at in right else cell.ljust(room)) + " " * GAP
    at = len(row) - 1
    tail = row[-1].rjust(widths[at]) if at in right else row[-1]
    if not width or len(lead) + len(tail) <= width:
        return [(lead + tail).rstrip()]
    if width - len(lead) >= LEAST:
        return _wrapped(tail, lead=lead, hang=len(lead), width=width)
    # An amount stays whole; it is put together again behind the wrapping.
    kept = (cell.replace(" ", _WHOLE) if at in right else cell for at, cell in enumerate(row[:-1]))
    head = "  ".join(cell for cell in kept if cell)
    lines = _wrapped(head, lead=" " * indent, hang=BELOW, width=width) if head else []
    return [
        *(line.replace(_WHOLE, " ") for line in lines),
        *_wrapped(tail.strip(), lead=" " * BELOW, hang=BELOW, width=width),
    ]


def _wrapped(text: str, *, lead: str, hang: int, width: int) -> list[str]:
    """No word is cut."""
    return wrap(text, width=width, lead=lead, hang=hang) or [lead.rstrip()]


def wrap(text: str, *, width: int, lead: str = "", hang: int = 0) -> list[str]:
    """Lines of the text, cut between words; `lead` begins the first, the others are indented by `hang`."""
    if not width or len(lead) + len(text) <= width:
        return [lead + text]
    return textwrap.wrap(
        text,
        width=max(width, 20),
        initial_indent=lead,
        subsequent_indent=" " * hang,
        break_on_hyphens=False,
        break_long_words=False,
        drop_whitespace=True,
        replace_whitespace=False,
    )
