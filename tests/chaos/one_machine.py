"""A tick of one machine of several: a process with its own home, checkout and clock, and the bucket of its team.

`python one_machine.py CHECKOUT SKEW`: SKEW is by how many seconds its clock is ahead.
"""

from __future__ import annotations

import dataclasses
import os
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

from reconciler.app.wiring import wire
from reconciler.cli.commands.plan.revision import revision
from reconciler.cli.project import documents_of, site_of
from reconciler.engine.begin import TickRefused
from reconciler.engine.request import TickAsk
from reconciler.engine.tick import tick
from reconciler.state.errors import StateMoved, StateRefused


def run(checkout: Path, *, skew: int) -> int:
    documents = documents_of(checkout)
    ports = wire(site_of(documents), environ=os.environ, unattended=True)
    ports = dataclasses.replace(ports, now=lambda: int(time.time()) + skew)
    try:
        result = tick(ports, TickAsk(documents=documents, revision=revision(documents)))
    except (StateRefused, StateMoved, TickRefused) as error:
        print(f"refused: {error}")
        return 1
    print(result.refused or [type(one).__name__ for one in result.outcomes])
    return 1 if result.refused else 0


def main() -> None:
    checkout, skew = sys.argv[1:]
    sys.exit(run(Path(checkout), skew=int(skew)))


if __name__ == "__main__":
    main()
