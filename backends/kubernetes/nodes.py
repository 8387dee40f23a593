"""What the nodes of a cluster could give: shapes, what is free of them, and pods of a size that is asked for. Pure."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from backends.catalog.gpus import gpu, gpu_memory
from backends.kubernetes.quantities import MIB, mib, number
from schemas.base import Value
from schemas.gpu_names import KNOWN
from schemas.resources import Gpu, Need, Resources

PLUGINS = {"nvidia.com/gpu": "nvidia", "amd.com/gpu": "amd"}
"""Resources that are whole GPUs, and whose they are."""
MODELS = (
    "nvidia.com/gpu.product", "cloud.google.com/gke-accelerator", "karpenter.k8s.aws/instance-gpu-name",
    "gpu.nvidia.com/class", "amd.com/gpu.product-name", "beta.amd.com/gpu.product-name",
)  # fmt: skip
"""Labels that name the model of a node's GPUs: of NVIDIA's and AMD's operators, GKE, Karpenter, CoreWeave."""
ZONE = "topology.kubernetes.io/zone"
ARCHES = {"amd64": "x86", "arm64": "arm"}
USUAL_CPUS, USUAL_MEMORY = 2, 8 * 1024


class NodeFacts(Value, frozen=True, kw_only=True):
    """A node that pods may be put on. Sizes in MiB; what is free is what no pod there requests."""

    name: str
    arch: str
    cpus: int
    memory: int
    disk: int
    gpu: Gpu | None = None
    """One of its GPUs, with how many of them it has."""
    resource: str = ""
    label: str = ""
    model: str = ""
    """The value of `label` that its GPUs are told by."""
    free: tuple[int, int, int, int] | None = None
    """CPUs, memory, disk, GPUs; `None` where the pods of other namespaces may not be listed."""

    def holds(self, wanted: Resources) -> int | None:
        """How many pods of that size fit now."""
        if self.free is None:
            return None
        count = wanted.gpu.count if wanted.gpu else 0
        asked = (wanted.cpus, wanted.memory, wanted.disk, count)
        return max(0, min(have // want for have, want in zip(self.free, asked, strict=True) if want))


def facts_of(
    nodes: Iterable[Mapping[str, Any]],
    pods: Iterable[Mapping[str, Any]] | None,
    tolerations: Sequence[Mapping[str, Any]],
) -> list[NodeFacts]:
    """The nodes that are ready, not cordoned, and whose taints are tolerated."""
    used = _used(pods) if pods is not None else None
    usable = (node for node in nodes if _usable(node, tolerations))
    return [_facts(node, used) for node in usable]


def sizes(node: NodeFacts, needs: Sequence[Need]) -> list[Resources]:
    """What is offered of that node: the smallest pod for each need that it can hold; without needs, its fractions."""
    if needs:
        return [one for one in (_for_need(node, need) for need in needs) if one]
    if node.gpu is None:
        return [_share(node, 1, parts) for parts in (1, 2, 4) if node.cpus >= parts]
    counts = sorted({1, 2, 4, 8, node.gpu.count})
    return [_share(node, count, node.gpu.count) for count in counts if count <= node.gpu.count]


def type_name(resources: Resources) -> str:
    """`8cpu-64gb-1xh100`: what a pod of that size is called as an instance type."""
    parts = [f"{resources.cpus}cpu", _size(resources.memory)]
    parts += [f"{_size(resources.disk)}-disk"] if resources.disk else []
    parts += [f"{resources.gpu.count}x{resources.gpu.name.lower()}"] if resources.gpu else []
    parts += [resources.cpu_arch] if resources.cpu_arch != "x86" else []
    return "-".join(parts)


def _size(size: int) -> str:
    return f"{size // 1024}gb" if size % 1024 == 0 else f"{size}mb"


KEPT_BACK = 20
"""One part in so many of a node's CPUs (at least one of several) and memory: daemonsets have theirs of it."""


def _share(node: NodeFacts, part: int, of: int) -> Resources:
    """A part of what the node has for pods, without what daemonsets take: a whole node's would fit on none."""
    kept = max(1, node.cpus // KEPT_BACK) if node.cpus > 1 else 0
    own = Resources(
        cpus=max(1, (node.cpus - kept) * part // of),
        memory=(node.memory - node.memory // KEPT_BACK) * part // of,
        disk=0,
        cpu_arch=node.arch,
        runtime="image",
    )
    return _with_gpus(own, node, part) if node.gpu else own


def _with_gpus(resources: Resources, node: NodeFacts, count: int) -> Resources:
    from msgspec.structs import replace

    return replace(resources, gpu=replace(node.gpu, count=count) if node.gpu else None)


def _for_need(node: NodeFacts, need: Need) -> Resources | None:
    wanted = max(need.gpu.count.min or 0, _for_memory(node, need)) if need.gpu else 0
    count = wanted if node.gpu else 0
    if count > (node.gpu.count if node.gpu else 0) or (wanted and not count):
        return None
    share = _share(node, count, node.gpu.count) if node.gpu and count else None
    cpus = _within(need.cpu, share.cpus if share else USUAL_CPUS)
    memory = _within(need.memory, share.memory if share else USUAL_MEMORY)
    disk = need.disk.min or 0
    if cpus > node.cpus or memory > node.memory or disk > node.disk:
        return None
    own = Resources(cpus=cpus, memory=memory, disk=disk, cpu_arch=node.arch, runtime="image")
    return _with_gpus(own, node, count) if count else own


def _for_memory(node: NodeFacts, need: Need) -> int:
    """How many GPUs have the total memory that is asked for."""
    total = need.gpu.total_memory.min if need.gpu else None
    return -(-total // node.gpu.memory) if total and node.gpu and node.gpu.memory else 0


def _within(span: Any, usual: int) -> int:
    least, most = span.min or 0, span.max
    return max(1, least, usual if most is None else min(usual, most))


def _usable(node: Mapping[str, Any], tolerations: Sequence[Mapping[str, Any]]) -> bool:
    spec, status = node.get("spec") or {}, node.get("status") or {}
    ready = any(one.get("type") == "Ready" and one.get("status") == "True" for one in status.get("conditions") or ())
    hard = (taint for taint in spec.get("taints") or () if taint.get("effect") in ("NoSchedule", "NoExecute"))
    return ready and not spec.get("unschedulable") and all(any(_tolerates(one, t) for one in tolerations) for t in hard)


def _tolerates(toleration: Mapping[str, Any], taint: Mapping[str, Any]) -> bool:
    if toleration.get("effect") not in (None, "", taint.get("effect")):
        return False
    if toleration.get("operator") == "Exists":
        return toleration.get("key") in (None, "", taint.get("key"))
    return toleration.get("key") == taint.get("key") and (toleration.get("value") or "") == (taint.get("value") or "")


def _facts(node: Mapping[str, Any], used: Mapping[str, list[int]] | None) -> NodeFacts:
    name = str(node["metadata"]["name"])
    labels = node["metadata"].get("labels") or {}
    room = (node.get("status") or {}).get("allocatable") or {}
    resource = next((one for one in PLUGINS if number(room.get(one, 0)) > 0), "")
    label = next((one for one in MODELS if labels.get(one)), "")
    model = str(labels.get(label, ""))
    own = _gpu(model, labels, PLUGINS[resource], int(number(room[resource]))) if resource and model else None
    have = (int(number(room.get("cpu", 0))), mib(room.get("memory", 0)), mib(room.get("ephemeral-storage", 0)))
    free = None
    if used is not None:
        taken = used.get(name, [0, 0, 0, 0, 0])
        milli = int(number(room.get("cpu", 0)) * 1000) - taken[0]
        gpus = (own.count if own else 0) - taken[3 if resource != "amd.com/gpu" else 4]
        free = (milli // 1000, have[1] - taken[1], have[2] - taken[2], gpus)
    return NodeFacts(
        name=name,
        arch=ARCHES.get(str(labels.get("kubernetes.io/arch", "amd64")), "x86"),
        cpus=have[0],
        memory=have[1],
        disk=have[2],
        gpu=own,
        resource=resource if own else "",
        label=label if own else "",
        model=model if own else "",
        free=free,
    )


def _gpu(model: str, labels: Mapping[str, str], vendor: str, count: int) -> Gpu | None:
    """`NVIDIA-H100-80GB-HBM3` is an H100. A time-sliced one (`-SHARED`) is no whole GPU, and not offered."""
    if model.upper().endswith("-SHARED"):
        return None
    words = model.lower().replace("_", "-").split("-")
    joined = ["".join(words[at : at + size]) for size in (3, 2, 1) for at in range(len(words) - size + 1)]
    name = next((one for one in joined if one in KNOWN), "").upper() or model.upper()
    told = int(number(labels.get("nvidia.com/gpu.memory", 0))) or next(
        (_gigabytes(one) for one in words if _gigabytes(one)), 0
    )
    return gpu(name, memory=gpu_memory(name, told), count=count, vendor=vendor)


def _gigabytes(word: str) -> int:
    return int(word[:-2]) * 1024 if word.endswith("gb") and word[:-2].isdigit() else 0


def _used(pods: Iterable[Mapping[str, Any]]) -> Mapping[str, list[int]]:
    """Node -> thousandths of CPUs, MiB of memory and disk, GPUs of NVIDIA and of AMD that its living pods request."""
    taken: dict[str, list[int]] = defaultdict(lambda: [0, 0, 0, 0, 0])
    for pod in pods:
        node = (pod.get("spec") or {}).get("nodeName")
        if not node or (pod.get("status") or {}).get("phase") in ("Succeeded", "Failed"):
            continue
        for container in pod["spec"].get("containers") or ():
            resources = container.get("resources") or {}
            asked = {**(resources.get("limits") or {}), **(resources.get("requests") or {})}
            kinds = ("cpu", "memory", "ephemeral-storage", *PLUGINS)
            for at, (kind, unit) in enumerate(zip(kinds, (1000, 1, 1, 1, 1), strict=True)):
                amount = number(asked.get(kind, 0)) * unit
                taken[node][at] += -int(-(amount / MIB) // 1) if at in (1, 2) else int(amount)
    return taken
