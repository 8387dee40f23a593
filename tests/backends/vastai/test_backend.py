"""Vast.ai keeps the contract of a backend, and each trap that its interface sets."""

from __future__ import annotations

import base64
import gzip
import re
import subprocess
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from backends.base import Backend
from backends.boot.spec import Boot
from backends.errors import BackendError, NoCapacity, TryLater
from backends.http import Api
from backends.http_answers import ApiError
from backends.vastai.account import DIALECT, VastAccount
from backends.vastai.backend import VastBackend, connect, regions
from schemas.backend_types import type_of
from schemas.desired import BackendConfig
from schemas.launch import Ending, LaunchAnswer, Made, Refused, Request, Unknown
from schemas.resources import GpuNeed, Need, Span, Where
from tests.contracts.backend_contract import BackendContract, BackendRig, an_offer, living, request, sent
from tests.doubles.gpu_clouds.openapi_judge import ABSENT
from tests.doubles.gpu_clouds.served import Fault, Refusal, served
from tests.doubles.gpu_clouds.vast_double import KEY, Vast, error, offers_of, vast_judge
from tests.doubles.gpu_clouds.vast_double import an_offer as a_row

KIND = type_of("vastai")
NOW = 1_800_000_000
PUBLIC = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIA"
ASKS = "/api/v0/asks/101/"


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
    cloud: Vast
    endpoint: str
    options: dict[str, Any] = field(default_factory=dict)
    region: str = "world"
    key: str = KEY
    project: str = "project1"
    lineage: str = "lineage1"
    room: int = 3
    waited: list[float] = field(default_factory=list)
    kind = KIND

    def connect(self, *, lineage: str = "") -> VastBackend:
        config = BackendConfig(name="vastai", type="vastai", options={"endpoint": self.endpoint, **self.options})
        around = Around(project=self.project, lineage=lineage or self.lineage)
        headers: Mapping[str, str] = {"Authorization": f"Bearer {self.key}"}
        api = Api(self.endpoint, headers=lambda: headers, dialect=DIALECT, wait=self.waited.append)
        return VastBackend(config, self.region, around, VastAccount(api, api, wait=self.waited.append))

    def settle(self) -> None:
        self.cloud.settle()


@pytest.fixture
def rig() -> Iterator[Rig]:
    cloud = Vast()
    with served(cloud, vast_judge()) as endpoint:
        yield Rig(cloud, endpoint)
    assert cloud.wrong == []


class TestVast(BackendContract):
    kind = KIND

    @pytest.fixture
    def rig(self, rig: Rig) -> BackendRig:
        return rig


def launched(rig: Rig, name: str = "l1", backend: Backend | None = None) -> LaunchAnswer:
    backend = backend or rig.connect()
    (answer,) = sent(backend, request(rig, name, count=1)).values()
    return answer


def prepared_bid(rig: Rig, *, max_price: Decimal | None = None) -> Request:
    backend = rig.connect()
    offer = next(one for one in backend.offers((), Where(spot="auto")) if one.spot)
    return backend.prepare(replace(request(rig, "l1", count=1), spot=True, max_price=max_price), offer)


@pytest.mark.skipif(vast_judge() is None, reason=ABSENT)
def test_every_request_is_one_that_vasts_document_has(rig: Rig) -> None:
    judge = vast_judge()
    assert judge is not None
    assert judge.request("PUT", ASKS, {"image": "ubuntu", "disk": 10}) == ""
    assert "labell" in judge.request("PUT", ASKS, {"image": "ubuntu", "labell": "x"})
    assert "imagee" in judge.request("PUT", ASKS, {"imagee": "ubuntu"})
    launched(rig)
    rig.connect().launch(prepared_bid(rig))
    assert rig.cloud.wrong == []


# ------------------------------------------------------------ never twice


@pytest.mark.parametrize(
    "lost",
    [
        None,
        error(503, "", "try again"),
        Refusal(502, text="<html>Bad gateway</html>"),
        Refusal(200, text="<html>Sign in</html>"),
        Refusal(200, {}),
        Refusal(200, {"success": True}),
        Refusal(302, headers={"Location": "https://elsewhere.example"}),
        Refusal(429, {"detail": "API requests too frequent endpoint threshold=4.5"}),
        Refusal(429, text="API requests too frequent endpoint threshold=4.5"),
        error(404, "", "not this"),
        error(418, "no_such_ask", "a code with another status"),
    ],
)
def test_an_answer_that_is_lost_promises_nothing_and_the_contract_is_found(rig: Rig, lost: Refusal | None) -> None:
    rig.cloud.faults = [Fault("PUT", ASKS, after=True, answer=lost)]
    answer = launched(rig)
    assert isinstance(answer, Unknown)
    assert len(rig.cloud.sent("/asks/")) == 1
    assert [one.id for one in living(rig.connect())] == ["l1-0"]


def test_a_mark_that_is_listed_is_adopted_and_nothing_is_sent(rig: Rig) -> None:
    backend = rig.connect()
    prepared = backend.prepare(request(rig, "l1", count=1), an_offer(backend))
    first = backend.launch(prepared)
    assert isinstance(first["l1-0"], Made)
    assert rig.connect().launch(prepared) == first
    assert len(rig.cloud.sent("/asks/")) == 1


def test_nothing_is_sent_where_the_listing_before_it_fails(rig: Rig) -> None:
    backend = rig.connect()
    prepared = backend.prepare(request(rig, "l1", count=1), an_offer(backend))
    rig.cloud.faults = [
        Fault("GET", "/api/v1/instances/", after=False, answer=Refusal(200, text="<html>")) for _ in range(3)
    ]
    with pytest.raises(TryLater):
        backend.launch(prepared)
    assert rig.cloud.sent("/asks/") == []


def test_two_contracts_with_one_mark_are_both_listed(rig: Rig) -> None:
    rig.cloud.reuse = True
    launched(rig)
    (body,) = rig.cloud.sent("/asks/")
    rig.cloud.rent(102, body)
    assert [one.id for one in living(rig.connect())] == ["l1-0", "l1-0"]
    assert len({one.external_id for one in living(rig.connect())}) == 2


@pytest.mark.parametrize(
    ("said", "meaning", "quota"),
    [
        (error(404, "invalid_args", "error 404/3603: no_such_ask Instance type by id 101 is gone"), "capacity", ""),
        (error(410, "no_such_ask", "error 410/3907: no longer available"), "capacity", ""),
        (error(400, "invalid_price", "too low"), "capacity", ""),
        (error(400, "invalid_args", "Invalid args: image"), "permanent", ""),
        (error(400, "no_ssh_key_for_vm", "no key"), "permanent", ""),
        (error(401, "auth_error", "Invalid user key"), "permanent", ""),
        (error(403, "invalid_args", "Offer is not your own"), "permanent", ""),
        (error(400, "insufficient_credit", "Your account lacks credit; see the billing page."), "quota", "balance"),
        (Refusal(400, {"detail": "insufficient credit"}), "quota", "balance"),
        (Refusal(200, {"success": False, "msg": "balance too low"}), "quota", "balance"),
        (Refusal(200, {"success": False, "error": "no_such_ask", "msg": "taken"}), "capacity", ""),
        (Refusal(200, {"success": False, "error": "invalid_args", "msg": "image"}), "permanent", ""),
    ],
)
def test_a_refusal_of_the_table_is_one(rig: Rig, said: Refusal, meaning: str, quota: str) -> None:
    rig.cloud.faults = [Fault("PUT", ASKS, after=False, answer=said)]
    answer = launched(rig)
    assert isinstance(answer, Refused)
    assert (answer.meaning, answer.quota) == (meaning, quota)
    assert living(rig.connect()) == []


@pytest.mark.parametrize("status", [200, 400, 404])
def test_what_a_refused_creation_left_is_destroyed_and_gone_before_it_counts_as_refused(rig: Rig, status: int) -> None:
    id = rig.cloud.last + 1
    left = Refusal(status, {"success": False, "new_contract": id, "msg": "the bid is too low"})
    rig.cloud.faults = [Fault("PUT", ASKS, after=True, answer=left)]
    answer = launched(rig)
    assert isinstance(answer, Refused)
    assert answer.meaning == "capacity"
    assert str(id) in answer.why
    assert rig.cloud.contracts == {}
    assert [how for how, path, _ in rig.cloud.requests if path.endswith(f"/instances/{id}/")] == ["DELETE", "GET"]


@pytest.mark.parametrize("status", [200, 400])
def test_what_a_refused_creation_left_and_is_still_there_is_no_refusal(rig: Rig, status: int) -> None:
    rig.cloud.sticky = True
    left = Refusal(status, {"success": False, "error": "no_such_ask", "new_contract": rig.cloud.last + 1})
    rig.cloud.faults = [Fault("PUT", ASKS, after=True, answer=left)]
    answer = launched(rig)
    assert isinstance(answer, Unknown)
    assert str(rig.cloud.last) in answer.why


def test_another_account_gets_nothing_and_another_rendering_is_not_sent(rig: Rig) -> None:
    backend = rig.connect()
    prepared = backend.prepare(request(rig, "l1", count=1), an_offer(backend))
    rig.cloud.account += 1
    with pytest.raises(TryLater, match="another"):
        backend.launch(prepared)
    rig.cloud.account -= 1
    with pytest.raises(TryLater, match="differently"):
        backend.launch(replace(prepared, inputs=(*prepared.inputs[:2], ("image", "other"))))
    assert rig.cloud.sent("/asks/") == []


def test_the_account_is_known_whatever_the_key(rig: Rig) -> None:
    before = rig.connect().identity()
    rig.cloud.key = rig.key = "another-key-of-the-same"
    assert rig.connect().identity() == before == str(rig.cloud.account)


# ------------------------------------------------------------ listings


def test_all_pages_are_listed_although_one_ends_between_two(rig: Rig) -> None:
    rig.cloud.market = offers_of(60)
    body = {"image": "i", "label": "dstack-00000000-other-0", "env": {}}
    for offer in rig.cloud.market[:58]:
        rig.cloud.made(offer, body, "running")
    launched(rig)
    assert [one.id for one in living(rig.connect())] == ["l1-0"]
    gone = iter(sorted(rig.cloud.contracts))
    rig.cloud.moves = lambda: rig.cloud.contracts.pop(next(gone), None)
    assert [one.id for one in living(rig.connect())] == ["l1-0"]
    assert sum("after_token" in one for one in rig.cloud.queries) >= 4


def test_a_listing_with_fewer_than_are_counted_is_no_listing(rig: Rig) -> None:
    launched(rig)
    short = {"success": True, "instances": [], "total_instances": 1, "next_token": None}
    rig.cloud.faults = [Fault("GET", "/api/v1/instances/", answer=Refusal(200, short))]
    with pytest.raises(TryLater, match="0 of 1"):
        rig.connect().instances()


@pytest.mark.parametrize(
    "said", [Refusal(200, text="<html>portal</html>"), Refusal(200, {}), Refusal(200, {"instances": "x"})]
)
def test_no_page_of_a_portal_means_that_nothing_is_there(rig: Rig, said: Refusal) -> None:
    answer = launched(rig)
    assert isinstance(answer, Made)
    rig.cloud.faults = [Fault("GET", "/api/v1/instances/", answer=said) for _ in range(3)]
    with pytest.raises(TryLater):
        rig.connect().instances()
    path = f"/instances/{answer.external_id}/"
    rig.cloud.faults = [Fault("GET", path, answer=said) for _ in range(3)]
    with pytest.raises(TryLater):
        rig.connect().instances([answer.external_id])


def test_a_contract_is_ours_by_its_environment_where_its_label_was_changed(rig: Rig) -> None:
    launched(rig)
    for one in rig.cloud.contracts.values():
        one["label"] = "mine now"
    (seen,) = living(rig.connect())
    assert (seen.id, seen.untagged) == ("l1-0", ("label",))
    rig.project = "project2"
    assert living(rig.connect()) == []


@pytest.mark.parametrize(
    ("status", "phase", "unfit", "interrupted"),
    [
        ({"actual_status": None}, "starting", "", False),
        ({"actual_status": "created"}, "starting", "", False),
        ({"actual_status": "created", "status_msg": "Error: OCI runtime create failed"}, "starting", "cannot", False),
        ({"actual_status": "loading"}, "starting", "", False),
        ({"actual_status": "running"}, "running", "", False),
        ({"actual_status": "offline"}, "running", "offline", False),
        ({"actual_status": "unknown"}, "running", "unknown", False),
        ({"actual_status": "something-new"}, "running", "something-new", False),
        ({"actual_status": "exited"}, "stopped", "", False),
        ({"actual_status": "exited", "is_bid": True, "all": "stopped"}, "stopped", "", True),
        ({"actual_status": "exited", "is_bid": False, "all": "stopped"}, "stopped", "", False),
        ({"actual_status": "running", "is_bid": True, "intended_status": "stopped"}, "running", "", False),
    ],
)
def test_what_a_status_means(rig: Rig, status: dict[str, Any], phase: str, unfit: str, interrupted: bool) -> None:
    launched(rig)
    (one,) = rig.cloud.contracts.values()
    one.update({key: value for key, value in status.items() if key != "all"})
    if "all" in status:
        one.update(dict.fromkeys(("cur_state", "next_state", "intended_status"), status["all"]))
    (seen,) = rig.connect().instances()
    assert (seen.phase, seen.interrupted) == (phase, interrupted)
    assert unfit in seen.unfit
    assert bool(seen.unfit) == bool(unfit)


@pytest.mark.parametrize("shape", [dict, lambda pairs: [f"{key}={text}" for key, text in pairs], lambda pairs: pairs])
def test_the_environment_is_read_in_each_of_its_shapes(rig: Rig, shape: Callable[[Any], Any]) -> None:
    launched(rig)
    (one,) = rig.cloud.contracts.values()
    one["extra_env"] = shape(one["extra_env"])
    rig.cloud.wrong, (seen,) = [], rig.connect().instances()
    rig.cloud.wrong = []  # two of the shapes are not those of the listing's document
    assert (seen.lineage, seen.pool, seen.generation) == ("lineage1", "pool", 1)


@pytest.mark.parametrize("shape", [None, "text", 7, ["ab", 3, None, ["x"]], {}])
def test_an_environment_that_tells_nothing_is_no_failure(rig: Rig, shape: Any) -> None:
    launched(rig)
    (one,) = rig.cloud.contracts.values()
    one["extra_env"] = shape
    (seen,) = rig.connect().instances()
    rig.cloud.wrong = []
    assert (seen.id, seen.lineage) == ("l1-0", "")


def test_the_address_has_the_port_outside_and_only_while_it_runs(rig: Rig) -> None:
    launched(rig)
    assert [one.address for one in rig.connect().instances()] == [""]
    rig.settle()
    (seen,) = rig.connect().instances()
    assert seen.address == "203.0.113.9:40022"
    assert (seen.region, seen.zone, seen.instance_type) == ("world", "DE-m9101", "1x-rtx-4090")


# ------------------------------------------------------------ terminating


def test_a_deletion_that_comes_too_soon_is_repeated_after_the_time_that_vast_names(rig: Rig) -> None:
    answer = launched(rig)
    assert isinstance(answer, Made)
    rig.cloud.too_soon = 2
    assert rig.connect().terminate([answer.external_id]) == {answer.external_id: Ending()}
    assert rig.waited == [3.5, 3.5]
    assert rig.cloud.contracts == {}


@pytest.mark.parametrize(
    "said",
    [Refusal(200, {"success": False, "msg": "busy"}), Refusal(200, text="<html>"), None, error(500, "", "no")],
)
def test_a_deletion_that_was_not_accepted_is_not_reported_as_one(rig: Rig, said: Refusal | None) -> None:
    answer = launched(rig)
    assert isinstance(answer, Made)
    rig.cloud.faults = [Fault("DELETE", f"/{answer.external_id}/", after=False, answer=said)]
    if said is None:
        rig.cloud.faults[0].after = True
    assert isinstance(rig.connect().terminate([answer.external_id])[answer.external_id], Unknown)


def test_a_contract_that_is_gone_is_ended(rig: Rig) -> None:
    rig.cloud.faults = [Fault("DELETE", "/77/", after=False, answer=Refusal(200, {"error": "no_such_instance"}))]
    assert rig.connect().terminate(["77"]) == {"77": Ending()}


# ------------------------------------------------------------ what is asked for


def test_a_launch_starts_at_once_or_not_at_all_and_is_found_by_its_mark(rig: Rig) -> None:
    launched(rig)
    (body,) = rig.cloud.sent("/asks/")
    assert body["cancel_unavail"] is True
    assert body["label"].startswith("dstack-")
    assert body["label"].endswith("-l1-0")
    assert body["image"] == KIND.base_image
    assert body["disk"] == 100
    assert body["env"]["-p 22:22"] == "1"
    assert (body["runtype"], body["onstart"], body["args"][0]) == ("args", "/bin/sh", "-c")
    assert "price" not in body
    assert KEY not in str(body)


def test_the_start_command_unpacks_to_what_a_container_boots_with(rig: Rig, tmp_path: Path) -> None:
    launched(rig)
    (body,) = rig.cloud.sent("/asks/")
    packed = re.search(r"echo (\S+) \|", body["args"][1])
    assert packed is not None
    script = gzip.decompress(base64.b64decode(packed[1])).decode()
    assert "private key of l1" in script
    assert KIND.power_off_program in script
    for shell in ("dash", "bash"):
        assert subprocess.run([shell, "-n"], input=script.encode(), check=False).returncode == 0
    shown = body["args"][1].replace("eval ", "printf '%s\\n' ")
    done = subprocess.run(["sh", "-c", shown], capture_output=True, text=True, check=False)
    assert done.stdout.rstrip("\n") == script.rstrip("\n")


@pytest.mark.parametrize("shadow", ["", "curl"])
def test_a_machine_destroys_its_contract_with_the_key_of_its_own(rig: Rig, tmp_path: Path, shadow: str) -> None:
    """By curl; where there is none, by python."""
    answer = launched(rig)
    assert isinstance(answer, Made)
    rig.cloud.key = "key-of-the-instance"
    environ = {"CONTAINER_ID": answer.external_id, "CONTAINER_API_KEY": rig.cloud.key, "DSTACK_VAST_API": rig.endpoint}
    program = f"{shadow or ':'}() {{ return 1; }}\n" if shadow else ""
    text = program + KIND.power_off_program
    done = subprocess.run(["sh", "-c", text, "sh", "1"], env={"PATH": "/usr/bin:/bin", **environ}, check=False)
    assert done.returncode == 0
    assert rig.cloud.contracts == {}


def test_a_bid_is_the_price_that_was_shown_without_the_disk_and_never_above_max_price(rig: Rig) -> None:
    prepared = prepared_bid(rig)
    assert rig.connect().launch(prepared)["l1-0"] == Made(external_id=str(rig.cloud.last))
    (body,) = rig.cloud.sent("/asks/")
    assert 0.25 <= body["price"] <= 0.251
    assert body["cancel_unavail"] is True
    (seen,) = rig.connect().instances()
    assert seen.spot
    with pytest.raises(BackendError, match="above"):
        prepared_bid(rig, max_price=Decimal("0.10"))


def test_an_offer_without_a_machine_is_not_asked_for(rig: Rig) -> None:
    backend = rig.connect()
    with pytest.raises(NoCapacity):
        backend.prepare(request(rig, "l1", count=1), replace(an_offer(backend), handle=""))


# ------------------------------------------------------------ offers


def test_an_offer_has_our_share_of_the_machine_and_its_disk_in_the_price(rig: Rig) -> None:
    need = Need(disk=Span(min=200 * 1024), gpu=GpuNeed())
    offer, twin = rig.connect().offers([need], Where(spot="auto"))[::3]
    assert (offer.resources.cpus, offer.resources.memory, offer.resources.disk) == (16, 64250, 200 * 1024)
    assert offer.resources.gpu is not None
    assert (offer.resources.gpu.name, offer.resources.gpu.memory) == ("RTX4090", 24 * 1024)
    assert offer.resources.gpu.compute_capability == 89
    assert offer.price == Decimal("0.4417")  # 0.4 and 200 GB at $0.15 a month
    assert (twin.spot, twin.price) == (True, Decimal("0.2917"))
    assert "traffic" in offer.source


@pytest.mark.parametrize(
    "row",
    [
        {"verification": "unverified"}, {"reliability2": 0.8}, {"cuda_max_good": 12.4}, {"compute_cap": 520},
        {"direct_port_count": 0}, {"inet_down": 50.0}, {"duration": 3600.0}, {"rentable": False}, {"rented": True},
        {"cpu_cores": None}, {"cpu_ram": None}, {"disk_space": 20.0}, {"storage_cost": None},
        {"dph_base": None, "min_bid": None}, {"num_gpus": 0},
    ],
)  # fmt: skip
def test_what_vast_did_not_filter_is_left_out(rig: Rig, row: dict[str, Any]) -> None:
    rig.cloud.market = [a_row(101, **row)]
    assert rig.connect().offers((), Where(spot="on-demand")) == []


def test_the_options_of_the_backend_open_and_close_the_market(rig: Rig) -> None:
    rig.cloud.market = [
        a_row(101, verification="unverified"), a_row(102, reliability2=0.8), a_row(103, hosting_type=1),
    ]  # fmt: skip

    def asks(**options: Any) -> set[str]:
        rig.options = options
        return {one.zone for one in rig.connect().offers((), Where())}

    assert asks() == {"DE-m9103"}
    assert asks(verified=False) == {"DE-m9101", "DE-m9103"}
    assert asks(min_reliability=0.5) == {"DE-m9102", "DE-m9103"}
    rig.cloud.market.append(a_row(104))
    assert asks(datacenter=True) == {"DE-m9103"}


def test_a_region_is_a_country(rig: Rig) -> None:
    rig.cloud.market = [a_row(101), a_row(102, geolocation="Texas, US"), a_row(103, geolocation=None)]
    rig.region = "US"
    (offer,) = (one for one in rig.connect().offers((), Where()) if not one.spot)
    assert (offer.region, offer.zone) == ("US", "US-m9102")
    assert rig.cloud.sent("/bundles/", "POST")[-1]["geolocation"] == {"in": ["US"]}


@pytest.mark.parametrize(
    ("told", "ram", "name", "memory"),
    [
        ("H100 SXM", 81559, "H100", 80), ("A100 SXM4", 81920, "A100", 80), ("A100 PCIE", 40960, "A100", 40),
        ("Tesla V100", 16384, "V100", 16), ("RTX 6000Ada", 49140, "RTX6000ADA", 48), ("H200", 143771, "H200", 141),
        ("RTX_3090", 24576, "RTX3090", 24), ("RTX PRO 6000 WS", 97887, "RTXPRO6000", 96),
    ],
)  # fmt: skip
def test_a_gpu_has_the_name_and_memory_that_people_ask_for(
    rig: Rig, told: str, ram: int, name: str, memory: int
) -> None:
    rig.cloud.market = [a_row(101, gpu_name=told, gpu_ram=ram)]
    found = an_offer(rig.connect()).resources.gpu
    assert found is not None
    assert (found.name, found.memory) == (name, memory * 1024)


def test_offers_need_no_key_and_nothing_else_goes_without_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("VASTAI_API_KEY", raising=False)

    with served(Vast()) as endpoint:
        config = BackendConfig(name="vastai", type="vastai", options={"endpoint": endpoint})
        assert regions(config) == ("world",)
        backend = connect(config, "world", Around())
        with pytest.raises(ApiError, match="Invalid user key"):
            backend.offers((), Where())  # sent, without a key
        with pytest.raises(BackendError, match="VASTAI_API_KEY"):
            backend.identity()
