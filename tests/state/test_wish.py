"""Wishes: each touches its subject alone, and each refusal says what to do instead."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from msgspec.structs import replace

from reconciler.state.requests import (
    WishRefused,
    add_instances,
    add_run,
    carry,
    clear_override,
    namesakes,
    remove_instance,
    set_override,
    stop_run,
)
from schemas.desired import BackendConfig, Desired
from schemas.instance import Instance, Phase
from schemas.pool import Pool
from schemas.resources import Resources
from schemas.run import Attempt, Job, JobStatus, Run, RunSpec, RunStatus
from schemas.state import VERSION, Applied, Override, Revision, State, Wish

GPU = Pool(name="gpu", nodes_min=2, nodes_target=3, nodes_max=4)
CPU = Pool(name="cpu")
CHECKOUT = Desired(
    project="abcdefgh1",
    backends=(BackendConfig(name="local", type="local"),),
    pools=(GPU, CPU),
    runs=(RunSpec(name="declared"),),
    warnings=("a warning",),
)
EMPTY = State(version=VERSION, project="abcdefgh1", lineage="l", generation=4)


def applied(*pools: Pool, state: State = EMPTY) -> State:
    desired = replace(CHECKOUT, pools=pools, runs=())
    return replace(state, applied=Applied(revision=Revision(digest="d"), by="x", at=0, desired=desired))


def instance(name: str = "gpu-1", pool: str = "gpu", phase: Phase = "ready") -> Instance:
    return Instance(
        id=f"{name}-id",
        name=name,
        pool=pool,
        backend="local",
        place="local",
        resources=Resources(cpus=1, memory=1024),
        phase=phase,
    )


def run(id: str = "r1", name: str = "train", status: RunStatus = "running") -> Run:
    return Run(id=id, spec=RunSpec(name=name, pool="gpu"), status=status)


def attempt(run: str = "r1", *on: str, status: JobStatus = "running") -> Attempt:
    jobs = tuple(
        Job(id=f"{run}-0-1-{rank}", instance=f"{name}-id", rank=rank, status=status) for rank, name in enumerate(on)
    )
    return Attempt(id=f"{run}-0-1", run=run, number=1, jobs=jobs)


def refused(wish: Callable[[], object]) -> str:
    with pytest.raises(WishRefused) as error:
        wish()
    return str(error.value)


# ---------------------------------------------------------------- carrying


def test_before_the_first_apply_a_wish_carries_its_pool_and_starts_nothing_else() -> None:
    state = carry(EMPTY, pool="gpu", desired=CHECKOUT, by="ana", now=5)
    assert state.applied is not None
    assert (state.applied.revision, state.applied.by, state.applied.at) == (Revision(digest=""), "ana", 5)
    assert state.applied.desired.pools == (Pool(name="gpu", nodes_max=4),)
    assert state.applied.desired.runs == ()
    assert state.applied.desired.backends == CHECKOUT.backends
    assert state.history == ()


def test_a_second_wish_before_the_first_apply_adds_its_pool() -> None:
    state = carry(EMPTY, pool="gpu", desired=CHECKOUT, by="ana", now=5)
    state = carry(state, pool="cpu", desired=CHECKOUT, by="bob", now=6)
    assert state.applied is not None
    assert [pool.name for pool in state.applied.desired.pools] == ["gpu", "cpu"]


def test_later_a_pool_of_the_checkout_alone_is_refused() -> None:
    state = applied(CPU)
    assert carry(state, pool="cpu", desired=CHECKOUT, by="ana", now=5) is state
    assert refused(lambda: carry(state, pool="gpu", desired=CHECKOUT, by="ana", now=5)) == (
        "pool gpu is not applied yet: `dstack apply`"
    )
    assert refused(lambda: carry(state, pool="tpu", desired=CHECKOUT, by="ana", now=5)) == "no pool tpu; there are cpu"
    assert refused(lambda: carry(EMPTY, pool="tpu", desired=Desired(), by="ana", now=5)) == (
        "no pool tpu; declare one in .dstack, then `dstack apply`"
    )


# ---------------------------------------------------------------- runs


def test_a_run_is_always_a_new_one() -> None:
    state = add_run(applied(GPU), run("r1", status="submitted"))
    assert namesakes(state, "train") == state.runs
    state = add_run(state, run("r2", status="submitted"))
    assert [(each.id, each.origin) for each in state.runs] == [("r1", "run"), ("r2", "run")]
    assert len(namesakes(state, "train")) == 2
    assert "r2 exists already" in refused(lambda: add_run(state, run("r2")))
    assert refused(lambda: add_run(EMPTY, run("r3"))).startswith("no pool gpu; declare one")


def test_ended_namesakes_are_no_namesakes() -> None:
    assert namesakes(replace(EMPTY, runs=(run(status="done"), run(status="failed"))), "train") == ()


def test_stopping_a_live_run_marks_its_attempts_and_no_other() -> None:
    state = replace(
        applied(GPU),
        runs=(run(), run("r2", "eval")),
        attempts=(attempt("r1", "gpu-1", "gpu-2"), attempt("r2", "gpu-3")),
    )
    after = stop_run(state, "train", by="ana", now=9)
    assert (after.runs[0].status, after.runs[0].stop_reason, after.runs[0].finished_at) == (
        "terminating",
        "stopped by ana",
        None,
    )
    assert (after.attempts[0].stopping, after.attempts[0].stop_asked_at, after.attempts[0].abort) == (
        "stopped by ana",
        9,
        False,
    )
    assert (after.runs[1], after.attempts[1]) == (state.runs[1], state.attempts[1])


def test_aborting_hurries_a_stop() -> None:
    state = replace(applied(GPU), runs=(run(),), attempts=(attempt("r1", "gpu-1"),))
    stopped = stop_run(state, "train", by="ana", now=9)
    assert refused(lambda: stop_run(stopped, "train", by="ana", now=10)) == (
        "run train is being stopped already; `-x` aborts it"
    )
    aborted = stop_run(stopped, "r1", by="bob", now=10, abort=True)
    assert (aborted.attempts[0].stopping, aborted.attempts[0].stop_asked_at, aborted.attempts[0].abort) == (
        "stopped by ana",
        9,
        True,
    )
    assert (
        refused(lambda: stop_run(aborted, "r1", by="bob", now=10, abort=True)) == "run train is being stopped already"
    )


@pytest.mark.parametrize(("abort", "status"), [(False, "terminated"), (True, "aborted")])
def test_a_waiting_run_ends_at_once(abort: bool, status: str) -> None:
    state = replace(applied(GPU), runs=(run(status="submitted"),))
    ended = stop_run(state, "train", by="ana", now=9, abort=abort).runs[0]
    assert (ended.status, ended.finished_at) == (status, 9)


def test_which_run() -> None:
    state = replace(applied(GPU), runs=(run("r1"), run("r2"), run("r3", "old", "failed")))
    assert refused(lambda: stop_run(state, "train", by="a", now=1)) == (
        "2 runs train are active; name one by its id: r1, r2"
    )
    assert refused(lambda: stop_run(state, "old", by="a", now=1)) == "run old has ended already: failed"
    assert refused(lambda: stop_run(state, "nope", by="a", now=1)) == "no run nope: `dstack ps -a` lists them"
    assert stop_run(state, "r2", by="a", now=1).runs[0] == state.runs[0]


# ---------------------------------------------------------------- instances


def test_instances_are_wished() -> None:
    wish = Wish(id="w1", pool="gpu", count=2)
    state = add_instances(applied(GPU), wish)
    assert state.wishes == (wish,)
    assert "exists already" in refused(lambda: add_instances(state, wish))
    assert refused(lambda: add_instances(EMPTY, wish)).startswith("no pool gpu")
    assert refused(lambda: add_instances(state, Wish(id="w2", pool="gpu", count=0))) == "--count 0: at least 1"


def test_a_wished_name_is_free() -> None:
    state = replace(applied(GPU), instances=(instance("mine"), instance("past", phase="terminated")))
    assert "another --name" in refused(lambda: add_instances(state, Wish(id="w", pool="gpu", name="mine")))
    assert "names one instance" in refused(lambda: add_instances(state, Wish(id="w", pool="gpu", name="x", count=2)))
    state = add_instances(state, Wish(id="w1", pool="gpu", name="past"))
    assert "another --name" in refused(lambda: add_instances(state, Wish(id="w2", pool="gpu", name="past")))


@pytest.mark.parametrize("phase", ["pending", "provisioning", "ready"])
def test_an_instance_without_work_is_terminating_from_here_on(phase: Phase) -> None:
    state = replace(applied(GPU), instances=(instance(phase=phase), instance("gpu-2")))
    after = remove_instance(state, "gpu-1", by="ana", now=9)
    assert (after.instances[0].phase, after.instances[0].terminate_at, after.instances[0].reason) == (
        "terminating",
        9,
        "removed by ana",
    )
    assert after.instances[1] == state.instances[1]


def test_a_busy_one_is_refused_or_drained() -> None:
    state = replace(
        applied(GPU),
        instances=(instance("gpu-1"), instance("gpu-2")),
        runs=(run(),),
        attempts=(attempt("r1", "gpu-1", "gpu-2"),),
    )
    assert refused(lambda: remove_instance(state, "gpu-1", by="ana", now=9)) == (
        "gpu-1 is busy (train): stop that first, or --force ends it"
    )
    after = remove_instance(state, "gpu-1", by="ana", now=9, force=True)
    assert (after.instances[0].phase, after.instances[0].draining) == ("ready", "removed by ana")
    assert after.attempts[0].stopping == "removed by ana"
    assert after.instances[1] == state.instances[1]


def test_uncollected_results_are_not_thrown_away() -> None:
    state = replace(
        applied(GPU), instances=(instance(),), runs=(run(),), attempts=(attempt("r1", "gpu-1", status="ended"),)
    )
    assert refused(lambda: remove_instance(state, "gpu-1", by="ana", now=9)) == (
        "gpu-1 holds results not collected yet (train): `dstack apply`, or --force"
    )


def test_a_job_lost_elsewhere_does_not_make_it_busy() -> None:
    """One node of a gang was lost; the other still runs: both instances belong to a live attempt."""
    lost = Job(id="r1-0-1-0", instance="gpu-1-id", status="lost")
    live = Job(id="r1-0-1-1", instance="gpu-2-id", rank=1, status="running")
    state = replace(
        applied(GPU),
        instances=(instance("gpu-1"), instance("gpu-2")),
        runs=(run(),),
        attempts=(Attempt(id="r1-0-1", run="r1", number=1, jobs=(lost, live)),),
    )
    assert remove_instance(state, "gpu-1", by="ana", now=9).instances[0].phase == "terminating"
    assert "is busy (train)" in refused(lambda: remove_instance(state, "gpu-2", by="ana", now=9))


def test_which_instance() -> None:
    twins = (instance("a", "gpu"), replace(instance("a", "cpu"), id="other"), instance("gone", phase="terminated"))
    state = replace(applied(GPU, CPU), instances=(*twins, instance("ending", phase="terminating")))
    assert refused(lambda: remove_instance(state, "a", by="x", now=1)) == (
        "2 instances are called a; name one by id: a-id, other"
    )
    assert remove_instance(state, "a", by="x", now=1, pool="cpu").instances[1].phase == "terminating"
    assert refused(lambda: remove_instance(state, "gone", by="x", now=1)) == (
        "no instance gone: `dstack pool ps` lists them"
    )
    assert "in pool cpu" in refused(lambda: remove_instance(state, "ending", by="x", now=1, pool="cpu"))
    assert "being ended already" in refused(lambda: remove_instance(state, "ending", by="x", now=1))


@pytest.mark.parametrize("force", [False, True])
def test_prevent_destroy(force: bool) -> None:
    state = replace(applied(GPU), instances=(replace(instance(), prevent_destroy=True),))
    assert "take that out of pool gpu and `dstack apply` first" in refused(
        lambda: remove_instance(state, "gpu-1", by="ana", now=9, force=force)
    )


# ---------------------------------------------------------------- overrides


def test_overrides_replace_their_like() -> None:
    state = set_override(applied(GPU), kind="pause", subject="gpu", by="ana", now=1, until=100)
    state = set_override(state, kind="drain", subject="gpu", by="ana", now=2, stop_after=60)
    state = set_override(state, kind="pause", subject="gpu", by="bob", now=3, reason="repairs")
    assert state.overrides == (
        Override(kind="drain", subject="gpu", by="ana", at=2, stop_after=60),
        Override(kind="pause", subject="gpu", by="bob", at=3, reason="repairs"),
    )


def test_resuming() -> None:
    scale = Override(kind="autoscale", subject="gpu", by="a", at=0, digest="d")
    state = replace(applied(GPU, CPU), overrides=(scale,))
    state = set_override(state, kind="pause", subject="gpu", by="ana", now=1)
    assert clear_override(state, subject="gpu", now=5).overrides == (scale,)
    assert "nothing to resume" in refused(lambda: clear_override(state, subject="cpu", now=5))
    assert "no pool nope" in refused(lambda: clear_override(state, subject="nope", now=5))


def test_an_instance_is_drained_and_resumed_by_its_id() -> None:
    """Its name may be given to another one; its id never is."""
    ill = replace(instance("gpu-1"), quarantined="3 jobs failed", draining="instance drained by ana")
    state = replace(applied(GPU), instances=(instance("gpu-0"), ill))
    drained = set_override(state, kind="drain", subject="gpu-1", by="ana", now=1, begins=5)
    assert [(each.subject, each.begins) for each in drained.overrides] == [("instance gpu-1-id", 5)]
    back = clear_override(drained, subject="gpu-1", now=9)
    assert back.overrides == ()
    assert (back.instances[1].quarantined, back.instances[1].draining, back.instances[1].trusted_at) == ("", "", 9)
    assert back.instances[0] == state.instances[0]
    assert "nothing to resume" in refused(lambda: clear_override(back, subject="gpu-1", now=9))
    assert "no instance of that name" in refused(lambda: set_override(state, kind="drain", subject="x", by="a", now=1))
    assert refused(lambda: set_override(state, kind="pause", subject="gpu-1", by="a", now=1)).startswith("no pool")


def test_a_drain_begins_before_it_ends_and_not_in_the_past() -> None:
    state = applied(GPU)
    assert "begin is already past" in refused(
        lambda: set_override(state, kind="drain", subject="gpu", by="a", now=9, begins=9)
    )
    assert "past when it begins" in refused(
        lambda: set_override(state, kind="drain", subject="gpu", by="a", now=1, begins=9, until=9)
    )


def test_overrides_of_nothing_or_of_the_past() -> None:
    state = applied(GPU)
    assert refused(lambda: set_override(state, kind="drain", subject="nope", by="a", now=1)).startswith("no pool nope")
    assert "already past" in refused(lambda: set_override(state, kind="pause", subject="gpu", by="a", now=9, until=9))
    left = replace(applied(CPU), instances=(instance(pool="gpu"),))
    assert set_override(left, kind="drain", subject="gpu", by="a", now=1).overrides
