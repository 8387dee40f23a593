"""The table of the types of backends, one entry each. A new type is one entry here, its form and its module."""

from __future__ import annotations

from collections.abc import Mapping

from schemas.backend_type import MINUTE, BackendType

_FORMS = "schemas.documents.backends"


# The key of this one contract, which may only start, stop or destroy it. Only the first process's environment has it.
_VAST_END = """\
id=${CONTAINER_ID#C.}
url=${DSTACK_VAST_API:-https://console.vast.ai}/api/v0/instances/$id/
with_curl() {
    command -v curl > /dev/null || return 1
    printf 'header = "Authorization: Bearer %s"\\n' "$CONTAINER_API_KEY" | curl -fsS -m 30 -X DELETE -K - "$url"
}
with_python() {
    command -v python3 > /dev/null || return 1
    python3 -c 'import os, sys, urllib.request as web
key = "Bearer " + os.environ["CONTAINER_API_KEY"]
web.urlopen(web.Request(sys.argv[1], method="DELETE", headers={"Authorization": key}), timeout=30)' "$url"
}
install_curl() {
    if command -v apt-get; then apt-get update && apt-get install -y --no-install-recommends ca-certificates curl
    elif command -v apk; then apk add --no-cache ca-certificates curl
    else return 1; fi > /dev/null 2>&1
}
if [ -n "$id" ] && [ -n "$CONTAINER_API_KEY" ]; then
    with_curl || with_python || { install_curl && with_curl; } && exit 0
fi
[ "$1" -le 3 ] || kill -TERM 1 # its GPUs are given back at least; the next apply destroys what is left
exit 1
"""

# The pod's own key is in the environment of its first process alone. Whether it may do this no document says.
_RUNPOD_END = """\
[ -n "$RUNPOD_POD_ID" ] && [ -n "$RUNPOD_API_KEY" ] || exit 1
url=https://api.runpod.io/v2/pods/$RUNPOD_POD_ID
if command -v curl > /dev/null; then
    printf 'header = "Authorization: Bearer %s"\\n' "$RUNPOD_API_KEY" | curl -fsS -m 30 -X DELETE -K - "$url"
else
    python3 -c 'import os, sys, urllib.request as web
key = "Bearer " + os.environ["RUNPOD_API_KEY"]
web.urlopen(web.Request(sys.argv[1], method="DELETE", headers={"Authorization": key}), timeout=30)' "$url"
fi
"""


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
        module="backends.kubernetes.backend",
        form=f"{_FORMS}.kubernetes:KubernetesForm",
        extra="kubernetes",
        kind="cluster",
        launch="name",
        batch=16,
        power_off="ends",
        self_termination="lease",
        boot="container",
        user_data_limit=96 * 1024,
        containers="image-is-machine",
        base_image="ubuntu:24.04",
        gang="single",
        access=("exec",),
        ready_within=20 * MINUTE,
    ),
    BackendType(name="oci", form=f"{_FORMS}.others:OciForm"),
    BackendType(
        name="lambda",
        module="backends.lambda_cloud.backend",
        form=f"{_FORMS}.lambda_cloud:LambdaForm",
        extra="lambda",
        scope="account",
        launch="once",
        launch_interval=12,
        boot="cloud-init",
        user_data_limit=1024 * 1024,
        # A machine that is powered off bills on and can no longer be reached: its timer does nothing.
        power_off_program="exit 0\n",
        ready_within=30 * MINUTE,
    ),
    BackendType(
        name="runpod",
        module="backends.runpod.backend",
        form=f"{_FORMS}.runpod:RunpodForm",
        extra="runpod",
        scope="account",
        launch="once",
        boot="container",
        user_data_limit=64 * 1024,
        power_off_program=_RUNPOD_END,
        containers="image-is-machine",
        base_image="runpod/pytorch:1.0.2-cu1281-torch280-ubuntu2404",
        gang="none",
        ready_within=20 * MINUTE,
    ),
    BackendType(
        name="vastai",
        module="backends.vastai.backend",
        form=f"{_FORMS}.vastai:VastaiForm",
        extra="vastai",
        scope="account",
        launch="once",
        launch_interval=6,
        self_termination="lease",
        boot="container",
        user_data_limit=64 * 1024,
        power_off_program=_VAST_END,
        containers="image-is-machine",
        base_image="nvidia/cuda:12.8.1-base-ubuntu24.04",
        gang="none",
        ready_within=20 * MINUTE,
    ),
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
