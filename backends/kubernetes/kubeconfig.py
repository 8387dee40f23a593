"""Read one context of a kubeconfig, or what a pod finds of its own cluster: address, namespace, credentials, TLS.

The `current-context` is never followed: another terminal may change it.
"""

from __future__ import annotations

import base64
import binascii
import os
import ssl
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from backends.credentials import referenced
from backends.errors import BackendError, LackingHere
from backends.kubernetes.exec_plugin import ExecPlugin
from schemas.desired import BackendConfig

IN_CLUSTER = "in-cluster"
"""The region of a backend without a kubeconfig: the cluster that dstack itself runs in."""
ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")


@dataclass(frozen=True, kw_only=True)
class Cluster:
    """How one API server is spoken to. `folder` is what relative paths in the user's entry start from."""

    name: str
    server: str
    namespace: str
    cluster: Mapping[str, Any] = field(default_factory=dict, repr=False)
    user: Mapping[str, Any] = field(default_factory=dict, repr=False)
    folder: Path = Path()
    plugin: ExecPlugin | None = None

    def headers(self) -> Mapping[str, str]:
        """The credentials of one request. Raises `LackingHere` where this machine does not have them."""
        token = str(self.user.get("token") or "")
        if not token and self.user.get("tokenFile"):
            token = _read(self.folder / str(self.user["tokenFile"])).decode().strip()
        if not token and self.plugin:
            token = str(self.plugin.credential().get("token") or "")
        return {"Authorization": f"Bearer {token}"} if token else {}

    def tls(self) -> Mapping[str, Any]:
        """What urllib3's pool is made with."""
        if self.server.startswith("http://"):
            return {}
        context = ssl.create_default_context()
        authority = _data(self.cluster, "certificate-authority", self.folder)
        if authority:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
            context.load_verify_locations(cadata=authority.decode())
        if self.cluster.get("insecure-skip-tls-verify") is True:
            context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        own = self.plugin.credential() if self.plugin else {}
        certificate = _data(self.user, "client-certificate", self.folder) or _text(own, "clientCertificateData")
        key = _data(self.user, "client-key", self.folder) or _text(own, "clientKeyData")
        if certificate and key:
            _load_pair(context, certificate, key)
        made: dict[str, Any] = {"ssl_context": context, "cert_reqs": context.verify_mode}
        if named := self.cluster.get("tls-server-name"):
            made |= {"server_hostname": str(named), "assert_hostname": str(named)}
        return made


def cluster_of(config: BackendConfig, region: str, *, environ: Mapping[str, str] = os.environ) -> Cluster:
    """The cluster that `region` names: a context, or `in-cluster`. Raises `BackendError` for what it cannot read."""
    if region in ("", IN_CLUSTER) and not contexts_of(config):
        return _own_cluster(config, environ)
    folder, value = _kubeconfig(config, environ)
    known = [str(one.get("name")) for one in _entries(value, "contexts")]
    if region not in known:
        raise BackendError(
            f"{config.name}: the kubeconfig has no context {region!r}; it has {', '.join(known) or 'none'}. "
            "Name one of them in `contexts`."
        )
    context = _named(value, "contexts", region).get("context") or {}
    cluster = _named(value, "clusters", str(context.get("cluster"))).get("cluster") or {}
    user = _named(value, "users", str(context.get("user"))).get("user") or {}
    if cluster.get("proxy-url"):
        raise BackendError(f"{config.name}: context {region} has a proxy-url; set HTTPS_PROXY instead")
    if "auth-provider" in user:
        raise BackendError(f"{config.name}: context {region} uses an auth-provider; use its exec plugin instead")
    return Cluster(
        name=region,
        server=str(config.endpoint or cluster.get("server") or ""),
        namespace=str(config.options.get("namespace") or context.get("namespace") or "default"),
        cluster=cluster,
        user=user,
        folder=folder,
        plugin=ExecPlugin(user["exec"], folder=folder) if isinstance(user.get("exec"), dict) else None,
    )


def contexts_of(config: BackendConfig) -> Sequence[str]:
    """The contexts that the configuration names."""
    named = config.options.get("contexts") or ()
    one = config.options.get("context")
    return tuple(dict.fromkeys([*map(str, named), *([str(one)] if one else [])]))


def regions(config: BackendConfig, *, environ: Mapping[str, str] = os.environ) -> Sequence[str]:
    """A region for each named context; `in-cluster` where none is named and dstack runs in a pod."""
    if config.regions or contexts_of(config):
        return config.regions or contexts_of(config)
    if environ.get("KUBERNETES_SERVICE_HOST"):
        return (IN_CLUSTER,)
    _, value = _kubeconfig(config, environ)
    known = ", ".join(str(one.get("name")) for one in _entries(value, "contexts")) or "none"
    raise BackendError(f"{config.name}: name its clusters: `contexts: [NAME]`. The kubeconfig has {known}.")


def _own_cluster(config: BackendConfig, environ: Mapping[str, str]) -> Cluster:
    host, port = environ.get("KUBERNETES_SERVICE_HOST", ""), environ.get("KUBERNETES_SERVICE_PORT", "443")
    if not host:
        raise LackingHere(f"{config.name}: this is no pod of a cluster. Name a context: `contexts: [NAME]`.")
    return Cluster(
        name=IN_CLUSTER,
        server=f"https://[{host}]:{port}" if ":" in host else f"https://{host}:{port}",
        namespace=str(config.options.get("namespace") or _read(ACCOUNT / "namespace").decode().strip()),
        cluster={"certificate-authority": str(ACCOUNT / "ca.crt")},
        user={"tokenFile": str(ACCOUNT / "token")},  # read for each request: the cluster renews it
    )


def kubeconfig_path(config: BackendConfig, environ: Mapping[str, str]) -> Path | None:
    """The file that is read, `None` where the configuration gives its text."""
    given = config.options.get("kubeconfig")
    if isinstance(given, dict):
        if given.get("data"):
            return None
        given = given.get("filename")
    if not given:
        given = (environ.get("KUBECONFIG") or "").split(os.pathsep)[0] or "~/.kube/config"
    return Path(str(given)).expanduser()


def _kubeconfig(config: BackendConfig, environ: Mapping[str, str]) -> tuple[Path, Mapping[str, Any]]:
    import yaml

    path = kubeconfig_path(config, environ)
    data = (config.options.get("kubeconfig") or {})["data"] if path is None else ""
    text = _read(path).decode("utf-8", "replace") if path else referenced("data", str(data), environ)
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError:
        value = None
    if not isinstance(value, dict):
        raise BackendError(f"{config.name}: {path or 'kubeconfig.data'} is no kubeconfig")
    return (path.parent if path else Path()), value


def _entries(value: Mapping[str, Any], kind: str) -> list[Mapping[str, Any]]:
    found = value.get(kind)
    return [one for one in found if isinstance(one, dict)] if isinstance(found, list) else []


def _named(value: Mapping[str, Any], kind: str, name: str) -> Mapping[str, Any]:
    found = next((one for one in _entries(value, kind) if str(one.get("name")) == name), None)
    if found is None:
        raise BackendError(f"the kubeconfig has no entry {name!r} in its {kind}")
    return found


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise LackingHere(f"{path} cannot be read: {error.strerror}") from None


def _data(entry: Mapping[str, Any], key: str, folder: Path) -> bytes:
    """What `KEY-data` holds, or the file that `KEY` names; nothing where there is neither."""
    if inline := entry.get(f"{key}-data"):
        try:
            return base64.b64decode(str(inline), validate=True)
        except binascii.Error:
            raise BackendError(f"the kubeconfig's {key}-data is not base64") from None
    return _read(folder / str(entry[key])) if entry.get(key) else b""


def _text(entry: Mapping[str, Any], key: str) -> bytes:
    return str(entry.get(key) or "").encode()


def _load_pair(context: ssl.SSLContext, certificate: bytes, key: bytes) -> None:
    """Python reads a client's certificate from files alone: one that only we may read, for a moment."""
    with tempfile.NamedTemporaryFile(prefix="dstack-") as file:
        file.write(certificate.strip() + b"\n" + key.strip() + b"\n")
        file.flush()
        try:
            context.load_cert_chain(file.name)
        except ssl.SSLError as error:
            raise BackendError(f"the client certificate of the kubeconfig does not fit its key: {error}") from None
