"""What the stateful machine meddles with: places in trouble, checkouts of several ages, reconcilers that sleep.

`Field` is one project with everything that can happen to it. It decides nothing: `tests/engine/test_machine.py` has the
rules that hypothesis draws from, `tests/contracts/laws.py` what must hold whatever was drawn.
"""

from __future__ import annotations

import dataclasses
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from msgspec.structs import replace

from backends.base import Backend, BackendDefaults
from backends.errors import TryLater
from reconciler.cli.commands.state.rebuild import rebuilt
from reconciler.engine.ports import Ports
from reconciler.engine.request import TickAsk
from reconciler.engine.tick import TickResult, tick
from reconciler.engine.write_state import land
from reconciler.state.authority import GitFacts
from reconciler.state.errors import StateRefused
from reconciler.state.forget import forget
from reconciler.state.rebuild import RebuildRefused
from reconciler.state.requests import WishRefused
from schemas.backend_types import TYPES
from schemas.desired import BackendConfig, Desired
from schemas.instance import Seen
from schemas.launch import LaunchAnswer, Request, TerminateAnswer
from schemas.plan import Permissions
from schemas.pool import Pool
from schemas.run import RunSpec
from schemas.state import Applied, Revision, State
from tests.chaos.killer import Killed, Killer
from tests.contracts.laws import May, Watch, WatchedStore
from tests.worlds.world import PROJECT, Papers, Site, offer

HOUR = 3600
FOR_EVER = 10**9
PLACES = ("fake/r1", "fake/r2")
OFFERS = (
    offer("small", "1.00"),
    offer("large", "1.40"),
    offer("small", "0.40", spot=True),
    offer("small", "1.10", region="r2"),
    offer("large", "1.50", region="r2"),
    offer("twin", "2.00", gpus=2),
    offer("twin", "2.10", region="r2", gpus=2),
)
KINDS = ("small", "large", "twin")
POOL_A = Pool(name="a", default=True, nodes_max=4, idle_duration=60)
POOL_B = Pool(name="b", nodes_max=2, idle_duration=600)
FIRST = Desired(
    project=PROJECT,
    backends=(BackendConfig(name="fake", type="fake", regions=("r1", "r2")),),
    pools=(POOL_A,),
)
EVERYTHING = Permissions(destroy_pools=("*",))


class Troubled(BackendDefaults):
    """A place that may be silent, be another account, or give an empty list. Only look-ups by id see through that."""

    def __init__(self, backend: Backend, field: Field, *, who: str = "") -> None:
        self.place = backend.place
        self._backend, self._field, self._who = backend, field, who

    @property
    def _trouble(self) -> str:
        trouble = self._field.trouble.get(self.place, "")
        if trouble == "silent":
            raise TryLater(f"{self.place} does not answer")
        return trouble

    def identity(self) -> str:
        return "somebody" if self._trouble == "stranger" else self._backend.identity()

    def clock(self) -> int | None:
        return self._field.skew.get(self._who, 0) if self._field.dated else None

    def offers(self, *args: Any) -> Any:
        return self._backend.offers(*args) if self._trouble != "stranger" else ()

    def prepare(self, *args: Any) -> Any:
        self._untouched("prepare")
        return self._backend.prepare(*args)

    def launch(self, request: Request) -> Mapping[str, LaunchAnswer]:
        self._untouched("launch")
        return self._backend.launch(request)

    def instances(self, ids: Sequence[str] | None = None) -> Sequence[Seen]:
        trouble = self._trouble
        found = self._backend.instances(ids)  # what it knows goes on, whatever it says: a lag counts from there
        return () if trouble == "stranger" or (trouble == "empty" and ids is None) else found

    def terminate(self, ids: Sequence[str], *, generation: int = 0) -> Mapping[str, TerminateAnswer]:
        self._untouched("terminate")
        return self._backend.terminate(ids, generation=generation)

    def _untouched(self, call: str) -> None:
        if self._trouble == "stranger":
            self._field.broken.append(f"{call} went to another account in {self.place}")


@dataclass
class Field:
    """`commits` are the documents as the people committed them, oldest first. `skew` is by reconciler, in seconds."""

    site: Site = field(init=False)
    watch: Watch = field(init=False)
    commits: list[Desired] = field(default_factory=lambda: [FIRST])
    trouble: dict[str, str] = field(default_factory=dict)
    skew: dict[str, int] = field(default_factory=dict)
    dated: bool = False
    """Whether places tell the time: clocks may then be off by any number of years."""
    broken: list[str] = field(default_factory=list)
    backups: list[bytes] = field(default_factory=list)
    wished: int = 0

    def __post_init__(self) -> None:
        self.site = Site(scratch=Path(tempfile.mkdtemp()), offers=OFFERS)
        self.site.world.script = self.script
        self.site.world.jump = jump
        self.watch = Watch(self.site, self.broken)

    # ------------------------------------------------------------ reconcilers

    def ports(self, who: str, may: May | None = None) -> Ports:
        site = self.site
        ports = site.ports(who=who)

        def connect(config: BackendConfig, region: str, lineage: str) -> Backend:
            return Troubled(site.connect(config, region, lineage), self, who=who)

        def now() -> int:
            return site.clock.now() + self.skew.get(who, 0)

        store = WatchedStore(self.watch, may or May())
        return dataclasses.replace(ports, store=store, connect=connect, now=now, facts=facts)

    def tick(self, who: str, ask: TickAsk, *, around: Killer | None = None) -> TickResult | None:
        """`None` where it was killed, or refused a wish."""
        ports = self.ports(who, May(ask.permissions, forced=ask.config_force, dated=self.dated))
        try:
            return tick(around.wrap(ports) if around else ports, ask)
        except (Killed, WishRefused):
            return None

    def cron(self, who: str, **changes: Any) -> TickResult | None:
        return self.tick(who, TickAsk(**{"revive": True, **changes})) if self.site.store.data else None

    def apply(self, number: int, *, who: str = "ann@laptop", around: Killer | None = None, **ask: Any) -> Any:
        papers = Papers(self.commits[number])
        asked = {"prompted": True, "revive": True, "permissions": EVERYTHING, **ask}
        return self.tick(who, TickAsk(documents=papers, revision=self.revision(number), **asked), around=around)

    def revision(self, number: int) -> Revision:
        return Revision(digest=Papers(self.commits[number]).digest, commit=f"{number:040x}", committed_at=number)

    @property
    def newest(self) -> int:
        return len(self.commits) - 1

    def applied(self) -> int:
        """The number of the applied commit; -1 where there is none."""
        state, _ = self.site.store.read()
        return int(state.applied.revision.commit, 16) if state and state.applied else -1

    # ------------------------------------------------------------ people

    def shape(self, kind: str) -> None:
        """The backends of the world and of the documents are of that type from now on."""
        self.site.kind = self.site.world.kind = TYPES[kind]
        self.commits[-1] = self.site.shaped(self.commits[-1])

    def edit(self, **changes: Any) -> None:
        self.commits.append(replace(self.commits[-1], **changes))

    def edit_pool(self, name: str, **changes: Any) -> None:
        pools = self.commits[-1].pools
        self.edit(pools=tuple(replace(pool, **changes) if pool.name == name else pool for pool in pools))

    def edit_run(self, spec: RunSpec) -> None:
        """Written anew, or for the first time. A name that is in use is nobody's former one."""
        others = (one for one in self.commits[-1].runs if one.name != spec.name)
        self.edit(runs=(*(_without(one, spec.name) for one in others), spec))

    def rename_run(self, name: str, new: str) -> None:
        runs = {one.name: one for one in self.commits[-1].runs}
        if name in runs and new not in runs:
            old = runs.pop(name)
            former = tuple(each for each in (*old.formerly, name) if each != new)
            others = tuple(_without(one, new) for one in runs.values())
            self.edit(runs=(*others, replace(old, name=new, formerly=former)))

    def rename_pool(self, name: str, new: str) -> None:
        """With the runs that name it."""
        pools = {one.name: one for one in self.commits[-1].pools}
        if name in pools and new not in pools:
            old = pools.pop(name)
            others = tuple(_without(one, new) for one in pools.values())
            runs = tuple(replace(one, pool=new) if one.pool == name else one for one in self.commits[-1].runs)
            self.edit(pools=(*others, replace(old, name=new, formerly=(name,))), runs=runs)

    def forget(self, instance: str) -> bool:
        """As `dstack state forget INSTANCE`. Whether there was such a one."""
        ports = self.ports("ann@laptop")
        try:
            land(ports, lambda state: forget(state, instance, ports.now(), by="ann"))
        except RebuildRefused:
            return False
        return True

    # ------------------------------------------------------------ jobs

    def script(self, job: str) -> tuple[int, int]:
        """A task's job is short or long, good or bad, by its name, so that a replay has the same; a service lasts."""
        odd = sum(map(ord, job))
        run, _, number, _ = job.rsplit("-", 3)
        state, _ = self.site.store.read()
        if state and any(one.id == run and one.spec.type == "service" for one in state.runs):
            return (45, odd % 2) if odd % 3 == 0 and int(number) < 3 else (FOR_EVER, 0)
        return (40, 900, 60, 5)[odd % 4], (0, 0, 3)[odd % 3]

    def rebuild(self) -> None:
        """As `dstack state rebuild`, by a person who has the newest documents."""
        ports = self.ports("ann@laptop")
        state, _ = self.site.store.read()
        made = rebuilt(ports, desired=self.commits[-1], revision=self.revision(self.newest), old=state)
        self.watch.replaced(made)

    def refuses(self) -> bool:
        """A tick of ours refuses the state, and touches nothing."""
        calls = self.site.world.calls
        before = (self.site.store.data, calls["launch"], calls["terminate"])
        try:
            self.cron("ann@laptop")
        except StateRefused:
            assert before == (self.site.store.data, calls["launch"], calls["terminate"]), "a refusal touched something"
            return True
        return False

    def listings_are_late(self) -> bool:
        """Whether a machine lives that no listing shows yet."""
        world = self.site.world
        return world.lag > 0 or any(self.site.clock.now() < one.born + world.delay for one in world.living())

    # ------------------------------------------------------------ the world stands still

    def heal(self) -> None:
        world = self.site.world
        self.trouble.clear()
        self.skew.clear()
        world.faults.clear()
        world.sold_out.clear()
        world.late.clear()
        world.lag = 0
        for machine in world.machines.values():
            machine.silent = False
            machine.broken = 0
            machine.ahead = 0

    def rest(self) -> TickResult:
        """Ticks until two in a row do nothing and say nothing is under way."""
        self.heal()
        self.site.clock.at += 2 * HOUR + 700  # past every time that a wrong clock noted
        result = self.apply(self.newest, config_force=True)
        assert result is not None
        assert result.refused == ""
        quiet = 0
        for index in range(120):
            self.site.clock.at += (30, 330, 700)[index % 3]
            result = self.cron("ann@laptop", permissions=Permissions(first_run=True, mass_destroy=True))
            assert result is not None
            quiet = 0 if result.plan.actions or result.outcomes else quiet + 1
            if quiet >= 12:
                return result
        raise AssertionError(f"never quiet: {result.plan.actions} {result.outcomes}")


def jump(external_id: str) -> str:
    """Every other machine is behind the one gate, or the other."""
    return f"gate-{int(external_id[2:]) % 2}"


def facts(mine: Revision, applied: Applied) -> GitFacts:
    """What a whole clone proves; a commit with an odd `committed_at` comes from a shallow one."""
    if mine.dirty or not applied.revision.commit:
        return GitFacts()
    return GitFacts(behind=mine.commit < applied.revision.commit, ahead=mine.commit > applied.revision.commit)


def _without(one: Any, name: str) -> Any:
    """A run or a pool that is no more known as formerly of that name."""
    return replace(one, formerly=tuple(each for each in one.formerly if each != name)) if name in one.formerly else one


def state_of(field: Field) -> State | None:
    state, _ = field.site.store.read()
    return state
