"""The table of the types of backends, one entry each. A new type is one entry here, its form and its module."""

from __future__ import annotations

from collections.abc import Mapping

from schemas.backend_type import MINUTE, BackendType

_FORMS = "schemas.documents.backends"


def _table(*types: BackendType) -> Mapping[str, BackendType]:
    return {one.name: one for one in types}


LOCAL = BackendType(
    name="local",
    module="backends.local.backend",
    form=f"{_FORMS}.local:LocalForm",
    kind="machine",
    scope="host",
    launch="name",
    batch=1000,
    gang="single",
    boot="key",
    power_off="ends",
)
"""This machine: what a project uses that declares no backend."""

SSH = BackendType(
    name="ssh",
    module="backends.ssh.backend",
    kind="server",
    scope="host",
    launch="name",
    offers="live",
    power_off="ends",
)
"""The servers that pools declare under `ssh`. They stand in no `backends`, so that there is no form."""

FAKES = (
    BackendType(name="fake", launch="token", batch=50, gang="native", power_off="ends", self_termination="lease"),
    BackendType(name="fake-account", launch="name", scope="account", batch=50, gang="native", power_off="ends"),
    BackendType(name="fake-once", launch="once", batch=1, gang="single", own_deadline=True, self_termination="cap"),
    BackendType(name="fake-single", launch="name", batch=1, gang="single", scope="account"),
    BackendType(name="fake-paced", launch="token", batch=50, gang="native", launch_interval=12, power_off="ends"),
    BackendType(
        name="fake-container",
        launch="name",
        batch=50,
        gang="none",
        boot="container",
        containers="image-is-machine",
        base_image="ubuntu:24.04",
    ),
    BackendType(name="fake-processes", launch="once", batch=1, containers="none"),
)
"""The shapes of `backends.fake`, one for each trait that a real type may have. No configuration can name them."""

TYPES: Mapping[str, BackendType] = _table(
    LOCAL,
    SSH,
    BackendType(
        name="aws",
        module="backends.aws.backend",
        form=f"{_FORMS}.aws:AwsForm",
        extra="aws",
        offers="catalog",
        launch="token",
        batch=100,
        power_off="ends",
        self_termination="lease",
        boot="cloud-init",
        gang="native",
        access=("instance-connect", "ssm"),
        parameters=("ssm",),
        buckets=("s3",),
        # Bare metal goes through a server's own start; the largest types check their GPUs and their network first.
        slow=(("*.metal*", 40 * MINUTE), ("p[4-9]*", 30 * MINUTE), ("trn*", 30 * MINUTE)),
    ),
    BackendType(name="gcp", form=f"{_FORMS}.gcp:GcpForm", scope="account", buckets=("gs",)),
    BackendType(
        name="azure",
        module="backends.azure.backend",
        form=f"{_FORMS}.azure:AzureForm",
        extra="azure",
        scope="account",
        offers="catalog",
        launch="name",
        batch=8,
        boot="cloud-init",
        user_data_limit=65535,
        buckets=("az",),
        ready_within=15 * MINUTE,
        slow=(("Standard_N[CD]*", 30 * MINUTE),),
    ),
    BackendType(
        name="kubernetes",
        form=f"{_FORMS}.kubernetes:KubernetesForm",
        kind="cluster",
        scope="account",
        ready_within=20 * MINUTE,
    ),
    BackendType(name="oci", form=f"{_FORMS}.others:OciForm"),
    BackendType(name="lambda", form=f"{_FORMS}.lambda_cloud:LambdaForm", scope="account", ready_within=30 * MINUTE),
    BackendType(name="runpod", form=f"{_FORMS}.runpod:RunpodForm", scope="account", ready_within=20 * MINUTE),
    BackendType(name="vastai", form=f"{_FORMS}.vastai:VastaiForm", scope="account"),
    BackendType(name="tensordock", form=f"{_FORMS}.tensordock:TensordockForm", scope="account"),
    BackendType(name="cudo", form=f"{_FORMS}.others:CudoForm"),
    BackendType(name="datacrunch", form=f"{_FORMS}.others:DatacrunchForm"),
    BackendType(name="nebius", form=f"{_FORMS}.others:NebiusForm"),
    BackendType(name="vultr", form=f"{_FORMS}.others:VultrForm"),
    *FAKES,
)

UNKNOWN = BackendType(name="")
"""Of a type that this version does not know, for instance in a state that a newer one wrote: a cloud, unavailable."""


def type_of(name: str) -> BackendType:
    """The traits of the type with this name; those of an unavailable cloud where it is not known."""
    return TYPES.get(name, UNKNOWN)
