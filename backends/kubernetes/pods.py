"""An instance as a bare Pod: what is asked for, and how a listed one is read. Pure."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from datetime import datetime
from decimal import Decimal, InvalidOperation
from typing import Any, Literal

import msgspec

from backends.errors import BackendError
from backends.kubernetes.nodes import ARCHES, PLUGINS
from backends.kubernetes.quantities import mib, number
from backends.naming import LabelRules, labels, labels_of, mark
from schemas.instance import Seen
from schemas.launch import Request
from schemas.resources import Gpu, Resources

OURS = "dstack.ai/"
RULES = LabelRules(key=r"dstack\.ai/[a-z-]+", value=r"([A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?)?")
MAIN = "main"
GRACE = 30
"""Seconds between the TERM and the KILL of a pod that is deleted."""
GPU_TOLERATIONS = tuple({"key": key, "operator": "Exists", "effect": "NoSchedule"} for key in PLUGINS)
STUCK = ("ImagePullBackOff", "ErrImagePull", "InvalidImageName", "CreateContainerConfigError", "CreateContainerError")
TAKEN = (
    "PreemptionByScheduler",
    "EvictionByEvictionAPI",
    "DeletionByTaintManager",
    "DeletionByPodGC",
    "TerminationByKubelet",
)


def manifest(request: Request, id: str, *, start: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """The Pod of the instance `id`; `start` is its first process, in sh. `BackendError` for what fits no label."""
    inputs = dict(request.inputs)
    requests = {"cpu": inputs["cpus"], "memory": f"{inputs['memory']}Mi"}
    requests |= {"ephemeral-storage": f"{inputs['disk']}Mi"} if inputs["disk"] != "0" else {}
    requests |= {inputs["resource"]: inputs["gpus"]} if inputs["resource"] else {}
    container: dict[str, Any] = {
        "name": MAIN,
        "image": request.image,
        "command": ["/bin/sh", "-c", start],
        "resources": {"requests": requests, "limits": requests},
        "volumeMounts": [{"name": "shm", "mountPath": "/dev/shm"}],  # noqa: S108 - the memory that processes share
    }
    if not inputs["resource"]:  # an image may ask for every GPU of its node
        container["env"] = [{"name": "NVIDIA_VISIBLE_DEVICES", "value": "void"}]
    spec: dict[str, Any] = {
        "restartPolicy": "Never",
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "terminationGracePeriodSeconds": GRACE,
        "containers": [container],
        "volumes": [{"name": "shm", "emptyDir": {"medium": "Memory"}}],
        "tolerations": [*(GPU_TOLERATIONS if inputs["resource"] else ()), *(options.get("tolerations") or ())],
        "affinity": _affinity(inputs),
    }
    if account := options.get("service_account"):
        spec["serviceAccountName"] = account
    if secrets := options.get("image_pull_secrets"):
        spec["imagePullSecrets"] = [{"name": name} for name in secrets]
    if request.deadline:
        spec["activeDeadlineSeconds"] = int(inputs["lives"])
    return {"apiVersion": "v1", "kind": "Pod", "metadata": _metadata(request, id, inputs), "spec": spec}


def _metadata(request: Request, id: str, inputs: Mapping[str, str]) -> dict[str, Any]:
    ours = {f"{OURS}{key.removeprefix('dstack-')}": value for key, value in labels_of(request, id).items()}
    ours |= {f"{OURS}backend": request.place.partition("/")[0], f"{OURS}type": request.instance_type}
    annotations = {f"{OURS}gpu": inputs["gpu"], f"{OURS}price": str(request.price if request.price is not None else "")}
    annotations |= {f"{OURS}tags": json.dumps(dict(request.tags), sort_keys=True)} if request.tags else {}
    return {
        "name": mark(request.project, id),
        "labels": labels(ours, RULES),
        "annotations": {key: value for key, value in annotations.items() if value},
    }


def _affinity(inputs: Mapping[str, str]) -> dict[str, Any]:
    """Nodes of its architecture, and with the model of GPU that was offered."""
    arch = next(theirs for theirs, ours in ARCHES.items() if ours == inputs["arch"])
    wanted = [{"key": "kubernetes.io/arch", "operator": "In", "values": [arch]}]
    if inputs["label"]:
        wanted.append({"key": inputs["label"], "operator": "In", "values": inputs["models"].split(",")})
    terms = {"nodeSelectorTerms": [{"matchExpressions": wanted}]}
    return {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": terms}}


def digest_of(pods: list[dict[str, Any]]) -> str:
    return hashlib.sha256(msgspec.json.encode(pods, order="sorted")).hexdigest()


def label_of(pod: Mapping[str, Any], key: str) -> str:
    return str((pod["metadata"].get("labels") or {}).get(f"{OURS}{key}", ""))


def external_id(pod: Mapping[str, Any]) -> str:
    """`NAME/UID`: a name can be taken again, by another pod."""
    return f"{pod['metadata']['name']}/{pod['metadata']['uid']}"


def split_id(external_id: str) -> tuple[str, str] | None:
    """Its name and its uid; `None` for what no API server gave."""
    found = re.fullmatch(r"([a-z0-9](?:[a-z0-9.-]*[a-z0-9])?)/([A-Za-z0-9-]+)", external_id)
    return (found[1], found[2]) if found else None


def seen(pod: Mapping[str, Any], *, region: str, zone: str = "") -> Seen:
    """A pod of ours as a listing has it. Raises `BackendError` where it lacks what every pod has."""
    metadata, status = pod.get("metadata") or {}, pod.get("status") or {}
    if not metadata.get("name") or not metadata.get("uid"):
        raise BackendError(f"{region}: a pod without a name or uid is listed")
    phase, reason, unfit = _phase(pod)
    generation = label_of(pod, "generation")
    return Seen(
        external_id=external_id(pod),
        id=label_of(pod, "id"),
        launch=label_of(pod, "launch"),
        pool=label_of(pod, "pool"),
        backend=label_of(pod, "backend"),
        lineage=label_of(pod, "lineage"),
        generation=int(generation) if re.fullmatch("[0-9]{1,15}", generation) else 0,
        phase=phase,
        reason=reason,
        unfit=unfit,
        interrupted=_interrupted(pod),
        by_itself=status.get("phase") == "Succeeded",
        region=region,
        zone=zone,
        instance_type=label_of(pod, "type"),
        price=_price(pod),
        resources=_resources(pod),
        address=str(status.get("podIP") or ""),
        internal_ip=str(status.get("podIP") or ""),
        created_at=_time(metadata.get("creationTimestamp")),
        image=_image(pod),
    )


def _phase(pod: Mapping[str, Any]) -> tuple[Literal["starting", "running", "ending", "ended"], str, str]:
    """Its phase, why in the cluster's words, and what makes it useless."""
    status = pod.get("status") or {}
    words = ": ".join(str(status[key]) for key in ("reason", "message") if status.get(key))
    if status.get("phase") in ("Succeeded", "Failed"):
        return "ended", words or _container_end(status), ""
    if pod["metadata"].get("deletionTimestamp"):
        return "ending", words, ""
    if status.get("phase") == "Running":
        return "running", words, ""
    waits = [(one.get("state") or {}).get("waiting") or {} for one in status.get("containerStatuses") or ()]
    stuck = next((f"{one['reason']}: {one.get('message', '')}" for one in waits if one.get("reason") in STUCK), "")
    return "starting", stuck or unscheduled(pod) or words, stuck


def unscheduled(pod: Mapping[str, Any]) -> str:
    """Why the scheduler found no node, in its own words; "" where it did, or has not looked yet."""
    for one in (pod.get("status") or {}).get("conditions") or ():
        if one.get("type") == "PodScheduled" and one.get("status") == "False" and one.get("reason") == "Unschedulable":
            return str(one.get("message") or "Unschedulable")
    return ""


def scheduled(pod: Mapping[str, Any]) -> bool:
    return bool((pod.get("spec") or {}).get("nodeName"))


def _container_end(status: Mapping[str, Any]) -> str:
    ends = [(one.get("state") or {}).get("terminated") or {} for one in status.get("containerStatuses") or ()]
    return next((str(one["reason"]) for one in ends if one.get("reason")), "")


def _interrupted(pod: Mapping[str, Any]) -> bool:
    status = pod.get("status") or {}
    conditions = [one for one in status.get("conditions") or () if one.get("status") == "True"]
    taken = any(one.get("type") == "DisruptionTarget" and one.get("reason") in TAKEN for one in conditions)
    kueue = any(one.get("type") == "TerminationTarget" for one in conditions)
    return taken or kueue or (status.get("phase") == "Failed" and status.get("reason") in ("Evicted", "Preempting"))


def _price(pod: Mapping[str, Any]) -> Decimal | None:
    try:
        found = Decimal(str((pod["metadata"].get("annotations") or {}).get(f"{OURS}price") or "nan"))
    except InvalidOperation:
        return None
    return found if found.is_finite() and found >= 0 else None


def _main(pod: Mapping[str, Any]) -> Mapping[str, Any]:
    containers: Sequence[Mapping[str, Any]] = (pod.get("spec") or {}).get("containers") or ({},)
    return next((one for one in containers if one.get("name") == MAIN), containers[0])


def _image(pod: Mapping[str, Any]) -> str:
    return str(_main(pod).get("image") or "")


def _resources(pod: Mapping[str, Any]) -> Resources | None:
    asked = (_main(pod).get("resources") or {}).get("requests") or {}
    if not asked.get("cpu") or not asked.get("memory"):
        return None
    kept = (pod["metadata"].get("annotations") or {}).get(f"{OURS}gpu", "")
    try:
        gpu = msgspec.json.decode(kept, type=Gpu) if kept else None
    except msgspec.MsgspecError:
        gpu = None
    return Resources(
        cpus=int(number(asked["cpu"])),
        memory=mib(asked["memory"]),
        disk=mib(asked.get("ephemeral-storage", 0)),
        gpu=gpu,
        cpu_arch=_arch(pod),
        runtime="image",
    )


def _arch(pod: Mapping[str, Any]) -> str:
    return "arm" if '"arm64"' in json.dumps(pod["spec"].get("affinity") or {}) else "x86"


def _time(text: Any) -> int | None:
    try:
        return int(datetime.fromisoformat(str(text)).timestamp())
    except ValueError:
        return None
