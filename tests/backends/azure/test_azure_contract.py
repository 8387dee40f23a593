"""Azure keeps the contract of a backend, driven by the official client against our double."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from backends.base import Backend
from backends.boot.spec import Boot
from schemas.backend_types import type_of
from schemas.desired import BackendConfig
from tests.contracts.backend_contract import BackendContract, BackendRig
from tests.doubles.azure.azure_double import SUBSCRIPTION, TENANT, AzureWorld, served
from tests.doubles.sketch.sketch_double import Around

pytest.importorskip("azure.mgmt.compute", reason="the extra azure is not installed: pip install -e '.[azure]'")
pytest.importorskip("azure.mgmt.network", reason="the extra azure is not installed: pip install -e '.[azure]'")


def a_boot(launch: str) -> Boot:
    return Boot(
        host_key_private=f"key of {launch}", host_key_public="ssh-ed25519 AAAA", authorized_keys=("ssh-ed25519 B",)
    )


class AzureRig:
    kind, project, lineage, room = type_of("azure"), "project1", "lineage1", 3

    def __init__(self, world: AzureWorld, endpoint: str, **options: object) -> None:
        said = {"endpoint": endpoint, "subscription_id": SUBSCRIPTION, "tenant_id": TENANT, **options}
        self.config = BackendConfig(name="azure", type="azure", regions=("eastus",), options=said)
        self.world = world

    def connect(self, *, lineage: str = "") -> Backend:
        from backends.azure.backend import connect

        around = Around(project=self.project, lineage=lineage or self.lineage, boot=a_boot)
        return connect(self.config, "eastus", around)

    def settle(self) -> None:
        self.world.settle()


class TestAzure(BackendContract):
    kind = AzureRig.kind

    @pytest.fixture(params=["late", "at once"])
    def rig(self, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[BackendRig]:
        monkeypatch.setenv("DSTACK_ADDRESS", "198.51.100.7")
        world = AzureWorld(room=AzureRig.room, late=request.param == "late")
        with served(world) as endpoint:
            yield AzureRig(world, endpoint)
