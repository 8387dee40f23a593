"""Reconcilers that die or fall asleep at a numbered effect, and others that go on. Nothing here is by chance."""

from __future__ import annotations

import dataclasses
import random
import threading
from collections.abc import Callable
from typing import Any

from reconciler.engine.ports import Ports

COUNTED = {
    "store": ("write",),
    "blobs": ("put",),
    "markers": ("put",),
    "runner": ("start", "release", "stop", "collect", "clean"),
    "backend": ("prepare", "launch", "terminate"),
}


class Killed(BaseException):
    """kill -9. No `except Exception` and no `finally` can do anything about it: every port refuses from then on."""


def nothing() -> None:
    """What happens meanwhile, by default."""


class Killer:
    """Kills before or after effect `at` (from 1), after `meanwhile`. `at` 0 never kills.

    `told` are the effects that were begun, by name.
    """

    def __init__(self, at: int = 0, *, after: bool = False, meanwhile: Callable[[], object] = nothing) -> None:
        self.at, self.after, self.meanwhile, self.dead = at, after, meanwhile, False
        self.told: list[str] = []

    def wrap(self, ports: Ports) -> Ports:
        def connect(*args: Any) -> Any:
            return Wrapped(ports.connect(*args), self, COUNTED["backend"])

        return dataclasses.replace(
            ports,
            store=Wrapped(ports.store, self, COUNTED["store"]),
            blobs=Wrapped(ports.blobs, self, COUNTED["blobs"]),
            markers=Wrapped(ports.markers, self, COUNTED["markers"]),
            runner=Wrapped(ports.runner, self, COUNTED["runner"]),
            record=self.around(ports.record, name="record"),
            connect=connect,
        )

    def around(self, call: Callable[..., Any], *, name: str = "") -> Callable[..., Any]:
        """`name` is that of an effect; other calls are not counted, and refuse once it is dead."""

        def guarded(*args: Any, **named: Any) -> Any:
            self.enter(name)
            if self.dead:
                raise Killed
            if name:
                self.told.append(name)
            mine = bool(name) and len(self.told) == self.at
            if mine and not self.after:
                self.end()
            answer = call(*args, **named)
            if mine and self.after:
                self.end()
            if self.dead:
                raise Killed
            return answer

        return guarded

    def enter(self, name: str) -> None:
        """Called before an effect is begun."""

    def end(self) -> None:
        self.meanwhile()
        self.dead = True
        raise Killed


class Sleeper(Killer):
    """Sleeps before or after effect `at`; `meanwhile` is what others do. Then it goes on."""

    def end(self) -> None:
        self.meanwhile()


class Wrapped:
    """A port whose every call goes through the killer."""

    def __init__(self, port: Any, killer: Killer, counted: tuple[str, ...]) -> None:
        self._port, self._killer, self._counted = port, killer, counted

    def __getattr__(self, name: str) -> Any:
        value = getattr(self._port, name)
        return self._killer.around(value, name=name if name in self._counted else "") if callable(value) else value


# ---------------------------------------------------------------- several under way


class Crowd(Killer):
    """Effects under way at once, in an order that `seed` chooses, and a death in the midst of them.

    Each worker stops before every effect. Whenever whoever gathers asks for the time, one of them goes on until it
    stops again, another one, and so forth until one has ended; `pass_time` is called then. `most` is how many
    were under way at once.
    """

    def __init__(self, at: int = 0, *, seed: int, pass_time: Callable[[], object] = nothing, **named: Any) -> None:
        super().__init__(at, **named)
        self._dice = random.Random(seed)  # noqa: S311 - a replayable one
        self._pass_time = pass_time
        self._workers: dict[int, Worker] = {}
        self.most = 0

    def wrap(self, ports: Ports) -> Ports:
        def clock() -> float:
            self._go_on()
            return ports.clock()

        return dataclasses.replace(super().wrap(ports), spawn=self._spawn, clock=clock)

    def enter(self, name: str) -> None:
        worker = self._workers.get(threading.get_ident())
        if name and worker is not None and not self.dead:
            worker.stop()

    def leave(self) -> None:
        """Whoever is under way ends: its process is dead, or has nothing left to do."""
        for worker in list(self._workers.values()):
            while not worker.over:
                worker.step()
        self._workers.clear()

    def _spawn(self, work: Callable[[], None]) -> None:
        worker = Worker(work)
        self._workers[worker.ident] = worker
        worker.step()
        if worker.over:
            del self._workers[worker.ident]
        self.most = max(self.most, len(self._workers))

    def _go_on(self) -> None:
        if threading.get_ident() in self._workers:
            return
        while self._workers:
            worker = self._dice.choice(list(self._workers.values()))
            worker.step()
            if worker.over:
                del self._workers[worker.ident]
                self._pass_time()
                return


class Worker:
    """A thread that runs only while somebody waits for it in `step`: never two at once."""

    def __init__(self, work: Callable[[], None]) -> None:
        self._work, self.over = work, False
        self._go, self._stopped = threading.Semaphore(0), threading.Semaphore(0)
        thread = threading.Thread(target=self._run, daemon=True)
        thread.start()
        assert thread.ident is not None
        self.ident = thread.ident

    def step(self) -> None:
        self._go.release()
        self._stopped.acquire()

    def stop(self) -> None:
        self._stopped.release()
        self._go.acquire()

    def _run(self) -> None:
        self._go.acquire()
        try:
            self._work()
        finally:
            self.over = True
            self._stopped.release()
