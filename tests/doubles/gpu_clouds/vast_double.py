"""Vast.ai's server: a market and one account, with a memory, on loopback.

Listings have pages of 25, by ascending id. An offer is used up by its first contract.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

import yaml

from tests.doubles.gpu_clouds.openapi_judge import Judge, _closed, document
from tests.doubles.gpu_clouds.served import Fault, Refusal

DOCUMENT = "vast.openapi.yaml"
KEY = "vast-key-0123456789abcdef"
ACCOUNT = 4711
PAGE = 25
BORN = 1_800_000_000.5


class VastJudge(Judge):
    """By Vast.ai's document, loosened where every client does otherwise: `env` is an object, paths end in a slash,
    anything that is answered may be null.
    """

    def __init__(self, path: Path) -> None:
        whole = yaml.safe_load(path.read_text("utf-8"))
        body = whole["paths"]["/api/v0/asks/{id}"]["put"]["requestBody"]["content"]["application/json"]["schema"]
        body["properties"]["env"] = {"type": "object", "additionalProperties": {"type": "string"}}
        # Of one instance, the document has environment and ports as lists of texts and numbers; its listing, and every
        # client, as below.
        one = whole["components"]["schemas"]["Instance"]["properties"]
        one["extra_env"], one["ports"] = {"type": "array"}, {"type": "object"}
        whole["components"]["schemas"]["Instance"]["type"] = ["object", "null"]
        self._open = _nullable(json.loads(json.dumps(whole)))
        self._closed = _closed(json.loads(json.dumps(whole)))
        self._base = ""

    def request(self, method: str, path: str, body: Any) -> str:
        return super().request(method, path.rstrip("/"), body)

    def answer(self, method: str, path: str, status: int, body: Any) -> str:
        return super().answer(method, path.rstrip("/"), status, body)


def vast_judge() -> VastJudge | None:
    path = document(DOCUMENT)
    return VastJudge(path) if path else None


def _nullable(node: Any) -> Any:
    if isinstance(node, dict):
        if isinstance(node.get("type"), str):
            node["type"] = [node["type"], "null"]
        for value in node.values():
            _nullable(value)
    elif isinstance(node, list):
        for value in node:
            _nullable(value)
    return node


def an_offer(id: int, **more: Any) -> dict[str, Any]:
    """A row of the market: one RTX 4090 in Germany, at $0.40, $0.25 as a bid."""
    return {
        "id": id, "ask_contract_id": id, "machine_id": 9000 + id, "num_gpus": 1, "gpu_name": "RTX 4090",
        "gpu_ram": 24564, "gpu_arch": "nvidia", "compute_cap": 890, "cuda_max_good": 12.8, "cpu_arch": "amd64",
        "cpu_cores": 64, "cpu_cores_effective": 16.0, "cpu_ram": 257000, "disk_space": 800.0, "dph_base": 0.4,
        "dph_total": 0.43, "min_bid": 0.25, "storage_cost": 0.15, "inet_down": 900.0, "inet_up": 800.0,
        "inet_down_cost": 0.002, "inet_up_cost": 0.003, "direct_port_count": 40, "reliability2": 0.99,
        "reliability": 0.99, "verification": "verified", "rentable": True, "rented": False, "hosting_type": 0,
        "geolocation": "Frankfurt, DE", "duration": 30 * 86400.0, **more,
    }  # fmt: skip


def error(status: int, code: str, message: str, **more: Any) -> Refusal:
    return Refusal(status, {"success": False, "error": code, "msg": message, **more})


@dataclass
class Vast:
    """`moves` is called between two pages. `lag`: contracts that listings do not show yet."""

    key: str = KEY
    account: int = ACCOUNT
    market: list[dict[str, Any]] = field(default_factory=lambda: [an_offer(id) for id in (101, 102, 103)])
    reuse: bool = False
    balance: bool = True
    sticky: bool = False
    """A destroyed contract stays listed."""
    contracts: dict[int, dict[str, Any]] = field(default_factory=dict)
    hidden: set[int] = field(default_factory=set)
    moves: Callable[[], None] | None = None
    too_soon: int = 0
    """How many of the next deletions come too soon."""
    requests: list[tuple[str, str, Any]] = field(default_factory=list)
    queries: list[str] = field(default_factory=list)
    faults: list[Fault] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    lock: Any = field(default_factory=threading.RLock)
    last: int = 5000

    def unknown_key(self) -> Refusal:
        return error(401, "auth_error", "Invalid user key")

    def sent(self, path: str, method: str = "PUT") -> list[Any]:
        return [body for how, where, body in self.requests if how == method and path in where]

    def settle(self) -> None:
        """What was accepted is running."""
        for one in self.contracts.values():
            if one["actual_status"] in (None, "loading") and one["intended_status"] == "running":
                one.update(actual_status="running", cur_state="running", public_ipaddr="203.0.113.9 ")
                one["ports"] = {"22/tcp": [{"HostIp": "203.0.113.9", "HostPort": "40022"}]}

    def answer(self, method: str, path: str, query: str, body: Any) -> tuple[int, Any]:
        match method, *path.strip("/").split("/"):
            case "GET", "api", "v0", "users", "current":
                return 200, {"id": self.account, "balance": 10.0}
            case "POST", "api", "v0", "bundles":
                return 200, {"offers": [one for one in self.market if not self._taken(one["id"])]}
            case "PUT", "api", "v0", "asks", ask:
                return self.rent(int(ask), body)
            case "GET", "api", "v1", "instances":
                self.queries.append(query)
                return 200, self.page(parse_qs(query))
            case "GET", "api", "v0", "instances", id:
                return 200, {"instances": self.contracts.get(int(id))}
            case "DELETE", "api", "v0", "instances", id:
                return self.destroy(int(id))
        raise error(404, "not_found", path)

    def _taken(self, ask: int) -> bool:
        return any(one["ask"] == ask for one in self.contracts.values())

    def rent(self, ask: int, body: Any) -> tuple[int, Any]:
        offer = next((one for one in self.market if one["id"] == ask), None)
        if offer is None or (self._taken(ask) and not self.reuse):
            raise error(404, "invalid_args", f"error 404/3603: no_such_ask Instance type by id {ask} is not available.")
        if not self.balance:
            raise error(400, "insufficient_credit", "Your account lacks credit; see the billing page.")
        price = body.get("price")
        if price is not None and price < offer["min_bid"]:
            if body.get("cancel_unavail"):
                raise error(400, "invalid_price", "error 400: the bid is too low")
            return 200, {"success": False, "new_contract": self.made(offer, body, "stopped")}
        return 200, {"success": True, "new_contract": self.made(offer, body, "running")}

    def made(self, offer: dict[str, Any], body: Any, state: str) -> int:
        self.last += 1
        env = body.get("env") or {}
        self.contracts[self.last] = {
            "id": self.last, "ask": offer["id"], "actual_status": None, "cur_state": state, "next_state": state,
            "intended_status": state, "label": body.get("label"), "image_uuid": body["image"],
            "extra_env": [[key, text] for key, text in env.items()], "status_msg": None, "start_date": BORN,
            "is_bid": body.get("price") is not None, "dph_total": body.get("price") or offer["dph_total"],
            "public_ipaddr": "", "ports": None,
            **{key: offer[key] for key in ("machine_id", "num_gpus", "gpu_name", "geolocation")},
        }  # fmt: skip
        return self.last

    def page(self, query: dict[str, list[str]]) -> Any:
        after = int(query.get("after_token", ["0"])[0])
        size = min(PAGE, int(query.get("limit", ["25"])[0]))
        if after and self.moves is not None:
            self.moves()
        there = sorted(id for id in self.contracts if id not in self.hidden)
        if query.get("order_by") != ['[{"col": "id", "dir": "asc"}]']:
            there = [*there[1:], *there[:1]]
        shown = [id for id in there if id > after][:size]
        more = bool(shown) and shown[-1] < there[-1]
        return {
            "success": True, "instances_found": len(shown), "total_instances": len(there),
            "instances": [self.contracts[id] for id in shown], "next_token": str(shown[-1]) if more else None,
        }  # fmt: skip

    def destroy(self, id: int) -> tuple[int, Any]:
        if self.too_soon:
            self.too_soon -= 1
            raise error(429, "rate_limit_exceeded", "API requests too frequent endpoint threshold=3.0")
        if id not in self.contracts:
            raise error(404, "no_such_instance", "Instance not found")
        if not self.sticky:
            del self.contracts[id]
        return 200, {"success": True}


def offers_of(number: int) -> list[dict[str, Any]]:
    return [an_offer(id) for id in range(101, 101 + number)]
