"""A question to a catalog of 100,000 offers, and whole plans of a project on AWS: with nothing to do, and with.

Run by itself it prints the question's CPU seconds as JSON: a process of its own, that holds much.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from msgspec.structs import replace

from bench.budgets import Row
from bench.commands import DSTACK, cpu_and_memory
from bench.whole import environment

OFFERS = 100_000
ROUNDS = 5
IDLE = "project: {name: cloud, id: cloudbenchmark}\nstate: local\nbackends: [{type: aws}]\npools: [{name: gpu}]\n"
BUYS = IDLE.replace("[{name: gpu}]", "\n- {name: gpu, nodes: 2, resources: {gpu: 'A100:8'}}\n- {name: cpu, nodes: 1}")


def measure_catalog(*, rounds: int = ROUNDS) -> list[Row]:
    asked = subprocess.run([sys.executable, "-m", "bench.catalog"], check=True, capture_output=True)
    rows = [Row(what="a question to 100,000 offers", value=json.loads(asked.stdout), unit="s")]
    with tempfile.TemporaryDirectory(prefix="dstack-bench-") as scratch:
        for what, text in (("plan on AWS, nothing to do", IDLE), ("plan on AWS that buys", BUYS)):
            folder = Path(scratch, what.replace(" ", "-"))
            (folder / ".dstack").mkdir(parents=True)
            (folder / ".dstack" / "cloud.yml").write_text(text)
            env = environment(folder)
            taken = [cpu_and_memory([DSTACK, "plan"], cwd=folder, env=env)[0] for _ in range(rounds + 1)]
            rows.append(Row(what=what, value=statistics.median(taken[1:]), unit="s"))  # the first is for the caches
    return rows


def main() -> None:
    """The shipped catalog several times over, as so many regions, asked for one GPU: the median of a few questions."""
    from backends.catalog.layers import shipped
    from backends.catalog.offers import Layers, offers
    from schemas.desired import BackendConfig
    from schemas.resources import GpuNeed, Need, Where

    catalog = shipped("aws")
    many = {f"{name}-{copy}": region for copy in range(3) for name, region in catalog.regions.items()}
    layers, config = Layers(shipped=replace(catalog, regions=many)), BackendConfig(name="aws", type="aws")
    assert sum(1 for _ in offers(config, layers, Need(), Where(spot="auto"))) >= OFFERS
    need = Need(gpu=GpuNeed(names=("h100",)))
    taken = []
    for _ in range(ROUNDS):
        began = time.process_time()
        list(offers(config, layers, need, Where(spot="auto")))
        taken.append(time.process_time() - began)
    print(json.dumps(statistics.median(taken)))


if __name__ == "__main__":
    main()
