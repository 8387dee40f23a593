"""The pointer that is left where a state was: every version refuses it, this one says where to look."""

from __future__ import annotations

import msgspec

from schemas.base import Value
from schemas.state import State
from schemas.strict_json import decode_strictly

LONGEST = 4096


class Pointer(Value, frozen=True, kw_only=True):
    """The head of the state that was here, which older versions read and then refuse for the field they do not know."""

    version: int
    project: str
    lineage: str
    generation: int
    moved_to: str


def pointer(state: State, *, to: str) -> bytes:
    """The document that seals where `state` lay; `to` is the `state:` that has it now."""
    head = Pointer(
        version=state.version, project=state.project, lineage=state.lineage, generation=state.generation, moved_to=to
    )
    return msgspec.json.encode(head) + b"\n"


def moved_to(data: bytes) -> str:
    """Where such a document points; "" for any other."""
    if len(data) > LONGEST:
        return ""
    try:
        return decode_strictly(data, Pointer).moved_to
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return ""
