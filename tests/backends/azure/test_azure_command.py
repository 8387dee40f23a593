"""The installed command against our double of Azure: plan, apply, a lost answer, a sold-out location, destroy."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.doubles.azure.azure_double import SUBSCRIPTION, TENANT, AzureWorld, served

pytest.importorskip("azure.mgmt.compute", reason="the extra azure is not installed: pip install -e '.[azure]'")
pytest.importorskip("azure.mgmt.network", reason="the extra azure is not installed: pip install -e '.[azure]'")
DOCUMENTS = """\
project: {{name: demo, id: demo12345678}}
state: local
backends:
  - {{type: azure, tenant_id: {tenant}, subscription_id: {subscription}, regions: [eastus], endpoint: {endpoint}}}
pools:
  - name: bench
    default: true
    nodes: {nodes}
    resources: {{cpu: 2.., memory: 4GB.., disk: 50GB..}}
"""


class Command:
    """A project in a folder of its own."""

    def __init__(self, root: Path, endpoint: str, *, nodes: str) -> None:
        self.root = root / "project"
        (self.root / ".dstack").mkdir(parents=True)
        text = DOCUMENTS.format(tenant=TENANT, subscription=SUBSCRIPTION, endpoint=endpoint, nodes=nodes)
        (self.root / ".dstack" / "all.yml").write_text(text)

    def __call__(self, *args: str, code: int = 0) -> str:
        kept = {
            name: text for name, text in os.environ.items() if not name.startswith(("DSTACK_", "CI", "PYTEST", "AZURE"))
        }
        home = self.root.parent / "home"
        own = {"HOME": home, "XDG_STATE_HOME": home / "state", "XDG_CACHE_HOME": home / "cache"}
        environ = kept | {name: str(path) for name, path in own.items()} | {"DSTACK_ADDRESS": "198.51.100.7"}
        done = subprocess.run(
            [sys.executable, "-m", "reconciler.cli.main", *args],
            cwd=self.root, env=environ, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=120,
        )  # fmt: skip
        assert done.returncode == code, done.stdout + done.stderr
        return done.stdout


def test_the_command_plans_buys_adopts_and_ends(tmp_path: Path) -> None:
    world = AzureWorld(lost=1)
    with served(world) as endpoint:
        dstack = Command(tmp_path, endpoint, nodes="2")
        assert "nothing ends it by itself" in dstack("plan")
        assert world.requests == []
        for _ in range(3):
            dstack("apply", "-y", "--detach")
            world.settle()
        assert len(world.machines) == 2
        listed = json.loads(dstack("pool", "ps", "--json"))
        assert [(one["backend"], one["region"]) for one in listed] == [("azure", "eastus")] * 2
        world.quick = True
        # What was deleted is absent, which counts as its end only once two listings that lie apart agree.
        dstack("destroy", "--confirm", "demo", "--deadline", "15s", code=3)
        assert world.machines == {}
