"""Lambda Cloud: virtual machines with GPUs in one region of one account, paid by the hour.

There is no token: a launch carries its machine's mark and is sent once. Nothing here ends a machine by itself: Lambda
has no schedule and no key that may end one machine alone, and a machine that powers itself off goes on billing.
"""

from __future__ import annotations

import hashlib
import os
import threading
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal

import msgspec
from msgspec.structs import replace

from backends.base import BackendDefaults, Setting
from backends.boot.cloud_init import render
from backends.errors import BackendError, StillUsed, TryLater
from backends.http_answers import ApiError, launch_answer, segment
from backends.lambda_cloud import firewall, instance_types
from backends.lambda_cloud.account import Account, account_of, api_of
from backends.naming import LabelRules, labels, labels_of, mark, read_labels, read_mark
from backends.own_address import own_address
from schemas.base import place_of
from schemas.desired import BackendConfig
from schemas.instance import Seen
from schemas.launch import Ending, LaunchAnswer, Made, Refused, Request, TerminateAnswer, Unknown
from schemas.leftover import Leftover
from schemas.offer import Offer
from schemas.resources import Need, Where

FAMILIES = ("lambda-stack-24-04", "lambda-stack-22-04")
OLD_FAMILIES = ("lambda-stack-legacy-22-04",)
"""Of images, the first that a region has. The V100 needs an older driver."""
TAGS = LabelRules(key=r"[a-z][a-z0-9:-]+", value=r"[ -~]*", longest_key=55, longest_value=128)
TAGGED = ("dstack-project", "dstack-id", "dstack-lineage", "dstack-generation")
PHASES: Mapping[str, Literal["starting", "running", "stopped", "ending", "ended"]] = {
    "booting": "starting", "active": "running", "unhealthy": "running", "terminating": "ending",
    "terminated": "ended", "preempted": "ended",
}  # fmt: skip


def connect(config: BackendConfig, region: str, setting: Setting) -> LambdaBackend:
    """The place of `config` in `region`. Sends nothing yet."""
    return LambdaBackend(config, region, setting, account_of(config, setting))


def regions(config: BackendConfig) -> Sequence[str]:
    """Every region of `config`; all of Lambda's where it names none."""
    if config.regions:
        return config.regions
    answer = api_of(config).read("/regions", deadline=api_of(config).deadline(60))
    found = answer.json.get("data")
    if not isinstance(found, list) or not found:
        raise TryLater("Lambda's regions: the answer has no list of them")
    return sorted(str(one["name"]) for one in found)


class LambdaBackend(BackendDefaults):
    """One region of Lambda Cloud. See `backends.base.Backend`."""

    def __init__(self, config: BackendConfig, region: str, setting: Setting, account: Account) -> None:
        self.place = place_of(config.name, region)
        self._config, self._region, self._setting, self._account = config, region, setting, account
        self._lock = threading.Lock()
        self._notes: dict[str, None] = {}
        self._ahead: int | None = None
        self._own: str | None = None

    def identity(self) -> str:
        return self._account.identity()

    def clock(self) -> int | None:
        return self._ahead

    def notes(self) -> Sequence[str]:
        with self._lock:
            told, self._notes = list(self._notes), {}
        return told

    def offers(self, needs: Sequence[Need], where: Where) -> Sequence[Offer]:
        types = self._account.read("/instance-types").json.get("data")
        now = int(self._setting.now())
        return list(instance_types.offers(types, backend=self._config.name, region=self._region, now=now))

    # ------------------------------------------------------------ launching

    def prepare(self, request: Request, offer: Offer) -> Request:
        if request.disk > offer.resources.disk:
            raise BackendError(
                f"{request.instance_type} has a disk of {offer.resources.disk // 1024} GB, which cannot be larger: "
                f"{request.disk // 1024} GB are asked for"
            )
        if self._region in firewall.WITHOUT:
            self._note(f"{self.place}: Lambda has no firewall in this region: port 22 is open to the world")
        arch = "arm64" if offer.resources.cpu_arch == "arm" else "x86_64"
        old = offer.resources.gpu is not None and offer.resources.gpu.name.startswith("V100")
        inputs = {
            "account": self.identity(),
            "image": self._image(OLD_FAMILIES if old else FAMILIES, arch),
            "ssh_key": self._account.login_key(),
        }
        prepared = replace(request, inputs=tuple(sorted(inputs.items())), digest="")
        return replace(prepared, digest=self._digest(prepared))

    def launch(self, request: Request) -> Mapping[str, LaunchAnswer]:
        """Send the one creation of `request`, unless a machine with its mark is there already."""
        (id,) = request.ids
        account = dict(request.inputs)["account"]
        if self._digest(request) != request.digest:
            raise TryLater(f"launch {request.launch} renders differently than when it was written")
        if self.identity() != account:
            raise TryLater(f"{request.launch} was prepared for the account of {account}, this is {self.identity()}")
        try:
            if (there := self._known(request, id)) is not None:
                return {id: Made(external_id=there)}
            body = self._body(request, id)
            if self._region not in firewall.WITHOUT:
                ruleset = firewall.ensure(self._account, self._region, self._door(), now=int(self._setting.now()))
                body["firewall_rulesets"] = [{"id": ruleset}]
        except ApiError as error:
            return {id: Unknown(why=str(error))}  # not sent, but an earlier sending may have come through
        return {id: self._sent(body)}

    def _sent(self, body: Mapping[str, Any]) -> LaunchAnswer:
        try:
            made = self._account.write("POST", "/instance-operations/launch", body).json.get("data")
        except (ApiError, TryLater) as error:
            if isinstance(error, ApiError) and error.meaning == "missing":
                return Refused(meaning="permanent", why=str(error))
            return launch_answer(error)
        ids = made.get("instance_ids") if isinstance(made, dict) else None
        if not isinstance(ids, list) or not ids:
            return Unknown(why="Lambda's answer to a launch names no instance")
        return Made(external_id=str(ids[0]))

    def _known(self, request: Request, id: str) -> str | None:
        """The machine that carries this mark already."""
        found = (str(one.get("id")) for one in self._machines() if one.get("name") == mark(request.project, id))
        return next(found, None)

    def _image(self, families: Sequence[str], arch: str) -> str:
        """The newest of the first family that this region has."""
        images = [
            one for one in self._account.listed("/images")
            if one.get("architecture") == arch and _name(one.get("region")) in ("", self._region)
        ]  # fmt: skip
        for family in families:
            if found := [one for one in images if one.get("family") == family]:
                return str(max(found, key=lambda one: (str(one.get("created_time")), str(one.get("id"))))["id"])
        raise BackendError(f"{self.place}: no image of {' or '.join(families)} for {arch}")

    def _body(self, request: Request, id: str) -> dict[str, Any]:
        inputs = dict(request.inputs)
        tags = {**dict(request.tags), **labels_of(request, id), "dstack-backend": self._config.name}
        return {
            "region_name": self._region,
            "instance_type_name": request.instance_type,
            "ssh_key_names": [inputs["ssh_key"]],
            "name": mark(request.project, id),
            "image": {"id": inputs["image"]},
            "user_data": render(self._setting.boot(request.launch), request=request, kind=self._config.traits),
            "tags": [{"key": key, "value": value} for key, value in labels(tags, TAGS).items()],
        }

    def _digest(self, request: Request) -> str:
        body = [self._body(request, id) for id in request.ids]
        return hashlib.sha256(msgspec.json.encode(body, order="sorted")).hexdigest()

    # ------------------------------------------------------------ who is let in

    def _door(self) -> firewall.Door:
        wanted = self._config.options.get("ingress") or "own"
        declared = () if isinstance(wanted, str) else tuple(one for one in wanted if one != "own")
        own = self._address() if wanted == "own" or "own" in wanted else ""
        return firewall.Door(declared=declared, own=own)

    def _address(self) -> str:
        if self._own is None:
            self._own = own_address(os.environ, elsewhere=bool(self._config.options.get("endpoint")))
            if not self._own:
                self._note(
                    f"{self.place}: our own address is not known, so port 22 is not opened to it: DSTACK_ADDRESS"
                )
        return self._own

    def allow_our_address(self) -> bool:
        door = self._door()
        if not door.own or self._region in firewall.WITHOUT:
            return False
        return firewall.let_in_there(self._account, self._region, door, now=int(self._setting.now()))

    # ------------------------------------------------------------ listing, ending

    def instances(self, ids: Sequence[str] | None = None) -> Sequence[Seen]:
        found = [self._seen(one) for one in self._machines() if self._ours(one)]
        if ids is None:
            return found
        listed = {one.external_id for one in found}
        alone = (self._one(id) for id in ids if id not in listed)  # ended ones leave the list at once
        return [*(one for one in found if one.external_id in ids), *(one for one in alone if one is not None)]

    def _machines(self) -> Iterator[dict[str, Any]]:
        answer = self._account.read("/instances")
        if answer.clock is not None:
            self._ahead = int(self._setting.now()) - answer.clock
        found = answer.json.get("data")
        if not isinstance(found, list) or not all(isinstance(one, dict) and one.get("id") for one in found):
            raise TryLater("Lambda's instances: the answer has no list of them")
        yield from found

    def _one(self, id: str) -> Seen | None:
        try:
            found = self._account.read(f"/instances/{segment(id)}").json.get("data")
        except ApiError as error:
            if error.meaning == "missing":
                return None
            raise
        if not isinstance(found, dict) or found.get("id") != id:
            raise TryLater(f"Lambda's instance {id}: the answer is about none")
        return self._seen(found) if self._ours(found) else None

    def _ours(self, one: Mapping[str, Any]) -> bool:
        """By its name; by its tags where a person renamed it."""
        named = read_mark(str(one.get("name") or ""), project=self._setting.project)
        return named is not None or _tags(one).get("dstack-project") == self._setting.project

    def _seen(self, one: Mapping[str, Any]) -> Seen:
        tags, named = _tags(one), read_mark(str(one.get("name") or ""), project=self._setting.project)
        ours, status = read_labels(tags), str(one.get("status"))
        missing = [
            key for key in ("dstack-project", "dstack-id", "dstack-lineage", "dstack-generation") if key not in tags
        ]
        kind = one.get("instance_type") or {}
        return Seen(
            external_id=str(one["id"]),
            id=named.id if named else ours.id,
            launch=named.launch if named else ours.launch,
            pool=ours.pool,
            backend=tags.get("dstack-backend", ""),
            lineage=ours.lineage,
            generation=ours.generation,
            phase=PHASES.get(status, "running"),
            interrupted=status == "preempted",
            reason="preempted" if status == "preempted" else "",
            region=_name(one.get("region")),
            instance_type=str(kind.get("name", "")),
            price=instance_types.price(kind) if "price_cents_per_hour" in kind else None,
            resources=instance_types.resources(kind) if "specs" in kind else None,
            address=str(one.get("ip") or ""),
            internal_ip=str(one.get("private_ip") or ""),
            unfit="" if status in PHASES and status != "unhealthy" else f"Lambda says {status}",
            untagged=(*(() if named else ("name",)), *missing),
        )

    def terminate(self, ids: Sequence[str], *, generation: int = 0) -> Mapping[str, TerminateAnswer]:
        """All in one request; each alone where Lambda refuses that: one unknown id refuses it for all."""
        if not ids:
            return {}
        answer = self._end(ids)
        if isinstance(answer, Ending) or len(ids) == 1:
            return dict.fromkeys(ids, answer)
        if isinstance(answer, Unknown) and answer.retry_after:
            return dict.fromkeys(ids, answer)
        return {id: self._end([id]) for id in ids}

    def _end(self, ids: Sequence[str]) -> TerminateAnswer:
        try:
            self._account.write("POST", "/instance-operations/terminate", {"instance_ids": list(ids)})
        except ApiError as error:
            if error.meaning == "missing":
                return Ending() if len(ids) == 1 else Unknown(why=str(error))
            # One that boots may refuse its end with a code of its own: asked again.
            return Unknown(why=str(error), retry_after=error.retry_after)
        except TryLater as error:
            return Unknown(why=str(error), retry_after=error.retry_after)
        return Ending()

    # ------------------------------------------------------------ what is left behind

    def leftovers(self) -> Sequence[Leftover]:
        """Firewall rulesets of this region. The SSH key stays: by it the account is known again."""
        return [
            Leftover(
                kind="security-group",
                id=str(one["id"]),
                place=self.place,
                name=self._account.name,
                in_use=f"{len(one['instance_ids'])} instances" if one.get("instance_ids") else "",
            )
            for one in self._account.listed("/firewall-rulesets")
            if one.get("name") == self._account.name and _name(one.get("region")) == self._region
        ]

    def remove(self, leftover: Leftover) -> None:
        try:
            self._account.write("DELETE", f"/firewall-rulesets/{segment(leftover.id)}")
        except ApiError as error:
            if error.meaning != "missing":
                raise StillUsed(str(error)) from None

    def _note(self, text: str) -> None:
        with self._lock:
            self._notes[text] = None


def _tags(one: Mapping[str, Any]) -> dict[str, str]:
    return {str(tag.get("key")): str(tag.get("value")) for tag in one.get("tags") or () if isinstance(tag, dict)}


def _name(region: Any) -> str:
    return str(region.get("name", "")) if isinstance(region, dict) else ""
