"""The pure plan of 10,000 instances over 100,000 offers when the budget is used up, in CPU seconds, as JSON on stdout.

Every waiting run is refused, with the numbers of its refusal: none of them may cost a walk through all offers.
"""

from __future__ import annotations

import gc
import json
import statistics
import time
from decimal import Decimal

from msgspec.structs import replace

from bench import planner
from bench.steps import THRESHOLDS
from reconciler.planner.plan import plan
from reconciler.planner.world import World

ROUNDS = 5


def main() -> None:
    gc.set_threshold(*THRESHOLDS)
    made = planner.world(10_000, offers=100_000)
    desired = replace(made.desired, budget=Decimal(1))
    taken = []
    for _ in range(ROUNDS):
        world = World(desired=desired, state=made.state, offers=made.offers, now=made.now, nonce=made.nonce)
        began = time.process_time()
        refused = plan(world).unmet
        taken.append(time.process_time() - began)
    print(json.dumps([{"seconds": statistics.median(taken), "refused": len(refused)}]))


if __name__ == "__main__":
    main()
