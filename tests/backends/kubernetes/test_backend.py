"""Kubernetes keeps the contract of a backend: against the double, and what its own words mean."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from backends.base import Backend
from backends.errors import BackendError
from backends.kubernetes.backend import KubernetesBackend, connect
from backends.kubernetes.kubeconfig import regions
from backends.kubernetes.quantities import mib, number
from backends.kubernetes.rights import access, policy, probes
from backends.scope import PolicyScope
from schemas.access import way_of
from schemas.backend_types import type_of
from schemas.desired import BackendConfig
from schemas.instance import Instance
from schemas.launch import Ending, Made, Refused
from schemas.resources import GpuNeed, Need, Resources, Span, Where
from tests.contracts.backend_contract import BackendContract, BackendRig, an_offer, launch, living, request, sent
from tests.doubles.kubernetes.api_server import RECORDED, ApiServer, Refusal, kubeconfig, node, served
from tests.doubles.sketch.sketch_double import Around

PRICES = {"cpu": "0.01", "memory": "0.001", "H100": "2.50"}


@dataclass
class Rig:
    config: BackendConfig
    cluster: ApiServer = field(default_factory=ApiServer)
    kind = type_of("kubernetes")
    project, lineage, room = "project1", "lineage1", 3

    def connect(self, *, lineage: str = "") -> Backend:
        return self.place(lineage=lineage)

    def place(self, *, lineage: str = "") -> KubernetesBackend:
        around = Around(project=self.project, lineage=lineage or self.lineage)
        return connect(self.config, "c1", around)

    def settle(self) -> None:
        self.cluster.settle()


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[Rig]:
    cluster = ApiServer()
    with served(cluster) as server:
        (tmp_path / "config").write_text(kubeconfig(server))
        options = {"kubeconfig": str(tmp_path / "config"), "contexts": ["c1"], "prices": PRICES}
        config = BackendConfig(name="kubernetes", type="kubernetes", regions=("c1",), options=options)
        yield Rig(config, cluster)


class TestKubernetes(BackendContract):
    kind = Rig.kind

    @pytest.fixture
    def rig(self, rig: Rig) -> BackendRig:
        return rig


def test_offers_come_from_nodes(rig: Rig) -> None:
    rig.cluster.nodes = [node("big", gpus=8)]
    offers = {offer.resources.gpu.count: offer for offer in rig.place().offers((), Where()) if offer.resources.gpu}
    assert sorted(offers) == [1, 2, 4, 8]
    gpu = offers[8].resources.gpu
    assert gpu
    assert (gpu.name, gpu.memory, offers[8].free, offers[2].free) == ("H100", 80 * 1024, 1, 4)
    assert offers[8].price
    assert offers[8].price > 20


def test_the_whole_of_a_node_leaves_room_for_daemonsets(rig: Rig) -> None:
    rig.cluster.nodes = [node("big", gpus=8)]
    room = rig.cluster.nodes[0]["status"]["allocatable"]
    offers = {
        offer.resources.gpu.count: offer.resources for offer in rig.place().offers((), Where()) if offer.resources.gpu
    }
    assert int(number(room["cpu"])) - 4 < offers[8].cpus < int(number(room["cpu"]))
    assert mib(room["memory"]) * 0.94 < offers[8].memory < mib(room["memory"])


def test_a_pod_asks_for_what_a_run_needs(rig: Rig) -> None:
    rig.cluster.nodes = [node("big", gpus=8)]
    need = Need(cpu=Span(min=3, max=4), memory=Span(min=5 * 1024), gpu=GpuNeed(names=("h100",), count=Span(min=2)))
    (offer,) = rig.place().offers((need,), Where())
    assert (offer.resources.cpus, offer.resources.gpu and offer.resources.gpu.count) == (4, 2)


@pytest.mark.parametrize(
    "change",
    [{"unschedulable": True}, {"taints": [{"key": "mine", "effect": "NoSchedule"}]}],
)
def test_a_node_that_takes_no_pods_offers_nothing(rig: Rig, change: dict[str, Any]) -> None:
    rig.cluster.nodes = [node("n1")]
    rig.cluster.nodes[0]["spec"] |= change
    assert rig.place().offers((), Where()) == []


def test_without_the_right_to_see_all_pods_what_is_free_is_not_known(rig: Rig) -> None:
    rig.cluster.sees_all = False
    assert {offer.free for offer in rig.place().offers((), Where())} == {None}


def test_a_lost_answer_makes_one_pod(rig: Rig) -> None:
    rig.cluster.lost = 1
    (answer,) = sent(rig.place(), request(rig, "l1", count=1)).values()
    assert isinstance(answer, Made)
    assert rig.cluster.created == 1


def test_a_quota_is_asked_before_the_name_and_refuses_nothing_that_is_there(rig: Rig) -> None:
    place = rig.place()
    prepared = place.prepare(request(rig, "l1", count=1), an_offer(place))
    first = place.launch(prepared)
    rig.cluster.quota = 1
    assert place.launch(prepared) == first
    (other,) = sent(place, request(rig, "l2", count=1)).values()
    assert isinstance(other, Refused)
    assert (other.meaning, other.quota) == ("quota", "q")


def test_what_finds_no_node_is_taken_back_in_the_clusters_words(rig: Rig) -> None:
    launch(rig, "l1", count=3)
    (answer,) = sent(rig.place(), request(rig, "l2", count=1)).values()
    assert isinstance(answer, Refused)
    assert "Insufficient nvidia.com/gpu" in answer.why
    assert len(rig.cluster.pods) == 3


def test_another_pod_of_that_name_is_neither_adopted_nor_deleted(rig: Rig) -> None:
    launch(rig, "l1", count=1)
    (pod,) = rig.cluster.pods.values()
    (before,) = living(rig.place())
    pod["metadata"]["uid"] = "another"
    assert rig.place().terminate([before.external_id]) == {before.external_id: Ending()}
    assert "deletionTimestamp" not in pod["metadata"]
    pod["metadata"]["labels"]["dstack.ai/launch"] = "other"
    (answer,) = sent(rig.place(), request(rig, "l1", count=1)).values()
    assert isinstance(answer, Refused)
    assert answer.meaning == "permanent"


@pytest.mark.parametrize(
    ("status", "phase", "interrupted", "word"),
    [
        ({"phase": "Succeeded"}, "ended", False, ""),
        ({"phase": "Failed", "reason": "Evicted", "message": "low on memory"}, "ended", True, "low on memory"),
        ({"phase": "Failed", "reason": "DeadlineExceeded"}, "ended", False, "DeadlineExceeded"),
        (
            {
                "phase": "Failed",
                "conditions": [{"type": "DisruptionTarget", "status": "True", "reason": "PreemptionByScheduler"}],
            },
            "ended",
            True,
            "",
        ),
        (RECORDED["pod_unschedulable"]["body"]["status"], "starting", False, "Insufficient"),
    ],
)
def test_phases(rig: Rig, status: dict[str, Any], phase: str, interrupted: bool, word: str) -> None:
    launch(rig, "l1", count=1)
    (pod,) = rig.cluster.pods.values()
    pod["status"] = status
    (one,) = rig.place().instances()
    assert (one.phase, one.interrupted) == (phase, interrupted)
    assert word in one.reason


def test_an_image_that_cannot_be_pulled_is_said_at_once(rig: Rig) -> None:
    launch(rig, "l1", count=1)
    (pod,) = rig.cluster.pods.values()
    waiting = {"reason": "ImagePullBackOff", "message": "no such image"}
    pod["status"] = {"phase": "Pending", "containerStatuses": [{"state": {"waiting": waiting}}]}
    assert rig.place().instances()[0].unfit == "ImagePullBackOff: no such image"


def test_what_was_stored_as_ended_is_deleted(rig: Rig) -> None:
    launch(rig, "l1", count=2)
    for pod in rig.cluster.pods.values():
        pod["status"] = {"phase": "Succeeded"}
    rig.place(lineage="otherlin").confirm_ended([])
    assert len(rig.cluster.pods) == 2
    rig.place().confirm_ended(["l1-1"])
    assert [pod["metadata"]["labels"]["dstack.ai/id"] for pod in rig.cluster.pods.values()] == ["l1-1"]


def test_the_current_context_is_never_followed(rig: Rig) -> None:
    config = replace(rig.config, regions=(), options={"kubeconfig": rig.config.options["kubeconfig"]})
    with pytest.raises(BackendError, match=r"contexts: \[NAME\].*c1"):
        regions(config, environ={})
    assert regions(config, environ={"KUBERNETES_SERVICE_HOST": "10.0.0.1"}) == ("in-cluster",)
    with pytest.raises(BackendError, match="it has c1"):
        connect(rig.config, "elsewhere", Around()).identity()


def test_a_context_with_credentials_is_not_sent_to_plain_http(rig: Rig, tmp_path: Path) -> None:
    (tmp_path / "config").write_text(kubeconfig("http://example.com"))
    with pytest.raises(BackendError, match="no https address"):
        rig.place().identity()


def test_check_asks_for_each_right_and_policy_grants_them(rig: Rig) -> None:
    rig.cluster.denied = {"create pods"}
    failed = []
    for check in probes(rig.config, ("c1",), Around(), buckets=()):
        try:
            check.look()
        except BackendError as error:
            failed.append((check.name, str(error)))
    assert ("c1 create pods", "not allowed: no rule allows it") in failed
    assert {name for name, _ in failed} == {"c1 create pods", "c1 create pods/exec"}
    role, cluster = policy("apply", rig.config, PolicyScope(project="project1"))["items"]
    assert (role["kind"], cluster["kind"]) == ("Role", "ClusterRole")
    assert {"apiGroups": [""], "resources": ["pods"], "verbs": ["create", "delete"]} in role["rules"]


def test_a_pod_is_reached_by_exec() -> None:
    way = replace(way_of({"connect": {"mode": "program", "name": "exec"}, "namespace": "pools"}), config="/k")
    one = Instance(
        id="l1-0", name="a", pool="p", backend="kubernetes", place="kubernetes/c1", region="c1",
        external_id="dstack-1/uid", resources=Resources(cpus=1, memory=1),
    )  # fmt: skip
    argv = access(way, one).argv
    assert argv[:8] == (
        "kubectl",
        "--kubeconfig=/k",
        "--context=c1",
        "--namespace=pools",
        "exec",
        "-i",
        "dstack-1",
        "-c",
    )


def test_quantities() -> None:
    assert [mib("512Gi"), mib("1G"), mib("strange"), int(number("63")), int(number("500m") * 1000)] == [
        512 * 1024, 953, 0, 63, 500,
    ]  # fmt: skip
    assert Refusal("unauthorized").status == 401
