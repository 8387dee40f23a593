"""Report the result of an apply, and choose its exit code."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping

from msgspec.structs import replace

from reconciler.cli.commands.plan.refusals import raise_refusals
from reconciler.cli.exits import Fail, Finished
from reconciler.cli.terminal.streams import out, say
from reconciler.engine.tick import TickResult
from reconciler.engine.until import Settled
from reconciler.planner.approve import cut
from reconciler.report.in_progress import under_way
from reconciler.report.plan_rows import explain
from reconciler.report.plan_sections import done_parts
from reconciler.state.record_outcomes import Failed, LaunchRefused, NotSent, ResultCollected, StartFailed, Throttled
from reconciler.text.format import clean, counted
from schemas.plan import Action, Launch, Resume, Terminate
from schemas.run import RUN_ENDED
from schemas.state import State

FEW = 5  # notes on one result
NOTHING = "Nothing to do.\n"


def report(done: Settled, *, interrupted: bool, strict: bool, detached: bool, quiet: bool = False) -> int:
    """The exit code: 1 where something failed that nothing mends by itself. Raises `Fail`, `Done`.

    `quiet`: nothing is said where nothing was done.
    """
    first, last = done.first, done.last
    raise_refusals(first)
    for warning in dict.fromkeys((*first.warnings, *last.warnings)):
        say(f"warning: {warning}")
    failed = _say_failures(done)
    if interrupted:
        _say_under_way(last.state)
        raise Finished(130)
    unmet = _newly_unmet(done)
    said = _done_line(first, hindered=bool(unmet))
    if not (quiet and said == NOTHING):
        out(said + _runs_line(last.state) + _next_line(last.state))
    for line in unmet:
        say(line)
    if first.ahead or last.ahead:
        say("note: another apply went on with the rest")
    if last.refused:
        raise Fail(last.refused)
    if not done.reached and not detached:
        _say_under_way(last.state)
        if done.blocked:
            say(done.blocked)
        raise Finished(3)
    if strict and _waiting(last):
        say("waiting: something wanted does not happen now (see `dstack plan`)")
        raise Finished(3)
    # An effect that failed is taken up by the next tick; a place that cannot be asked stays so until somebody looks.
    short = _short(first)
    failed = failed or (bool(unmet) and short)
    return 1 if _say_unknown(last.state) or (failed and (not detached or short or _lasting(last))) else 0


def _lasting(result: TickResult) -> bool:
    """A place refuses for good, not a type of machine for now: the next tick will fare no better."""
    return any(
        one.lasting if isinstance(one, Failed) else isinstance(one, LaunchRefused) and _of_place(one)
        for one in result.outcomes
    )


def _of_place(refused: LaunchRefused) -> bool:
    """Whether the whole place was refused, not one of its offers."""
    return any(not one.instance_type for one in refused.capacities)


def _say_failures(done: Settled) -> bool:
    """What did not work, each once. True where a person has to do something about it: not for an offer that was
    refused where another was had, nor for a call that came to nothing where a later tick did it."""
    mended = done.reached and not _short(done.first)
    said: dict[str, str] = {}
    for one in (*done.first.outcomes, *done.last.outcomes):
        if isinstance(one, LaunchRefused):
            said.setdefault(one.why, "passed over" if mended else "failed")
        elif isinstance(one, Failed | NotSent | Throttled):
            again = mended and one not in done.last.outcomes
            said.setdefault(one.why, "tried again" if again else "failed")
        elif isinstance(one, StartFailed):
            said[one.why] = "failed"
        elif isinstance(one, ResultCollected):
            said |= dict.fromkeys(_lacking(one), "note")
    for why, word in said.items():
        say(f"{word}: {why}")
    return "failed" in said.values()


def _lacking(result: ResultCollected) -> list[str]:
    """What of a result was left out or cut. Globs that match nothing are told by `dstack artifacts`."""
    notes = [note for note in result.notes if not note.startswith("no file matches ")]
    more = [f"and {len(notes) - FEW} more"] if len(notes) > FEW else []
    return [f"the result of {result.job}: {clean(note)[:400]}" for note in (*notes[:FEW], *more)]


def _newly_unmet(done: Settled) -> list[str]:
    """What nobody had been told of when they said yes."""
    known = {one.subject for one in done.first.approved.unmet}
    found = (*(done.first.plan.unmet if _short(done.first) else ()), *done.last.plan.unmet)
    new = {one.subject: one.why for one in found if one.subject not in known}
    return [f"unmet: {subject}: {clean(why)}" for subject, why in new.items()]


def _short(first: TickResult) -> bool:
    """Of some pool fewer machines came of it than were approved."""
    approved, made = _machines(first.approved.actions), _machines(_done(first))
    return any(made[pool] < count for pool, count in approved.items())


def _done(first: TickResult) -> list[Action]:
    """What was planned, less what places refused."""
    refused = {one.intent: one.ids for one in first.outcomes if isinstance(one, LaunchRefused)}
    left = {id for one in first.outcomes if isinstance(one, Failed) and one.lasting for id in one.not_ended}
    known = first.state.instances if first.state is not None else ()
    unended = {one.id for one in known if one.external_id in left}
    done: list[Action] = []
    for one in first.plan.actions:
        if isinstance(one, Launch) and one.launch in refused:
            made = [at for at, id in enumerate(one.ids) if refused[one.launch] and id not in refused[one.launch]]
            done += [cut(one, made)] if made else []
        elif not (isinstance(one, Terminate) and one.instance in unended):
            done.append(one)
    return done


def _machines(actions: Iterable[Action]) -> Counter[str]:
    found: Counter[str] = Counter()
    for one in actions:
        if isinstance(one, Launch):
            found[one.pool] += len(one.ids)
    return found


def _say_unknown(state: State | None) -> bool:
    """Places that could not be asked: a cron job that reaps nothing must not look well."""
    unknown = [place for place in state.places if place.error and not place.forgotten] if state else []
    clouds = [place for place in unknown if not place.config.is_server]
    for place in clouds:
        say(f"error: {place.name} is unknown, nothing was done there: {clean(place.error)}")
    hosts = {place.name: place.error for place in unknown if place.config.is_server}
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


def _done_line(first: TickResult, *, hindered: bool) -> str:
    """A launch that an earlier apply, or one at the same time, began is told apart: only one machine comes of it."""
    done = tuple(_done(first))
    resumed = sum(len(one.request.ids) for one in done if isinstance(one, Resume))
    mine = tuple(one for one in done if not isinstance(one, Resume))
    parts = done_parts(explain(replace(first.plan, actions=mine), first.state))
    parts += [f"{counted(resumed, 'launch', several='launches')} of another apply sent again"] if resumed else []
    if not parts and first.plan.changes and not hindered:
        return "Done: the configuration is applied.\n"
    if not parts:
        return "Nothing was done.\n" if hindered or len(done) < len(first.plan.actions) else NOTHING
    return f"Done: {', '.join(parts)}.\n"


def _runs_line(state: State | None) -> str:
    """`Runs: 2 running, 1 waiting.`, of those that have not ended."""
    active = Counter(run.status for run in state.runs if run.status not in RUN_ENDED) if state else Counter()
    said = [f"{number} {'waiting' if status == 'submitted' else status}" for status, number in sorted(active.items())]
    return f"Runs: {', '.join(said)}.\n" if said else ""


def _next_line(state: State | None) -> str:
    """What to type next, where runs go on; "" else."""
    going = [run.spec.name for run in state.runs if run.status == "running"] if state else []
    if not going:
        return ""
    return f"Logs: dstack logs -f {going[0]}. Results are collected by the next apply: dstack apply --watch\n"


def _waiting(last: TickResult) -> bool:
    runs = last.state.runs if last.state else ()
    return bool(last.plan.unmet) or any(run.status == "submitted" and run.status not in RUN_ENDED for run in runs)
