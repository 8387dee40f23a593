"""What a tick asks of AWS: requests by action, counted at a strict double of it. JSON on stdout.

Its server (`tests/doubles/aws/aws_double.py`) stands in for EC2; hosts are the fake world's.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from backends.aws import backend as aws
from schemas.pool import Pool
from schemas.resources import Where
from tests.doubles.aws.aws_double import Account, served
from tests.doubles.aws.aws_world import AwsSite, papers
from tests.worlds.world import apply, cron, task

REGIONS = ("eu-west-1", "us-east-1")
EACH = 500
SHAPE = 200


def measure(folder: Path) -> dict[str, float]:
    """Every figure by its name in the table of `bench.run`."""
    with served(folder / "aws") as server:
        return {**_nothing_to_do(server.account(), folder), **_launches(server.account(), folder)}


def _nothing_to_do(account: Account, folder: Path) -> dict[str, float]:
    """An apply over 1,000 instances in two regions that all stay, as a fresh process would make it."""
    os.environ.update(account.environ)
    site = AwsSite(scratch=folder, account=account, regions=REGIONS, steady=True)
    pools = [
        Pool(name=region, default=not number, nodes_min=EACH, where=Where(regions=(region,)))
        for number, region in enumerate(REGIONS)
    ]
    documents = papers(pools=pools, regions=REGIONS)
    apply(site, documents)
    for _ in range(2):
        site.clock.at += 20
        cron(site)
    site.clock.at += 20
    assert sum(one.phase == "ready" for one in site.state.instances) == EACH * len(REGIONS)
    aws._identities.clear()
    account.clear()
    assert apply(site, documents).plan.actions == ()
    counted: Counter[str] = Counter()
    for (_, action), number in account.calls().items():
        counted[action] += number
    named = ("DescribeInstances", "DescribeInstanceStatus", "GetCallerIdentity")
    return {
        "DescribeInstances of 1,000 instances that stay, in 2 regions": counted["DescribeInstances"],
        "its status checks": counted["DescribeInstanceStatus"],
        "its identity calls": counted["GetCallerIdentity"],
        "its other calls": counted.total() - sum(counted[name] for name in named),
    }


def _launches(account: Account, folder: Path) -> dict[str, float]:
    """200 runs of one shape, each on a machine of its own."""
    os.environ.update(account.environ)
    site = AwsSite(scratch=folder, account=account, steady=True)
    runs = [task(f"run{number}") for number in range(SHAPE)]
    apply(site, papers(pools=[Pool(name="default-pool", default=True)], runs=runs))
    assert len(account.living()) == SHAPE
    calls = account.calls()
    return {"RunInstances of 200 launches of one shape": calls["eu-west-1", "RunInstances"]}


def main() -> None:
    with tempfile.TemporaryDirectory(prefix="dstack-bench-") as folder:
        print(json.dumps([measure(Path(folder))]))


if __name__ == "__main__":
    main()
