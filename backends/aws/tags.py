"""Names and tags of everything that a project makes in AWS. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from backends.errors import BackendError
from schemas.launch import Request

PROJECT = "dstack-project"
LINEAGE = "dstack-lineage"
GENERATION = "dstack-generation"
POOL = "dstack-pool"
BACKEND = "dstack-backend"
LAUNCH = "dstack-launch"
PRICE = "dstack-price"
OURS = "dstack-"
LONGEST, MOST = 256, 50  # characters of a tag's value; tags of one thing


def tags_of(request: Request, extra: Mapping[str, str]) -> dict[str, str]:
    """Of an instance and of all that goes with it. Which one of its launch it is, EC2 itself tells.

    `BackendError` where they are more than EC2 takes.
    """
    ours = {
        PROJECT: request.project,
        LINEAGE: request.lineage,
        GENERATION: str(request.generation),
        POOL: request.pool,
        LAUNCH: request.launch,
        BACKEND: request.place.partition("/")[0],
        **({PRICE: str(request.price)} if request.price is not None else {}),
    }
    tags = {"Name": f"{request.pool} (dstack)", **extra, **dict(request.tags), **ours}
    if len(tags) > MOST:
        raise BackendError(f"{len(tags)} tags with those of the backend, the pool and ours: EC2 takes {MOST}")
    return tags


def as_list(tags: Mapping[str, str]) -> list[dict[str, str]]:
    return [{"Key": key, "Value": value[:LONGEST]} for key, value in sorted(tags.items())]


def as_mapping(tags: Sequence[Mapping[str, str]] | None) -> dict[str, str]:
    return {tag["Key"]: tag.get("Value", "") for tag in tags or ()}


def of_project(project: str) -> list[dict[str, Any]]:
    """The filter of every listing: nothing of another project's is ever seen, let alone touched."""
    return [{"Name": f"tag:{PROJECT}", "Values": [project]}]


def project_of(instance: Mapping[str, Any]) -> str:
    """The project that an instance's tag names; "" where none does."""
    return as_mapping(instance.get("Tags")).get(PROJECT, "")


def door_group(project: str) -> str:
    """The group that lets those in who tick."""
    return f"dstack-{project}"


def peers_group(project: str, pool: str) -> str:
    """The group whose members may talk among themselves."""
    return f"dstack-{project}-{plain(pool)}"


def placement_group(project: str, pool: str, zone: str) -> str:
    """Close together: of one zone."""
    return f"dstack-{project}-{plain(pool)}-{zone or 'any'}"


def plain(text: str) -> str:
    return re.sub(r"[^A-Za-z0-9._-]", "-", text)[:100]
