"""List operations that were begun and are not complete. Pure."""

from __future__ import annotations

from collections.abc import Iterator

from reconciler.state.observe.late_hosts import returned
from reconciler.state.sending import apart, counted_from, type_at
from reconciler.text.dates import clock
from reconciler.text.format import counted
from schemas.launch import Intent
from schemas.run import Attempt
from schemas.state import State


def under_way(state: State) -> dict[str, str]:
    """subject -> what is happening to it, in the order of places, launches, instances, runs. Running runs are not.

    A place is where it is unknown and something lives there: what waits for it waits for that.
    """
    found: dict[str, str] = {}
    for subject, what in (*_unknown(state), *_launches(state), *_instances(state), *_runs(state)):
        found.setdefault(subject, what)
    return found


def _unknown(state: State) -> Iterator[tuple[str, str]]:
    for place in state.places:
        count = sum(one.place == place.name and one.phase != "terminated" for one in state.instances)
        if place.error and count:
            yield f"place {place.name}", f"unknown ({place.error}): {counted(count, 'instance')} there left alone"


def _launches(state: State) -> Iterator[tuple[str, str]]:
    pending = {one.id: one for one in state.instances if one.phase == "pending"}
    for intent in state.intents:
        for key, name in zip(intent.request.ids, intent.request.names, strict=False):
            if key in pending:
                doing = "launching" if pending[key].host is None else "attaching"
                yield name, f"not launched: {intent.refused}" if intent.refused else doing


def _instances(state: State) -> Iterator[tuple[str, str]]:
    strays: dict[str, list[str]] = {}
    lost_at = {id: _lost_at(intent, state) for intent in state.intents for id in intent.request.ids}
    for one, _, run in returned(state):
        strays.setdefault(one.id, []).append(run)
    for one in state.instances:
        if one.phase == "provisioning":
            yield one.name, "booting"
        elif one.id in strays:
            yield one.name, f"reachable again: stopping {', '.join(strays[one.id])} there"
        elif one.phase == "ready" and one.disarmed:
            yield one.name, f"its {one.disarmed}: it is armed again"
        elif one.phase == "terminating" and one.id in lost_at and not one.external_id:
            lost = f"treated as lost from {clock(lost_at[one.id])} on, unless it is listed before"
            yield one.name, f"launch requested, not listed yet: {lost}"
        elif one.phase == "terminating":
            yield one.name, f"terminating ({one.reason})" if one.reason else "terminating"


def _lost_at(intent: Intent, state: State) -> int:
    kind = type_at(state, intent.request.place)
    return counted_from(intent, kind) + apart(kind)


def _runs(state: State) -> Iterator[tuple[str, str]]:
    names = {run.id: run.spec.name for run in state.runs}
    hosts = {one.id: one.name for one in state.instances}
    for attempt in state.attempts:
        what = _attempt(attempt, hosts=hosts)
        if what:
            yield names.get(attempt.run, attempt.run), what


def _attempt(attempt: Attempt, *, hosts: dict[str, str]) -> str:
    waiting = [job for job in attempt.jobs if job.status in ("assigned", "running", "ended")]
    if not waiting:
        return ""
    on = ", ".join(dict.fromkeys(hosts.get(job.instance, job.instance) for job in waiting))
    if attempt.stopping:
        return f"stopping on {on} ({attempt.stopping})"
    pulling = next((job.pulling for job in waiting if job.pulling), "")
    if pulling:
        return f"{pulling} on {on}"
    behind = [job for job in waiting if job.status == "assigned" and job.held != "staged"]
    if attempt.held_back and behind and len(behind) < len(waiting):
        late = ", ".join(hosts.get(job.instance, job.instance) for job in behind)
        return f"ready on {len(waiting) - len(behind)} of {len(waiting)} nodes, not yet on {late}"
    if any(job.status == "assigned" for job in waiting):
        return f"starting on {on}"
    if any(job.status == "ended" for job in waiting):
        return f"finished; collecting logs and artifacts from {on}"
    return ""
