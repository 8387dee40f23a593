"""A plan in the making: what the rules read and add to. Pure.

The rules of a plan are functions over a draft, called in order by `reconciler.planner.plan`: each reads
what the earlier ones decided (who leaves, who is taken) and adds its own. A draft never
leaves the planner.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Container, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

from msgspec.structs import replace

from reconciler.planner.world import World
from reconciler.state.drains import begun, of_instances, to_come, told
from reconciler.state.sending import type_for
from reconciler.state.status import InstanceStatus, alive, instance_status
from schemas.base import Price, Seconds
from schemas.desired import BackendConfig
from schemas.instance import Instance
from schemas.plan import Action, IdleNote, Permissions, Unmet, Update, Wait
from schemas.pool import GRACE, Pool
from schemas.run import LIVE_JOB, RUN_ENDED, Attempt, Job, Run
from schemas.state import Override, State

_AT_REST = ("done", "failed", "terminated", "aborted")
_DIGITS = "0123456789abcdefghijklmnopqrstuvwxyz"


@dataclass(kw_only=True)
class Draft:
    """The plan in the making.

    `living` are the instances that count, by id; `members` their ids by (renamed) pool.
    `leaving` are those on their way out, and why: nothing is placed there. `taken` are those
    given to a run by this plan. `runs` are the runs not ended, `live` and `settled` their attempts,
    `ports` those given to their masters.
    `closed` pools take no work: name -> why; `drains` are a person's, in force now. `closing` ones will be drained.
    `own_drains`: instance id -> the drain of it alone, in force or to come. `unknown` places: name -> why.
    `everything`: no scope narrows what this plan may touch. `listeners`: host -> port -> the run that listens there,
    once `reconciler.planner.placement.host_ports` has looked.
    """

    world: World
    pools: dict[str, Pool]
    renamed: dict[str, str]
    closed: dict[str, str]
    closing: dict[str, Override]
    own_drains: dict[str, Override]
    unknown: dict[str, str]
    living: dict[str, Instance]
    members: dict[str, list[str]]
    jobs: dict[str, list[Job]]
    runs: dict[str, Run]
    live: dict[str, list[Attempt]]
    settled: dict[str, list[Attempt]]
    ports: set[int]
    names: set[str]
    backends: dict[str, BackendConfig]
    drains: tuple[Override, ...]
    now: int = field(init=False)
    may: Permissions = field(init=False)
    everything: bool = field(init=False)
    leaving: dict[str, str] = field(default_factory=dict)
    taken: dict[str, str] = field(default_factory=dict)
    stopping: dict[str, str] = field(default_factory=dict)
    actions: list[Action] = field(default_factory=list)
    unmet: list[Unmet] = field(default_factory=list)
    waits: list[Wait] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    idle: list[IdleNote] = field(default_factory=list)
    aside: dict[str, str] = field(default_factory=dict)
    """Run id -> what is to be said behind the reason why it waits."""
    minted: int = 0
    lowest_free: dict[str, int] = field(default_factory=dict)
    listeners: dict[str, dict[int, str]] | None = None
    versions: dict[str, list[str]] | None = None
    """Id of a service's newest record -> the older ones that it replaces, once `roll_services` has looked."""
    _settled: set[str] | None = None

    def __post_init__(self) -> None:
        self.now, self.may = self.world.now, self.world.permissions
        self.everything = self.may.scope is None and not self.may.only_pool

    def status(self, instance: Instance) -> InstanceStatus:
        return instance_status(instance, self.jobs)

    def again(self, names: Sequence[str]) -> str:
        """`, again after: …`: how the last attempt ended, where a launch is for the next one of a single run."""
        return f", {self._again[names[0]]}" if len(names) == 1 and names[0] in self._again else ""

    @cached_property
    def _again(self) -> dict[str, str]:
        return {run.spec.name: run.reason for run in self.world.state.runs if run.reason.startswith("again after: ")}

    def pool_name(self, name: str) -> str:
        """Its name today: the default pool's for "", the new one of a renamed pool."""
        if not name:
            return next((pool.name for pool in self.pools.values() if pool.default), next(iter(self.pools), ""))
        return self.renamed.get(name, name)

    def pool_of(self, instance: Instance) -> str:
        """Where it counts; an orphan may belong to a pool that is no more."""
        return self.renamed.get(instance.pool, instance.pool) if self.renamed else instance.pool

    def grace(self, instance: Instance) -> Seconds:
        """For how long its silence is a hiccup, as its pool says; a pool that is no more had the default."""
        pool = self.pools.get(self.pool_of(instance))
        return pool.unreachable_grace if pool else GRACE

    def silent(self, instance: Instance) -> bool:
        """It has not answered for longer than its pool's grace."""
        since = instance.unreachable_since
        return since is not None and self.now >= since + self.grace(instance)

    @property
    def rules_documents(self) -> bool:
        """False in a wish's tick: nothing happens for the YAML's sake."""
        return self.may.scope is None

    def covers(self, *, id: str, pool: str) -> bool:
        """It may be touched by this plan: within the scope of ids and the one pool, where given."""
        if self.everything:
            return True
        scope, only = self.may.scope, self.may.only_pool
        return (scope is None or id in scope) and (not only or only == self.pool_name(pool))

    def named(self, pool: str) -> bool:
        """A person allowed, by name or at a prompt, to end what is in this pool."""
        return bool(pool) and not {pool, "*"}.isdisjoint(self.may.destroy_pools)

    def may_end(self, pool: str) -> bool:
        """The documents may end what is in this pool and they declare no more."""
        return self.may.may_end or self.named(pool)

    def is_cloud(self, backend: str) -> bool:
        """Its machines are bought and billed: not this machine, not a person's host."""
        return type_for(self.backends, backend).bought

    def joins_nodes(self, backend: str) -> bool:
        """Whether a run of several nodes may have instances of that backend."""
        return type_for(self.backends, backend).gang != "none"

    def collected(self, jobs: tuple[str, ...]) -> bool:
        """All of them ended in the ordinary way: what is left of them is files."""
        if self._settled is None:
            self._settled = {
                job.id for attempt in self.world.state.attempts for job in attempt.jobs if job.status in _AT_REST
            }
        return self._settled.issuperset(jobs)

    def mint(self) -> str:
        """A launch id: unique in this plan by count, among plans by nonce."""
        self.minted += 1
        return self.world.nonce + base36(self.minted)

    def near(self, pool: Pool) -> str:
        """The zone of the others, where all of a pool are to be near each other; one word for all that begin it."""
        if pool.placement != "cluster":
            return ""
        found = self.nearest(pool.name)
        return found[2] if found and found[2] else self.world.nonce

    def nearest(self, pool: str) -> tuple[str, str, str] | None:
        """(backend, region, zone) of most of a pool's machines that were bought; "" is a zone not known yet."""
        there = [self.living[id] for id in self.members[pool] if id not in self.leaving]
        bought = Counter((one.backend, one.region, one.zone) for one in there if self.is_cloud(one.backend))
        return max(bought, key=lambda known: (bought[known], bool(known[2]), known), default=None)

    def name_for(self, pool: str) -> str:
        """`<pool>-<n>`, the smallest n free among the living."""
        n = self.lowest_free.get(pool, 0)
        while f"{pool}-{n}" in self.names:
            n += 1
        self.lowest_free[pool] = n + 1
        self.names.add(f"{pool}-{n}")
        return f"{pool}-{n}"

    def cannot(self, subject: str, why: str, *, final: bool = False) -> None:
        """Say why something wanted does not happen now. `final`: no wait helps."""
        self.unmet.append(Unmet(subject=subject, why=why, final=final))

    def update_instance(self, instance: Instance, *, why: str, quiet: bool = False, **changes: object) -> None:
        self.actions.append(
            Update(
                subject=f"instance {instance.id}",
                name=instance.name,
                pool=instance.pool,
                changes=changes,
                why=why,
                quiet=quiet,
            )
        )
        self.living[instance.id] = replace(instance, **changes)

    def update_run(self, run: Run, *, why: str, quiet: bool = False, **changes: object) -> None:
        self.actions.append(
            Update(
                subject=f"run {run.id}",
                name=run.spec.name,
                pool=self.pool_name(run.spec.pool),
                changes=changes,
                why=why,
                quiet=quiet,
            )
        )
        changed = replace(run, **changes)
        if changed.status in RUN_ENDED:
            self.runs.pop(run.id, None)
        else:
            self.runs[run.id] = changed


def base36(number: int) -> str:
    """Of a count from 1."""
    text = ""
    while number:
        number, digit = divmod(number, 36)
        text = _DIGITS[digit] + text
    return text


# ---------------------------------------------------------------- a draft from a world


def draft_of(world: World) -> Draft:
    """Nothing decided yet: the world, indexed."""
    state = world.state
    pools = {pool.name: pool for pool in world.desired.pools}
    renamed = _renamed(pools)
    living = {instance.id: instance for instance in state.instances if alive(instance)}
    members: dict[str, list[str]] = defaultdict(list, {name: [] for name in pools})
    for instance in living.values():
        members[renamed.get(instance.pool, instance.pool)].append(instance.id)
    runs = {run.id: run for run in state.runs if run.status not in RUN_ENDED}
    live, settled, jobs = _attempts(state, runs=runs)
    return Draft(
        world=world,
        pools=pools,
        renamed=renamed,
        closed=dict(_closed(world)),
        closing=to_come(state.overrides, now=world.now),
        own_drains=of_instances(state.overrides, now=world.now, lapses=world.lapses),
        unknown={place.name: place.error or "forgotten" for place in state.places if place.error or place.forgotten},
        living=living,
        members=dict(members),
        jobs=jobs,
        runs=runs,
        live=live,
        settled=settled,
        ports={attempt.port for attempts in live.values() for attempt in attempts},
        names={instance.name for instance in living.values()},
        backends={
            **{place.config.name: place.config for place in state.places},
            **{config.name: config for config in world.desired.backends},
        },
        drains=tuple(one for one in overrides(world, kinds=("drain",)) if begun(one, now=world.now)),
    )


def _renamed(pools: Mapping[str, Pool]) -> dict[str, str]:
    """Old name -> new; a name in use again is nobody's old one."""
    return {old: pool.name for pool in pools.values() for old in pool.formerly if old not in pools}


def _attempts(
    state: State, *, runs: Container[str]
) -> tuple[dict[str, list[Attempt]], dict[str, list[Attempt]], dict[str, list[Job]]]:
    """Live attempts by run; the others of runs not ended; jobs not settled by instance."""
    live: dict[str, list[Attempt]] = defaultdict(list)
    settled: dict[str, list[Attempt]] = defaultdict(list)
    jobs: dict[str, list[Job]] = defaultdict(list)
    for attempt in state.attempts:
        under_way = False
        for job in attempt.jobs:
            if job.status in LIVE_JOB:
                under_way = True
                jobs[job.instance].append(job)
        if under_way:
            live[attempt.run].append(attempt)
        elif attempt.run in runs:
            settled[attempt.run].append(attempt)
    return dict(live), dict(settled), dict(jobs)


def _closed(world: World) -> Iterator[tuple[str, str]]:
    """Pools that take no new work, and why; the last word wins: a person's over the YAML's."""
    for pool in world.desired.pools:
        if pool.unsupported:
            yield pool.name, "; ".join(pool.unsupported)
        elif pool.paused:
            yield pool.name, "the pool is paused in the documents"
    for override in sorted(overrides(world, kinds=("pause", "drain")), key=lambda each: (each.at, each.kind)):
        if begun(override, now=world.now):
            yield pool_subject(override), f"the pool is {told(override)}"


def overrides(world: World, *, kinds: tuple[str, ...]) -> Iterator[Override]:
    """Those in force now."""
    for override in world.state.overrides:
        over = world.lapses and override.until is not None and override.until <= world.now
        if override.kind in kinds and not over:
            yield override


def pool_subject(override: Override) -> str:
    return override.subject.removeprefix("pool ")


def price_of(instance: Instance) -> Price:
    return instance.price if instance.price is not None else Price(0)


def without(pool: str) -> str:
    """What lets documents end something that may not by themselves: the warning says why they may not."""
    return f"needs `--allow-destroy {pool}`, or what the warning says"
