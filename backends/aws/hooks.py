"""What the registry asks of AWS besides places: policies, checks, configuration, parameters, the catalog."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from backends.base import Setting
from backends.checks import BackendCheck
from backends.scope import Kind, PolicyScope
from schemas.access import Access, Way
from schemas.base import Seconds
from schemas.catalog import LiveRegion
from schemas.desired import BackendConfig
from schemas.instance import Instance
from schemas.location import Bucket

if TYPE_CHECKING:
    from backends.catalog.offers import Layers

CATALOG = Path(__file__).with_name("catalog.json")


def probes(
    config: BackendConfig, regions: tuple[str, ...], setting: Setting, *, buckets: tuple[Bucket, ...]
) -> Iterator[BackendCheck]:
    from backends.aws.checks import probes as asked

    return asked(config, project=setting.project, buckets=buckets, now=setting.now)


def access(way: Way, instance: Instance) -> Access:
    from backends.aws.access import access as made

    return made(way, instance)


def policy(kind: Kind, config: BackendConfig, scope: PolicyScope) -> dict[str, Any]:
    from backends.aws.iam_policy import policy as made

    return made(kind, config, scope)


def configure() -> ModuleType:
    from backends.aws import credentials as aws_login

    return aws_login


def parameter(config: BackendConfig, kind: str, name: str) -> str:
    from backends.aws.parameter_store import parameter as asked

    return asked(config, kind, name)


def bucket_session(config: BackendConfig) -> Any:
    from backends.aws.clients import bucket_session as made

    return made(config)


def live_region(config: BackendConfig, region: str, layers: Layers, *, now: Seconds) -> LiveRegion:
    from backends.aws.regions import live_region as asked

    return asked(config, region, layers, now=now)
