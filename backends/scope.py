"""What a project has in a cloud, for least-privilege policies. Pure."""

from __future__ import annotations

from typing import Literal

from schemas.base import Value
from schemas.location import Bucket

Kind = Literal["plan", "apply"]


class PolicyScope(Value, frozen=True, kw_only=True):
    """What the policy is bound to."""

    project: str
    """The project's id."""
    buckets: tuple[Bucket, ...] = ()
    """Those that the configuration names."""
    parameters: tuple[str, ...] = ()
    """Names of the values that the cloud keeps for the project's secrets."""
    instance_role: str = ""
    """The role that machines get, where it is not named like what the configuration gives them it by."""
    modes: tuple[str, ...] = ()
    """The ways to the machines of all pools; none: the backend's own."""
