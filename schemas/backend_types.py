"""The table of the types of backends, one entry each. A new type is one entry here, its form and its module."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from schemas.backend_type import MINUTE, BackendType

_DOCUMENTS = "schemas.documents.cloud"


def _table(*types: BackendType) -> Mapping[str, BackendType]:
    return {one.name: one for one in types}


TYPES: Mapping[str, BackendType] = _table(
    BackendType(
        name="local",
        module="backends.local.backend",
        form="schemas.documents.backends.base:LocalForm",
        kind="machine",
        scope="host",
        launch="name",
        batch=1000,
        gang="none",
        boot="key",
        power_off="ends",
    ),
    BackendType(
        name="ssh",
        module="backends.ssh.backend",
        kind="server",
        scope="host",
        launch="name",
        offers="live",
        power_off="ends",
    ),
    BackendType(
        name="aws",
        module="backends.aws.backend",
        form=f"{_DOCUMENTS}:AwsForm",
        extra="aws",
        offers="catalog",
        launch="token",
        batch=100,
        power_off="ends",
        self_termination="lease",
        boot="cloud-init",
        gang="native",
        access=("instance-connect", "ssm"),
    ),
    BackendType(name="gcp", form=f"{_DOCUMENTS}:GcpForm", scope="account"),
    BackendType(name="azure", form=f"{_DOCUMENTS}:AzureForm", scope="account"),
    BackendType(
        name="kubernetes",
        form=f"{_DOCUMENTS}:KubernetesForm",
        kind="cluster",
        scope="account",
        ready_within=20 * MINUTE,
    ),
    BackendType(name="lambda", form=f"{_DOCUMENTS}:LambdaForm", scope="account", ready_within=30 * MINUTE),
    BackendType(name="runpod", form=f"{_DOCUMENTS}:RunpodForm", scope="account", ready_within=20 * MINUTE),
    BackendType(name="vastai", form=f"{_DOCUMENTS}:VastaiForm", scope="account"),
    BackendType(name="tensordock", form=f"{_DOCUMENTS}:TensordockForm", scope="account"),
    BackendType(name="oci", form=f"{_DOCUMENTS}:OciForm"),
    BackendType(name="cudo", form=f"{_DOCUMENTS}:CudoForm"),
    BackendType(name="datacrunch", form=f"{_DOCUMENTS}:DatacrunchForm"),
    BackendType(name="nebius", form=f"{_DOCUMENTS}:NebiusForm"),
    BackendType(name="vultr", form=f"{_DOCUMENTS}:VultrForm"),
)

UNKNOWN = BackendType(name="")
"""Of a type that this version does not know, for instance in a state that a newer one wrote: a cloud, unavailable."""


def type_of(name: str) -> BackendType:
    """The traits of the type with this name; those of an unavailable cloud where it is not known."""
    return TYPES.get(name, UNKNOWN)


def named(types: Iterable[str]) -> tuple[BackendType, ...]:
    """The traits of each, in order."""
    return tuple(type_of(name) for name in types)
