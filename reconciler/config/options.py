"""Parse values of command-line options by the same rules as in the YAML."""

from __future__ import annotations

from typing import Any

from schemas.documents.resources import need
from schemas.documents.shape import Wrong
from schemas.documents.span import OFF, off_duration
from schemas.resources import Need


class BadOption(ValueError):
    """An option's value cannot be read; the message names the option."""


def parse_duration(text: str, *, option: str = "a duration") -> int | None:
    """Seconds; `None` for `off`. Raises `BadOption`."""
    seconds = read_option(off_duration, text, option)
    return None if seconds == OFF else seconds


def resolve_need(
    *,
    gpu: str | None = None,
    cpu: str | None = None,
    memory: str | None = None,
    disk: str | None = None,
    shared_memory: str | None = None,
) -> Need:
    """What `--gpu --cpu --memory --disk --shared-memory` ask for. Raises `BadOption`."""
    given = {"gpu": gpu, "cpu": cpu, "memory": memory, "disk": disk, "shm_size": shared_memory}
    try:
        return need({key: value for key, value in given.items() if value is not None})
    except Wrong as wrong:
        path, message = wrong.found[0]
        raise BadOption(f"--{'shared-memory' if path[0] == 'shm_size' else path[0]}: {message}") from None


def read_option(read: Any, text: Any, option: str) -> Any:
    try:
        return read(text)
    except Wrong as wrong:
        raise BadOption(f"{option}: {wrong}") from None
