"""Which rights a project needs in a cluster, how they are asked for, and the program that leads to a pod."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from backends.base import Setting
from backends.checks import BackendCheck
from backends.errors import BackendError
from backends.kubernetes.api import PATIENCE, api_of, identity_of
from backends.kubernetes.kubeconfig import cluster_of
from backends.scope import Kind, PolicyScope
from schemas.access import Access, Way
from schemas.desired import BackendConfig
from schemas.instance import Instance
from schemas.location import Bucket

PLAN = (("pods", "", ("get", "list")), ("namespaces", "", ("get",)))
APPLY = (("pods", "", ("create", "delete")), ("pods", "exec", ("create", "get")))
CLUSTER = (("nodes", "", ("list",)), ("pods", "", ("list",)))
"""Offers come from nodes; how many are free, from the pods of every namespace."""
KUBECTL = ("kubectl", "install kubectl")


def access(way: Way, instance: Instance) -> Access:
    """`connect: exec`: an SSH server for this one connection, begun in the pod by `kubectl exec`."""
    options = [f"--kubeconfig={way.config}"] if way.config else []
    options += [f"--context={instance.region}"] if instance.region != "in-cluster" else []
    options += [f"--namespace={way.namespace}"] if way.namespace else []
    pod = instance.external_id.partition("/")[0]
    server = ("/bin/sh", "-c", 'PATH=$PATH:/usr/sbin; exec "$(command -v sshd)" -i -f /etc/ssh/dstack_sshd_config')
    return Access(argv=("kubectl", *options, "exec", "-i", pod, "-c", "main", "--", *server), needs=(KUBECTL,))


def policy(kind: Kind, config: BackendConfig, scope: PolicyScope) -> Mapping[str, Any]:
    """The Role of the namespace, and the ClusterRole of what lies in none."""
    namespace = str(config.options.get("namespace") or "default")
    rules = [*PLAN, *(APPLY if kind == "apply" else ())]
    role = {"name": f"dstack-{scope.project}-{kind}"}
    group = {"apiVersion": "rbac.authorization.k8s.io/v1"}
    return {
        "apiVersion": "v1",
        "kind": "List",
        "items": [
            {
                **group,
                "kind": "Role",
                "metadata": {**role, "namespace": namespace},
                "rules": [_rule(*one) for one in rules],
            },
            {**group, "kind": "ClusterRole", "metadata": role, "rules": [_rule(*one) for one in CLUSTER]},
        ],
    }


def _rule(resource: str, sub: str, verbs: tuple[str, ...]) -> dict[str, Any]:
    return {"apiGroups": [""], "resources": [f"{resource}/{sub}" if sub else resource], "verbs": list(verbs)}


def probes(
    config: BackendConfig, regions: tuple[str, ...], setting: Setting, *, buckets: tuple[Bucket, ...]
) -> Iterator[BackendCheck]:
    """Each right is asked for by a SelfSubjectAccessReview, which makes nothing."""
    for region in regions:
        yield _identity(config, region)
        for wide, wanted in ((False, (*PLAN, *APPLY)), (True, CLUSTER)):
            for resource, sub, verbs in wanted:
                for verb in verbs:
                    yield _right(config, region, resource=resource, sub=sub, verb=verb, wide=wide)


def _identity(config: BackendConfig, region: str) -> BackendCheck:
    def look() -> str:
        cluster = cluster_of(config, region)
        return identity_of(api_of(cluster), cluster)

    return BackendCheck(name=f"{region} identity", look=look, then="see the message")


def _right(config: BackendConfig, region: str, *, resource: str, sub: str, verb: str, wide: bool) -> BackendCheck:
    def look() -> str:
        cluster = cluster_of(config, region)
        api = api_of(cluster)
        asked = {"resource": resource, "subresource": sub, "verb": verb, "namespace": "" if wide else cluster.namespace}
        asked |= {"name": cluster.namespace} if resource == "namespaces" else {}
        body = {
            "apiVersion": "authorization.k8s.io/v1",
            "kind": "SelfSubjectAccessReview",
            "spec": {"resourceAttributes": {key: value for key, value in asked.items() if value}},
        }
        path = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews"
        status = api.write("POST", path, body, deadline=api.deadline(PATIENCE)).json.get("status") or {}
        if status.get("allowed") is not True:
            raise BackendError(f"not allowed{': ' if status.get('reason') else ''}{status.get('reason') or ''}")
        return "allowed"

    what = f"{resource}/{sub}" if sub else resource
    everywhere = " in all namespaces" if wide and resource == "pods" else ""
    return BackendCheck(
        name=f"{region} {verb} {what}{everywhere}", look=look, then="`dstack backend policy` prints the roles"
    )
