"""Kubernetes: an instance is a bare Pod in one namespace of one cluster, named by its mark.

A name is given once, so that a repeated request makes nothing new. Where there is no room the scheduler says so after
the pod was accepted: `launch` waits for its word, and takes a pod without a node back.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from decimal import Decimal
from functools import cached_property
from typing import Any

import msgspec
from msgspec.structs import replace

from backends.base import BackendDefaults, Setting
from backends.boot.container import ROOT, render
from backends.errors import CallFailed, TryLater
from backends.http import Api
from backends.http_answers import ApiError, launch_answer, rows, segment
from backends.kubernetes.answers import CONFLICT, EXISTS, is_reason
from backends.kubernetes.api import PATIENCE, api_of, identity_of
from backends.kubernetes.kubeconfig import Cluster, cluster_of, regions  # noqa: F401 - `regions` is for the registry
from backends.kubernetes.nodes import facts_of, sizes, type_name
from backends.kubernetes.pods import (
    GPU_TOLERATIONS,
    digest_of,
    external_id,
    label_of,
    manifest,
    scheduled,
    seen,
    split_id,
    unscheduled,
)
from backends.kubernetes.rights import access, policy, probes  # noqa: F401 - for the registry
from schemas.base import place_of
from schemas.desired import BackendConfig
from schemas.instance import Seen
from schemas.launch import Ending, LaunchAnswer, Made, Refused, Request, TerminateAnswer, Unknown
from schemas.offer import Offer
from schemas.resources import Need, Resources, Where

SCHEDULING = 5.0
"""Seconds in which a scheduler has said whether there is room."""
PAGE, PAGES = 500, 1000


def connect(config: BackendConfig, region: str, setting: Setting) -> KubernetesBackend:
    """The place of `config` in the context `region`. Sends nothing yet."""
    return KubernetesBackend(config, region, setting)


class KubernetesBackend(BackendDefaults):
    """One namespace of one cluster. See `backends.base.Backend`."""

    def __init__(
        self, config: BackendConfig, region: str, setting: Setting, *, wait: Callable[[float], None] = time.sleep
    ) -> None:
        self.place = place_of(config.name, region)
        self._config, self._region, self._setting, self._wait = config, region, setting, wait

    @cached_property
    def _cluster(self) -> Cluster:
        return cluster_of(self._config, self._region)

    @cached_property
    def _api(self) -> Api:
        return api_of(self._cluster)

    @property
    def _pods(self) -> str:
        return f"/api/v1/namespaces/{segment(self._cluster.namespace)}/pods"

    def identity(self) -> str:
        """The namespace's uid: one that is made anew is another place."""
        return identity_of(self._api, self._cluster)

    # ------------------------------------------------------------ offers

    def offers(self, needs: Sequence[Need], where: Where) -> Sequence[Offer]:
        """Pods of the sizes that are asked for, of each kind of node that could hold them."""
        tolerations = [*GPU_TOLERATIONS, *(self._config.options.get("tolerations") or ())]
        found: dict[tuple[str, str], Offer] = {}
        models: dict[tuple[str, str], set[str]] = {}
        for node in facts_of(self._all("/api/v1/nodes"), self._everyones_pods(), tolerations):
            for size in sizes(node, needs):
                key = (type_name(size), node.label if size.gpu else "")
                free, known = node.holds(size), found.get(key)
                total = None if free is None else free + (known.free or 0 if known else 0)
                models.setdefault(key, set()).update([node.model] if size.gpu else [])
                handle = "|".join([node.resource, node.label, ",".join(sorted(models[key]))]) if size.gpu else ""
                found[key] = self._offer(size, free=total, handle=handle)
        return [found[key] for key in sorted(found)]

    def _everyones_pods(self) -> list[dict[str, Any]] | None:
        try:
            return list(self._all("/api/v1/pods"))
        except ApiError:
            return None  # not allowed: how many are free is then not known

    def _offer(self, size: Resources, *, free: int | None, handle: str) -> Offer:
        return Offer(
            backend=self._config.name,
            region=self._region,
            instance_type=type_name(size),
            handle=handle,
            resources=size,
            price=self._price(size),
            free=free,
            availability="unknown" if free is None else "available" if free else "no-capacity",
            source="prices of the backend" if self._config.options.get("prices") else "no prices given",
        )

    def _price(self, size: Resources) -> Decimal:
        """By the `prices` of a CPU, a GB of memory and a GPU of each model. What has no price costs nothing."""
        prices = {
            str(key).lower(): Decimal(str(value)) for key, value in (self._config.options.get("prices") or {}).items()
        }
        gpus = size.gpu.count * prices.get(size.gpu.name.lower(), Decimal(0)) if size.gpu else Decimal(0)
        memory = Decimal(size.memory) / 1024 * prices.get("memory", Decimal(0))
        return (size.cpus * prices.get("cpu", Decimal(0)) + memory + gpus).quantize(Decimal("0.0001"))

    # ------------------------------------------------------------ launching

    def prepare(self, request: Request, offer: Offer) -> Request:
        size = offer.resources
        resource, label, models = offer.handle.split("|") if offer.handle else ("", "", "")
        inputs = {
            "cpus": str(size.cpus),
            "memory": str(size.memory),
            "disk": str(size.disk),
            "arch": size.cpu_arch,
            "gpus": str(size.gpu.count if size.gpu else 0),
            "gpu": msgspec.json.encode(size.gpu).decode() if size.gpu else "",
            "resource": resource,
            "label": label,
            "models": models,
            "namespace": self.identity(),
            "lives": str(max(60, request.deadline - int(self._setting.now()))) if request.deadline else "",
        }
        image = request.image or self._config.traits.base_image
        prepared = replace(request, inputs=tuple(sorted(inputs.items())), image=image, digest="")
        return replace(prepared, digest=digest_of(self._manifests(prepared)))

    def _manifests(self, request: Request) -> list[dict[str, Any]]:
        boot = replace(self._setting.boot(request.launch), user=ROOT)
        start = render(boot, request=request, kind=self._config.traits)
        return [manifest(request, id, start=start, options=self._config.options) for id in request.ids]

    def launch(self, request: Request) -> Mapping[str, LaunchAnswer]:
        pods = self._manifests(request)
        if digest_of(pods) != request.digest:
            raise TryLater(f"{request.launch} renders otherwise than when it was prepared: it is not sent again")
        if self.identity() != dict(request.inputs)["namespace"]:
            raise TryLater(f"{request.launch} was prepared for another namespace than {self.identity()}")
        answers = {id: self._make(pod) for id, pod in zip(request.ids, pods, strict=True)}
        return {id: self._placed(answer) if isinstance(answer, Made) else answer for id, answer in answers.items()}

    def _make(self, pod: dict[str, Any]) -> LaunchAnswer:
        try:
            made = self._api.write("POST", self._pods, pod, deadline=self._api.deadline(PATIENCE)).json
        except (ApiError, TryLater) as error:
            return self._surely(pod, error)
        return Made(external_id=external_id(made))

    def _surely(self, pod: dict[str, Any], error: CallFailed) -> LaunchAnswer:
        """A refusal that promises: a quota is asked before the name, so that an earlier request may have made it."""
        name = pod["metadata"]["name"]
        try:
            there = self._look(name)
        except CallFailed as unseen:
            return Unknown(why=f"{error} (whether it was made cannot be told: {unseen})")
        if there is not None:
            ours = all(label_of(there, key) == label_of(pod, key) for key in ("project", "launch", "id", "lineage"))
            if ours:
                return Made(external_id=external_id(there))
            if is_reason(error, EXISTS):
                return Refused(meaning="permanent", why=f"the pod {name} is another one than ours")
        if isinstance(error, ApiError) and error.meaning == "missing":
            return Refused(meaning="permanent", why=str(error))
        return launch_answer(error)

    def _placed(self, made: Made) -> LaunchAnswer:
        """`made`, or a refusal where the scheduler says that no node has room, and the pod is gone again."""
        named = split_id(made.external_id)
        until = self._api.deadline(SCHEDULING)
        while named and self._api.deadline(0) < until:
            try:
                pod = self._look(named[0])
            except CallFailed:
                return made
            if pod is None or scheduled(pod) or pod["metadata"]["uid"] != named[1]:
                return made
            if why := unscheduled(pod):
                return self._taken_back(made, why)
            self._wait(0.1)
        return made

    def _taken_back(self, made: Made, why: str) -> LaunchAnswer:
        """A pod that has no node is gone as soon as it is deleted; one that just got one stays, and counts as made."""
        name, uid = split_id(made.external_id) or ("", "")
        try:
            self._delete(name, uid)
            left = self._look(name)
        except CallFailed:
            return made
        if left is not None and left["metadata"]["uid"] == uid:
            return made
        # Where nothing is short, it is the configuration that no node fits: taints, labels.
        return Refused(meaning="capacity" if "Insufficient" in why else "permanent", why=f"{self.place}: {why}")

    # ------------------------------------------------------------ listing, ending

    def instances(self, ids: Sequence[str] | None = None) -> Sequence[Seen]:
        """Every pod with our project's label, or just these. One that is not there has ended: a listing never lags."""
        if ids is None:
            return [seen(pod, region=self._region) for pod in self._listed()]
        found: list[Seen] = []
        for name, uid in filter(None, map(split_id, dict.fromkeys(ids))):
            pod = self._look(name)
            if pod and pod["metadata"]["uid"] == uid and label_of(pod, "project") in ("", self._setting.project):
                found.append(seen(pod, region=self._region))
        return found

    def _listed(self) -> Iterator[dict[str, Any]]:
        return self._all(self._pods, labelSelector=f"dstack.ai/project={self._setting.project}")

    def terminate(self, ids: Sequence[str], *, generation: int = 0) -> Mapping[str, TerminateAnswer]:
        """With the uid as a condition, and never by force: a node that is cut off may still run it."""
        return {id: self._end(id) for id in dict.fromkeys(ids)}

    def _end(self, id: str) -> TerminateAnswer:
        named = split_id(id)
        try:
            if named:
                self._delete(*named)
        except ApiError as error:
            return Refused(meaning="permanent", why=str(error)) if error.meaning else Unknown(why=str(error))
        except TryLater as error:
            return Unknown(why=str(error), retry_after=error.retry_after)
        return Ending()

    def _delete(self, name: str, uid: str) -> None:
        """Another pod of that name, and none, are no error."""
        body = {"apiVersion": "v1", "kind": "DeleteOptions", "preconditions": {"uid": uid}}
        try:
            self._api.write("DELETE", f"{self._pods}/{segment(name)}", body, deadline=self._api.deadline(PATIENCE))
        except ApiError as error:
            if error.meaning != "missing" and not is_reason(error, CONFLICT):
                raise

    def confirm_ended(self, living: Collection[str]) -> None:
        """Delete the ended pods of our lineage, which stay listed until somebody does."""
        for pod in list(self._listed()):
            one = seen(pod, region=self._region)
            if one.phase == "ended" and one.lineage == self._setting.lineage and one.id not in living:
                self._delete(*(split_id(one.external_id) or ("", "")))

    # ------------------------------------------------------------ asking

    def _look(self, name: str) -> dict[str, Any] | None:
        try:
            return self._read(f"{self._pods}/{segment(name)}")
        except ApiError as error:
            if error.meaning == "missing":
                return None
            raise

    def _read(self, path: str) -> dict[str, Any]:
        return self._api.read(path, deadline=self._api.deadline(PATIENCE)).json

    def _all(self, path: str, **query: str) -> Iterator[dict[str, Any]]:
        """Every page. One that is missing would end machines that are alive."""
        token, deadline = "", self._api.deadline(PATIENCE)
        for _ in range(PAGES):
            more = {"continue": token} if token else {}
            answer = self._api.read(path, query={**query, "limit": str(PAGE), **more}, deadline=deadline)
            yield from rows(answer, "items", where=f"{self.place}: {path}")
            token = str((answer.json.get("metadata") or {}).get("continue") or "")
            if not token:
                return
        raise TryLater(f"{self.place}: more than {PAGES} pages")
