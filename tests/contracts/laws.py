"""What holds in every write of the state and when the world stands still, held against the truth of a fake world."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from decimal import Decimal

from backends.fake.backend import FakeJob, FakeMachine
from reconciler.planner.placement.fit import shortage
from reconciler.state.blocks import left_of, part_price, share_of, shared
from reconciler.state.job_results import RESULT_LOST
from reconciler.state.prune import KEEP
from reconciler.state.status import alive, lost_gpus
from schemas.instance import Instance
from schemas.plan import Permissions
from schemas.run import LIVE_JOB, RUN_ENDED, Attempt, Job
from schemas.state import State
from tests.worlds.world import START, MemoryStore, Site

TOLERANCE = 60
INFERRED = ("idle for", "unreachable", "not ready", "nobody owns")
JOB_OVER = ("done", "failed", "terminated", "aborted", "lost")


GIVEN_UP = ("assumed lost by a person", "forgotten by")


@dataclass(frozen=True)
class May:
    """What whoever writes was allowed. `forced` is `--config-force`. `dated`: places told it the time."""

    permissions: Permissions = field(default_factory=Permissions)
    forced: bool = False
    dated: bool = False


class Watch:
    """Holds every write against the laws; what breaks one is told in `broken`.

    `told` is the last word on each job that was ever remembered; `unknown` are the jobs that a lost state took along.
    """

    def __init__(self, site: Site, broken: list[str]) -> None:
        self.site, self.broken = site, broken
        self.store: MemoryStore = site.store
        self.told: dict[str, Job] = {}
        self.unknown: set[str] = set()

    def write(self, state: State, token: str, *, may: May) -> str:
        before, known = self.store.read()
        if known == token:
            self.broken += check(self.site, before, state, may=may)
        written = self.store.write(state, token)
        self.told |= jobs_of(state)
        return written

    def replaced(self, state: State) -> None:
        """A person put another state there: what only the old one knew is known no more."""
        _, token = self.store.read()
        self.store.write(state, token)
        self.unknown |= self.told.keys() - jobs_of(state).keys()
        self.told |= jobs_of(state)


@dataclass
class WatchedStore:
    """The store as one reconciler has it."""

    watch: Watch
    may: May
    address: str = "memory"
    notes: list[str] = field(default_factory=list)

    def read(self) -> tuple[State | None, str]:
        return self.watch.store.read()

    def write(self, state: State, token: str) -> str:
        return self.watch.write(state, token, may=self.may)

    def date(self) -> int | None:
        """True time, as a bucket tells it."""
        return self.watch.site.clock.now()


def jobs_of(state: State) -> dict[str, Job]:
    return {job.id: job for attempt in state.attempts for job in attempt.jobs}


def check(site: Site, before: State | None, after: State, *, may: May) -> list[str]:
    """The laws of one write that it breaks."""
    step = Step(site, before, after, may=may)
    laws = (
        step.grows_within_limits,
        step.ends_what_is_free,
        step.ends_what_is_allowed,
        step.declares_what_is_newer,
        step.believes_only_what_is_so,
        step.remembers_late_refusals,
        step.attempts_after_proof,
        step.gangs_begin_together,
        step.places_whole,
        step.shares_hold,
        step.results_are_kept,
        step.ends_have_reasons,
        step.forgets_what_is_old,
        step.dates_what_has_been,
    )
    return [f"{law.__name__}: {broken}" for law in laws for broken in law()]


class Step:
    """One write: the state before and after it, and the world as it truly is."""

    def __init__(self, site: Site, before: State | None, after: State, *, may: May) -> None:
        self.site, self.before, self.after, self.may = site, before, after, may
        self.was = {one.id: one for one in before.instances} if before else {}
        self.knew = {one.id for one in before.attempts} if before else set()
        self.jobs = jobs_of(before) if before else {}
        self.given_up = {job.id for job in jobs_of(after).values() if job.reason.startswith(GIVEN_UP)}
        self.runs = {run.id: run for run in before.runs} if before else {}
        self.now = {one.id: one for one in after.instances}
        self.errors = {place.name for place in after.places if place.error}

    # ------------------------------------------------------------ instances

    def grows_within_limits(self) -> Iterator[str]:
        new = [one for one in self.after.instances if one.phase == "pending" and one.id not in self.was]
        desired = self.after.applied.desired if self.after.applied else None
        pools = {pool.name: pool for pool in desired.pools} if desired else {}
        living = [one for one in self.after.instances if alive(one)]
        for name in {one.pool for one in new}:
            ours = [one for one in living if one.pool == name]
            limit = pools[name].nodes_max
            if limit is not None and len(ours) > limit:
                yield f"{len(ours)} in pool {name}, its maximum is {limit}"
            if (most := pools[name].max_hourly) is not None and cost(ours) > most:
                yield f"${cost(ours)}/h in pool {name}, its budget is ${most}/h"
        if new and desired and desired.budget is not None and cost(living) > desired.budget:
            yield f"${cost(living)}/h, the budget is ${desired.budget}/h"
        for cap in desired.caps if desired else ():
            held = [one for one in living if (one.instance_type, one.spot) == (cap.instance_type, cap.spot)]
            if any(one in held for one in new) and len(held) > cap.max:
                yield f"{len(held)} {cap.instance_type}, the cap is {cap.max}"
        for one in new:
            if one.place in self.errors:
                yield f"{one.name} is launched in {one.place}, which is unknown"

    def ends_what_is_free(self) -> Iterator[str]:
        live = self._live()
        for one in self.after.instances:
            was = self.was.get(one.id)
            if was is None or one.phase != "terminating" or was.phase in ("terminating", "terminated") or one.ending:
                continue
            if not one.reason:
                yield f"{one.name} ends without a reason"
            destroyed = self._given_up(one)
            waits = "not collected" in one.reason
            under = [job.id for job in live.get(one.id, ()) if job.status != "ended" or not waits]
            if under and not destroyed:
                yield f"{one.name} ends ({one.reason}) under {under}"
            if one.reason.startswith(INFERRED) and one.place in self.errors:
                yield f"{one.name} ends ({one.reason}) in {one.place}, which is unknown"
            if not destroyed:
                yield from self._truly_free(one)

    def _given_up(self, one: Instance) -> bool:
        """A person ended it, or the run on it, whatever it may still be doing; its end proves that of its jobs."""
        aborted = any(
            attempt.abort for attempt in self.after.attempts for job in attempt.jobs if job.instance == one.id
        )
        destroyed = self.may.permissions.destroy_all and one.unreachable_since is not None
        return destroyed or one.forced or (aborted and one.unreachable_since is not None)

    def ends_what_is_allowed(self) -> Iterator[str]:
        """An absent file, or one that lost a pool, ends nothing that nobody allowed to end."""
        named = self.may.permissions.destroy_pools
        for one in self.after.instances:
            was = self.was.get(one.id)
            if was is None or "was removed from the configuration" not in one.reason + one.draining or "*" in named:
                continue
            begun = "was removed from the configuration" in was.reason + was.draining
            if not begun and one.pool not in named and was.pool not in named:
                yield f"{one.name} ends ({one.reason or one.draining}), and nobody named its pool"

    def declares_what_is_newer(self) -> Iterator[str]:
        """An older checkout changes no declaration, unless it is forced to."""
        was, now = self.before.applied if self.before else None, self.after.applied
        if was is None or now is None or self.may.forced or was.desired == now.desired:
            return
        if now.revision.commit < was.revision.commit:
            yield f"commit {now.revision.commit} replaced {was.revision.commit}"

    def _truly_free(self, one: Instance) -> Iterator[str]:
        machine = self.machine(one)
        if machine is None:
            return
        now, world = self.site.clock.now(), self.site.world
        for id in machine.jobs:
            if id not in self.given_up and self.runs_now(machine, id):
                yield f"{one.name} ends ({one.reason}) while {id} runs on it"
        # A wrong clock is known by the hosts' own: where the host is silent, nothing contradicts it.
        if one.reason.startswith("idle for") and not machine.silent:
            jobs = [job for id, job in machine.jobs.items() if id not in self.given_up and not job.lost]
            since = max([machine.born + world.boot, *(job.ends_at for job in jobs if job.ends_at is not None)])
            if now + TOLERANCE < since + (one.idle_duration or 0):
                yield f"{one.name} ends idle after {now - since} s, not {one.idle_duration} s"

    def believes_only_what_is_so(self) -> Iterator[str]:
        """Not seen is not dead: what was seen once is gone only when it truly is."""
        for one in self.after.instances:
            was, machine = self.was.get(one.id), self.machine(one)
            if one.phase != "terminated" or was is None or not alive(was) or machine is None:
                continue
            if not self.site.world.over(machine) and not one.reason.startswith(GIVEN_UP):
                yield f"{one.name} is believed gone ({one.reason}) and lives"

    def remembers_late_refusals(self) -> Iterator[str]:
        """What a backend refused after it had accepted it is not asked for again at once."""
        opened = {intent.id for intent in self.before.intents} if self.before else set()
        known = {(each.place, each.instance_type, each.spot) for each in self.after.capacity}
        for one in self.after.instances:
            was, machine = self.was.get(one.id), self.machine(one)
            if was is None or not alive(was) or alive(one) or machine is None or machine.failure is None:
                continue
            told = one.launch in opened and one.reason == machine.failure.why
            if told and (one.place, one.instance_type, one.spot) not in known:
                yield f"{one.name} was refused late ({one.reason}), and nobody remembers it"

    # ------------------------------------------------------------ attempts

    def attempts_after_proof(self) -> Iterator[str]:
        live = Counter((each.run, each.replica) for each in self.after.attempts if each.live)
        for (run, replica), count in live.items():
            if count > 1:
                yield f"{count} live attempts of {run} replica {replica}"
        for attempt in self.after.attempts:
            if attempt.id in self.knew:
                continue
            for old in self.after.attempts:
                if (old.run, old.replica) == (attempt.run, attempt.replica) and old.number < attempt.number:
                    yield from self._proven(old, attempt)

    def _proven(self, old: Attempt, new: Attempt) -> Iterator[str]:
        for job in old.jobs:
            if job.reason == RESULT_LOST:
                yield f"{new.id} repeats {old.id}, whose result was lost"
            machine = self.machine(self.now[job.instance]) if job.instance in self.now else None
            if machine is not None and job.id not in self.given_up and self.runs_now(machine, job.id):
                yield f"{new.id} is begun while {job.id} runs"

    def gangs_begin_together(self) -> Iterator[str]:
        """Nothing of several nodes begins before all were ready and that was written."""
        for attempt in self.after.attempts:
            if attempt.released_at is None and len(attempt.jobs) > 1:
                for job in attempt.jobs:
                    machine = self.machine(self.now[job.instance]) if job.instance in self.now else None
                    known = machine.jobs.get(job.id) if machine else None
                    if known is not None and known.started_at is not None:
                        yield f"{job.id} began before its attempt was released"

    def places_whole(self) -> Iterator[str]:
        """All nodes or none, in one place, each on a machine that is free and well."""
        busy = Counter(job.instance for each in self.after.attempts for job in each.jobs if job.status in LIVE_JOB)
        specs = {run.id: run.spec for run in self.after.runs}
        for attempt in self.after.attempts:
            if attempt.id in self.knew:
                continue
            hosts = [self.now[job.instance] for job in attempt.jobs]
            if len({one.id for one in hosts}) != len(hosts):
                yield f"{attempt.id} has two nodes on one machine"
            for one, job in zip(hosts, attempt.jobs, strict=True):
                own = share_of(one, job) if shared(one) > 1 else left_of(one)
                if short := shortage(specs[attempt.run].need, own.resources, cloud=False):
                    yield f"{job.id} needs more {short} than its share of {one.name} has"
                if lost := lost_gpus(one).intersection(job.gpus):
                    yield f"{job.id} is given {lost}, which {one.name} has no more"
            if len(hosts) != specs[attempt.run].nodes or len({one.place for one in hosts}) != 1:
                yield f"{attempt.id} has {len(hosts)} nodes in {len({one.place for one in hosts})} places"
            if len(hosts) > 1 and self.site.kind.gang == "none":
                yield f"{attempt.id} has {len(hosts)} nodes where a run has one"
            for one in hosts:
                if one.phase != "ready" or one.orphan or one.unreachable_since is not None or not busy[one.id]:
                    yield f"{attempt.id} is placed on {one.name}, which is {one.phase} with {busy[one.id]} jobs"
                if one.place in self.errors:
                    yield f"{attempt.id} is placed in {one.place}, which is unknown"

    def shares_hold(self) -> Iterator[str]:
        """No more blocks than there are, no GPU twice, no sum above the whole; what is not shared has one job.

        What its jobs cost together is what their blocks do. Asked where a share is given out: of jobs that a rebuild
        found, nobody knows how much they have, and each is taken to have all.
        """
        given = {job.instance for each in self.after.attempts if each.id not in self.knew for job in each.jobs}
        for id, here in self._live().items():
            if id not in given:
                continue
            one, of = self.now[id], shared(self.now[id])
            blocks, gpus = sum(job.blocks for job in here), [gpu for job in here for gpu in job.gpus]
            has = one.resources.gpu
            if blocks > of:
                yield f"{one.name} has {len(here)} jobs in {of} blocks"
            if len(gpus) != len(set(gpus)) or not set(gpus) <= set(has.uuids if has else ()):
                yield f"{one.name} gives a GPU out twice, or another's: {gpus}"
            shares = [share_of(one, job) for job in here]
            for kind in ("cpus", "memory", "disk"):
                if sum(getattr(each.resources, kind) for each in shares) > getattr(one.resources, kind):
                    yield f"{one.name} gives out more {kind} than it has"
            if cost(shares) != (part_price(one.price, blocks=blocks, of=of) or 0):
                yield f"{one.name} costs ${one.price}/h, its {blocks} of {of} blocks ${cost(shares)}/h"

    def _live(self) -> dict[str, list[Job]]:
        """Jobs not settled, by instance."""
        jobs: dict[str, list[Job]] = {}
        for attempt in self.after.attempts:
            for job in attempt.jobs:
                if job.status in LIVE_JOB:
                    jobs.setdefault(job.instance, []).append(job)
        return jobs

    def results_are_kept(self) -> Iterator[str]:
        for attempt in self.after.attempts:
            for job in attempt.jobs:
                if job.status in JOB_OVER and self.jobs.get(job.id, job).status not in JOB_OVER:
                    yield from self._settled(job)

    def _settled(self, job: Job) -> Iterator[str]:
        one = self.now.get(job.instance)
        machine = self.machine(one) if one else None
        truth = machine.jobs.get(job.id) if machine else None
        if machine and self.runs_now(machine, job.id) and job.id not in self.given_up:
            yield f"{job.id} is {job.status} ({job.reason}) and runs"
        if job.status == "done" and (truth is None or truth.exit_code != 0):
            yield f"{job.id} is done, and is not"
        collected = job.status in ("done", "failed") and job.exit_code is not None and job.reason != RESULT_LOST
        if collected and job.log not in self.site.blobs.data:
            yield f"{job.id} is {job.status} without its log"

    def ends_have_reasons(self) -> Iterator[str]:
        for run in self.after.runs:
            was = self.runs.get(run.id)
            if run.status in RUN_ENDED and run.status != "done" and not run.reason:
                yield f"run {run.spec.name} is {run.status} without a reason"
            if was is not None and run.attempts > was.attempts > 0 and not was.reason and was.status == "submitted":
                yield f"run {run.spec.name} is repeated without a reason"
        for attempt in self.after.attempts:
            for job in attempt.jobs:
                if job.status in JOB_OVER and job.status != "done" and not job.reason:
                    yield f"{job.id} is {job.status} without a reason"

    # ------------------------------------------------------------ time

    def forgets_what_is_old(self) -> Iterator[str]:
        """Under any clocks no record, and with it no log and no blob, goes before its time."""
        left = self.runs.keys() - {run.id for run in self.after.runs}
        for id in left:
            ends = [job.ends_at for machine in self.site.world.machines.values() for job in _jobs_of_run(machine, id)]
            ended = max((at for at in ends if at is not None), default=self.runs[id].submitted_at)
            if self.site.clock.now() < ended + KEEP - TOLERANCE:
                yield f"run {self.runs[id].spec.name} is forgotten {self.site.clock.now() - ended} s after its end"
        buried = {stone.id for stone in self.after.tombstones if stone.kind != "run"}
        for stone in self.before.tombstones if self.before else ():
            lasts = stone.kind != "run" and self.site.clock.now() < stone.at + KEEP - TOLERANCE
            if lasts and stone.id not in buried and stone.kind != "place":
                yield f"the tombstone of {stone.id} is gone"

    def dates_what_has_been(self) -> Iterator[str]:
        """A job ends after its start and before now, and nothing has a date from before the project."""
        for job in jobs_of(self.after).values():
            if job.status not in JOB_OVER or job == self.jobs.get(job.id) or not self.may.dated:
                continue
            began, ended = job.started_at or START, job.ended_at or START
            if not START - TOLERANCE <= began <= ended <= self.site.clock.now() + TOLERANCE:
                yield f"{job.id} is dated {began - START} to {ended - START}, at {self.site.clock.now() - START}"

    # ------------------------------------------------------------ the truth

    def machine(self, one: Instance) -> FakeMachine | None:
        return self.site.world.machines.get(one.external_id)

    def runs_now(self, machine: FakeMachine, id: str) -> bool:
        job = machine.jobs.get(id)
        if job is None or job.started_at is None or job.lost or self.site.world.over(machine):
            return False
        return job.boot == machine.boot and (job.ends_at or 0) > self.site.clock.now()


def _jobs_of_run(machine: FakeMachine, run: str) -> Iterator[FakeJob]:
    return (job for id, job in machine.jobs.items() if id.rsplit("-", 3)[0] == run)


def cost(instances: list[Instance]) -> Decimal:
    return sum((one.price or Decimal(0) for one in instances), Decimal(0))
