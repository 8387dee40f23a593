"""`dstack pool remove`: terminate an instance and wait until its backend confirms it."""

from __future__ import annotations

from reconciler.app.site import Site
from reconciler.cli.commands.plan.scoped_tick import Wished, fulfil
from reconciler.cli.exits import Fail
from reconciler.cli.project import site, state_of
from reconciler.cli.terminal.streams import must_agree, out
from reconciler.cli.terminal.times import seconds
from reconciler.report.blocked import Waiting
from reconciler.state.relaunch.end_requests import requested
from reconciler.state.requests import WishRefused, remove_instance
from reconciler.state.status import alive, jobs_by_instance
from reconciler.system.process import now, who
from schemas.instance import Instance
from schemas.plan import Plan
from schemas.state import State


def remove_from_pool(name: str, *, pool: str, force: bool, yes: bool, deadline: str = "") -> int:
    """0 once it has ended, 3 where that cannot be seen."""
    where = site()
    state = state_of(where)
    # Whether an SSH host is still attached is known only once it was asked.
    named = _named(state, name, pool=pool)
    one = next((each for each in named if each.phase == "terminating" or each.host), None)
    wish = requested(state, name, pool=pool)
    if wish is not None and all(each.phase == "terminating" for each in named):
        return _remove_request(where, name, pool=pool, yes=yes)
    if one is None:
        try:
            remove_instance(state, name, by=who(), now=now(), pool=pool, force=force)
        except WishRefused as error:
            raise Fail(str(error)) from error
        one = named[0]
    runs = _runs(state, one)
    lost = runs and one.unreachable_since is not None
    dark = " It does not answer: what its runs left there is lost." if lost else ""
    question = f"End instance {one.name}{f' and its runs {runs}' if runs else ''}?{dark}"
    must_agree(question, yes=yes, otherwise=f"`dstack pool remove {name} -y` ends it")
    wished = Wished(
        wish=lambda fresh: _removed(fresh, one.id, force=force),
        scope=(one.id,),
        waits=f"{one.name} to end",
        blocked=Waiting(clock=now, instances=(one.id,), removing=True).why_blocked,
        within=seconds(deadline, flag="--deadline") if deadline else None,
    )
    fulfil(where, wished, until=lambda fresh, plan: _gone(fresh, one.id, plan))
    out(f"instance {one.name} is ended\n")
    return 0


def _remove_request(where: Site, name: str, *, pool: str, yes: bool) -> int:
    """An instance of that name was asked for by `pool add` and is not there: nothing is launched for it any more."""
    must_agree(f"Remove the request for instance {name}?", yes=yes, otherwise=f"`dstack pool remove {name} -y`")
    wished = Wished(wish=lambda fresh: remove_instance(fresh, name, by=who(), now=now(), pool=pool))
    fulfil(where, wished, until=None)
    out(f"the request for instance {name} is removed\n")
    return 0


def _removed(state: State, key: str, *, force: bool) -> State:
    """Asked for again, it is waited for."""
    if any(one.id == key and one.phase in ("terminating", "terminated") for one in state.instances):
        return state
    return remove_instance(state, key, by=who(), now=now(), force=force)


def _named(state: State, name: str, *, pool: str) -> list[Instance]:
    return [one for one in state.instances if alive(one) and name in (one.name, one.id) and pool in ("", one.pool)]


def _runs(state: State, one: Instance) -> str:
    names = {run.id: run.spec.name for run in state.runs}
    mine = {job.id for job in jobs_by_instance(state.attempts).get(one.id, ())}
    found = [names.get(each.run, each.run) for each in state.attempts if mine & {job.id for job in each.jobs}]
    return ", ".join(dict.fromkeys(found))


def _gone(state: State, key: str, plan: Plan) -> bool:
    del plan
    return all(not alive(one) for one in state.instances if one.id == key)
