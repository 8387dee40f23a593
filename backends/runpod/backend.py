"""RunPod: containers ("pods") with GPUs in one data center, paid by the second, by REST v2.

There is no token: a launch carries its machine's mark and is sent once. A pod restarts when its first process ends, so
that a stopped one was stopped by somebody, and goes on billing its disk. Spot pods are left out: REST v2 has none.
"""

from __future__ import annotations

import base64
import gzip
import hashlib
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from decimal import Decimal
from typing import Any, Literal

import msgspec
from msgspec.structs import replace

from backends.base import BackendDefaults, Setting
from backends.boot.container import ROOT, render
from backends.errors import CallFailed, TryLater
from backends.http import Api
from backends.http_answers import ApiError, HttpAnswer, launch_answer, rows, segment
from backends.naming import labels_of, mark, read_labels, read_mark
from backends.runpod import gpu_types
from backends.runpod.account import PATIENCE, api_of, asked
from schemas.base import place_of
from schemas.desired import BackendConfig
from schemas.instance import Seen
from schemas.launch import Ending, LaunchAnswer, Made, Refused, Request, TerminateAnswer, Unknown
from schemas.offer import Offer
from schemas.resources import USUAL_DISK, Need, Where

PHASES: Mapping[str, Literal["starting", "running", "stopped", "ending", "ended"]] = {
    "PROVISIONING": "starting", "STARTING": "starting", "RUNNING": "running", "EXITED": "stopped", "ERROR": "stopped",
    "TERMINATED": "ended",
}  # fmt: skip
TAGGED = ("dstack-project", "dstack-id", "dstack-lineage", "dstack-generation")


def connect(config: BackendConfig, region: str, setting: Setting) -> RunpodBackend:
    """The place of `config` in `region`, a data center. Sends nothing yet."""
    return RunpodBackend(config, region, setting, api_of(config))


def regions(config: BackendConfig) -> Sequence[str]:
    """Every data center of `config`; all of RunPod's where it names none."""
    if config.regions:
        return config.regions
    api = api_of(config)
    answer = api.read("/v2/catalog/datacenters", deadline=api.deadline(PATIENCE))
    return sorted(str(one["id"]) for one in rows(answer, "dataCenters", where="RunPod's data centers"))


class RunpodBackend(BackendDefaults):
    """One data center of RunPod. See `backends.base.Backend`."""

    def __init__(self, config: BackendConfig, region: str, setting: Setting, api: Api) -> None:
        self.place = place_of(config.name, region)
        self._config, self._region, self._setting, self._api = config, region, setting, api
        self._account = ""
        self._ahead: int | None = None

    def identity(self) -> str:
        """The id of the account, which GraphQL tells."""
        if not self._account:
            found = asked(self._api, "query { myself { id } }").get("myself")
            account = found.get("id") if isinstance(found, dict) else None
            if not isinstance(account, str) or not account:
                raise TryLater("RunPod did not name the account")
            self._account = account
        return self._account

    def clock(self) -> int | None:
        return self._ahead

    def offers(self, needs: Sequence[Need], where: Where) -> Sequence[Offer]:
        clouds = gpu_types.CLOUDS if self._config.options.get("community_cloud") else gpu_types.CLOUDS[:1]
        return [
            offer for count in gpu_types.counts_of(needs) for cloud in clouds for offer in self._offers_of(count, cloud)
        ]

    def _offers_of(self, count: int, cloud: gpu_types.Cloud) -> Iterator[Offer]:
        query = {"include": "AVAILABILITY", "product": "POD", "count": str(count), "cloud": cloud}
        kinds = rows(self._read("/v2/catalog/gpus", query), "gpus", where="RunPod's GPUs")
        yield from gpu_types.offers(
            kinds,
            backend=self._config.name,
            region=self._region,
            count=count,
            cloud=cloud,
            sized=self._sizes(count, cloud),
            now=int(self._setting.now()),
        )

    def _sizes(self, count: int, cloud: gpu_types.Cloud) -> Mapping[str, tuple[int, int]]:
        """REST v2 does not tell the vCPUs and the memory of a pod. Where GraphQL does not either, the least counts."""
        secure = "true" if cloud == "SECURE" else "false"
        asks = f"lowestPrice(input: {{gpuCount: {count}, secureCloud: {secure}}}) {{ minVcpu minMemory }}"
        try:
            return gpu_types.sizes(asked(self._api, f"query {{ gpuTypes {{ id {asks} }} }}"))
        except CallFailed:
            return {}

    # ------------------------------------------------------------ launching

    def prepare(self, request: Request, offer: Offer) -> Request:
        gpu_types.count_of(request.instance_type)
        inputs = {"account": self.identity(), "image": request.image or self._config.traits.base_image}
        prepared = replace(request, handle=offer.handle, inputs=tuple(sorted(inputs.items())), digest="")
        return replace(prepared, digest=self._digest(prepared))

    def launch(self, request: Request) -> Mapping[str, LaunchAnswer]:
        """Send the one creation of `request`, unless a pod with its mark is there already."""
        (id,) = request.ids
        account = dict(request.inputs)["account"]
        if self._digest(request) != request.digest:
            raise TryLater(f"launch {request.launch} renders differently than when it was written")
        if self.identity() != account:
            raise TryLater(f"{request.launch} was prepared for account {account}, this is {self.identity()}")
        name = mark(request.project, id)
        try:
            there = next((str(one["id"]) for one in self._pods() if one.get("name") == name), None)
        except ApiError as error:
            return {id: Unknown(why=str(error))}  # not sent, but an earlier sending may have come through
        return {id: Made(external_id=there) if there is not None else self._sent(self._body(request, id))}

    def _sent(self, body: Mapping[str, Any]) -> LaunchAnswer:
        try:
            made = self._api.write("POST", "/v2/pods", body, deadline=self._api.deadline(PATIENCE)).json
        except (ApiError, TryLater) as error:
            if isinstance(error, ApiError) and error.meaning == "missing":
                return Refused(meaning="permanent", why=str(error))
            return launch_answer(error)
        found = made.get("id")
        return Made(external_id=found) if isinstance(found, str) and found else Unknown(why="the answer names no pod")

    def _body(self, request: Request, id: str) -> dict[str, Any]:
        count, cloud = gpu_types.count_of(request.instance_type)
        return {
            "name": mark(request.project, id),
            "image": dict(request.inputs)["image"],
            "gpu": {"id": request.handle, "count": count},
            "cloud": cloud,
            "dataCenterIds": [self._region],
            "disk": -(-(request.disk or USUAL_DISK) // 1024),
            "ports": ["22/tcp"],
            "env": {_variable(key): value for key, value in self._labels(request, id).items()},
            "args": self._start(request),
        }

    def _labels(self, request: Request, id: str) -> dict[str, str]:
        return {**labels_of(request, id), "dstack-backend": self._config.name}

    def _start(self, request: Request) -> str:
        """What the image's entrypoint gets: one line, packed, without a quote in it that a vendor could take apart."""
        boot = replace(self._setting.boot(request.launch), user=ROOT)
        text = render(boot, request=request, kind=self._config.traits)
        packed = base64.b64encode(gzip.compress(text.encode(), mtime=0)).decode()
        unpacked = f"$(echo {packed} | base64 -d | gzip -d)"
        return f"sh -c 'exec sh -c \"{unpacked}\"'"

    def _digest(self, request: Request) -> str:
        body = [self._body(request, id) for id in request.ids]
        return hashlib.sha256(msgspec.json.encode(body, order="sorted")).hexdigest()

    # ------------------------------------------------------------ listing, ending

    def instances(self, ids: Sequence[str] | None = None) -> Sequence[Seen]:
        found = [self._seen(one) for one in self._pods() if self._ours(one)]
        if ids is None:
            return found
        listed = {one.external_id for one in found}
        alone = (self._one(id) for id in ids if id not in listed)
        return [*(one for one in found if one.external_id in ids), *(one for one in alone if one is not None)]

    def _pods(self) -> list[dict[str, Any]]:
        answer = self._read("/v2/pods", {"includeClusterPods": "true"})
        if answer.clock is not None:
            self._ahead = int(self._setting.now()) - answer.clock
        found = rows(answer, "pods", where="RunPod's pods")
        if not all(one.get("id") for one in found):
            raise TryLater("RunPod's pods: one has no id")
        return found

    def _one(self, id: str) -> Seen | None:
        try:
            found = self._read(f"/v2/pods/{segment(id)}").json
        except ApiError as error:
            if error.meaning == "missing":
                return None
            raise
        if found.get("id") != id:
            raise TryLater(f"RunPod's pod {id}: the answer is about none")
        return self._seen(found) if self._ours(found) else None

    def _ours(self, one: Mapping[str, Any]) -> bool:
        """By its name; by its environment where a person renamed it."""
        named = read_mark(str(one.get("name") or ""), project=self._setting.project)
        return named is not None or _tags(one).get("dstack-project") == self._setting.project

    def _seen(self, one: Mapping[str, Any]) -> Seen:
        tags, named = _tags(one), read_mark(str(one.get("name") or ""), project=self._setting.project)
        ours, status, gpu = read_labels(tags), str(one.get("status")), one.get("gpu") or {}
        phase = PHASES.get(status, "running")
        return Seen(
            external_id=str(one["id"]),
            id=named.id if named else ours.id,
            launch=named.launch if named else ours.launch,
            pool=ours.pool,
            backend=tags.get("dstack-backend", ""),
            lineage=ours.lineage,
            generation=ours.generation,
            phase=phase,
            reason=f"RunPod says {status}" if phase == "stopped" else "",
            region=str(one.get("dataCenterId") or ""),
            instance_type=gpu_types.type_name(
                str(gpu.get("id", "")), int(gpu.get("count") or 1), str(one.get("cloud"))
            ),
            price=Decimal(str(one["cost"])) if one.get("cost") else None,
            address=_address(one),
            created_at=_unix(one.get("createdAt")),
            unfit="" if status in PHASES else f"RunPod says {status}",
            untagged=(*(() if named else ("name",)), *(key for key in TAGGED if key not in tags)),
            image=str(one.get("image") or ""),
        )

    def terminate(self, ids: Sequence[str], *, generation: int = 0) -> Mapping[str, TerminateAnswer]:
        return {id: self._end(id) for id in ids}

    def _end(self, id: str) -> TerminateAnswer:
        try:
            deadline = self._api.deadline(PATIENCE)
            self._api.write("DELETE", f"/v2/pods/{segment(id)}", deadline=deadline, empty=True)
        except ApiError as error:
            if error.meaning == "missing":
                return Ending()
            return Refused(meaning="permanent", why=str(error)) if error.meaning else Unknown(why=str(error))
        except TryLater as error:
            return Unknown(why=str(error), retry_after=error.retry_after)
        return Ending()

    def _read(self, path: str, query: Mapping[str, str] | None = None) -> HttpAnswer:
        return self._api.read(path, query=query, deadline=self._api.deadline(PATIENCE))


def _variable(label: str) -> str:
    """`dstack-id` is `DSTACK_ID`."""
    return label.upper().replace("-", "_")


def _tags(one: Mapping[str, Any]) -> dict[str, str]:
    found = one.get("env")
    named = ((str(key).lower().replace("_", "-"), str(value)) for key, value in (found or {}).items())
    return {key: value for key, value in named if key.startswith("dstack-")}


def _address(one: Mapping[str, Any]) -> str:
    """`HOST:PORT` of its port 22, while it runs. RunPod's own proxy is not used: it has a key of its own."""
    ports = (one.get("runtime") or {}).get("ports") or ()
    for port in ports:
        if port.get("private") == 22 and port.get("type") == "tcp" and port.get("public") and port.get("ip"):
            return f"{str(port['ip']).strip()}:{port['public']}"
    direct = (one.get("ssh") or {}).get("direct") or {}
    return f"{direct['host']}:{direct['port']}" if direct.get("host") and direct.get("port") else ""


def _unix(text: Any) -> int | None:
    try:
        return int(datetime.fromisoformat(str(text)).timestamp())
    except ValueError:
        return None
