"""What a plan says beside its actions: overrides, unknown places, the next apply, costs. Pure."""

from __future__ import annotations

from collections.abc import Iterator

from reconciler.planner.draft import Draft, overrides
from reconciler.planner.placement.blocks import SharedBox
from reconciler.planner.placement.fit import has
from reconciler.state.autoscale_rules import word_of
from reconciler.state.blocks import left_of, shared
from reconciler.state.drains import INSTANCE, told
from reconciler.state.observe.future_times import past_ticks
from reconciler.state.observe.late_hosts import returned
from reconciler.state.status import INTERRUPTED, UNTRUSTED, lost_gpus, regular_ticks
from reconciler.text.dates import clock, moment
from reconciler.text.durations import words
from schemas.instance import Instance
from schemas.plan import Unmet
from schemas.run import Attempt, Run
from schemas.state import Override, Tick

LATELY = 3600  # seconds for which what was taken away is told


def foresee(draft: Draft) -> None:
    """Notes, warnings and what is not supported yet."""
    desired = draft.world.desired
    draft.notes.extend(_override(draft, each) for each in overrides(draft.world, kinds=("drain", "pause", "autoscale")))
    draft.warnings.extend(desired.warnings)
    if not draft.rules_documents:
        return
    for what in desired.unsupported:
        draft.cannot("project", what, final=True)
    for config in desired.backends:
        for what in config.unsupported:
            draft.cannot(f"backend {config.name}", what, final=True)
    for pool in desired.pools:
        for what in pool.unsupported:
            draft.cannot(f"pool {pool.name}", what, final=True)
    if not draft.may.destroy_all:
        told = (_stopped, _taken, _above, _quarantined, _degraded, _unfit, _repinned, _returned)
        draft.notes.extend(note for each in told for note in each(draft))
    _lost_sight(draft)
    _unpriced(draft)


def _override(draft: Draft, override: Override) -> str:
    if override.kind != "autoscale":
        return f"{_named(draft, override)}: {told(override, whole=True)}"
    return f"autoscale: {word_of(override)}, by {override.by}, until other documents are applied"


def _named(draft: Draft, override: Override) -> str:
    one = draft.living.get(override.subject.removeprefix(INSTANCE))
    return one.name if one is not None and override.subject.startswith(INSTANCE) else override.subject


def _stopped(draft: Draft) -> Iterator[str]:
    """Declared runs that a person stopped: the documents ask for them, and nothing will start them."""
    wanted = {(spec.name, spec.hash): spec for spec in draft.world.desired.runs}
    newest = {(run.spec.name, run.spec.hash): run for run in draft.world.state.runs if run.origin == "declared"}
    for key, run in newest.items():
        by_hand = run.reason.startswith(("stopped by ", "aborted by "))
        if key in wanted and by_hand and run.status in ("terminated", "aborted"):
            yield f"run {run.spec.name}: {run.reason}; `rerun: {wanted[key].rerun + 1}` in its document runs it again"


def _taken(draft: Draft) -> Iterator[str]:
    """Machines that their place took away of late: what is launched anew and run again is so for that."""
    for one in draft.world.state.instances:
        at = one.ended_at or one.terminated_at or one.terminate_at or 0
        over = one.phase in ("terminating", "terminated")
        if over and one.reason.startswith(INTERRUPTED) and draft.now - at < LATELY:
            kind = f"spot {one.instance_type}" if one.spot else one.instance_type
            yield f"{one.name} ({kind}, {one.place}) was {one.reason}, at {moment(at)}"


def _above(draft: Draft) -> Iterator[str]:
    """More live than `nodes` allows now, where nothing of it ends: not a word would look like a mistake."""
    for pool in draft.pools.values():
        if pool.nodes_max is None or pool.hosts or len(draft.members[pool.name]) <= pool.nodes_max:
            continue
        members = (draft.living[id] for id in draft.members[pool.name] if id not in draft.leaving)
        staying = [one for one in members if not one.orphan]
        told = any(unmet.subject == f"pool {pool.name}" for unmet in draft.unmet)
        if len(staying) > pool.nodes_max and not told:
            yield (
                f"pool {pool.name}: {len(staying)} live, at most {pool.nodes_max} now; "
                "what was made for a run or added by hand goes by its idle duration"
            )


def _returned(draft: Draft) -> Iterator[str]:
    for one, job, run in returned(draft.world.state):
        yield f"{one.name} answers again: job {job.id} of run {run} ({job.reason}) is ended there and removed"


def _quarantined(draft: Draft) -> Iterator[str]:
    """A host that nobody but a person gives work again; one with a wrong key says its own way out."""
    for one in draft.living.values():
        told = one.id not in draft.leaving and one.phase == "ready"
        if told and one.quarantined and UNTRUSTED not in one.quarantined:
            yield f"{one.name}: quarantined: {one.quarantined}; `dstack pool resume {one.name}` gives it work again"


def _degraded(draft: Draft) -> Iterator[str]:
    """A host that lost GPUs is given what needs no more than the others."""
    for one in draft.living.values():
        if not one.degraded or one.id in draft.leaving or one.phase != "ready" or not lost_gpus(one):
            continue
        yield f"{one.name}: degraded: {one.degraded}; {_left(one)}"
    for one in draft.living.values():
        if one.disarmed and one.id not in draft.leaving and one.phase == "ready":
            armed = "no new work goes there until `dstack apply` has armed it again"
            yield f"{one.name}: degraded: {one.disarmed}; {armed}"


def _unfit(draft: Draft) -> Iterator[str]:
    """What its backend says is broken; a declared server's checks are told where it is attached."""
    for one in draft.living.values():
        if one.unfit and one.host is None and one.id not in draft.leaving and one.phase == "ready":
            end = "" if one.prevent_destroy else f"; to end it: dstack pool remove {one.name} --force"
            yield f"{one.name}: degraded: {one.unfit}; it is given no new work{end}"


def _left(one: Instance) -> str:
    of = shared(one)
    if of > 1:
        return f"{of - SharedBox(one, of=of).free} of its {of} blocks withdrawn"
    return f"it runs what needs no more than it has left: gpu {has(left_of(one).resources, kind='gpu')}"


def _repinned(draft: Draft) -> Iterator[str]:
    """A person pinned another key for its address: that is another machine, and this one shows itself no more."""
    hosts = (host for pool in draft.pools.values() for host in pool.hosts)
    declared = {(host.hostname, host.port or 22): host for host in hosts}
    for one in draft.living.values():
        host = declared.get((one.host.hostname, one.host.port or 22)) if one.host else None
        if host is not None and host.place != one.place and one.unreachable_since is not None:
            what = f"another key is pinned for {host.address}, so that is another machine"
            yield f"{one.name}: {what}; `dstack state forget {one.name}` gives the one before up"


def _lost_sight(draft: Draft) -> None:
    """Runs whose host does not answer: neither repeated nor ended until the end is proven."""
    if all(one.unreachable_since is None for one in draft.living.values()):
        return
    for run in draft.runs.values():
        for attempt in draft.live.get(run.id, ()):
            for job in attempt.jobs:
                one = draft.living.get(job.instance)
                if one is None or one.unreachable_since is None or job.status not in ("assigned", "running"):
                    continue
                _say_silent(draft, run, attempt, one=one)
                break


def _say_silent(draft: Draft, run: Run, attempt: Attempt, *, one: Instance) -> None:
    """A hiccup is worth a word; what lasts is for a person to decide."""
    since = one.unreachable_since or draft.now
    said = f"{one.name} has not answered since {clock(since)} ({one.unreachable_why or 'no answer'})"
    if not draft.silent(one):
        until = f"is waited for until {clock(since + draft.grace(one))} (unreachable_grace {words(draft.grace(one))})"
        draft.notes.append(f"run {run.spec.name}: {said}; it {until}")
        return
    what = (
        "nothing of it has run: it is placed anew"
        if attempt.held_back
        else f"it is not repeated until that attempt is proven ended; `--assume-lost {run.spec.name}` takes it as lost"
    )
    draft.cannot(f"run {run.spec.name}", f"{said}; {what}")


def _unpriced(draft: Draft) -> None:
    limits = (draft.world.desired.budget, *(pool.max_hourly for pool in draft.pools.values()))
    if all(limit is None for limit in limits):
        return
    count = sum(each.price is None for each in draft.living.values())
    if count:
        draft.warnings.append(f"{count} instance{'s have' if count > 1 else ' has'} no known price: budgets miss them")


def next_actor(ticks: tuple[Tick, ...], *, now: int) -> str:
    """Who applies next: "Applied about every 5m by cron@lab; next expected 04:30:00Z."."""
    ticks = past_ticks(ticks, now=now)
    if expected := regular_ticks(ticks, now=now):
        soonest = min(expected, key=lambda tick: (tick.at + (tick.every or 0), tick.by))
        every = soonest.every or 0
        next_at = clock(max(now, soonest.at + every))
        return f"Applied about every {words(every)} by {soonest.by}; next expected {next_at}."
    said = ""
    if ticks:
        last = max(ticks, key=lambda tick: (tick.at, tick.by))
        ago = max(0, now - last.at)
        coarse = words(ago - ago % 86400 if ago >= 86400 else ago - ago % 60) if ago >= 60 else "a moment"
        said = f" (last: {coarse} ago, by {last.by})"
    return f"No apply is scheduled{said}: run `dstack apply` again, or add it to cron, to start what is pending."


def assumed(draft: Draft) -> tuple[tuple[Unmet, ...], list[str]]:
    """What runs that wait need and this machine lacks; and in words, a line for each such thing with its runs."""
    waiting = {run.spec.name for run in draft.runs.values() if not draft.live.get(run.id)}
    lacking = {name: why for name, why in draft.world.assumed.items() if name in waiting}
    runs: dict[str, list[str]] = {}
    for name, why in lacking.items():
        runs.setdefault(why, []).append(name)
    rest = "The plan assumes that whoever applies it has that"
    lines = [f"run{'s' if len(names) > 1 else ''} {', '.join(names)}: {why}. {rest}" for why, names in runs.items()]
    return tuple(Unmet(subject=f"run {name}", why=why) for name, why in lacking.items()), lines
