"""What the contract suite does not ask of Azure: late refusals, repeats, namesakes, the network, leftovers."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest
from msgspec.structs import replace

from backends.azure.errors import AzureError, understood
from backends.azure.machine import power_of, seen
from backends.errors import BackendError, LackingHere, NoCapacity, QuotaExceeded, StillUsed, TryLater
from backends.registry import policy_of
from backends.scope import PolicyScope
from schemas.launch import Ending, Made, Refused, Unknown
from tests.backends.azure.test_azure_contract import AzureRig
from tests.contracts.backend_contract import an_offer, living, request
from tests.doubles.azure.azure_double import QUOTA, SUBSCRIPTION, TENANT, AzureWorld, Refusal, served
from tests.doubles.azure.azure_rules import known_route, wrong_in_machine

pytest.importorskip("azure.mgmt.compute", reason="the extra azure is not installed: pip install -e '.[azure]'")
pytest.importorskip("azure.mgmt.network", reason="the extra azure is not installed: pip install -e '.[azure]'")
MACHINES = f"/subscriptions/{SUBSCRIPTION}/resourceGroups/g/providers/Microsoft.Compute/virtualMachines"


@pytest.fixture
def rig(monkeypatch: pytest.MonkeyPatch) -> Iterator[AzureRig]:
    monkeypatch.setenv("DSTACK_ADDRESS", "198.51.100.7")
    world = AzureWorld()
    with served(world) as endpoint:
        yield AzureRig(world, endpoint)


def launched(rig: AzureRig, name: str = "l1", *, count: int = 1, **changed: object) -> object:
    backend = rig.connect()
    asked = replace(request(rig, name, count=count), **changed)
    answers = backend.launch(backend.prepare(asked, an_offer(backend)))
    return answers[asked.ids[0]]


def test_the_double_takes_what_the_official_client_knows_and_nothing_else(rig: AzureRig) -> None:
    assert isinstance(launched(rig, spot=True), Made)
    (body,) = rig.world.bodies
    assert wrong_in_machine(body) == []
    changes = (("priority", "Cheap"), ("evictionPolicy", "Vanish"), ("vmId", "x"), ("colour", "red"), ("osProfile", 1))
    for name, value in changes:
        spoiled = json.loads(json.dumps(body))
        spoiled["properties"][name] = value
        assert wrong_in_machine(spoiled) != [], name
    assert wrong_in_machine({key: value for key, value in body.items() if key != "location"}) != []
    assert not known_route("PUT", f"{MACHINES}/m/colour")
    assert known_route("PUT", f"{MACHINES}/m")


def test_a_machine_is_made_with_everything_that_goes_with_it(rig: AzureRig) -> None:
    assert isinstance(launched(rig, spot=True, disk=200 * 1024, zone="eastus-2"), Made)
    (body,) = rig.world.bodies
    properties = body["properties"]
    nic = properties["networkProfile"]["networkInterfaceConfigurations"][0]
    address = nic["properties"]["ipConfigurations"][0]["properties"]["publicIPAddressConfiguration"]
    parts = (properties["storageProfile"]["osDisk"], nic["properties"], address["properties"])
    assert [part["deleteOption"] for part in parts] == ["Delete"] * 3
    assert parts[0]["diskSizeGB"] == 200
    assert body["zones"] == ["2"]
    assert (properties["priority"], properties["evictionPolicy"], properties["billingProfile"]) == (
        "Spot", "Delete", {"maxPrice": -1},
    )  # fmt: skip
    assert properties["storageProfile"]["imageReference"]["version"] == "24.04.202610010"
    assert body["tags"]["dstack-id"] == "l1-0"
    rig.settle()
    (machine,) = living(rig.connect())
    assert (machine.address, machine.internal_ip, machine.spot, machine.zone) == (
        "203.0.113.1", "10.64.0.1", True, "eastus-2",
    )  # fmt: skip


def test_want_of_capacity_that_is_told_late_leaves_no_machine_behind(rig: AzureRig) -> None:
    rig.world.room = 0
    answer = launched(rig)
    assert isinstance(answer, Refused)
    assert answer.meaning == "capacity"
    rig.settle()
    assert rig.world.machines == {}


def test_what_a_late_refusal_left_and_cannot_be_deleted_is_no_refusal_yet(rig: AzureRig) -> None:
    rig.world.room, rig.world.undeletable = 0, True
    assert isinstance(launched(rig), Unknown)
    (failed,) = rig.connect().instances()
    assert (failed.phase, failed.failure is not None and failed.failure.meaning) == ("stopped", "capacity")
    rig.world.undeletable = False
    assert rig.connect().terminate([failed.external_id]) == {failed.external_id: Ending()}


def test_a_creation_whose_answer_was_lost_is_adopted(rig: AzureRig) -> None:
    rig.world.lost = 1
    backend = rig.connect()
    prepared = backend.prepare(request(rig, "l1", count=1), an_offer(backend))
    assert isinstance(backend.launch(prepared)["l1-0"], Unknown)
    assert isinstance(rig.connect().launch(prepared)["l1-0"], Made)
    assert len(rig.world.machines) == 1


def test_a_repeat_that_is_refused_for_quota_does_not_end_the_machine_that_used_it_up(rig: AzureRig) -> None:
    rig.world.lost = 1
    backend = rig.connect()
    prepared = backend.prepare(request(rig, "l1", count=1), an_offer(backend))
    backend.launch(prepared)
    (key,) = rig.world.machines
    there = rig.world.machines.pop(key)

    class Hidden(Refusal):
        """The machine is found again once the creation was refused."""

        @property
        def headers(self) -> dict[str, str]:
            rig.world.machines[key] = there
            return {}

        @headers.setter
        def headers(self, value: dict[str, str]) -> None:
            """Nothing is sent besides."""

    rig.world.refuse = [Hidden(409, "OperationNotAllowed", QUOTA)]
    assert isinstance(backend.launch(prepared)["l1-0"], Made)
    assert there["properties"]["provisioningState"] == "Creating"


def test_a_machine_of_that_name_that_is_not_ours_is_left_alone(rig: AzureRig) -> None:
    assert isinstance(launched(rig), Made)
    (machine,) = rig.world.machines.values()
    machine["tags"] = {"dstack-project": "somebody"}
    answer = launched(rig)
    assert isinstance(answer, Refused)
    assert answer.meaning == "permanent"
    assert machine["properties"]["provisioningState"] == "Creating"


def test_a_namesake_is_not_ended(rig: AzureRig) -> None:
    assert isinstance(launched(rig), Made)
    rig.settle()
    (old,) = living(rig.connect())
    (machine,) = rig.world.machines.values()
    machine["properties"]["vmId"] = "another"
    assert rig.connect().terminate([old.external_id]) == {old.external_id: Ending()}
    assert machine["properties"]["provisioningState"] == "Succeeded"


@pytest.mark.parametrize(
    ("power", "phase"), [("stopped", "stopped"), ("deallocated", "stopped"), ("running", "running"), ("", "running")]
)
def test_a_machine_that_does_not_run_is_to_be_ended(rig: AzureRig, power: str, phase: str) -> None:
    launched(rig)
    rig.settle()
    (key,) = rig.world.machines
    rig.world.powers[key] = power
    (machine,) = rig.connect().instances()
    assert machine.phase == phase
    assert ("billed" in machine.reason) == (power == "stopped")
    assert rig.connect().instances([machine.external_id]) == [machine]


def test_the_network_is_made_once_and_foreign_rules_stay(rig: AzureRig) -> None:
    launched(rig)
    made = [path for method, path in rig.world.requests if method == "PUT"]
    assert [path.partition("?")[0].rsplit("/", 2)[1] for path in made] == [
        "resourceGroups", "virtualNetworks", "networkSecurityGroups", "virtualMachines",
    ]  # fmt: skip
    (group,) = (one for key, one in rig.world.things.items() if "networksecuritygroups" in key)
    (rule,) = group["properties"]["securityRules"]
    assert rule["properties"]["sourceAddressPrefix"] == "198.51.100.7/32"
    assert rule["properties"]["description"].startswith("dstack until ")
    foreign = {"name": "theirs", "properties": {"priority": 1000}}
    rule["properties"]["description"] = "dstack until 5"
    group["properties"]["securityRules"] = [foreign, rule]
    assert rig.connect().allow_our_address()
    (group,) = (one for key, one in rig.world.things.items() if "networksecuritygroups" in key)
    assert [one["name"] for one in group["properties"]["securityRules"]] == ["theirs", rule["name"]]
    assert group["properties"]["securityRules"][1]["properties"]["priority"] == 1001
    assert not rig.connect().allow_our_address()


def test_what_a_machine_left_is_listed_and_removed(rig: AzureRig) -> None:
    launched(rig)
    rig.settle()
    kinds = {one.kind: one for one in rig.connect().leftovers()}
    assert set(kinds) == {"volume", "interface", "address", "security-group"}
    assert all(kinds[kind].in_use for kind in ("volume", "interface", "address"))
    with pytest.raises(StillUsed, match="NicInUse"):
        rig.connect().remove(kinds["interface"])
    rig.world.things[kinds["interface"].id.lower()]["properties"].pop("virtualMachine")
    rig.connect().remove(kinds["interface"])
    rig.connect().remove(kinds["interface"])
    assert "interface" not in {one.kind for one in rig.connect().leftovers()}


def test_the_account_is_tenant_and_subscription(rig: AzureRig) -> None:
    assert rig.connect().identity() == f"{TENANT}/{SUBSCRIPTION}"


@pytest.mark.parametrize(
    ("status", "code", "words", "kind"),
    [
        (409, "SkuNotAvailable", "", NoCapacity),
        (200, "AllocationFailed", "", NoCapacity),
        (409, "OperationNotAllowed", QUOTA, QuotaExceeded),
        (409, "OperationNotAllowed", "the machine is marked for deletion", TryLater),
        (429, "OperationNotAllowed", "exceeding approved quota of requests", TryLater),
        (503, "ServerTimeout", "", TryLater),
        (500, "", "", TryLater),
        (412, "PreconditionFailed", "", TryLater),
        (403, "AuthorizationFailed", "", AzureError),
        (404, "NotFound", "", AzureError),
        (409, "PropertyChangeNotAllowed", "", AzureError),
    ],
)
def test_the_code_counts_before_the_status(status: int, code: str, words: str, kind: type) -> None:
    assert type(understood(status, {"error": {"code": code, "message": words}})) is kind


def test_a_quota_is_named_with_its_limit() -> None:
    error = understood(409, {"error": {"code": "OperationNotAllowed", "message": QUOTA}})
    assert isinstance(error, QuotaExceeded)
    assert error.quota == "Total Regional Cores (Current Limit: 10, Current Usage: 8, Additional Required: 4)"


def test_an_evicted_machine_that_stays_as_azure_recorded_it_is_read_by_its_power() -> None:
    """As Azure answered in a recording of azure-cli (MIT): `provisioningState` says nothing of power."""
    machine = {
        "id": f"{MACHINES}/vm2", "name": "vm2", "location": "eastus", "tags": {},
        "properties": {
            "hardwareProfile": {"vmSize": "Standard_DS1_v2"}, "provisioningState": "Succeeded", "priority": "Spot",
            "vmId": "5b835da6-22bc-4bab-9fa6-7d9ae5188eeb", "timeCreated": "2025-03-31T07:19:37.4424829+00:00",
        },
    }  # fmt: skip
    view = {"properties": {"instanceView": {"statuses": [{"code": "PowerState/deallocated"}]}}}
    found = seen(machine, power=power_of(view))
    assert (found.phase, found.spot, found.created_at) == ("stopped", True, 1743405577)
    assert found.untagged == ("dstack-project", "dstack-lineage", "dstack-launch", "dstack-pool")


def test_a_listing_with_a_page_missing_is_no_listing(rig: AzureRig, monkeypatch: pytest.MonkeyPatch) -> None:
    launched(rig, count=3)
    page = rig.world.page

    def elsewhere(rows: list[object], url: str, base: str) -> object:
        return page(rows, url, "https://elsewhere.example.com")

    rig.world.page = elsewhere  # type: ignore[assignment]
    with pytest.raises(TryLater, match="leads away"):
        rig.connect().instances()


def test_roles_of_plan_look_and_roles_of_apply_make(rig: AzureRig) -> None:
    made = policy_of("azure")
    assert made is not None
    plan, apply = (made(kind, rig.config, PolicyScope(project="p1")) for kind in ("plan", "apply"))
    assert all(action.endswith("/read") for action in plan["Actions"])
    assert set(plan["Actions"]) < set(apply["Actions"])
    assert plan["AssignableScopes"] == [f"/subscriptions/{SUBSCRIPTION}"]


def test_a_place_that_is_not_confirmed_is_sent_nothing() -> None:
    rig = AzureRig(AzureWorld(), "https://elsewhere.example.com")
    with pytest.raises(BackendError, match="nothing is sent"):
        rig.connect().identity()


def test_without_a_secret_in_the_environment_it_is_said_which_one_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MY_SECRET", raising=False)
    creds = {"client_id": "${{ env.MY_SECRET }}", "client_secret": "${{ env.MY_SECRET }}"}
    rig = AzureRig(AzureWorld(), "", creds=creds)
    with pytest.raises(LackingHere, match="MY_SECRET"):
        rig.connect().identity()
