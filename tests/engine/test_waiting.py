"""What a command waits for, and when waiting is given up."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from msgspec.structs import replace

from reconciler.engine.request import TickAsk
from reconciler.engine.until import Settled, settle, settled, unsettled
from reconciler.report.blocked import Waiting, everything_blocked, work_blocked
from reconciler.state.requests import remove_instance, stop_run
from schemas.plan import Permissions, Plan
from schemas.run import RUN_ENDED
from schemas.state import State
from tests.engine.test_given_up import dies, run_of, running
from tests.worlds.world import Site, apply_ask, desired, task

LONG = 3600.0


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(scratch=tmp_path)


def waits(site: Site, wish: Callable[[State], State], waiting: Waiting, until: Callable[[State], bool]) -> Settled:
    ask = TickAsk(wish=wish, permissions=Permissions(scope=(*waiting.runs, *waiting.instances)))
    return settle(
        site.ports(),
        ask,
        until=lambda state, plan: until(state),
        progress=lambda state: None,
        blocked=waiting.why_blocked,
        deadline=LONG,
    )


def stop(site: Site, name: str, *, abort: bool = False) -> Settled:
    run = run_of(site, name)
    waiting = Waiting(clock=site.clock.now, runs=(run.id,))
    return waits(
        site,
        lambda state: stop_run(state, run.id, by="ann", now=site.clock.now(), abort=abort),
        waiting,
        lambda state: all(one.status in RUN_ENDED for one in state.runs if one.id == run.id),
    )


def remove(site: Site, name: str) -> Settled:
    key = next(one.id for one in site.state.instances if one.name == name)
    return waits(
        site,
        lambda state: remove_instance(state, key, by="ann", now=site.clock.now(), force=True),
        Waiting(clock=site.clock.now, instances=(key,), removing=True),
        lambda state: all(one.phase == "terminated" for one in state.instances if one.id == key),
    )


def names(site: Site) -> list[str]:
    return [one.name for one in site.state.instances]


def test_a_stop_on_a_dead_machine_is_given_up_and_names_the_abort(site: Site) -> None:
    running(site, "train")
    dies(site)
    began = site.clock.at
    done = stop(site, "train")
    assert not done.reached
    assert done.blocked == (
        f"{names(site)[0]} cannot be reached: i-1 does not answer. "
        "To terminate it, which ends run train: dstack stop train -x"
    )
    assert site.clock.at - began < 60
    assert stop(site, "train", abort=True).reached


def test_a_stop_that_works_is_never_given_up(site: Site) -> None:
    running(site, "train")
    assert stop(site, "train").reached


def test_a_silence_that_passes_is_waited_for(site: Site) -> None:
    running(site, "train")
    dies(site)
    run = run_of(site, "train")
    waiting = Waiting(clock=site.clock.now, runs=(run.id,))
    looks: list[int] = []

    def over(state: State) -> bool:
        looks.append(1)
        if len(looks) == 3:
            for machine in site.world.living():
                machine.silent = False
        return all(one.status in RUN_ENDED for one in state.runs)

    wish = stop_run
    done = waits(site, lambda state: wish(state, run.id, by="ann", now=site.clock.now()), waiting, over)
    assert done.reached


def test_a_job_that_ignores_its_stop_is_given_up_and_the_machine_is_named(site: Site) -> None:
    running(site, "train")
    for machine in site.world.living():
        machine.stubborn = True
    done = stop(site, "train", abort=True)
    assert "did not end run train within" in done.blocked
    assert done.blocked.endswith(f"dstack pool remove {names(site)[0]} --force")
    again = remove(site, names(site)[0])
    assert again.blocked.endswith(f"dstack pool remove {names(site)[0]} --force")
    assert remove(site, names(site)[0]).reached


def test_a_result_that_cannot_be_stored_is_given_up_with_the_reason(site: Site) -> None:
    running(site, "train")

    def full(data: bytes | Path) -> str:
        raise OSError(28, "No space left on device")

    site.blobs.put = full  # type: ignore[method-assign]
    done = stop(site, "train")
    assert done.blocked == (
        f"Run train finished, and its result on {names(site)[0]} cannot be stored: "
        "OSError: [Errno 28] No space left on device. It stays there. Mend that, then: dstack apply"
    )


def test_a_backend_that_cannot_be_asked_to_terminate_is_given_up(site: Site) -> None:
    running(site, "train")
    site.world.identity = "another account"
    done = remove(site, names(site)[0])
    assert not done.reached
    assert "fake/r1 cannot be asked" in done.blocked or "did not end" in done.blocked


def test_apply_gives_up_on_what_does_not_answer(site: Site) -> None:
    running(site, "train")
    dies(site)
    papers = apply_ask(desired(runs=[replace(task("train"), hash="another", commands=("other",))]))
    ask = replace_permissions(papers, replace=("train",))
    done = settle(
        site.ports(),
        ask,
        until=settled,
        progress=lambda state: None,
        blocked=work_blocked(site.clock.now, unsettled),
        deadline=LONG,
    )
    assert not done.reached
    assert "dstack stop train -x" in done.blocked


def replace_permissions(ask: TickAsk, **changes: object) -> TickAsk:
    import dataclasses

    return dataclasses.replace(ask, permissions=replace(ask.permissions, **changes))


def test_destroy_ends_dead_machines_and_names_what_it_cannot_ask(site: Site) -> None:
    running(site, "train")
    dies(site)

    def nothing(state: State, plan: Plan) -> bool:
        return all(one.phase == "terminated" for one in state.instances)

    def destroyed() -> Settled:
        return settle(
            site.ports(),
            TickAsk(permissions=Permissions(destroy_all=True, mass_destroy=True)),
            until=nothing,
            progress=lambda state: None,
            blocked=everything_blocked(site.clock.now),
            deadline=LONG,
        )

    was, site.world.identity = site.world.identity, "another account"
    done = destroyed()
    assert not done.reached
    assert "cannot be asked" in done.blocked
    assert "state forget fake/r1" in done.blocked
    site.world.identity = was
    assert destroyed().reached
