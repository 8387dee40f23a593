"""Azure Resource Manager as a small strict server with a memory, on loopback. It is ours: behaviour is our reading.

Routes and the fields of virtual machines are those of the installed official clients. Pages have two rows.
"""

from __future__ import annotations

import json
import threading
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit

from tests.doubles.azure.azure_rules import known_route, wrong_in_machine

SUBSCRIPTION, TENANT = "11111111-2222-3333-4444-555555555555", "99999999-8888-7777-6666-555555555555"
PAGE = 2
NO_ROOM = "Allocation failed. We do not have sufficient capacity for the requested VM size in this region."
QUOTA = (
    "Operation could not be completed as it results in exceeding approved Total Regional Cores quota. Additional "
    "details - Current Limit: 10, Current Usage: 8, Additional Required: 4, (Minimum) New Limit Required: 12."
)


class Refusal(Exception):
    """An answer other than success."""

    def __init__(self, status: int, code: str, message: str, **headers: str) -> None:
        self.status, self.headers = status, headers
        self.body = {"error": {"code": code, "message": message}}


@dataclass
class AzureWorld:
    """A subscription. `room`: machines that may live at most. `refuse`: what the next creations answer."""

    room: int = 10
    late: bool = True
    """Whether want of capacity is told by the operation, which leaves the machine, or at once."""
    refuse: list[Refusal] = field(default_factory=list)
    lost: int = 0
    """Creations that lose their answer."""
    undeletable: bool = False
    quick: bool = False
    """Machines that are deleted are gone at once."""
    machines: dict[str, dict[str, Any]] = field(default_factory=dict)
    powers: dict[str, str] = field(default_factory=dict)
    things: dict[str, dict[str, Any]] = field(default_factory=dict)
    operations: dict[str, dict[str, Any]] = field(default_factory=dict)
    requests: list[tuple[str, str]] = field(default_factory=list)
    bodies: list[dict[str, Any]] = field(default_factory=list)
    lock: threading.RLock = field(default_factory=threading.RLock)

    def living(self) -> list[dict[str, Any]]:
        return [one for one in self.machines.values() if one["properties"]["provisioningState"] != "Failed"]

    def settle(self) -> None:
        """Time passes: what was accepted is done."""
        for key, one in list(self.machines.items()):
            state = one["properties"]["provisioningState"]
            if state == "Creating":
                one["properties"]["provisioningState"], self.powers[key] = "Succeeded", "running"
            elif state == "Deleting":
                self._gone(key)

    def evict(self, key: str) -> None:
        """With the policy Delete, nothing is left to be read."""
        self._gone(key)

    def _gone(self, key: str) -> None:
        name = self.machines.pop(key)["name"]
        self.powers.pop(key, None)
        for known in [known for known, one in self.things.items() if one["name"].startswith(f"{name}-")]:
            del self.things[known]

    def answer(self, method: str, url: str, body: Any, headers: Any, base: str) -> tuple[int, Any, dict[str, str]]:
        parts = urlsplit(url)
        path, query = parts.path, {name: one[0] for name, one in parse_qs(parts.query).items()}
        if not known_route(method, path):
            raise Refusal(404, "InvalidResourceType", f"no route {method} {path}")
        if "/operations/" in path:
            return 200, self.operations[path.rpartition("/")[2]], {"Retry-After": "0"}
        if "api-version" not in query:
            raise Refusal(400, "MissingApiVersionParameter", "The api-version query parameter is required.")
        segments = path.strip("/").split("/")
        if segments[1] != SUBSCRIPTION:
            raise Refusal(404, "SubscriptionNotFound", f"The subscription '{segments[1]}' could not be found.")
        if len(segments) == 2:
            return 200, {"tenantId": TENANT, "subscriptionId": SUBSCRIPTION, "id": path}, {}
        kind, key = segments[-1] if len(segments) % 2 else segments[-2], path.lower()
        if kind.lower() == "virtualmachines":
            return self.of_machines(method, path, query, body, headers, base)
        if kind == "versions":
            return 200, [{"name": "24.04.202601010"}, {"name": "24.04.202610010"}, {"name": "24.04.202609300"}], {}
        if method == "PUT":
            return self.put_thing(key, path, body, headers)
        if method == "DELETE":
            return self.delete_thing(key)
        if key in self.things:
            return 200, self.things[key], {}
        if len(segments) % 2 == 1:
            return self.page([one for known, one in self.things.items() if known.startswith(f"{key}/")], url, base)
        raise Refusal(404, "ResourceNotFound", f"The Resource '{path}' was not found.")

    def put_thing(self, key: str, path: str, body: Any, headers: Any) -> tuple[int, Any, dict[str, str]]:
        known = self.things.get(key)
        guard = headers.get("If-Match")
        if (guard and (known is None or known["etag"] != guard)) or (headers.get("If-None-Match") == "*" and known):
            raise Refusal(412, "PreconditionFailed", "The condition is not met.")
        one = {**body, "id": path, "name": path.rpartition("/")[2], "etag": f'W/"{uuid.uuid4()}"'}
        self.things[key] = one
        for number, subnet in enumerate((body.get("properties") or {}).get("subnets") or ()):
            subnet |= {"id": f"{path}/subnets/{subnet.get('name', number)}"}
        return (200 if known else 201), one, {}

    def delete_thing(self, key: str) -> tuple[int, Any, dict[str, str]]:
        if key not in self.things:
            return 204, None, {}
        if (self.things[key].get("properties") or {}).get("virtualMachine"):
            raise Refusal(400, "NicInUse", "Network Interface is used by existing resource.")
        del self.things[key]
        return 202, None, {}

    def page(self, rows: list[Any], url: str, base: str) -> tuple[int, Any, dict[str, str]]:
        parts = urlsplit(url)
        query = {name: one[0] for name, one in parse_qs(parts.query).items()}
        begin = int(query.pop("$skiptoken", "0"))
        answer: dict[str, Any] = {"value": rows[begin : begin + PAGE]}
        if begin + PAGE < len(rows):
            answer["nextLink"] = f"{base}{parts.path}?{urlencode({**query, '$skiptoken': begin + PAGE})}"
        return 200, answer, {}

    # ------------------------------------------------------------ machines

    def of_machines(
        self, method: str, path: str, query: dict[str, str], body: Any, headers: Any, base: str
    ) -> tuple[int, Any, dict[str, str]]:
        key = path.lower()
        if method == "GET" and key.endswith("/virtualmachines"):
            if query.get("statusOnly") == "true":
                rows = [self.status(known) for known in self.machines]
            else:
                rows = [
                    {**one, "id": one["id"].replace("resourceGroups/d", "resourceGroups/D")}
                    for one in self.machines.values()
                ]
            return self.page(rows, f"{path}?{urlencode(query)}", base)
        if method == "PUT":
            return self.put_machine(key, path, body, headers, base)
        if key not in self.machines:
            if method == "DELETE":
                return 204, None, {}
            raise Refusal(404, "NotFound", "The entity was not found in this Azure location.")
        if method == "DELETE":
            if self.undeletable:
                raise Refusal(409, "OperationNotAllowed", "Operation is not allowed: another one is in progress.")
            self.machines[key]["properties"]["provisioningState"] = "Deleting"
            if self.quick:
                self._gone(key)
            return 202, None, {}
        found = self.machines[key]
        if query.get("$expand") == "instanceView":
            found = {**found, "properties": {**found["properties"], **self.status(key)["properties"]}}
        return 200, found, {}

    def status(self, key: str) -> dict[str, Any]:
        one, power = self.machines[key], self.powers.get(key, "")
        statuses = [{"code": f"ProvisioningState/{one['properties']['provisioningState'].lower()}"}]
        statuses += [{"code": f"PowerState/{power}"}] if power else []
        if failure := one.get("failure"):
            statuses = [{"code": f"ProvisioningState/failed/{failure}", "message": NO_ROOM}]
        return {"id": one["id"].upper(), "name": one["name"], "properties": {"instanceView": {"statuses": statuses}}}

    def put_machine(self, key: str, path: str, body: Any, headers: Any, base: str) -> tuple[int, Any, dict[str, str]]:
        if wrong := wrong_in_machine(body):
            raise Refusal(400, "InvalidParameter", "; ".join(wrong))
        self.bodies.append(body)
        group = "/".join(key.split("/")[:5])
        if group not in self.things:
            raise Refusal(404, "ResourceGroupNotFound", f"Resource group '{group}' could not be found.")
        if key in self.machines:
            if headers.get("If-None-Match") == "*":
                raise Refusal(412, "PreconditionFailed", "The resource already exists.")
            raise Refusal(409, "PropertyChangeNotAllowed", "Changing property 'osProfile.customData' is not allowed.")
        if self.refuse:
            raise self.refuse.pop(0)
        full = len(self.living()) >= self.room
        if full and not self.late:
            raise Refusal(409, "SkuNotAvailable", "The requested size is currently not available in this location.")
        name, properties = path.rpartition("/")[2], dict(body["properties"])
        properties["osProfile"] = {k: v for k, v in properties["osProfile"].items() if k != "customData"}
        properties |= {
            "provisioningState": "Creating", "vmId": str(uuid.uuid4()),
            "timeCreated": "2026-11-30T10:00:00.1234567+00:00",
        }  # fmt: skip
        made = {**body, "id": path, "name": name, "properties": properties}
        self.machines[key] = made
        answer = json.loads(json.dumps(made))
        self._with_parts(path, name, body)
        operation = str(uuid.uuid4())
        self.operations[operation] = {"status": "Succeeded"}
        if full:
            made["failure"], properties["provisioningState"] = "AllocationFailed", "Failed"
            error = {"code": "AllocationFailed", "message": NO_ROOM}
            self.operations[operation] = {"status": "Failed", "error": error}
        link = f"{base}/operations/{operation}"
        return 201, answer, {"Azure-AsyncOperation": link, "Retry-After": "0"}

    def _with_parts(self, path: str, name: str, body: Any) -> None:
        group = path.partition("/providers/")[0]
        nic = body["properties"]["networkProfile"]["networkInterfaceConfigurations"][0]
        disk = body["properties"]["storageProfile"]["osDisk"]
        net, number = f"{group}/providers/Microsoft.Network", len(self.machines)
        said: dict[str, Any] = {"privateIPAddress": f"10.64.0.{number}"}
        if public := nic["properties"]["ipConfigurations"][0]["properties"].get("publicIPAddressConfiguration"):
            address = f"{net}/publicIPAddresses/{public['name']}"
            said["publicIPAddress"] = {"id": address}
            told = {
                "ipAddress": f"203.0.113.{number}",
                "ipConfiguration": {"id": f"{net}/networkInterfaces/{nic['name']}"},
            }
            self.things[address.lower()] = {
                "id": address,
                "name": public["name"],
                "tags": public["tags"],
                "properties": told,
            }
        card = f"{net}/networkInterfaces/{nic['name']}"
        linked = {"virtualMachine": {"id": path}, "ipConfigurations": [{"name": "main", "properties": said}]}
        self.things[card.lower()] = {"id": card, "name": nic["name"], "tags": nic["tags"], "properties": linked}
        stored = f"{group}/providers/Microsoft.Compute/disks/{disk['name']}"
        self.things[stored.lower()] = {
            "id": stored, "name": disk["name"], "managedBy": path, "sku": {"name": "StandardSSD_LRS"},
            "properties": {"diskSizeGB": disk["diskSizeGB"]},
        }  # fmt: skip


@contextmanager
def served(world: AzureWorld) -> Iterator[str]:
    """The address of a server for `world`, until the block ends."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def handled(self) -> None:
            length = int(self.headers.get("Content-Length", 0))
            body = json.loads(self.rfile.read(length)) if length else None
            base = f"http://{self.headers['Host']}"
            with world.lock:
                world.requests.append((self.command, self.path))
                try:
                    status, said, more = world.answer(self.command, self.path, body, self.headers, base)
                except Refusal as refusal:
                    status, said, more = refusal.status, refusal.body, refusal.headers
                if self.command == "PUT" and "virtualMachines" in self.path and status == 201 and world.lost:
                    world.lost -= 1
                    self.close_connection = True
                    return
            text = b"" if said is None else json.dumps(said).encode()
            self.send_response(status)
            for name, value in more.items():
                self.send_header(name.replace("_", "-"), value)
            self.send_header("Content-Type", "application/json")
            if status != 204:
                self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text)

        do_GET: Callable[..., None] = handled
        do_PUT: Callable[..., None] = handled
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
