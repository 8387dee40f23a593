"""`dstack apply`: observe, plan, show, ask, do, wait until it is seen."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from msgspec import structs

from reconciler.ask import TickAsk
from reconciler.cli.applied import identified, revision
from reconciler.cli.approval import Approval, price_flag
from reconciler.cli.fail import Done, Fail
from reconciler.cli.interrupts import Interrupts
from reconciler.cli.plan import check_pool
from reconciler.cli.progress import Progress
from reconciler.cli.project import forget_aliases, ports_of, project_root, site_of, tell
from reconciler.cli.run_files import packer
from reconciler.cli.saved import saved_plan
from reconciler.cli.terminal import interactive, out, say
from reconciler.cli.times import seconds
from reconciler.explain import counts, explain
from reconciler.explain_progress import under_way
from reconciler.fold import Failed, Refused, StartFailed
from reconciler.load import Documents
from reconciler.refresh import freshen
from reconciler.render_words import clean
from reconciler.settle import Settled, settle, settled
from reconciler.store import Store
from reconciler.tick import TickResult, tick
from reconciler.wire import now
from schemas.plan import Launch, Permissions, Terminate
from schemas.run import RUN_ENDED
from schemas.state import VERSION, State

DONE = {
    "launch": "launched", "attach": "attached", "assign": "assigned", "stop": "stopped", "terminate": "terminated",
    "detach": "detached", "update": "updated",
}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class ApplyFlags:
    file: Path | None = None
    yes: bool = False
    yes_above: str = ""
    detach: bool = False
    deadline: str = ""
    strict: bool = False
    pool: str = ""
    config_force: bool = False
    allow_destroy: tuple[str, ...] = ()
    allow_mass_destroy: bool = False
    first_run: bool = False
    replace: tuple[str, ...] = ()
    assume_lost: tuple[str, ...] = ()
    retry_hosts: bool = False
    upgrade_state: bool = False
    metrics: Path | None = None


def run_apply(flags: ApplyFlags) -> int:
    """The exit code: 0, 3 where something is still under way at the deadline, 130 after Ctrl-C."""
    if flags.metrics is None:
        return _apply(flags, [])
    from reconciler.cli.metrics import measured

    return measured(flags.metrics, lambda results: _apply(flags, results))


def _apply(flags: ApplyFlags, results: list[TickResult]) -> int:
    documents = identified(project_root())
    check_pool(flags.pool, documents.desired)
    site = site_of(documents)
    ports = replace(ports_of(site), bundle=packer(site, yes=flags.yes))
    ports.spawn(lambda: freshen(documents.desired, os.environ, now=now()))  # for the next one: nobody waits for it
    if flags.upgrade_state:
        _upgrade(ports.store)
    with Progress() as progress, Interrupts(told=progress.told) as interrupts:
        ask = _ask(flags, documents, interrupts=interrupts)
        limit = seconds(flags.deadline, flag="--deadline") if flags.deadline else None
        if flags.detach:
            result = tick(ports, ask if limit is None else replace(ask, deadline=float(limit)))
            done = Settled(first=result, last=result, reached=True)
        else:
            done = settle(ports, ask, until=settled, progress=progress, deadline=limit)
    tell(ports.store.notes)
    results.append(done.last)
    if done.last.state is not None:
        forget_aliases(done.last.state)
    return _report(done, interrupted=interrupts.count > 0, strict=flags.strict, detached=flags.detach)


def _upgrade(store: Store) -> None:
    from reconciler.upgrade import upgrade

    kept = upgrade(store)
    say(f"note: the state is of format {VERSION} now; as it was it is kept as {kept}" if kept
        else f"note: there is no state of an older format than {VERSION}: nothing to upgrade")  # fmt: skip


def _ask(flags: ApplyFlags, documents: Documents, *, interrupts: Interrupts) -> TickAsk:
    approval = Approval(
        yes=flags.yes,
        interrupts=interrupts,
        limit=documents.desired.confirm_above,
        yes_above=price_flag(flags.yes_above, flag="--yes-above"),
        declared=frozenset(_pool_names(documents)),
        destroyable=frozenset(flags.allow_destroy),
        saved=saved_plan(flags.file, digest=documents.digest) if flags.file else None,
    )
    prompted = interactive() and not flags.yes and flags.file is None
    # At a prompt everything is shown and asked about, pools that left by their names.
    destroyable = (*flags.allow_destroy, *(("*",) if prompted else ()))
    return TickAsk(
        documents=documents,
        revision=revision(documents),
        config_force=flags.config_force,
        permissions=Permissions(
            destroy_pools=destroyable,
            mass_destroy=flags.allow_mass_destroy,
            first_run=flags.first_run,
            replace=flags.replace,
            assume_lost=flags.assume_lost,
            only_pool=flags.pool,
        ),
        confirm=approval,
        prompted=prompted,
        retry_hosts=True if flags.retry_hosts else None,
        stop=interrupts.asked,
    )


def _pool_names(documents: Documents) -> set[str]:
    pools = documents.desired.pools
    return {pool.name for pool in pools} | {old for pool in pools for old in pool.formerly}


def _report(done: Settled, *, interrupted: bool, strict: bool, detached: bool) -> int:
    first, last = done.first, done.last
    _raise_refusals(first)
    for warning in dict.fromkeys((*first.warnings, *last.warnings)):
        say(f"warning: {warning}")
    failed = _say_failures((*first.outcomes, *last.outcomes))
    if interrupted:
        _say_under_way(last.state)
        raise Done(130)
    out(_done_line(first, refused=_refused(first)) + _runs_line(last.state))
    if first.ahead or last.ahead:
        say("note: another apply went on with the rest")
    if last.refused:
        raise Fail(last.refused)
    if not done.reached and not detached:
        _say_under_way(last.state)
        raise Done(3)
    if strict and _waiting(last):
        say("waiting: something wanted does not happen now (see `dstack plan`)")
        raise Done(3)
    # An effect that failed is taken up by the next tick; a place that cannot be asked stays so until somebody looks.
    return 1 if _say_unknown(last.state) or (failed and (not detached or _lasting(last))) else 0


def _refused(first: TickResult) -> frozenset[str]:
    return frozenset(one.intent for one in first.outcomes if isinstance(one, Refused))


def _lasting(result: TickResult) -> bool:
    """A place refuses for good, not a type of machine for now: the next tick will fare no better."""
    return any(
        one.lasting if isinstance(one, Failed) else isinstance(one, Refused) and not one.capacity.instance_type
        for one in result.outcomes
    )


def _raise_refusals(first: TickResult) -> None:
    if first.refused:
        raise Fail(first.refused)
    if first.declined:
        say("nothing was done")
        raise Done(1)


def _say_failures(outcomes: tuple[object, ...]) -> bool:
    """What did not work, each once. True where a person has to do something about it."""
    said: dict[str, None] = {}
    for one in outcomes:
        if isinstance(one, Refused | StartFailed | Failed):
            said.setdefault(one.why)
    for why in said:
        say(f"failed: {why}")
    return bool(said)


def _say_unknown(state: State | None) -> bool:
    """Places that could not be asked: a cron job that reaps nothing must not look well."""
    unknown = [place for place in state.places if place.error and not place.forgotten] if state else []
    clouds = [place for place in unknown if place.config.type != "ssh"]
    for place in clouds:
        say(f"error: {place.name} is unknown, nothing was done there: {clean(place.error)}")
    hosts = {place.name: place.error for place in unknown if place.config.type == "ssh"}
    told = list(_hosts_lost(state, hosts)) if state and hosts else []
    for error in told:
        say(f"error: {clean(error)}")
    return bool(clouds or told)


def _hosts_lost(state: State, failing: Mapping[str, str]) -> Iterator[str]:
    """One server of many is down now and then: the plan says so, and that is no error of this apply.

    A pool that has none left is one, and so is a server of whose identity there is doubt.
    """
    for pool in state.applied.desired.pools if state.applied else ():
        errors = [failing[host.place] for host in pool.hosts if host.place in failing]
        if errors and len(errors) == len(pool.hosts):
            yield f"pool {pool.name}: none of its hosts can be used: {errors[0]}"
            continue
        for host in pool.hosts:
            if failing.get(host.place, "").startswith("quarantined: "):
                yield f"host {host.name}: {failing[host.place]}"


def _say_under_way(state: State | None) -> None:
    still = under_way(state) if state else {}
    if still:
        say(f"still under way, remembered, and taken up by the next `dstack apply` ({len(still)}):")
        for subject, what in still.items():
            say(f"  {subject}: {what}")


def _done_line(first: TickResult, *, refused: frozenset[str]) -> str:
    """Of what was planned, less what places refused."""
    unended = any(isinstance(one, Failed) and one.lasting for one in first.outcomes)
    done = tuple(
        action
        for action in first.plan.actions
        if not (isinstance(action, Launch) and action.launch in refused)
        and not (isinstance(action, Terminate) and unended)
    )
    found = counts(explain(structs.replace(first.plan, actions=done), first.state))
    if not found:
        return "Nothing came of it.\n" if len(done) < len(first.plan.actions) else "Nothing to do.\n"
    return "Done: " + ", ".join(f"{number} {DONE[kind]}" for kind, number in found.items()) + ".\n"


def _runs_line(state: State | None) -> str:
    """`Runs: 2 running, 1 waiting.`, of those that have not ended."""
    active = Counter(run.status for run in state.runs if run.status not in RUN_ENDED) if state else Counter()
    said = [f"{number} {'waiting' if status == 'submitted' else status}" for status, number in sorted(active.items())]
    return f"Runs: {', '.join(said)}.\n" if said else ""


def _waiting(last: TickResult) -> bool:
    runs = last.state.runs if last.state else ()
    return bool(last.plan.unmet) or any(run.status == "submitted" and run.status not in RUN_ENDED for run in runs)
