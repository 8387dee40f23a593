"""A process that ends itself at a numbered seam of an apply: `os._exit` before or after its Nth effect.

    python tests/chaos/seams.py ROOT N before|after

The ports are the real ones. Nothing is handled: what a dead process would not do, this one does not do
either. N is 0 for a story told to its end; the number of its effects is then printed.
"""

from __future__ import annotations

import dataclasses
import os
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from reconciler.app.wiring import wire
from reconciler.cli.commands.plan.revision import identified, revision
from reconciler.cli.project import site_of
from reconciler.engine.ports import Ports
from reconciler.engine.request import TickAsk
from reconciler.engine.tick import tick
from reconciler.engine.until import settle, settled
from schemas.plan import Permissions
from schemas.run import RUN_ENDED

COUNTED = {
    "store": ("write",),
    "blobs": ("put",),
    "markers": ("put",),
    "runner": ("start", "release", "stop", "collect", "clean"),
    "backend": ("prepare", "launch", "terminate"),
}
DEAD = 9
PATIENCE = 240.0


class Seams:
    """Counts effects, and is dead at number `at`: at once, with every thread, whatever else is under way."""

    def __init__(self, *, at: int, after: bool) -> None:
        self._at, self._after = at, after
        self._lock = threading.Lock()
        self.told: list[str] = []

    def wrap(self, ports: Ports) -> Ports:
        def connect(*args: Any) -> Any:
            return Port(ports.connect(*args), self, COUNTED["backend"])

        wrapped = {name: Port(getattr(ports, name), self, COUNTED[name]) for name in COUNTED if name != "backend"}
        record = self.around("record", ports.record)
        bundle = self.around("bundle", ports.bundle)
        return dataclasses.replace(ports, **wrapped, record=record, bundle=bundle, connect=connect)

    def around(self, name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        def counted(*args: Any, **named: Any) -> Any:
            with self._lock:
                self.told.append(name)
                mine = len(self.told) == self._at
            if mine and not self._after:
                os._exit(DEAD)
            answer = call(*args, **named)
            if mine:
                os._exit(DEAD)
            return answer

        return counted


class Port:
    def __init__(self, port: Any, seams: Seams, counted: tuple[str, ...]) -> None:
        self._port, self._seams, self._counted = port, seams, counted

    def __getattr__(self, name: str) -> Any:
        value = getattr(self._port, name)
        return self._seams.around(name, value) if name in self._counted else value


def tell(root: Path, seams: Seams) -> None:
    """Apply; wait until the tasks are over; apply again without the service, until nothing lives."""
    _apply(root, seams)
    _until(root, seams, lambda state: all(run.status in RUN_ENDED for run in state.runs if run.spec.type == "task"))
    (root / ".dstack/runs/service.yml").unlink()
    _apply(root, seams)
    _until(root, seams, lambda state: all(one.phase == "terminated" for one in state.instances))


def _apply(root: Path, seams: Seams) -> None:
    documents = identified(root)
    ports = seams.wrap(wire(site_of(documents), environ=os.environ, unattended=True))
    may = Permissions(destroy_pools=("bench",))
    ask = TickAsk(documents=documents, revision=revision(documents), permissions=may)
    settle(ports, ask, until=settled, progress=lambda _: None)


def _until(root: Path, seams: Seams, met: Callable[[Any], bool]) -> None:
    ports = seams.wrap(wire(site_of(identified(root)), environ=os.environ, unattended=True))
    deadline = time.monotonic() + PATIENCE
    while True:
        state = tick(ports, TickAsk()).state
        if state is not None and met(state):
            return
        assert time.monotonic() < deadline, state
        time.sleep(0.1)


def main() -> None:
    root, at, moment = sys.argv[1:]
    seams = Seams(at=int(at), after=moment == "after")
    tell(Path(root), seams)
    print(" ".join(seams.told))


if __name__ == "__main__":
    main()
