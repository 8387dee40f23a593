"""Sketch Cloud: virtual machines over a REST interface, paid by the hour, one API key an account.

A complete backend of a cloud that does not exist: the example of docs/adding-a-backend.md.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from decimal import Decimal
from typing import Any, Literal

import msgspec
from msgspec.structs import replace

from backends.base import BackendDefaults, Setting
from backends.boot.cloud_init import render
from backends.credentials import credential
from backends.errors import TryLater
from backends.http import Api
from backends.http_answers import ApiError, Dialect, base_url, launch_answer, rows, segment
from backends.naming import labels_of, mark, read_labels, read_mark
from schemas.base import place_of
from schemas.desired import BackendConfig
from schemas.instance import Seen
from schemas.launch import Ending, LaunchAnswer, Made, Refused, Request, TerminateAnswer, Unknown
from schemas.offer import Offer
from schemas.resources import Gpu, Need, Resources, Where

ADDRESS = "https://api.sketch.example/v1"
IMAGE = "ubuntu-24.04"
PATIENCE = 30.0
"""Seconds for one call."""
PAGES = 1000
DIALECT = Dialect(
    errors={
        (401, "unauthorized"): "permanent",
        (403, "quota-exceeded"): "quota",
        (404, "not-found"): "missing",
        (409, "sold-out"): "capacity",
        (422, "invalid"): "permanent",
        (429, ""): "later",
    },
    code=lambda body: body["error"]["code"],
    words=lambda body: body["error"]["message"],
    quota=lambda body: body["error"]["quota"],
)
PHASES: Mapping[str, Literal["starting", "running", "stopped", "ending", "ended"]] = {
    "creating": "starting", "active": "running", "stopped": "stopped", "deleting": "ending", "deleted": "ended",
    "failed": "ended",
}  # fmt: skip


def connect(config: BackendConfig, region: str, setting: Setting) -> SketchBackend:
    """The place of `config` in `region`. Sends nothing yet."""
    return SketchBackend(config, region, setting)


def regions(config: BackendConfig) -> Sequence[str]:
    """Every region of `config`; all regions of the cloud where it names none."""
    if config.regions:
        return config.regions
    return sorted({region for kind in _kinds(_api(config)) for region in kind["available"]})


def _api(config: BackendConfig) -> Api:
    def headers() -> Mapping[str, str]:
        return {"Authorization": f"Bearer {credential(config, 'api_key', default='SKETCH_API_KEY')}"}

    return Api(base_url(ADDRESS, config.options.get("endpoint") or ""), headers=headers, dialect=DIALECT)


def _kinds(api: Api) -> list[dict[str, Any]]:
    return rows(api.read("/types", deadline=api.deadline(PATIENCE)), "types", where="Sketch Cloud's types")


class SketchBackend(BackendDefaults):
    """One region of Sketch Cloud. See `backends.base.Backend`."""

    def __init__(self, config: BackendConfig, region: str, setting: Setting) -> None:
        self.place = place_of(config.name, region)
        self._config, self._region, self._setting = config, region, setting
        self._api = _api(config)

    def identity(self) -> str:
        account = self._api.read("/account", deadline=self._api.deadline(PATIENCE)).json.get("id")
        if not isinstance(account, str) or not account:
            raise TryLater("Sketch Cloud did not name the account")
        return account

    def offers(self, needs: Sequence[Need], where: Where) -> Sequence[Offer]:
        return [self._offer(kind) for kind in _kinds(self._api) if self._region in kind["available"]]

    def prepare(self, request: Request, offer: Offer) -> Request:
        prepared = replace(request, handle=offer.handle, inputs=(("image", IMAGE),), digest="")
        return replace(prepared, digest=self._digest(prepared))

    def launch(self, request: Request) -> Mapping[str, LaunchAnswer]:
        """Send the one creation of `request`: this cloud knows no tokens, so its type launches `once`."""
        (id,) = request.ids
        if self._digest(request) != request.digest:
            raise TryLater(f"launch {request.launch} renders differently than when it was written")
        try:
            body = self._body(request, id)
            made = self._api.write("POST", "/machines", body, deadline=self._api.deadline(PATIENCE))
        except (ApiError, TryLater) as error:
            return {id: launch_answer(error)}
        return {id: Made(external_id=str(made.json.get("id", "")))}

    def instances(self, ids: Sequence[str] | None = None) -> Sequence[Seen]:
        found = (self._seen(one) for one in self._machines() if read_mark(one["name"], project=self._setting.project))
        return [one for one in found if ids is None or one.external_id in ids]

    def terminate(self, ids: Sequence[str], *, generation: int = 0) -> Mapping[str, TerminateAnswer]:
        return {id: self._end(id) for id in ids}

    def _end(self, id: str) -> TerminateAnswer:
        try:
            path = f"/machines/{segment(id)}"
            self._api.write("DELETE", path, deadline=self._api.deadline(PATIENCE), empty=True)
        except ApiError as error:
            if error.meaning == "missing":
                return Ending()
            return Refused(meaning="permanent", why=str(error)) if error.meaning else Unknown(why=str(error))
        except TryLater as error:
            return Unknown(why=str(error), retry_after=error.retry_after)
        return Ending()

    def _machines(self) -> Iterator[dict[str, Any]]:
        """Every page. A listing with a page missing would end machines that are alive."""
        cursor, deadline = "", self._api.deadline(PATIENCE)
        for _ in range(PAGES):
            answer = self._api.read("/machines", query={"region": self._region, "cursor": cursor}, deadline=deadline)
            yield from rows(answer, "machines", where=f"{self.place}'s machines")
            cursor = str(answer.json.get("next") or "")
            if not cursor:
                return
        raise TryLater(f"{self.place}: more than {PAGES} pages of machines")

    def _body(self, request: Request, id: str) -> dict[str, Any]:
        return {
            "name": mark(request.project, id),
            "type": request.handle,
            "region": self._region,
            "image": dict(request.inputs)["image"],
            "labels": labels_of(request, id),
            "user_data": render(self._setting.boot(request.launch), request=request),
        }

    def _digest(self, request: Request) -> str:
        body = [self._body(request, id) for id in request.ids]
        return hashlib.sha256(msgspec.json.encode(body, order="sorted")).hexdigest()

    def _offer(self, kind: dict[str, Any]) -> Offer:
        free = int(kind["available"][self._region])
        return Offer(
            backend=self._config.name,
            region=self._region,
            instance_type=kind["name"],
            handle=kind["id"],
            resources=_resources(kind),
            price=Decimal(kind["usd_per_hour"]),
            free=free,
            source="live",
            availability="available" if free else "no-capacity",
        )

    def _seen(self, one: dict[str, Any]) -> Seen:
        ours, named = read_labels(one["labels"]), read_mark(one["name"])
        status = str(one["status"])
        return Seen(
            external_id=one["id"],
            id=named.id if named else "",
            launch=named.launch if named else "",
            pool=ours.pool,
            lineage=ours.lineage,
            generation=ours.generation,
            phase=PHASES.get(status, "running"),
            unfit="" if status in PHASES else f"status {status}",
            failure=_failure(one) if status == "failed" else None,
            region=one["region"],
            instance_type=one["type"],
            address=one["address"],
            created_at=one["created_at"],
        )


def _failure(one: dict[str, Any]) -> Refused:
    """Why a creation that was accepted failed. A reason that is not known counts as permanent."""
    sold_out = one["reason"] == "sold-out"
    return Refused(meaning="capacity" if sold_out else "permanent", why=str(one["reason"]))


def _resources(kind: dict[str, Any]) -> Resources:
    gpu = kind.get("gpu")
    return Resources(
        cpus=kind["cpus"],
        memory=kind["memory_gib"] * 1024,
        disk=kind["disk_gib"] * 1024,
        gpu=Gpu(name=gpu["name"].lower(), memory=gpu["memory_gib"] * 1024, count=gpu["count"]) if gpu else None,
    )
