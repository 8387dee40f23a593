"""RunPod keeps the contract of a backend, and each trap that its interface sets."""

from __future__ import annotations

import base64
import gzip
import re
import shlex
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from backends.base import Backend
from backends.errors import BackendError, TryLater
from backends.http import Api
from backends.http_answers import ApiError
from backends.runpod.account import DIALECT
from backends.runpod.backend import RunpodBackend, regions
from backends.runpod.gpu_types import count_of, counts_of, type_name
from reconciler.hosts.ssh.cloud_hosts import host_and_port
from schemas.backend_types import type_of
from schemas.desired import BackendConfig
from schemas.launch import Ending, LaunchAnswer, Made, Refused, Unknown
from schemas.resources import GpuNeed, Need, Span, Where
from tests.backends.lambda_cloud.test_backend import NOW, Around
from tests.contracts.backend_contract import BackendContract, BackendRig, an_offer, living, request, sent
from tests.doubles.gpu_clouds.openapi_judge import ABSENT, judge
from tests.doubles.gpu_clouds.runpod_double import DOCUMENT, KEY, LARGE, NONE_NOW, SMALL, Runpod, problem
from tests.doubles.gpu_clouds.served import Fault, Refusal, served

PODS = "/v2/pods"


@dataclass
class Rig:
    cloud: Runpod
    endpoint: str
    options: dict[str, Any] = field(default_factory=dict)
    region: str = "US-KS-2"
    key: str = KEY
    project: str = "project1"
    lineage: str = "lineage1"
    room: int = 3
    kind = type_of("runpod")

    def connect(self, *, lineage: str = "") -> RunpodBackend:
        config = BackendConfig(name="runpod", type="runpod", options={"endpoint": self.endpoint, **self.options})
        headers = {"Authorization": f"Bearer {self.key}"}
        api = Api(self.endpoint, headers=lambda: headers, dialect=DIALECT, wait=lambda seconds: None)
        around = Around(project=self.project, lineage=lineage or self.lineage)
        return RunpodBackend(config, self.region, around, api)

    def settle(self) -> None:
        """Nothing is under way: the double does everything at once."""


@pytest.fixture
def rig() -> Iterator[Rig]:
    cloud = Runpod()
    with served(cloud, judge(DOCUMENT, close=False)) as endpoint:
        yield Rig(cloud, endpoint)
    assert [one for one in cloud.wrong if "/graphql" not in one] == []  # which this document does not have


class TestRunpod(BackendContract):
    kind = Rig.kind

    @pytest.fixture
    def rig(self, rig: Rig) -> BackendRig:
        return rig


@pytest.mark.skipif(judge(DOCUMENT, close=False) is None, reason=ABSENT)
def test_every_request_is_one_that_runpods_document_has(rig: Rig) -> None:
    found = judge(DOCUMENT, close=False)
    assert found is not None
    body = {"name": "a", "image": "b", "gpu": {"id": "c", "count": 1}}
    assert found.request("POST", PODS, body) == ""
    assert "interruptible" in found.request("POST", PODS, {**body, "interruptible": True})
    assert "cunt" in found.request("POST", PODS, {**body, "gpu": {"id": "c", "cunt": 1}})
    assert isinstance(launched(rig), Made)


def launched(rig: Rig, name: str = "l1", backend: Backend | None = None) -> LaunchAnswer:
    backend = backend or rig.connect()
    (answer,) = sent(backend, request(rig, name, count=1)).values()
    return answer


# ------------------------------------------------------------ never twice


@pytest.mark.parametrize(
    "lost",
    [
        None,
        problem(503, "try again"),
        Refusal(502, text="<html>Bad gateway</html>"),
        Refusal(200, text="<html>Sign in</html>"),
        Refusal(201, {"id": None}),
        Refusal(400, {"message": "of a proxy"}),
        Refusal(307, headers={"Location": "https://elsewhere.example"}),
        problem(429, "too many requests", headers={"Retry-After": "7"}),
        problem(408, "too slow"),
        problem(418, "of no table"),
    ],
)
def test_an_answer_that_is_lost_promises_nothing_and_the_pod_is_found(rig: Rig, lost: Refusal | None) -> None:
    rig.cloud.faults = [Fault("POST", PODS, after=True, answer=lost)]
    assert isinstance(launched(rig), Unknown)
    assert len(rig.cloud.sent("POST", PODS)) == 1
    assert [one.id for one in living(rig.connect())] == ["l1-0"]


def test_a_mark_that_is_listed_is_adopted_and_nothing_is_sent(rig: Rig) -> None:
    backend = rig.connect()
    prepared = backend.prepare(request(rig, "l1", count=1), an_offer(backend))
    first = backend.launch(prepared)
    assert rig.connect().launch(prepared) == first
    assert len(rig.cloud.sent("POST", PODS)) == 1


def test_two_pods_with_one_mark_are_both_listed(rig: Rig) -> None:
    rig.cloud.twins = 1
    launched(rig)
    found = rig.connect().instances()
    assert [one.id for one in found] == ["l1-0", "l1-0"]
    assert len({one.external_id for one in found}) == 2


def test_a_request_is_not_sent_for_another_account_nor_rendered_otherwise(rig: Rig) -> None:
    backend = rig.connect()
    prepared = backend.prepare(request(rig, "l1", count=1), an_offer(backend))
    rig.cloud.account = "user_2"
    with pytest.raises(TryLater, match="prepared for account user_1, this is user_2"):
        rig.connect().launch(prepared)
    with pytest.raises(TryLater, match="renders differently"):
        rig.connect().launch(replace(prepared, handle="NVIDIA H100 80GB HBM3"))
    assert rig.cloud.sent("POST", PODS) == []


# ------------------------------------------------------------ what errors mean


@pytest.mark.parametrize(
    ("refusal", "meaning", "quota"),
    [
        (problem(400, NONE_NOW), "capacity", ""),
        (problem(400, "This machine does not have the resources to deploy your pod."), "capacity", ""),
        (problem(400, "There is not enough disk space on the machine"), "capacity", ""),
        (problem(400, "the request breaks a rule"), "permanent", ""),
        (problem(400, "you would exceed your spend limit"), "quota", "balance"),
        (problem(402, "payment required"), "quota", "balance"),
        (problem(403, "access denied"), "permanent", ""),
        (problem(404, "no such GPU"), "permanent", ""),
        (problem(422, "unknown field"), "permanent", ""),
    ],
)
def test_a_refusal_of_the_table_promises_that_nothing_was_made(
    rig: Rig, refusal: Refusal, meaning: str, quota: str
) -> None:
    rig.cloud.faults = [Fault("POST", PODS, after=False, answer=refusal)]
    answer = launched(rig)
    assert isinstance(answer, Refused)
    assert answer.meaning == meaning
    assert answer.quota == "balance" or not quota


def test_a_balance_of_zero_is_a_quota_of_that_name(rig: Rig) -> None:
    rig.cloud.balance = False
    answer = launched(rig)
    assert isinstance(answer, Refused)
    assert (answer.meaning, answer.quota) == ("quota", "balance")


@pytest.mark.parametrize("answer", [Refusal(200, text="<html>Sign in</html>"), Refusal(200, {"pods": None})])
def test_a_page_of_a_portal_is_not_an_empty_account(rig: Rig, answer: Refusal) -> None:
    launched(rig)
    rig.cloud.faults = [Fault("GET", PODS, answer=answer) for _ in range(3)]
    with pytest.raises(TryLater):
        rig.connect().instances()


def test_another_404_than_runpods_own_does_not_say_that_a_pod_is_gone(rig: Rig) -> None:
    answer = launched(rig)
    assert isinstance(answer, Made)
    rig.cloud.hidden = {rig.cloud.pods[answer.external_id]["name"]}
    rig.cloud.faults = [Fault("GET", "/pod0", answer=Refusal(404, {"message": "no route"}))]
    with pytest.raises(ApiError):
        rig.connect().instances([answer.external_id])
    assert [one.id for one in rig.connect().instances([answer.external_id])] == ["l1-0"]


def test_the_account_is_known_whatever_the_key_and_a_key_that_may_not_ask_is_said(rig: Rig) -> None:
    first = rig.connect().identity()
    rig.cloud.key = rig.key = "a-new-key-0123456789"
    assert rig.connect().identity() == first == "user_1"
    rig.cloud.restricted = True
    with pytest.raises(TryLater, match="needs the right"):
        rig.connect().identity()


# ------------------------------------------------------------ what is sent


def test_the_pod_carries_mark_labels_and_no_secret_of_the_account(rig: Rig) -> None:
    launched(rig)
    (body,) = rig.cloud.sent("POST", PODS)
    assert body["env"]["DSTACK_PROJECT"] == "project1"
    assert body["image"] == Rig.kind.base_image
    assert (body["disk"], body["ports"], body["dataCenterIds"]) == (100, ["22/tcp"], ["US-KS-2"])
    assert KEY not in str(body)


def test_the_start_command_is_one_word_list_and_unpacks_to_the_first_process(rig: Rig, tmp_path: Path) -> None:
    launched(rig)
    (body,) = rig.cloud.sent("POST", PODS)
    shell, option, line = shlex.split(body["args"])
    assert (shell, option) == ("sh", "-c")
    packed = re.search(r"echo (\S+) \|", line)
    assert packed is not None
    text = gzip.decompress(base64.b64decode(packed[1])).decode()
    assert text.startswith("# dstack: project project1, launch l1")
    assert "RUNPOD_POD_ID" in text
    assert "private key of l1" in text
    shown = subprocess.run(["sh", "-c", line.replace("exec sh -c", "printf %s")], capture_output=True, check=True)
    assert shown.stdout.decode().rstrip() == text.rstrip()


def test_the_pods_own_key_is_in_no_argument(tmp_path: Path) -> None:
    """A `curl` that writes down what it was called with stands in for the real one."""
    called = tmp_path / "called"
    (tmp_path / "curl").write_text(f'#!/bin/sh\necho "$@" > {called}\ncat >> {called}\n')
    (tmp_path / "curl").chmod(0o755)
    program, path = Rig.kind.power_off_program, f"{tmp_path}:/usr/bin:/bin"
    env = {"PATH": path, "RUNPOD_POD_ID": "pod7", "RUNPOD_API_KEY": "pod-key-1"}
    subprocess.run(["sh", "-c", program], env=env, check=True)
    arguments, config = called.read_text().splitlines()
    assert arguments.endswith("-X DELETE -K - https://api.runpod.io/v2/pods/pod7")
    assert "pod-key-1" not in arguments
    assert config == 'header = "Authorization: Bearer pod-key-1"'
    assert subprocess.run(["sh", "-c", program], env={"PATH": path}, check=False).returncode == 1


# ------------------------------------------------------------ listing and ending


@pytest.mark.parametrize(
    ("status", "phase", "unfit"),
    [
        ("PROVISIONING", "starting", False),
        ("STARTING", "starting", False),
        ("RUNNING", "running", False),
        ("EXITED", "stopped", False),
        ("ERROR", "stopped", False),
        ("MIGRATING", "running", True),
    ],
)
def test_each_status_has_its_phase(rig: Rig, status: str, phase: str, unfit: bool) -> None:
    launched(rig)
    rig.cloud.pods["pod0"]["status"] = status
    (seen,) = rig.connect().instances()
    assert (seen.phase, bool(seen.unfit), seen.address) == (phase, unfit, "127.0.0.1:30000")
    assert (seen.created_at, str(seen.price), seen.region) == (1780315200, "0.44", "US-KS-2")
    if status == "MIGRATING":  # which the document does not know
        rig.cloud.wrong = []


def test_a_stopped_pod_is_ended_and_costs_nothing_known(rig: Rig) -> None:
    launched(rig)
    rig.cloud.pods["pod0"].update(status="EXITED", cost=0, runtime=None)
    (seen,) = rig.connect().instances()
    assert (seen.phase, seen.price, seen.address) == ("stopped", None, "")
    assert rig.connect().terminate(["pod0"]) == {"pod0": Ending()}
    assert list(rig.connect().instances()) == []


def test_a_member_of_a_cluster_cannot_be_ended_alone(rig: Rig) -> None:
    launched(rig)
    rig.cloud.pods["pod0"]["cluster"] = {"id": "c1"}
    rig.cloud.wrong = []
    answer = rig.connect().terminate(["pod0"])["pod0"]
    assert isinstance(answer, Refused)
    assert "cluster" in answer.why
    rig.cloud.wrong = []


def test_a_renamed_pod_is_still_ours_by_its_environment(rig: Rig) -> None:
    launched(rig)
    rig.cloud.pods["pod0"]["name"] = "my favourite"
    (seen,) = rig.connect().instances()
    assert (seen.id, seen.launch, seen.untagged) == ("l1-0", "l1", ("name",))


@pytest.mark.parametrize(
    ("address", "found"),
    [
        ("195.26.233.3:34446", ("195.26.233.3", 34446)),
        ("195.26.233.3", ("195.26.233.3", 22)),
        ("2001:db8::7", ("2001:db8::7", 22)),
        ("[2001:db8::7]:34446", ("2001:db8::7", 34446)),
        ("i-0123", ("i-0123", 22)),
    ],
)
def test_the_port_of_a_container_is_part_of_its_address(address: str, found: tuple[str, int]) -> None:
    assert host_and_port(address) == found


# ------------------------------------------------------------ offers


def test_offers_are_priced_by_gpu_and_say_what_comes_on_top(rig: Rig) -> None:
    rig.cloud.room = {SMALL["id"]: 8, LARGE["id"]: 8}
    need = Need(gpu=GpuNeed(count=Span(min=2, max=2)))
    found = {one.instance_type: one for one in rig.connect().offers((need,), Where())}
    assert set(found) == {"2x-geforce-rtx-4090", "2x-h100-80gb-hbm3"}
    small, large = found["2x-geforce-rtx-4090"], found["2x-h100-80gb-hbm3"]
    assert (str(small.price), small.resources.cpus, small.resources.memory) == ("0.88", 16, 62 * 1024)
    assert large.resources.gpu is not None
    assert (large.resources.gpu.name, large.resources.gpu.memory, large.resources.gpu.count) == ("H100", 81920, 2)
    assert "disk is billed apart" in small.source
    assert {one.self_termination for one in found.values()} == {"none"}
    assert {one.spot for one in found.values()} == {False}


def test_community_is_offered_where_it_is_wanted_alone(rig: Rig) -> None:
    assert not any("community" in one.instance_type for one in rig.connect().offers((Need(gpu=GpuNeed()),), Where()))
    rig.options = {"community_cloud": True}
    found = {one.instance_type: one for one in rig.connect().offers((Need(gpu=GpuNeed()),), Where())}
    assert str(found["1x-geforce-rtx-4090-community"].price) == "0.31"
    assert count_of("1x-geforce-rtx-4090-community") == (1, "COMMUNITY")


def test_without_a_region_each_data_center_that_has_some_is_offered(rig: Rig) -> None:
    rig.region = ""
    found = rig.connect().offers((Need(gpu=GpuNeed(count=Span(min=1, max=1))),), Where())
    assert {(one.instance_type, one.region) for one in found} == {("1x-geforce-rtx-4090", "US-KS-2")}


def test_where_no_regions_are_named_all_data_centers_are(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RUNPOD_API_KEY", KEY)
    config = BackendConfig(name="runpod", type="runpod", options={"endpoint": rig.endpoint})
    assert list(regions(config)) == ["EU-RO-1", "US-KS-2"]
    assert list(regions(replace(config, regions=("US-KS-2",)))) == ["US-KS-2"]


def test_where_graphql_does_not_tell_the_size_the_least_counts(rig: Rig) -> None:
    rig.cloud.restricted = True
    found = rig.connect().offers((), Where())
    assert {(one.resources.cpus, one.resources.memory) for one in found} == {(2, 8 * 1024)}


def test_the_name_of_a_type_tells_count_and_cloud() -> None:
    assert type_name("NVIDIA RTX 6000 Ada Generation", 4, "SECURE") == "4x-rtx-6000-ada-generation"
    assert count_of("4x-rtx-6000-ada-generation") == (4, "SECURE")
    with pytest.raises(BackendError, match="is no instance type"):
        count_of("p5.48xlarge")
    assert counts_of([Need(gpu=GpuNeed(count=Span(min=3, max=3)))]) == (3,)


def test_the_clock_of_runpod_is_read_from_its_listing(rig: Rig) -> None:
    backend = rig.connect()
    backend.instances()
    ahead = backend.clock()
    assert ahead is not None
    assert NOW - ahead > 1_700_000_000
