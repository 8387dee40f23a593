"""Lambda Cloud's server: a small double with a memory, whose answers have the shapes of Lambda's document 1.10.0."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from tests.doubles.gpu_clouds.served import Fault, Refusal

KEY = "lambda-key-0123456789abcdef"
DOCUMENT = "lambda-1.10.0.openapi.json"
REGIONS = {"us-west-1": "California, USA", "us-south-1": "Texas, USA"}
ACTIONS = {name: {"available": True} for name in ("migrate", "rebuild", "restart", "cold_reboot", "terminate")}
SMALL = {
    "name": "gpu_1x_a10", "description": "1x A10 (24 GB PCIe)", "gpu_description": "A10 (24 GB PCIe)",
    "price_cents_per_hour": 75, "specs": {"vcpus": 30, "memory_gib": 200, "storage_gib": 1400, "gpus": 1},
}  # fmt: skip
LARGE = {
    "name": "gpu_8x_h100_sxm5", "description": "8x H100 (80 GB SXM5)", "gpu_description": "H100 (80 GB SXM5)",
    "price_cents_per_hour": 2392, "specs": {"vcpus": 208, "memory_gib": 1800, "storage_gib": 22528, "gpus": 8},
}  # fmt: skip
ARM = {
    "name": "gpu_1x_gh200", "description": "1x GH200 (96 GB)", "gpu_description": "GH200 (96 GB)",
    "price_cents_per_hour": 149, "specs": {"vcpus": 64, "memory_gib": 432, "storage_gib": 4096, "gpus": 1},
}  # fmt: skip
CPU = {
    "name": "cpu_4x_general", "description": "4x CPU General (16 GiB)", "gpu_description": "N/A",
    "price_cents_per_hour": 8, "specs": {"vcpus": 4, "memory_gib": 16, "storage_gib": 512, "gpus": 0},
}  # fmt: skip
TYPES: Sequence[dict[str, Any]] = (SMALL, LARGE, ARM, CPU)


def error(status: int, code: str, message: str) -> Refusal:
    return Refusal(status, {"error": {"code": code, "message": message, "suggestion": "Look at it."}})


def region(name: str) -> dict[str, str]:
    return {"name": name, "description": REGIONS[name]}


@dataclass
class Lambda:
    """An account. `room`: how many machines of a type may live. `hidden`: marks that listings lack as yet."""

    key: str = KEY
    room: dict[str, int] = field(default_factory=lambda: {"gpu_1x_a10": 3})
    quota: int = 100
    machines: dict[str, dict[str, Any]] = field(default_factory=dict)
    user_data: dict[str, str] = field(default_factory=dict)
    keys: list[dict[str, str]] = field(default_factory=list)
    rulesets: list[dict[str, Any]] = field(default_factory=list)
    hidden: set[str] = field(default_factory=set)
    twins: int = 0
    tagless: bool = False
    requests: list[tuple[str, str, Any]] = field(default_factory=list)
    faults: list[Fault] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def unknown_key(self) -> Refusal:
        return error(401, "global/invalid-api-key", "API key was invalid, expired, or deleted.")

    def sent(self, path: str) -> list[Any]:
        """The bodies of the writes to it."""
        return [body for method, at, body in self.requests if at.endswith(path) and method != "GET"]

    def living(self) -> list[dict[str, Any]]:
        return [one for one in self.machines.values() if one["status"] not in ("terminated", "preempted")]

    def settle(self) -> None:
        for one in [one for one in self.machines.values() if one["status"] == "terminating"]:
            one["status"] = "terminated"

    def answer(self, method: str, path: str, query: str, body: Any) -> tuple[int, Any]:
        match method, *path.removeprefix("/api/v1/").split("/"):
            case "GET", "instance-types":
                return 200, {"data": {one["name"]: self.item(one) for one in TYPES}}
            case "GET", "regions":
                return 200, {"data": [region(one) for one in REGIONS]}
            case "GET", "images":
                return 200, {"data": [image(*one) for one in IMAGES]}
            case "GET", "instances":
                shown = [one for one in self.machines.values() if one["status"] != "terminated"]
                return 200, {"data": [one for one in shown if one["name"] not in self.hidden]}
            case "GET", "instances", id:
                return 200, {"data": self.machine(id)}
            case "GET", "ssh-keys":
                return 200, {"data": self.keys}
            case "POST", "ssh-keys":
                return 200, {"data": self.add_key(body)}
            case "GET", "firewall-rulesets":
                return 200, {"data": self.rulesets}
            case "POST", "firewall-rulesets":
                return 200, {"data": self.add_ruleset(body)}
            case "PATCH", "firewall-rulesets", id:
                ruleset = next(one for one in self.rulesets if one["id"] == id)
                ruleset.update(body)
                return 200, {"data": ruleset}
            case "DELETE", "firewall-rulesets", id:
                self.rulesets = [one for one in self.rulesets if one["id"] != id]
                return 200, {"data": {}}
            case "POST", "instance-operations", "launch":
                return 200, {"data": {"instance_ids": [self.launch(body)]}}
            case "POST", "instance-operations", "terminate":
                return 200, {"data": {"terminated_instances": self.terminate(body["instance_ids"])}}
        raise error(404, "global/object-does-not-exist", f"{method} {path}")

    def free(self, name: str) -> int:
        return self.room.get(name, 0) - sum(one["instance_type"]["name"] == name for one in self.living())

    def item(self, kind: dict[str, Any]) -> dict[str, Any]:
        there = [region("us-west-1")] if self.free(kind["name"]) > 0 else []
        return {"instance_type": kind, "regions_with_capacity_available": there}

    def machine(self, id: str) -> dict[str, Any]:
        if id not in self.machines:
            raise error(404, "global/object-does-not-exist", "Specified instance does not exist.")
        return self.machines[id]

    def add_key(self, body: dict[str, str]) -> dict[str, str]:
        public = body["public_key"].split()[:2]
        if any(body["name"] == one["name"] or public == one["public_key"].split()[:2] for one in self.keys):
            raise error(400, "global/duplicate", "There is one already.")
        self.keys.append({"id": f"key{len(self.keys)}", **body})
        return self.keys[-1]

    def add_ruleset(self, body: dict[str, Any]) -> dict[str, Any]:
        made = {**body, "id": f"rs{len(self.rulesets)}", "region": region(body["region"]), "instance_ids": []}
        self.rulesets.append({**made, "created": f"2026-11-01T00:00:{len(self.rulesets):02}Z"})
        return self.rulesets[-1]

    def launch(self, body: dict[str, Any]) -> str:
        """A machine for every request: there is no token, and names need not be unique."""
        kind = next((one for one in TYPES if one["name"] == body["instance_type_name"]), None)
        if kind is None or not any(body["ssh_key_names"] == [one["name"]] for one in self.keys):
            raise error(404, "global/object-does-not-exist", "No such type or key.")
        if body.get("image", {}).get("id") not in {one[0] for one in IMAGES}:
            raise error(404, "global/object-does-not-exist", "No such image.")
        if len(self.living()) >= self.quota:
            raise error(400, "global/quota-exceeded", "Quota exceeded.")
        if self.free(kind["name"]) <= 0:
            raise error(400, "instance-operations/launch/insufficient-capacity", "Not enough capacity.")
        self.twins, twice = max(0, self.twins - 1), self.twins > 0
        if twice:
            self.born(body, kind)
        return self.born(body, kind)

    def born(self, body: dict[str, Any], kind: dict[str, Any]) -> str:
        id = f"{len(self.machines):032x}"
        self.machines[id] = {
            "id": id, "name": body.get("name", ""), "ip": "127.0.0.1", "private_ip": f"10.0.2.{len(self.machines) + 1}",
            "status": "active", "ssh_key_names": body["ssh_key_names"], "file_system_names": [],
            "region": region(body["region_name"]), "instance_type": kind, "actions": ACTIONS,
            "tags": [] if self.tagless else body.get("tags", []),
            "firewall_rulesets": body.get("firewall_rulesets", []),
        }  # fmt: skip
        self.user_data[id] = body.get("user_data", "")
        return id

    def terminate(self, ids: list[str]) -> list[dict[str, Any]]:
        """One id that is unknown refuses all."""
        found = [self.machine(id) for id in ids]
        if any(one["status"] in ("terminated", "preempted") for one in found):
            raise error(404, "global/object-does-not-exist", "Specified instance does not exist.")
        for one in found:
            one["status"] = "terminating"
        return found


IMAGES = (
    ("img-old", "lambda-stack-24-04", "x86_64", "us-west-1", "2025-01-01T00:00:00Z"),
    ("img-new", "lambda-stack-24-04", "x86_64", "us-west-1", "2026-01-01T00:00:00Z"),
    ("img-arm", "lambda-stack-24-04", "arm64", "us-west-1", "2026-02-01T00:00:00Z"),
    ("img-south", "lambda-stack-24-04", "x86_64", "us-south-1", "2026-03-01T00:00:00Z"),
    ("img-plain", "ubuntu-24-04", "x86_64", "us-west-1", "2026-04-01T00:00:00Z"),
)


def image(id: str, family: str, architecture: str, where: str, created: str) -> dict[str, Any]:
    return {
        "id": id, "created_time": created, "updated_time": created, "name": id, "description": family,
        "family": family, "version": "1", "architecture": architecture, "region": region(where),
    }  # fmt: skip
