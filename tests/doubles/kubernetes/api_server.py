"""An API server with a memory and a scheduler, on loopback. It answers in the words that a real one was recorded with.

Each Pod that it is asked for must satisfy Kubernetes' own schema, without a field that this does not know.
"""

from __future__ import annotations

import copy
import json
import threading
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import kubernetes_validate

from backends.kubernetes.nodes import facts_of

RECORDED: dict[str, Any] = json.loads(Path(__file__).with_name("answers.json").read_text())
TOKEN = "kubernetes-token-0123456789"
NAMESPACE = "pools"
PAGE = 2
SCHEMA = "1.33"


def node(name: str, *, gpus: int = 1) -> dict[str, Any]:
    """The recorded node, under another name and with that many GPUs."""
    made = copy.deepcopy(RECORDED["nodes"]["body"]["items"][0])
    made["metadata"]["name"] = name
    made["status"]["allocatable"]["nvidia.com/gpu"] = str(gpus)
    return dict(made)


class Refusal(Exception):
    """A recorded answer other than success, about `name`."""

    def __init__(self, key: str, *, name: str = "", message: str = "") -> None:
        recorded = copy.deepcopy(RECORDED[key])
        self.status, self.body = recorded["status"], recorded["body"]
        if name:
            self.body["message"] = f'pods "{name}" {self.body["message"].partition(chr(34) + " ")[2]}'
        if message:
            self.body["message"] = message


@dataclass
class ApiServer:
    """One cluster. `lost`: how many creations lose their answer; `quota`: how many pods, `None` without one."""

    nodes: list[dict[str, Any]] = field(default_factory=lambda: [node(f"n{number}") for number in range(3)])
    pods: dict[str, dict[str, Any]] = field(default_factory=dict)
    uid: str = field(default_factory=lambda: str(uuid.uuid4()))
    lost: int = 0
    quota: int | None = None
    sees_all: bool = True
    denied: set[str] = field(default_factory=set)
    requests: list[tuple[str, str]] = field(default_factory=list)
    created: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)

    def answer(self, method: str, path: str, query: dict[str, list[str]], body: Any) -> tuple[int, Any]:
        match method, *path.strip("/").split("/"):
            case "GET", "api", "v1", "nodes":
                return 200, self.page(self.nodes, query)
            case "GET", "api", "v1", "pods":
                if not self.sees_all:
                    raise Refusal("forbidden")
                return 200, self.page(list(self.pods.values()), query)
            case "GET", "api", "v1", "namespaces", name if name == NAMESPACE:
                return 200, {"kind": "Namespace", "apiVersion": "v1", "metadata": {"name": name, "uid": self.uid}}
            case "GET", "api", "v1", "namespaces", name, "pods" if name == NAMESPACE:
                key, _, value = query["labelSelector"][0].partition("=")
                chosen = [pod for pod in self.pods.values() if pod["metadata"]["labels"].get(key) == value]
                return 200, self.page(chosen, query)
            case "POST", "api", "v1", "namespaces", name, "pods" if name == NAMESPACE:
                return 201, self.create(body)
            case "GET", "api", "v1", "namespaces", name, "pods", pod if name == NAMESPACE:
                return 200, self.pod(unquote(pod))
            case "DELETE", "api", "v1", "namespaces", name, "pods", pod if name == NAMESPACE:
                return 200, self.delete(unquote(pod), body)
            case "POST", "apis", "authorization.k8s.io", "v1", "selfsubjectaccessreviews":
                kubernetes_validate.validate(body, SCHEMA, strict=True)
                asked = body["spec"]["resourceAttributes"]
                allowed = f"{asked['verb']} {asked['resource']}" not in self.denied
                return 201, {**body, "status": {"allowed": allowed, "reason": "" if allowed else "no rule allows it"}}
        raise Refusal("not_found", message=f"the server could not find {path}")

    def page(self, items: list[dict[str, Any]], query: dict[str, list[str]]) -> Any:
        begin = int(query.get("continue", ["0"])[0])
        more = str(begin + PAGE) if begin + PAGE < len(items) else ""
        return {
            "kind": "List",
            "apiVersion": "v1",
            "metadata": {"continue": more},
            "items": items[begin : begin + PAGE],
        }

    def pod(self, name: str) -> dict[str, Any]:
        if name not in self.pods:
            raise Refusal("not_found", name=name)
        return self.pods[name]

    def create(self, body: dict[str, Any]) -> dict[str, Any]:
        kubernetes_validate.validate(body, SCHEMA, strict=True)
        name = body["metadata"]["name"]
        if self.quota is not None and len(self.pods) >= self.quota:
            raise Refusal("quota", name=name)
        if name in self.pods:
            raise Refusal("already_exists", name=name)
        made = copy.deepcopy(body)
        recorded = RECORDED["pod_bound"]["body"]["metadata"]
        made["metadata"] |= {
            "namespace": NAMESPACE,
            "uid": str(uuid.uuid4()),
            "creationTimestamp": recorded["creationTimestamp"],
        }
        made["status"] = {"phase": "Pending"}
        self.pods[name] = made
        self.created += 1
        answer = copy.deepcopy(made)
        self.schedule(made)
        return answer

    def schedule(self, pod: dict[str, Any]) -> None:
        """On the first node that has the GPUs; else what the scheduler was recorded to say."""
        wanted = int(pod["spec"]["containers"][0]["resources"]["requests"].get("nvidia.com/gpu", 0))
        for one in facts_of(self.nodes, self.pods.values(), pod["spec"]["tolerations"]):
            if one.free is not None and one.free[3] >= wanted:
                pod["spec"]["nodeName"] = one.name
                pod["status"] = {"phase": "Running", "podIP": f"10.1.0.{self.created}"}
                return
        pod["status"] = copy.deepcopy(RECORDED["pod_unschedulable"]["body"]["status"])

    def delete(self, name: str, body: Any) -> dict[str, Any]:
        pod = self.pod(name)
        if body["preconditions"]["uid"] != pod["metadata"]["uid"]:
            refusal = Refusal("already_exists", message="the UID in the precondition does not match")
            refusal.body["reason"] = "Conflict"
            raise refusal
        if pod["status"]["phase"] == "Running":
            pod["metadata"]["deletionTimestamp"] = "2026-11-30T23:02:06Z"
            return pod
        return self.pods.pop(name)

    def settle(self) -> None:
        """The kubelets' part: what is on its way out goes."""
        with self.lock:
            for name in [name for name, pod in self.pods.items() if "deletionTimestamp" in pod["metadata"]]:
                del self.pods[name]


def kubeconfig(server: str) -> str:
    """A file that names that server in a context `c1`, and another context as the current one."""
    return json.dumps(
        {
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "elsewhere",
            "contexts": [{"name": "c1", "context": {"cluster": "one", "user": "me", "namespace": NAMESPACE}}],
            "clusters": [{"name": "one", "cluster": {"server": server}}],
            "users": [{"name": "me", "user": {"token": TOKEN}}],
        }
    )


@contextmanager
def served(cluster: ApiServer) -> Iterator[str]:
    """The address of a server for `cluster`, until the block ends."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def handled(self) -> None:
            length = int(self.headers.get("Content-Length", 0))
            body = json.loads(self.rfile.read(length)) if length else None
            where = urlsplit(self.path)
            with cluster.lock:
                cluster.requests.append((self.command, where.path))
                try:
                    if self.headers.get("Authorization") != f"Bearer {TOKEN}":
                        raise Refusal("unauthorized")
                    status, said = cluster.answer(self.command, where.path, parse_qs(where.query), body)
                except Refusal as refusal:
                    status, said = refusal.status, refusal.body
                except kubernetes_validate.ValidationError as wrong:
                    refused = Refusal("invalid_name", message=f"{wrong}")
                    status, said = refused.status, refused.body
                text = json.dumps(said).encode()
                lost = cluster.lost and self.command == "POST" and where.path.endswith("/pods") and status == 201
                if lost:
                    cluster.lost -= 1
            if lost:
                self.close_connection = True
                return
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text)

        do_GET: Callable[..., None] = handled
        do_POST: Callable[..., None] = handled
        do_DELETE: Callable[..., None] = handled

        def log_message(self, format: str, *args: object) -> None:
            """Print nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
