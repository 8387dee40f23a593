"""Lambda Cloud keeps the contract of a backend, and each trap that its interface sets."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from backends.base import Backend
from backends.boot.spec import Boot
from backends.errors import BackendError, TryLater
from backends.http import Api
from backends.http_answers import ApiError
from backends.lambda_cloud.account import DIALECT, Account
from backends.lambda_cloud.backend import LambdaBackend, connect, regions
from backends.naming import mark
from schemas.backend_types import type_of
from schemas.desired import BackendConfig
from schemas.launch import Ending, LaunchAnswer, Made, Refused, Unknown
from schemas.resources import Where
from tests.contracts.backend_contract import BackendContract, BackendRig, an_offer, living, request, sent
from tests.doubles.gpu_clouds.lambda_double import DOCUMENT, KEY, Lambda, error
from tests.doubles.gpu_clouds.openapi_judge import ABSENT, FOLDER, judge
from tests.doubles.gpu_clouds.served import Fault, Refusal, served

NOW = 1_800_000_000
LAUNCH = "/instance-operations/launch"
PUBLIC = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIA"


@dataclass(kw_only=True)
class Around:
    """A `Setting`; its clock is set by hand."""

    project: str = "project1"
    lineage: str = "lineage1"
    state_address: str = "/state"
    now: Callable[[], float] = lambda: NOW

    @property
    def boot(self) -> Callable[[str], Boot]:
        return lambda launch: Boot(
            host_key_private=f"private key of {launch}", host_key_public=PUBLIC, authorized_keys=(f"{PUBLIC} dstack",)
        )


@dataclass
class Rig:
    cloud: Lambda
    endpoint: str
    options: dict[str, Any] = field(default_factory=dict)
    region: str = "us-west-1"
    key: str = KEY
    project: str = "project1"
    lineage: str = "lineage1"
    room: int = 3
    kind = type_of("lambda")

    def connect(self, *, lineage: str = "") -> LambdaBackend:
        """Without the pause between requests: the pace has a test of its own."""
        config = BackendConfig(name="lambda", type="lambda", options={"endpoint": self.endpoint, **self.options})
        around = Around(project=self.project, lineage=lineage or self.lineage)
        headers: Mapping[str, str] = {"Authorization": f"Bearer {self.key}"}
        api = Api(f"{self.endpoint}/api/v1", headers=lambda: headers, dialect=DIALECT, wait=lambda seconds: None)
        return LambdaBackend(config, self.region, around, Account(api, around))

    def settle(self) -> None:
        self.cloud.settle()


@pytest.fixture
def rig(monkeypatch: pytest.MonkeyPatch) -> Iterator[Rig]:
    monkeypatch.setenv("LAMBDA_API_KEY", KEY)
    monkeypatch.setenv("DSTACK_ADDRESS", "198.51.100.7")
    cloud = Lambda()
    with served(cloud, judge(DOCUMENT)) as endpoint:
        yield Rig(cloud, endpoint)
    assert cloud.wrong == []


class TestLambda(BackendContract):
    kind = Rig.kind

    @pytest.fixture
    def rig(self, rig: Rig) -> BackendRig:
        return rig


@pytest.mark.skipif(judge(DOCUMENT) is None, reason=ABSENT)
def test_every_request_is_one_that_lambdas_document_has(rig: Rig) -> None:
    found = judge(DOCUMENT)
    assert found is not None
    body = {"region_name": "us-west-1", "instance_type_name": "gpu_1x_a10", "ssh_key_names": ["a"]}
    assert found.request("POST", f"/api/v1{LAUNCH}", body) == ""
    assert "namee" in found.request("POST", f"/api/v1{LAUNCH}", {**body, "namee": "x"})
    assert "quantity" in found.request("POST", f"/api/v1{LAUNCH}", {**body, "quantity": 2})
    launched(rig)
    assert rig.cloud.wrong == []


def launched(rig: Rig, name: str = "l1", backend: Backend | None = None) -> LaunchAnswer:
    backend = backend or rig.connect()
    (answer,) = sent(backend, request(rig, name, count=1)).values()
    return answer


# ------------------------------------------------------------ never twice


@pytest.mark.parametrize(
    "lost",
    [
        None,
        Refusal(503, {"error": {"code": "global/internal-error", "message": "no"}}),
        Refusal(500, text="<html>Bad gateway</html>"),
        Refusal(200, text="<html>Sign in</html>"),
        Refusal(200, {"data": {}}),
        Refusal(302, headers={"Location": "https://elsewhere.example"}),
        Refusal(429, {"error": {"code": "global/rate", "message": "slow down"}}),
        Refusal(400, {"error": {"code": "provider/internal-unavailable", "message": "try again"}}),
    ],
)
def test_an_answer_that_is_lost_promises_nothing_and_the_machine_is_found(rig: Rig, lost: Refusal | None) -> None:
    rig.cloud.faults = [Fault("POST", LAUNCH, after=True, answer=lost)]
    answer = launched(rig)
    assert isinstance(answer, Unknown)
    assert len(rig.cloud.sent(LAUNCH)) == 1
    assert [one.id for one in living(rig.connect())] == ["l1-0"]


def test_a_mark_that_is_listed_is_adopted_and_nothing_is_sent(rig: Rig) -> None:
    backend = rig.connect()
    prepared = backend.prepare(request(rig, "l1", count=1), an_offer(backend))
    first = backend.launch(prepared)
    assert rig.connect().launch(prepared) == first
    assert len(rig.cloud.sent(LAUNCH)) == 1


def test_two_machines_with_one_mark_are_both_listed(rig: Rig) -> None:
    rig.cloud.twins = 1
    launched(rig)
    found = rig.connect().instances()
    assert [one.id for one in found] == ["l1-0", "l1-0"]
    assert len({one.external_id for one in found}) == 2


def test_a_request_is_not_sent_for_another_account_nor_rendered_otherwise(rig: Rig) -> None:
    backend = rig.connect()
    prepared = backend.prepare(request(rig, "l1", count=1), an_offer(backend))
    rig.cloud.keys[0]["id"] = "another"
    with pytest.raises(TryLater, match="prepared for the account"):
        rig.connect().launch(prepared)
    with pytest.raises(TryLater, match="renders differently"):
        rig.connect().launch(replace(prepared, instance_type="gpu_8x_h100_sxm5"))
    assert rig.cloud.sent(LAUNCH) == []


# ------------------------------------------------------------ what errors mean


@pytest.mark.parametrize(
    ("refusal", "meaning", "quota"),
    [
        (error(400, "instance-operations/launch/insufficient-capacity", "none"), "capacity", ""),
        (error(400, "global/quota-exceeded", "too many"), "quota", "instances of the account"),
        (error(400, "global/invalid-parameters", "no"), "permanent", ""),
        (error(404, "global/object-does-not-exist", "no such type"), "permanent", ""),
        (error(401, "global/invalid-api-key", "no"), "permanent", ""),
        (error(403, "global/account-inactive", "no"), "permanent", ""),
    ],
)
def test_a_refusal_of_the_table_promises_that_nothing_was_made(
    rig: Rig, refusal: Refusal, meaning: str, quota: str
) -> None:
    rig.cloud.faults = [Fault("POST", LAUNCH, after=False, answer=refusal)]
    answer = launched(rig)
    assert isinstance(answer, Refused)
    assert (answer.meaning, answer.quota) == (meaning, quota or ("instances of the account" if answer.quota else ""))


def test_a_page_of_a_portal_is_not_an_empty_account(rig: Rig) -> None:
    launched(rig)
    for answer in (Refusal(200, text="<html>Sign in</html>"), Refusal(200, {"data": None}), Refusal(200, {})):
        rig.cloud.faults = [Fault("GET", "/instances", answer=answer) for _ in range(3)]
        with pytest.raises(TryLater):
            rig.connect().instances()
        rig.cloud.faults = []


def test_an_unknown_key_says_nothing_about_machines_and_is_never_shown(rig: Rig) -> None:
    launched(rig)
    rig.key = "another-key-0123456789"
    with pytest.raises(ApiError) as found:
        rig.connect().instances()
    assert found.value.meaning == "permanent"
    assert rig.key not in str(found.value)


# ------------------------------------------------------------ the account


def test_the_account_is_known_by_the_projects_key_whatever_the_api_key(rig: Rig) -> None:
    first = rig.connect().identity()
    rig.cloud.key = rig.key = "a-new-key-0123456789"
    assert rig.connect().identity() == first
    assert len(rig.cloud.sent("/ssh-keys")) == 1


def test_one_process_asks_once_for_each_api_key(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    config = BackendConfig(name="lambda", type="lambda", options={"endpoint": rig.endpoint})
    first = connect(config, "us-west-1", Around(project="asked-once")).identity()
    asked = len(rig.cloud.requests)
    assert connect(config, "us-south-1", Around(project="asked-once")).identity() == first
    assert len(rig.cloud.requests) == asked
    monkeypatch.setenv("LAMBDA_API_KEY", "of-another-account-0123")
    rig.cloud.key, rig.cloud.keys = "of-another-account-0123", []
    rig.cloud.keys.append({"id": "other", "name": "dstack-x", "public_key": PUBLIC})
    assert connect(config, "us-west-1", Around(project="asked-once")).identity() == "ssh-key other" != first


def test_two_at_once_register_one_key(rig: Rig) -> None:
    """The answer to ours is that somebody was faster."""
    rig.cloud.faults = [Fault("POST", "/ssh-keys", answer=error(400, "global/duplicate", "there is one"))]
    assert rig.connect().identity() == rig.connect().identity() == "ssh-key key0"


def test_a_public_key_that_is_there_under_another_name_is_used(rig: Rig) -> None:
    rig.cloud.keys = [{"id": "theirs", "name": "my laptop", "public_key": PUBLIC}]
    assert isinstance(launched(rig), Made)
    assert rig.cloud.sent(LAUNCH)[0]["ssh_key_names"] == ["my laptop"]


def test_a_strangers_key_of_our_name_opens_no_machine(rig: Rig) -> None:
    rig.connect().identity()
    rig.cloud.keys[0]["public_key"] = "ssh-ed25519 BBBB stranger"
    assert isinstance(launched(rig), Made)
    (used,) = rig.cloud.sent(LAUNCH)[0]["ssh_key_names"]
    assert used != rig.cloud.keys[0]["name"]
    assert [one["public_key"] for one in rig.cloud.keys if one["name"] == used] == [f"{PUBLIC} dstack"]


def test_the_launch_carries_mark_tags_image_and_no_secret_of_the_account(rig: Rig) -> None:
    launched(rig)
    (body,) = rig.cloud.sent(LAUNCH)
    tags = {one["key"]: one["value"] for one in body["tags"]}
    assert tags["dstack-project"] == "project1"
    assert tags["dstack-generation"] == "1"
    assert body["image"] == {"id": "img-new"}
    assert KEY not in str(body)
    assert "private key of l1" in body["user_data"]


def test_tags_that_lambda_dropped_are_told(rig: Rig) -> None:
    rig.cloud.tagless = True
    launched(rig)
    (seen,) = rig.connect().instances()
    assert seen.id == "l1-0"
    assert "dstack-generation" in seen.untagged


def test_a_renamed_machine_is_still_ours_by_its_tags(rig: Rig) -> None:
    launched(rig)
    next(iter(rig.cloud.machines.values()))["name"] = "my favourite"
    (seen,) = rig.connect().instances()
    assert (seen.id, seen.launch, seen.untagged) == ("l1-0", "l1", ("name",))


# ------------------------------------------------------------ listing and ending


@pytest.mark.parametrize(
    ("status", "phase", "unfit", "interrupted"),
    [
        ("booting", "starting", False, False),
        ("active", "running", False, False),
        ("unhealthy", "running", True, False),
        ("terminating", "ending", False, False),
        ("preempted", "ended", False, True),
        ("rebuilding", "running", True, False),
    ],
)
def test_each_status_has_its_phase(rig: Rig, status: str, phase: str, unfit: bool, interrupted: bool) -> None:
    launched(rig)
    next(iter(rig.cloud.machines.values()))["status"] = status
    if status == "rebuilding":  # which the document does not know
        rig.cloud.wrong = []
    (seen,) = rig.connect().instances()
    assert (seen.phase, bool(seen.unfit), seen.interrupted) == (phase, unfit, interrupted)
    assert (seen.internal_ip, seen.price) == ("10.0.2.1", an_offer(rig.connect()).price)
    rig.cloud.wrong = [] if status == "rebuilding" else rig.cloud.wrong


def test_an_id_that_is_unknown_among_known_ones_keeps_none_of_them_alive(rig: Rig) -> None:
    ids = [answer.external_id for name in ("l1", "l2") if isinstance(answer := launched(rig, name), Made)]
    assert rig.connect().terminate([ids[0], "never-there", ids[1]]) == dict.fromkeys(
        [ids[0], "never-there", ids[1]], Ending()
    )
    assert [one["status"] for one in rig.cloud.machines.values()] == ["terminating", "terminating"]


def test_an_end_that_is_refused_for_now_is_asked_for_again(rig: Rig) -> None:
    answer = launched(rig)
    assert isinstance(answer, Made)
    path = "/instance-operations/terminate"
    rig.cloud.faults = [Fault("POST", path, after=False, answer=error(400, "global/invalid-parameters", "booting"))]
    assert isinstance(rig.connect().terminate([answer.external_id])[answer.external_id], Unknown)
    assert rig.connect().terminate([answer.external_id]) == {answer.external_id: Ending()}


def test_a_look_up_by_id_finds_what_the_listing_lacks(rig: Rig) -> None:
    answer = launched(rig)
    assert isinstance(answer, Made)
    rig.cloud.hidden = {one["name"] for one in rig.cloud.machines.values()}
    assert list(rig.connect().instances()) == []
    assert [one.id for one in rig.connect().instances([answer.external_id])] == ["l1-0"]


# ------------------------------------------------------------ offers


def test_offers_are_read_from_prose(rig: Rig) -> None:
    rig.cloud.room = dict.fromkeys(("gpu_1x_a10", "gpu_8x_h100_sxm5", "gpu_1x_gh200", "cpu_4x_general"), 1)
    found = {one.instance_type: one for one in rig.connect().offers((), Where())}
    h100 = found["gpu_8x_h100_sxm5"].resources.gpu
    assert h100 is not None
    assert (h100.name, h100.memory, h100.count) == ("H100", 80 * 1024, 8)
    assert str(found["gpu_8x_h100_sxm5"].price) == "23.92"
    assert found["gpu_1x_gh200"].resources.cpu_arch == "arm"
    assert found["cpu_4x_general"].resources.gpu is None
    assert {one.availability for one in found.values()} == {"available"}


def test_without_a_region_each_region_with_capacity_is_offered(rig: Rig) -> None:
    rig.region = ""
    assert {(one.instance_type, one.region) for one in rig.connect().offers((), Where())} == {
        ("gpu_1x_a10", "us-west-1")
    }


def test_an_arm_machine_gets_an_arm_image_and_a_larger_disk_is_refused(rig: Rig) -> None:
    rig.cloud.room = {"gpu_1x_gh200": 1}
    backend = rig.connect()
    offer = next(one for one in backend.offers((), Where()) if one.instance_type == "gpu_1x_gh200")
    asked = replace(request(rig, "l1", count=1), instance_type="gpu_1x_gh200")
    assert dict(backend.prepare(asked, offer).inputs)["image"] == "img-arm"
    with pytest.raises(BackendError, match="cannot be larger"):
        backend.prepare(replace(asked, disk=9_000_000), offer)


# ------------------------------------------------------------ who is let in


def rules(rig: Rig) -> list[tuple[str, str]]:
    return [(one["source_network"], one["description"]) for one in rig.cloud.rulesets[0]["rules"]]


def test_port_22_is_open_to_our_address_alone_for_a_day(rig: Rig) -> None:
    launched(rig)
    assert rules(rig) == [("198.51.100.7/32", "dstack until 2027-01-16T08:00:00Z")]
    assert rig.cloud.sent(LAUNCH)[0]["firewall_rulesets"] == [{"id": "rs0"}]
    assert not any(path.endswith("/firewall-rules") for _, path, _ in rig.cloud.requests)


def test_another_address_of_ours_is_let_in_and_only_what_expired_goes(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    launched(rig)
    theirs = {"protocol": "tcp", "port_range": [443, 443], "source_network": "0.0.0.0/0", "description": "web"}
    old = {**theirs, "port_range": [22, 22], "source_network": "192.0.2.1/32",
           "description": "dstack until 2026-01-01T00:00:00Z"}  # fmt: skip
    rig.cloud.rulesets[0]["rules"] += [theirs, old]
    monkeypatch.setenv("DSTACK_ADDRESS", "198.51.100.8")
    assert rig.connect().allow_our_address()
    assert [source for source, _ in rules(rig)] == ["198.51.100.7/32", "0.0.0.0/0", "198.51.100.8/32"]
    assert not rig.connect().allow_our_address()


def test_declared_ranges_are_let_in_instead(rig: Rig) -> None:
    rig.options = {"ingress": ("203.0.113.0/24",)}
    launched(rig)
    assert rules(rig) == [("203.0.113.0/24", "dstack declared")]
    assert not rig.connect().allow_our_address()


def test_a_region_without_a_firewall_is_said_and_gets_no_ruleset(rig: Rig) -> None:
    rig.region = "us-south-1"
    backend = rig.connect()
    answer = launched(rig, backend=backend)
    assert isinstance(answer, Made)
    assert "firewall_rulesets" not in rig.cloud.sent(LAUNCH)[0]
    assert rig.cloud.rulesets == []
    assert "open to the world" in " ".join(backend.notes())


def test_the_ruleset_is_a_leftover_until_something_uses_it(rig: Rig) -> None:
    launched(rig)
    backend = rig.connect()
    (found,) = backend.leftovers()
    assert (found.kind, found.in_use, found.bills) == ("security-group", "", False)
    backend.remove(found)
    assert list(backend.leftovers()) == []


# ------------------------------------------------------------ the way there


def test_one_request_a_second_for_all_places_of_one_account(rig: Rig) -> None:
    config = BackendConfig(name="lambda", type="lambda", options={"endpoint": rig.endpoint})
    began = time.monotonic()
    assert list(regions(config)) == ["us-south-1", "us-west-1"]
    assert connect(config, "us-west-1", Around()).offers((), Where())
    assert time.monotonic() - began >= 0.9


def test_the_clock_of_lambda_is_read_from_its_listing(rig: Rig) -> None:
    backend = rig.connect()
    backend.instances()
    assert backend.clock() == pytest.approx(NOW - time.time(), abs=5)


RECORDED = Path(FOLDER, "../answers/lambda_m_instances_response.json")


@pytest.mark.skipif(not (FOLDER and RECORDED.is_file()), reason=ABSENT)
def test_a_recorded_listing_is_read_whole(rig: Rig) -> None:
    """The document's own example, as a client recorded it: somebody else's machine until it carries our name."""
    (recorded,) = json.loads(RECORDED.read_text())["data"]
    rig.cloud.machines[recorded["id"]] = recorded
    assert list(rig.connect().instances()) == []
    recorded["name"] = mark("project1", "l1-0")
    (seen,) = rig.connect().instances()
    assert (seen.id, seen.phase, seen.address, seen.internal_ip) == ("l1-0", "starting", "198.51.100.2", "10.0.2.100")
    assert (str(seen.price), seen.instance_type, seen.region) == ("35.92", "gpu_8x_h100_sxm5gdr", "us-west-1")
    assert seen.resources is not None
    assert seen.resources.gpu is not None
    assert (seen.resources.gpu.name, seen.resources.gpu.memory, seen.resources.gpu.count) == ("H100", 81920, 8)
    rig.cloud.wrong = []
