"""Our ids in a vendor's names and labels, and read back from them. Pure.

An id is written whole or refused. Nothing is cut or replaced, so that two instances never get one name.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping

from backends.errors import BackendError
from schemas.base import Value
from schemas.launch import Request

LONGEST = 60
"""Characters of a mark: what the strictest vendor takes for a name."""
PREFIX = "dstack-"
_MARK = re.compile(r"dstack-([0-9a-f]{8})-([a-z0-9]+(?:-[a-z0-9]+)*)-(0|[1-9][0-9]{0,4})")


class Mark(Value, frozen=True, kw_only=True):
    """The name of one machine at its vendor: `dstack-PROJECT8-LAUNCH-INDEX`."""

    project: str
    """8 hexadecimal digits of the hash of the project's id."""
    launch: str
    index: int

    @property
    def id(self) -> str:
        """Our id of the instance."""
        return f"{self.launch}-{self.index}"


class LabelRules(Value, frozen=True, kw_only=True):
    """What a vendor takes as a label."""

    key: str
    """Regular expression of a whole key."""
    value: str
    """Regular expression of a whole value, the empty one included where it is allowed."""
    longest_key: int = 63
    longest_value: int = 63
    most: int = 64
    """The most labels of one machine."""


def project8(project: str) -> str:
    """The project's id in 8 hexadecimal digits: part of every mark."""
    return hashlib.sha256(f"dstack project {project}".encode()).hexdigest()[:8]


def marks_of(request: Request) -> tuple[str, ...]:
    """The mark of each machine of `request`, in the order of its ids."""
    return tuple(mark(request.project, id) for id in request.ids)


def mark(project: str, id: str) -> str:
    """The mark of the instance `id` of `project`. Raises `BackendError` where a mark cannot hold the id."""
    name = f"{PREFIX}{project8(project)}-{id}"
    if len(name) > LONGEST or read_mark(name) is None:
        raise BackendError(f"instance id {id!r} does not fit into a name of {LONGEST} characters of a-z, 0-9 and -")
    return name


def read_mark(name: str, *, project: str = "") -> Mark | None:
    """What `name` says; `None` where it is no mark, or one of another project than `project`."""
    found = _MARK.fullmatch(name) if len(name) <= LONGEST else None
    if found is None or (project and found[1] != project8(project)):
        return None
    return Mark(project=found[1], launch=found[2], index=int(found[3]))


def labels(ours: Mapping[str, str], rules: LabelRules) -> dict[str, str]:
    """`ours` unchanged, where the vendor takes every key and value. Raises `BackendError` naming the first other."""
    if len(ours) > rules.most:
        raise BackendError(f"{len(ours)} labels; {rules.most} are allowed here")
    for key, value in ours.items():
        if len(key) > rules.longest_key or not re.fullmatch(rules.key, key):
            raise BackendError(f"label {key!r}: the key is not allowed here (at most {rules.longest_key} characters)")
        if len(value) > rules.longest_value or not re.fullmatch(rules.value, value):
            raise BackendError(
                f"label {key}: the value {value!r} is not allowed here (at most {rules.longest_value} characters)"
            )
    return dict(ours)


def labels_of(request: Request, id: str) -> dict[str, str]:
    """What a machine of `request` carries, so that a listing can be read without the state."""
    return {
        "dstack-project": request.project,
        "dstack-id": id,
        "dstack-launch": request.launch,
        "dstack-pool": request.pool,
        "dstack-lineage": request.lineage,
        "dstack-generation": str(request.generation),
    }


class Labelled(Value, frozen=True, kw_only=True):
    """Our labels of one machine, as `schemas.instance.Seen` has them."""

    id: str = ""
    launch: str = ""
    pool: str = ""
    lineage: str = ""
    generation: int = 0


def read_labels(found: Mapping[str, str]) -> Labelled:
    """Our labels among `found`. A label that was removed, or whose value is no longer a number, is left out."""
    generation = found.get("dstack-generation", "")
    return Labelled(
        id=found.get("dstack-id", ""),
        launch=found.get("dstack-launch", ""),
        pool=found.get("dstack-pool", ""),
        lineage=found.get("dstack-lineage", ""),
        generation=int(generation) if re.fullmatch(r"[0-9]{1,15}", generation) else 0,
    )
