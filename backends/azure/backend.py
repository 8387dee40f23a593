"""Azure: one location of one subscription. A listing is of the whole subscription.

What tells ours from others' is a tag. A machine's name is made of its launch: a creation that is sent again meets the
machine that is there (`If-None-Match: *`) and adopts it, where its tags are ours.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from msgspec.structs import replace

from backends.azure.api import SUBSCRIPTIONS, ArmApi
from backends.azure.errors import AzureError
from backends.azure.hooks import CATALOG, catalog_offers, live_region, policy, regions  # noqa: F401 - for the registry
from backends.azure.images import image_for
from backends.azure.leftovers import addresses, leftovers_in, remove_from
from backends.azure.machine import body_of, external_id, power_of, seen, tags_in, tags_of
from backends.azure.network import (
    declared_subnet,
    ensure_group,
    ensure_network,
    ensure_security,
    group_of,
    group_path,
    names,
    own_address,
)
from backends.base import BackendDefaults, Setting
from backends.boot.cloud_init import render
from backends.errors import BackendError, CallFailed, NoCapacity, QuotaExceeded, TryLater
from backends.naming import mark
from schemas.base import place_of
from schemas.desired import BackendConfig
from schemas.instance import Seen
from schemas.launch import Ending, LaunchAnswer, Made, Refused, Request, TerminateAnswer, Unknown
from schemas.leftover import Leftover
from schemas.offer import Offer
from schemas.resources import Need, Where

GIB, DISK = 1024, 100  # MiB; GiB, where nobody asked
AT_ONCE = 8  # requests
PATIENCE = 45.0  # seconds that an operation is followed: capacity is refused within them as a rule


def connect(config: BackendConfig, region: str, setting: Setting) -> AzureBackend:
    """Nothing is asked yet."""
    return AzureBackend(config, region, setting)


class AzureBackend(BackendDefaults):
    """See `backends.base.Backend`."""

    def __init__(self, config: BackendConfig, region: str, setting: Setting) -> None:
        self.place = place_of(config.name, region)
        self._config, self._region, self._setting = config, region, setting
        self._options, self._arm = config.options, ArmApi(config)
        self._group = group_path(self._arm, group_of(config.options, setting.project))
        self._notes: dict[str, None] = {}

    def identity(self) -> str:
        found = self._arm.get(self._arm.root, version=SUBSCRIPTIONS).body
        tenant, subscription = found.get("tenantId"), found.get("subscriptionId")
        if not tenant or not subscription:
            raise TryLater("Azure did not name the subscription")
        return f"{tenant}/{subscription}"

    def offers(self, needs: Sequence[Need], where: Where) -> Sequence[Offer]:
        """The catalog's, of this location."""
        return catalog_offers(self._config, self._region, now=self._setting.now())

    def notes(self) -> Sequence[str]:
        told, self._notes = list(self._notes), {}
        return told

    # ------------------------------------------------------------ launching

    def prepare(self, request: Request, offer: Offer) -> Request:
        security, network = names(self._group, project=request.project, region=self._region)
        declared = (self._options.get("vpc_ids") or {}).get(self._region)
        facts = {
            "account": self.identity(),
            "image": image_for(self._arm, offer, region=self._region, os_images=self._options.get("os_images") or {}),
            "size": str(max(-(-request.disk // GIB), 30) if request.disk else DISK),
            "subnet": declared_subnet(self._arm, declared) if declared else f"{network}/subnets/default",
            "network": "" if declared else network,
            "nsg": security,
            "public": "" if self._options.get("public_ips") is False else "yes",
            "identity": self._options.get("vm_managed_identity") or "",
        }
        common = tags_of(request, request.ids[0], self._options.get("tags") or {})
        facts |= {f"tag:{name}": value for name, value in common.items() if name != "dstack-id"}
        prepared = replace(request, inputs=tuple(sorted((key, value) for key, value in facts.items() if value)))
        return replace(prepared, digest=self._digest(prepared))

    def launch(self, request: Request) -> Mapping[str, LaunchAnswer]:
        """Each machine by itself. What is needed besides is looked for, and made where it is missing."""
        if self._digest(request) != request.digest:
            raise TryLater(f"{request.launch} renders otherwise than when it was prepared: it is not sent again")
        inputs = dict(request.inputs)
        if self.identity() != inputs["account"]:
            raise TryLater(f"{request.launch} was prepared for {inputs['account']}, this is another subscription")
        try:
            self._around(request, inputs)
        except BackendError as error:
            raise self._surely(request, error) from None
        with ThreadPoolExecutor(AT_ONCE) as pool:
            return dict(zip(request.ids, pool.map(lambda id: self._one(request, id), request.ids), strict=True))

    def _surely(self, request: Request, error: BackendError) -> CallFailed:
        """A refusal promises that nothing was made: an earlier sending of the request may have made some."""
        try:
            there = any(self._there(mark(request.project, id)) for id in request.ids)
        except CallFailed:
            there = True
        return TryLater(f"{error} (what an earlier request made is to be looked for)") if there else error

    def _around(self, request: Request, inputs: Mapping[str, str]) -> None:
        name = group_of(self._options, request.project)
        declared = bool(self._options.get("resource_group"))
        ensure_group(self._arm, name, project=request.project, region=self._region, declared=declared)
        if "network" in inputs:
            ensure_network(self._arm, inputs["network"], project=request.project, region=self._region)
        self._let_in(inputs["nsg"], direct=request.way.mode == "direct")

    def _let_in(self, path: str, *, direct: bool) -> bool:
        said = self._options.get("ingress", "own")
        told = () if said == "none" else (said,) if isinstance(said, str) else tuple(said)
        own = own_address(self._config.endpoint) if direct and "own" in told else ""
        if direct and "own" in told and not own:
            self._notes[
                f"{self.place}: our own address is not known: nobody is let in to port 22; set DSTACK_ADDRESS, or "
                "`ingress: [RANGE]` of the backend"
            ] = None
        ranges = [one for one in told if one != "own"]
        return ensure_security(
            self._arm, path, project=self._setting.project, region=self._region, own=own, ranges=ranges,
            now=int(self._setting.now()),
        )  # fmt: skip

    def _one(self, request: Request, id: str) -> LaunchAnswer:
        name = mark(request.project, id)
        try:
            body = self._body(request, id)
            headers = {"If-None-Match": "*"}
            answer = self._arm.write("PUT", self._machine(name), body, version=self._arm.compute, headers=headers)
        except TryLater as error:
            return self._adopted(request, name, error) if _exists(error) else _unknown(error)
        except CallFailed as error:
            return self._refused(request, name, error, failed=False)
        try:
            self._arm.followed(answer, patience=PATIENCE)
        except TryLater as error:
            return _unknown(error)
        except CallFailed as error:
            return self._refused(request, name, error, failed=True)
        return Made(external_id=external_id(answer.body) if answer.body.get("id") else "")

    def _refused(self, request: Request, name: str, error: CallFailed, *, failed: bool) -> LaunchAnswer:
        """Azure leaves a machine whose making failed where it is, with its disk: a refusal is one once that goes.

        `failed`: its making did. A request that was refused at once may have been granted before, and is adopted.
        """
        try:
            found = self._there(name)
            if found is not None and self._ours(found, request):
                if not failed and found["properties"].get("provisioningState") != "Failed":
                    return Made(external_id=external_id(found))
                self._delete(self._machine(name))
        except CallFailed as later:
            return Unknown(why=f"{error} (whether something was left of it is not known, or not deleted: {later})")
        if isinstance(error, NoCapacity):
            return Refused(meaning="capacity", why=str(error), retry_after=error.retry_after)
        if isinstance(error, QuotaExceeded):
            return Refused(meaning="quota", why=str(error), quota=error.quota)
        return Refused(meaning="permanent", why=str(error))

    def _adopted(self, request: Request, name: str, error: TryLater) -> LaunchAnswer:
        """The machine of that name, where it is of this launch."""
        try:
            found = self._there(name)
        except CallFailed as later:
            return Unknown(why=str(later))
        if found is None:
            return Unknown(why=str(error))
        if not self._ours(found, request):
            return Refused(meaning="permanent", why=f"{name}: a machine of that name is there, and is not ours")
        if found["properties"].get("provisioningState") in ("Failed", "Deleting"):
            return Unknown(why=f"{name} is there, and {found['properties']['provisioningState'].lower()}")
        return Made(external_id=external_id(found))

    def _ours(self, machine: Mapping[str, Any], request: Request) -> bool:
        tags = tags_in(machine)
        return (tags.get("dstack-project"), tags.get("dstack-launch")) == (request.project, request.launch)

    def _there(self, name: str) -> Any:
        return self._arm.found(self._machine(name), version=self._arm.compute)

    def _machine(self, name: str) -> str:
        return f"{self._group}/providers/Microsoft.Compute/virtualMachines/{name}"

    def _body(self, request: Request, id: str) -> dict[str, Any]:
        boot = self._setting.boot(request.launch)
        user_data = render(boot, request=request, kind=self._config.traits)
        return body_of(request, id, region=self._region, boot=boot, user_data=user_data)

    def _digest(self, request: Request) -> str:
        bodies = [self._body(request, id) for id in request.ids]
        return "sha256:" + hashlib.sha256(json.dumps(bodies, sort_keys=True).encode()).hexdigest()

    # ------------------------------------------------------------ listing, ending

    def instances(self, ids: Sequence[str] | None = None) -> Sequence[Seen]:
        """Two listings of the subscription at once: what the machines are, and whether they run. Or just these."""
        machines, powers = self._these(ids) if ids is not None else self._listed()
        if not machines:
            return []
        known = addresses(self._arm, self._group)
        return [
            seen(one, power=powers.get(key), address=known.get(key, ("", ""))[0], internal=known.get(key, ("", ""))[1])
            for one in machines
            for key in (str(one["id"]).lower(),)
        ]

    def _listed(self) -> tuple[list[Mapping[str, Any]], dict[str, str]]:
        path, version = f"{self._arm.root}/providers/Microsoft.Compute/virtualMachines", self._arm.compute
        with ThreadPoolExecutor(2) as pool:
            models = pool.submit(lambda: list(self._arm.pages(path, version=version)))
            states = pool.submit(lambda: list(self._arm.pages(path, version=version, query={"statusOnly": "true"})))
            powers = {str(one.get("id", "")).lower(): one for one in states.result()}
            ours = [one for one in models.result() if self._is_ours(one)]
        merged = [_with_view(one, powers.get(str(one["id"]).lower())) for one in ours]
        return merged, {key: power_of(one) for key, one in powers.items()}

    def _these(self, ids: Sequence[str]) -> tuple[list[Mapping[str, Any]], dict[str, str]]:
        with ThreadPoolExecutor(AT_ONCE) as pool:
            found = [one for one in pool.map(self._look, ids) if one is not None]
        ours = [one for one in found if tags_in(one).get("dstack-project", "") in ("", self._setting.project)]
        return ours, {str(one["id"]).lower(): power_of(one) for one in ours}

    def _look(self, id: str) -> Any:
        """That very machine; `None` where it is gone, or another one has its name now."""
        path = self._path_of(id)
        query = {"$expand": "instanceView"}
        found = self._arm.found(path, version=self._arm.compute, query=query) if path else None
        return found if found is not None and external_id(found) == id else None

    def _path_of(self, id: str) -> str:
        """ "" of what Azure cannot have given: that is no machine of this subscription."""
        path = id.partition("#")[0]
        inside = path.startswith(f"{self._arm.root.lower()}/resourcegroups/") and "/virtualmachines/" in path
        return path if inside and ".." not in path else ""

    def _is_ours(self, machine: Mapping[str, Any]) -> bool:
        return bool(machine.get("id")) and tags_in(machine).get("dstack-project") == self._setting.project

    def terminate(self, ids: Sequence[str], *, generation: int = 0) -> Mapping[str, TerminateAnswer]:
        with ThreadPoolExecutor(AT_ONCE) as pool:
            return dict(zip(ids, pool.map(self._end, ids), strict=True))

    def _end(self, id: str) -> TerminateAnswer:
        """Its name alone may be another machine's by now: it is looked at first."""
        try:
            if self._look(id) is not None:
                self._delete(self._path_of(id))
        except TryLater as error:
            return Unknown(why=str(error), retry_after=error.retry_after)
        except BackendError as error:
            return Refused(meaning="permanent", why=str(error))
        return Ending()

    def _delete(self, path: str) -> None:
        """What is gone already is no error."""
        try:
            self._arm.write("DELETE", path, version=self._arm.compute, query={"forceDeletion": "true"})
        except AzureError as error:
            if error.status != 404:
                raise

    def allow_our_address(self) -> bool:
        path = names(self._group, project=self._setting.project, region=self._region)[0]
        return self._let_in(path, direct=True) if self._arm.found(self._group, version="2022-09-01") else False

    def leftovers(self) -> Sequence[Leftover]:
        return leftovers_in(self._arm, self._group, project=self._setting.project, place=self.place)

    def remove(self, leftover: Leftover) -> None:
        remove_from(self._arm, leftover)


def _with_view(machine: Mapping[str, Any], status: Mapping[str, Any] | None) -> Mapping[str, Any]:
    """The machine with what the listing of states says of it."""
    view = ((status or {}).get("properties") or {}).get("instanceView")
    return {**machine, "properties": {**machine["properties"], "instanceView": view}} if view else machine


def _exists(error: TryLater) -> bool:
    return str(error).startswith("PreconditionFailed")


def _unknown(error: TryLater) -> Unknown:
    return Unknown(why=str(error), retry_after=error.retry_after)
