"""RunPod's server: a small double with a memory, whose answers have the shapes of RunPod's document of REST v2."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from tests.doubles.gpu_clouds.served import Fault, Refusal

KEY = "runpod-key-0123456789abcdef"
DOCUMENT = "runpod-rest-v2.openapi.json"
SMALL = {
    "id": "NVIDIA GeForce RTX 4090", "name": "RTX 4090", "pool": "ADA_24", "manufacturer": "NVIDIA", "memory": 24,
    "secure": True, "community": True, "price": {"secure": 0.44, "community": 0.31},
    "maxCount": {"secure": 8, "community": 4},
}  # fmt: skip
LARGE = {
    "id": "NVIDIA H100 80GB HBM3", "name": "H100 SXM", "pool": None, "manufacturer": "NVIDIA", "memory": 80,
    "secure": True, "community": False, "price": {"secure": 2.69, "community": 0},
    "maxCount": {"secure": 8, "community": 0},
}  # fmt: skip
DATA_CENTER = {
    "name": "Somewhere", "region": "NORTH_AMERICA", "globalNetwork": True, "networkVolumeTypes": ["STANDARD"],
    "compliance": [],
}  # fmt: skip
GPUS: Sequence[dict[str, Any]] = (SMALL, LARGE)


def problem(status: int, detail: str, *, headers: dict[str, str] | None = None) -> Refusal:
    return Refusal(status, {"title": "Problem", "status": status, "detail": detail}, headers=headers)


NONE_NOW = "There are no longer any instances available with the requested specifications."


@dataclass
class Runpod:
    """An account. `room`: how many GPUs of an id are there. `hidden`: names that listings lack as yet."""

    key: str = KEY
    account: str = "user_1"
    room: dict[str, int] = field(default_factory=lambda: {SMALL["id"]: 3})
    balance: bool = True
    pods: dict[str, dict[str, Any]] = field(default_factory=dict)
    hidden: set[str] = field(default_factory=set)
    twins: int = 0
    restricted: bool = False
    requests: list[tuple[str, str, Any]] = field(default_factory=list)
    faults: list[Fault] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def unknown_key(self) -> Refusal:
        return problem(401, "invalid API key")

    def sent(self, method: str, path: str) -> list[Any]:
        return [body for one, at, body in self.requests if at.startswith(path) and one == method]

    def living(self) -> list[dict[str, Any]]:
        return [one for one in self.pods.values() if one["status"] != "TERMINATED"]

    def answer(self, method: str, path: str, query: str, body: Any) -> tuple[int, Any]:
        match method, *path.strip("/").split("/"):
            case "POST", "graphql":
                return 200, self.graphql(body["query"])
            case "GET", "v2", "catalog", "gpus":
                return 200, {"gpus": [self.stocked(one) for one in GPUS]}
            case "GET", "v2", "catalog", "datacenters":
                return 200, {"dataCenters": [{**DATA_CENTER, "id": one} for one in ("US-KS-2", "EU-RO-1")]}
            case "GET", "v2", "pods":
                return 200, {"pods": [one for one in self.living() if one["name"] not in self.hidden]}
            case "GET", "v2", "pods", id:
                return 200, self.pod(id)
            case "POST", "v2", "pods":
                return 201, self.create(body)
            case "DELETE", "v2", "pods", id:
                if self.pod(id).get("cluster"):
                    raise problem(409, "the pod belongs to a cluster")
                self.pods[id]["status"] = "TERMINATED"
                return 204, None
        raise problem(404, f"{method} {path}")

    def graphql(self, query: str) -> dict[str, Any]:
        if self.restricted:
            return {"errors": [{"message": "Something went wrong: not authorized"}]}
        if "myself" in query:
            return {"data": {"myself": {"id": self.account}}}
        lowest = {"minVcpu": 16, "minMemory": 62}
        return {"data": {"gpuTypes": [{"id": SMALL["id"], "lowestPrice": lowest}, {"id": LARGE["id"]}]}}

    def free(self, gpu: str) -> int:
        return self.room.get(gpu, 0) - sum(
            one["gpu"]["count"] for one in self.living() if one["gpu"]["id"] == gpu and one["status"] != "EXITED"
        )

    def stocked(self, kind: dict[str, Any]) -> dict[str, Any]:
        level = "HIGH" if self.free(kind["id"]) > 0 else "NONE"
        return {**kind, "availability": level, "dataCenters": [
            {"id": "US-KS-2", "name": "US Kansas 2", "availability": level},
            {"id": "EU-RO-1", "name": "EU Romania 1", "availability": "NONE"},
        ]}  # fmt: skip

    def pod(self, id: str) -> dict[str, Any]:
        if id not in self.pods or self.pods[id]["status"] == "TERMINATED":
            raise problem(404, "pod not found")
        return self.pods[id]

    def create(self, body: dict[str, Any]) -> dict[str, Any]:
        """A pod for every request: there is no token, and names need not be unique."""
        if not self.balance:
            raise problem(402, "your balance is too low to run a pod")
        if not any(one["id"] == body["gpu"]["id"] for one in GPUS):
            raise problem(404, "no such GPU")
        if self.free(body["gpu"]["id"]) < body["gpu"].get("count", 1) or body["dataCenterIds"] != ["US-KS-2"]:
            raise problem(400, NONE_NOW)
        if self.twins:
            self.twins -= 1
            self.born(body)
        return self.born(body)

    def born(self, body: dict[str, Any]) -> dict[str, Any]:
        id = f"pod{len(self.pods)}"
        port = 30000 + len(self.pods)
        self.pods[id] = {
            "id": id, "name": body["name"], "image": body["image"], "args": body.get("args", ""),
            "disk": body.get("disk", 50), "ports": body.get("ports", []), "env": body.get("env", {}),
            "registry": None, "status": "RUNNING", "actions": [], "mounts": {}, "gpu": body["gpu"],
            "cloud": body.get("cloud", "SECURE"), "dataCenterId": "US-KS-2", "cudaVersion": "12.8",
            "ssh": {"proxy": None, "direct": None}, "template": None, "cost": 0.44, "locked": False,
            "globalNetworking": {"enabled": False}, "createdAt": "2026-06-01T12:00:00Z", "startedAt": None,
            "runtime": {"uptime": 1, "ports": [{"private": 22, "public": port, "type": "tcp", "ip": "127.0.0.1"}]},
        }  # fmt: skip
        return self.pods[id]
