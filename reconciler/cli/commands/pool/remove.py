"""`dstack pool remove`: terminate an instance and wait until its backend confirms it."""

from __future__ import annotations

from reconciler.app.site import Site
from reconciler.cli.commands.plan.scoped_tick import Wished, fulfil
from reconciler.cli.exits import Fail
from reconciler.cli.project import site, state_of
from reconciler.cli.terminal.streams import must_agree, out
from reconciler.state.relaunch.end_requests import requested
from reconciler.state.requests import WishRefused, remove_instance
from reconciler.state.status import alive, jobs_by_instance
from reconciler.system.process import now, who
from schemas.instance import Instance
from schemas.plan import Plan
from schemas.state import State


def remove_from_pool(name: str, *, pool: str, force: bool, yes: bool) -> int:
    """0 once it has ended."""
    where = site()
    state = state_of(where)
    try:
        remove_instance(state, name, by=who(), now=now(), pool=pool, force=force)
    except WishRefused as error:
        raise Fail(str(error)) from error
    one = _living(state, name, pool=pool)
    if one is None:
        return _remove_request(where, name, pool=pool, yes=yes)
    runs = _runs(state, one)
    question = f"End instance {one.name}{f' and its runs {runs}' if runs else ''}?"
    must_agree(question, yes=yes, otherwise=f"`dstack pool remove {name} -y` ends it")
    wished = Wished(
        wish=lambda fresh: remove_instance(fresh, one.id, by=who(), now=now(), force=force), scope=(one.id,)
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


def _living(state: State, name: str, *, pool: str) -> Instance | None:
    """The instance to terminate; None where only a request has that name."""
    found = (one for one in state.instances if alive(one) and name in (one.name, one.id) and pool in ("", one.pool))
    return next((one for one in found if requested(state, name, pool=pool) is None or one.phase != "terminating"), None)


def _runs(state: State, one: Instance) -> str:
    names = {run.id: run.spec.name for run in state.runs}
    mine = {job.id for job in jobs_by_instance(state.attempts).get(one.id, ())}
    found = [names.get(each.run, each.run) for each in state.attempts if mine & {job.id for job in each.jobs}]
    return ", ".join(dict.fromkeys(found))


def _gone(state: State, key: str, plan: Plan) -> bool:
    del plan
    return all(not alive(one) for one in state.instances if one.id == key)
