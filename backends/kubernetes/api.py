"""The HTTP interface of one cluster, and which namespace it is."""

from __future__ import annotations

from backends.errors import BackendError, TryLater
from backends.http import Api
from backends.http_answers import segment
from backends.kubernetes.answers import DIALECT
from backends.kubernetes.kubeconfig import Cluster
from schemas.endpoint import leads_here

PATIENCE = 30.0
"""Seconds for one call."""


def api_of(cluster: Cluster) -> Api:
    """Raises `BackendError` where credentials would travel unencrypted."""
    if not cluster.server.startswith("https://") and not leads_here(cluster.server):
        raise BackendError(f"context {cluster.name}: {cluster.server or 'no server'} is no https address")
    return Api(cluster.server, headers=cluster.headers, dialect=DIALECT, tls=cluster.tls)


def identity_of(api: Api, cluster: Cluster) -> str:
    """The namespace's name and uid: one that is made anew is another place."""
    path = f"/api/v1/namespaces/{segment(cluster.namespace)}"
    uid = (api.read(path, deadline=api.deadline(PATIENCE)).json.get("metadata") or {}).get("uid")
    if not isinstance(uid, str) or not uid:
        raise TryLater(f"context {cluster.name}: the API server did not tell the namespace's uid")
    return f"{cluster.namespace}/{uid}"
