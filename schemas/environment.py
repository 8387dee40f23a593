"""How large the environment of a program may be on Linux."""

from __future__ import annotations

from collections.abc import Iterable

LONGEST = 128 * 1024
"""Bytes of `NAME=value` with the byte that ends it (MAX_ARG_STRLEN of the kernel: 32 pages)."""
ALL = 2 * 1024 * 1024
"""Bytes of all variables and arguments of a program together: a quarter of the usual 8 MiB of stack."""
OURS = 192 * 1024
"""Bytes that are left for the variables and arguments that dstack and a container's engine add."""
POINTER = 8


def size_of(name: str, value: str) -> int:
    """Bytes that a variable takes, as the kernel counts it."""
    return len(name.encode("utf-8", "surrogateescape")) + len(value.encode("utf-8", "surrogateescape")) + 2


def too_large(variables: Iterable[tuple[str, str | None]]) -> tuple[str, str] | None:
    """(name, why) of the first variable that no program could be started with; None where all are small enough.

    A value of None is not known yet, and counts for nothing.
    """
    total = 0
    for name, value in variables:
        size = size_of(name, value or "")
        if size > LONGEST:
            return name, (
                f"the value of `{name}` has {size - len(name) - 2} bytes, and Linux starts no program with more than "
                f"{LONGEST - len(name) - 2}: put it into a file"
            )
        total += size + POINTER
        if total > ALL - OURS:
            return name, (
                f"the variables have more than {ALL - OURS} bytes together, and Linux starts no program with them: "
                "put large values into files"
            )
    return None
