"""Vast.ai: containers on machines of many hosts, rented on a market, paid by the hour.

There is no token: a contract carries its machine's mark and is asked for once. A container has a key that may end it
alone: its self-termination timer destroys the contract with it.
"""

from __future__ import annotations

import base64
import gzip
import hashlib
from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Any, Literal

import msgspec
from msgspec.structs import replace

from backends.base import BackendDefaults, Setting
from backends.boot.container import ROOT, render
from backends.errors import BackendError, NoCapacity, TryLater
from backends.http_answers import ApiError, base_url, clean, launch_answer
from backends.naming import labels_of, mark, project8, read_labels, read_mark
from backends.vastai.account import ADDRESS, BALANCE, DIALECT, VastAccount, api_of, code_of, made_by, words_of
from backends.vastai.market import WORLD, bid_of, offers, query, type_name, zone_of
from schemas.base import place_of
from schemas.desired import BackendConfig
from schemas.instance import Seen
from schemas.launch import Ending, LaunchAnswer, Made, Refused, Request, TerminateAnswer, Unknown
from schemas.offer import Offer
from schemas.resources import USUAL_DISK, Need, Where

SOON = 60
"""Seconds after which a machine that was refused is worth another look: the market is another one by then."""
Phase = Literal["starting", "running", "stopped", "ending", "ended"]
PHASES: Mapping[str, Phase] = {"": "starting", "created": "starting", "loading": "starting", "exited": "stopped"}
NEVER_STARTS = "OCI runtime create failed"


def connect(config: BackendConfig, region: str, setting: Setting) -> VastBackend:
    """The place of `config` in `region`. Sends nothing yet."""
    return VastBackend(config, region, setting, VastAccount(api_of(config), api_of(config, public=True)))


def regions(config: BackendConfig) -> Sequence[str]:
    """The countries of `config`, or the one region that is the whole market."""
    return config.regions or (WORLD,)


class VastBackend(BackendDefaults):
    """One country of Vast.ai's market, or all of it. See `backends.base.Backend`."""

    def __init__(self, config: BackendConfig, region: str, setting: Setting, account: VastAccount) -> None:
        self._config, self._setting, self._account = config, setting, account
        self._region = region or WORLD
        self.place = place_of(config.name, self._region)
        self._ahead: int | None = None

    def identity(self) -> str:
        return self._account.id()

    def clock(self) -> int | None:
        return self._ahead

    def offers(self, needs: Sequence[Need], where: Where) -> Sequence[Offer]:
        disk = max((need.disk.min or USUAL_DISK for need in needs), default=USUAL_DISK)
        asked = query(needs, region=self._region, options=self._config.options, disk=disk)
        return list(
            offers(
                self._account.search(asked),
                needs=needs,
                backend=self._config.name,
                region=self._region,
                options=self._config.options,
                now=int(self._setting.now()),
            )
        )

    # ------------------------------------------------------------ launching

    def prepare(self, request: Request, offer: Offer) -> Request:
        ask, _, storage = offer.handle.partition(":")
        if not ask.isdigit():
            raise NoCapacity(f"{request.instance_type}: this offer names no machine any more", retry_after=SOON)
        disk = max(request.disk, offer.resources.disk)
        inputs = {
            "account": self.identity(),
            "disk": str(-(-disk // 1024)),
            "image": request.image or self._config.traits.base_image,
        }
        if offer.spot:
            if offer.price is None or (request.max_price is not None and offer.price > request.max_price):
                raise BackendError(f"{request.instance_type} costs {offer.price} $/h, above {request.max_price}")
            inputs["bid"] = str(bid_of(offer.price, disk=offer.resources.disk, storage_cost=Decimal(storage or 0)))
        there = replace(request, handle=ask, zone=offer.zone, spot=offer.spot)
        prepared = replace(there, inputs=tuple(sorted(inputs.items())), digest="")
        return replace(prepared, digest=self._digest(prepared))

    def launch(self, request: Request) -> Mapping[str, LaunchAnswer]:
        """Rent the one machine of `request`, unless a contract with its mark is there already."""
        (id,) = request.ids
        account = dict(request.inputs)["account"]
        if self._digest(request) != request.digest:
            raise TryLater(f"launch {request.launch} renders differently than when it was written")
        if self.identity() != account:
            raise TryLater(f"{request.launch} was prepared for account {account}, this is another one")
        try:
            there = [one for one in self.instances() if one.id == id]
        except ApiError as error:
            return {id: Unknown(why=str(error))}  # not sent, but an earlier sending may have come through
        if there:
            return {id: Made(external_id=there[0].external_id)}
        return {id: self._sent(request.handle, self._body(request, id))}

    def _sent(self, ask: str, body: Mapping[str, Any]) -> LaunchAnswer:
        try:
            said = self._account.create(ask, body).json
        except ApiError as error:
            return self._undone(error.made, error) if error.made else _refused(error)
        except TryLater as error:
            return launch_answer(error)
        made = made_by(said)
        if said.get("success") is True:
            return Made(external_id=made) if made else Unknown(why="Vast.ai accepted the offer and named no contract")
        if said.get("success") is not False:
            return Unknown(why="Vast.ai's answer does not say whether a contract was made")
        code = code_of(said)
        meaning = DIALECT.errors.get((200, code)) or DIALECT.errors.get((400, code)) or DIALECT.errors[200, ""]
        quota = BALANCE if meaning == "quota" else ""
        refused = ApiError(clean(words_of(said) or code) or "refused", meaning=meaning, quota=quota)
        return self._undone(made, refused) if made else _refused(refused)

    def _undone(self, contract: str, refused: ApiError) -> LaunchAnswer:
        """A refusal that left a contract, which would bill: believed once that is destroyed and no longer found."""
        left = f"{refused}; it left contract {contract}"
        try:
            if why := self._account.destroy(contract):
                return Unknown(why=f"{left}, which could not be destroyed: {why}")
            if self._account.contract(contract) is not None:
                return Unknown(why=f"{left}, which is still listed")
        except (ApiError, TryLater) as error:
            return Unknown(why=f"{left}: {error}")
        meaning = refused.meaning if refused.meaning in ("quota", "permanent") else "capacity"
        return Refused(meaning=meaning, why=f"{left}, now destroyed", quota=refused.quota, retry_after=SOON)

    # ------------------------------------------------------------ listing and terminating

    def instances(self, ids: Sequence[str] | None = None) -> Sequence[Seen]:
        if ids is not None:
            looked = (self._account.contract(id) for id in ids if id.isdigit())
            found = [one for one in looked if one is not None]
        else:
            found, theirs = self._account.contracts()
            self._ahead = None if theirs is None else int(self._setting.now()) - theirs
        return [self._seen(one) for one in found if self._is_ours(one)]

    def terminate(self, ids: Sequence[str], *, generation: int = 0) -> Mapping[str, TerminateAnswer]:
        answers: dict[str, TerminateAnswer] = {}
        for id in ids:
            if not id.isdigit():
                answers[id] = Ending()  # no contract of Vast.ai's has such an id
                continue
            if answers:
                self._account.pause()
            answers[id] = self._end(id)
        return answers

    def _end(self, id: str) -> TerminateAnswer:
        try:
            why = self._account.destroy(id)
        except ApiError as error:
            return Refused(meaning="permanent", why=str(error)) if error.meaning else Unknown(why=str(error))
        except TryLater as error:
            return Unknown(why=str(error), retry_after=error.retry_after)
        return Unknown(why=why) if why else Ending()

    def _is_ours(self, one: Mapping[str, Any]) -> bool:
        """By its label, or by the environment that it was made with, where a person changed the label."""
        if read_mark(str(one.get("label") or ""), project=self._setting.project):
            return True
        return _environment(one).get("dstack-project") == self._setting.project

    def _seen(self, one: Mapping[str, Any]) -> Seen:
        env = _environment(one)
        ours, named = read_labels(env), read_mark(str(one.get("label") or ""), project=self._setting.project)
        phase, interrupted, unfit = _state(one)
        return Seen(
            external_id=str(one["id"]),
            id=named.id if named else ours.id,
            launch=named.launch if named else ours.launch,
            pool=ours.pool,
            lineage=ours.lineage,
            generation=ours.generation,
            phase=phase,
            interrupted=interrupted,
            reason=clean(str(one.get("status_msg") or "")),
            unfit=unfit,
            untagged=() if named else ("label",),
            region=env.get("dstack-region", ""),
            zone=zone_of(one),
            instance_type=type_name(one),
            spot=bool(one.get("is_bid")),
            price=_number(one.get("dph_total")),
            address=_address(one) if phase == "running" else "",
            created_at=int(one["start_date"]) if isinstance(one.get("start_date"), int | float) else None,
            image=str(one.get("image_uuid") or ""),
        )

    # ------------------------------------------------------------ what is sent

    def _body(self, request: Request, id: str) -> dict[str, Any]:
        script = self._script(request)
        packed = base64.b64encode(gzip.compress(script.encode(), mtime=0)).decode()
        unpack = f'eval "$(echo {packed} | base64 -d | gzip -dc)"'
        body = {**self._plain(request, id), "onstart": "/bin/sh", "args": ["-c", unpack]}
        if bid := dict(request.inputs).get("bid"):
            body["price"] = float(bid)
        return body

    def _plain(self, request: Request, id: str) -> dict[str, Any]:
        """All but the start command. With `cancel_unavail`, what cannot start at once makes no contract that waits."""
        inputs = dict(request.inputs)
        told = {**labels_of(request, id), "dstack-region": self._region}
        if endpoint := self._config.options.get("endpoint"):
            told["dstack-vast-api"] = base_url(ADDRESS, endpoint)
        return {
            "image": inputs["image"],
            "label": mark(request.project, id),
            "disk": int(inputs["disk"]),
            "runtype": "args",
            "target_state": "running",
            "cancel_unavail": True,
            "env": {"-p 22:22": "1", **{key.upper().replace("-", "_"): text for key, text in told.items()}},
        }

    def _script(self, request: Request) -> str:
        boot = replace(self._setting.boot(request.launch), user=ROOT)
        return render(boot, request=request, kind=self._config.traits)

    def _digest(self, request: Request) -> str:
        """Of the start command as text: packed, it may differ between versions of a library."""
        body = [self._plain(request, id) for id in request.ids]
        whole = (body, self._script(request), request.handle, sorted(request.inputs), project8(request.project))
        return hashlib.sha256(msgspec.json.encode(whole, order="sorted")).hexdigest()


def _refused(error: ApiError) -> LaunchAnswer:
    answer = launch_answer(error)
    if isinstance(answer, Refused) and answer.meaning == "capacity":
        return replace(answer, retry_after=answer.retry_after or SOON)
    return answer


def _state(one: Mapping[str, Any]) -> tuple[Phase, bool, str]:
    """Phase, whether Vast.ai took it away, and why it is unfit. A host that is lost ends nothing: it is running."""
    actual = str(one.get("actual_status") or "")
    said = str(one.get("status_msg") or "")
    wanted = {str(one.get(key) or "") for key in ("cur_state", "next_state", "intended_status")}
    if wanted == {"stopped"}:
        return "stopped", bool(one.get("is_bid")), ""
    if actual == "exited":
        return "stopped", False, ""
    if actual in PHASES:
        return PHASES[actual], False, f"it cannot start: {clean(said)}" if NEVER_STARTS in said else ""
    return "running", False, "" if actual == "running" else f"status {clean(actual, most=40)}"


def _address(one: Mapping[str, Any]) -> str:
    """`HOST:PORT` of its sshd, "" as long as no port is told. Vast.ai pads the address with blanks."""
    host = str(one.get("public_ipaddr") or "").strip()
    ports = one.get("ports")
    found = ports.get("22/tcp") if isinstance(ports, dict) else None
    port = str(found[0].get("HostPort") or "") if isinstance(found, list) and found else ""
    return f"{host}:{port}" if host and port.isdigit() else ""


def _environment(one: Mapping[str, Any]) -> dict[str, str]:
    """What it was made with and is ours, by the names of our labels."""
    told = one.get("extra_env")
    parts: list[Any] = list(told.items()) if isinstance(told, dict) else told if isinstance(told, list) else []
    pairs = [part.split("=", 1) if isinstance(part, str) else part for part in parts]
    found = {str(pair[0]): str(pair[1]) for pair in pairs if isinstance(pair, list | tuple) and len(pair) == 2}
    return {key.lower().replace("_", "-"): value for key, value in found.items() if key.startswith("DSTACK_")}


def _number(told: Any) -> Decimal | None:
    return Decimal(str(told)) if isinstance(told, int | float) and not isinstance(told, bool) else None
