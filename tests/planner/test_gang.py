"""All nodes or none: nothing of a run of several nodes begins anywhere before every node is ready.

First whole ticks on a fake world, then one node on a real host.
"""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from backends.fake.backend import FakeMachine
from reconciler.hosts.runner import Fenced, HeldJob, HostError
from reconciler.hosts.shell_runner import HostRunner
from reconciler.hosts.staging import hostfile
from reconciler.hosts.transport.local import LocalTransport
from reconciler.state.master_port import PORTS, master_port
from reconciler.state.requests import stop_run
from schemas.pool import GRACE
from schemas.profile import Retry
from schemas.run import Attempt, Run
from tests.doubles.hosts.real_host import RealHost, an_order, until
from tests.worlds.world import Site, apply, cron, desired, task, ticks

PAIR = desired(runs=[task("pair", nodes=2)])
READY = 1800


@pytest.fixture
def site(tmp_path: Path) -> Site:
    found = Site(scratch=tmp_path)
    found.world.script = lambda job: (600, 0)
    return found


def the_run(site: Site) -> Run:
    (found,) = site.state.runs
    return found


def last(site: Site) -> Attempt:
    return site.state.attempts[-1]


def machine_of(site: Site, rank: int) -> FakeMachine:
    external = {one.id: one.external_id for one in site.state.instances}
    return site.world.machines[external[last(site).jobs[rank].instance]]


def begun(site: Site) -> list[str]:
    return sorted(site.world.started)


def held_up(site: Site) -> None:
    """Both machines are up, and the attempt waits for its second node, whose first one is ready."""
    site.world.staging = 100
    apply(site, PAIR)
    ticks(site, 1)
    assert [job.held for job in last(site).jobs] == ["preparing", "preparing"]


def test_where_nothing_is_to_be_waited_for_it_begins_in_the_same_tick(site: Site) -> None:
    apply(site, PAIR)
    ticks(site, 1)
    assert [job.status for job in last(site).jobs] == ["running", "running"]
    assert set(site.world.started.values()) == {1}
    assert last(site).released_at == site.clock.now()


def test_a_run_of_one_node_is_never_held_back(site: Site) -> None:
    site.world.staging = 10_000
    apply(site, desired(runs=[task("one")]))
    ticks(site, 1)
    assert (last(site).jobs[0].status, last(site).released_at) == ("running", None)


def test_no_node_begins_before_the_last_is_ready(site: Site) -> None:
    held_up(site)
    late = machine_of(site, 1).jobs[last(site).jobs[1].id]
    assert late.held_at is not None
    late.held_at += 60
    site.clock.at += 100
    cron(site)
    assert [job.held for job in last(site).jobs] == ["staged", "preparing"]
    assert (begun(site), last(site).released_at, the_run(site).status) == ([], None, "provisioning")
    site.clock.at += 60
    cron(site)
    assert [job.status for job in last(site).jobs] == ["running", "running"]
    assert the_run(site).status == "running"


def test_a_node_that_is_not_ready_in_time_ends_it_before_anything_ran(site: Site) -> None:
    """It is placed anew, whatever its retry says: nothing ran. What the dark host holds is ended when it answers."""
    held_up(site)
    site.clock.at += 100
    dark = machine_of(site, 1)
    dark.silent = True
    cron(site)
    assert [job.held for job in last(site).jobs] == ["staged", "preparing"]
    site.clock.at += GRACE
    cron(site)
    first = site.state.attempts[0]
    assert "not started: node 1 (default-pool-1) was silent for 2m: i-2 does not answer" in first.stopping
    ticks(site, 12, apart=30)
    assert begun(site) == sorted(job.id for job in last(site).jobs)
    assert (last(site).number, the_run(site).status) == (2, "running")
    assert {job.status for job in site.state.attempts[0].jobs} == {"terminated"}
    dark.silent = False
    ticks(site, 2)
    assert site.world.over(dark) or all(job.cleaned for job in dark.jobs.values())
    assert max(site.world.started.values()) == 1


def test_a_node_that_nobody_handed_over_is_not_waited_for_in_vain(site: Site) -> None:
    """Nobody ticked for an hour: that is no node's fault."""
    held_up(site)
    for rank in (0, 1):
        machine_of(site, rank).jobs.clear()
    site.world.staging = 0
    site.clock.at += 2 * READY
    cron(site)
    assert (the_run(site).status, last(site).number) == ("running", 1)


@pytest.mark.parametrize("retry", [Retry(), Retry(error=True)])
def test_a_node_that_cannot_be_started_fails_it_before_anything_ran(site: Site, retry: Retry) -> None:
    """As a run of one node: it is tried again where `retry` says so."""
    ports = site.ports()
    start, refused = ports.runner.start, []

    def refuse_the_second(instance: object, order: object) -> HeldJob | None:
        if order.rank == 1 and not refused:  # type: ignore[attr-defined]
            refused.append(order)
            raise HostError("no space left on device")
        return start(instance, order)  # type: ignore[arg-type]

    ports.runner.start = refuse_the_second  # type: ignore[method-assign,assignment]
    site.ports = lambda **_: ports  # type: ignore[method-assign,assignment]
    apply(site, desired(runs=[task("pair", nodes=2, retry=retry)]))
    ticks(site, 2)
    run = the_run(site)
    assert refused
    assert begun(site) == []
    if retry.error:
        ticks(site, 3)
        assert (last(site).number, the_run(site).status) == (2, "running")
    else:
        assert (run.status, run.reason) == ("failed", "not started: node 1: no space left on device")
    assert site.state.attempts[0].jobs[0].status == "terminated"


def test_a_node_that_reboots_while_it_waits_ends_it_before_anything_ran(site: Site) -> None:
    held_up(site)
    machine_of(site, 0).boot += 1
    ticks(site, 2)
    assert begun(site) == []
    assert site.state.attempts[0].stopping.startswith("not started: node 0 was lost")
    site.world.staging = 0
    ticks(site, 6)
    assert (last(site).number, the_run(site).status) == (2, "running")


def test_it_can_be_stopped_while_it_waits(site: Site) -> None:
    held_up(site)
    cron(site, wish=lambda state: stop_run(state, "pair", by="ann", now=site.clock.now()))
    ticks(site, 2, apart=100)
    assert (begun(site), the_run(site).status) == ([], "terminated")


def test_what_was_released_is_released_by_whoever_comes_next(site: Site) -> None:
    """Written, and killed before any host was told: it goes on, since it may have been."""
    held_up(site)
    machine_of(site, 1).silent = True
    site.clock.at += 100
    cron(site)
    machine_of(site, 1).silent = False
    ports = site.ports()

    def dies(*_: object, **__: object) -> None:
        raise HostError("killed")

    ports.runner.release = dies  # type: ignore[method-assign]
    from reconciler.engine.request import TickAsk
    from reconciler.engine.tick import tick

    site.clock.at += 10
    tick(ports, TickAsk())
    assert last(site).released_at is not None
    assert begun(site) == []
    site.clock.at += 2 * READY
    cron(site)
    assert [job.status for job in last(site).jobs] == ["running", "running"]


# ---------------------------------------------------------------- ports and addresses


def test_attempts_never_share_a_port_while_there_are_others() -> None:
    taken: set[int] = set()
    for number in range(len(PORTS)):
        port = master_port(f"r{number}-0-1", taken=taken)
        assert port not in taken
        taken.add(port)
    assert master_port("one-more", taken=taken) in PORTS


def test_attempts_that_run_at_once_have_ports_of_their_own(site: Site) -> None:
    apply(site, desired(runs=[task(f"r{number}", nodes=2) for number in range(3)]))
    ticks(site, 1)
    assert len({attempt.port for attempt in site.state.attempts}) == 3


def test_the_hostfile_has_the_gpus_of_each_node() -> None:
    assert hostfile(["10.0.0.1", "10.0.0.2"], slots=[8, 0]) == b"10.0.0.1 slots=8\n10.0.0.2 slots=1\n"


# ---------------------------------------------------------------- one node on a real host


@pytest.fixture
def host(tmp_path: Path) -> Iterator[RealHost]:
    rig = RealHost(tmp_path / "host")
    yield rig
    rig.end_everything()


def held(host: RealHost, *commands: str, hold_back: int = 600, **changes: object) -> str:
    order = an_order(*commands, hold_back=hold_back, nodes=2, **changes)
    told = host.runner.start(host.instance, order)
    assert told is not None
    until(lambda: told.staged or host.job(order.job).staged)  # the answer does not wait long for it
    return order.job


def release(host: RealHost, job: str, *, port: int = 23456, generation: int = 1) -> None:
    host.runner.release(host.instance, job, generation=generation, port=port)


def test_a_node_waits_on_its_host_until_it_is_released(host: RealHost) -> None:
    job = held(host, 'echo "port $DSTACK_MASTER_PORT"', master_port=20000)
    report = host.job(job)
    assert (report.phase, report.staged, report.started_at) == ("held", True, None)
    assert report.port >= 20000
    assert host.log(job) == b""
    release(host, job)
    report = host.over(job)
    assert (report.exit_code, host.log(job)) == (0, b"port 23456\n")
    assert report.started_at is not None
    release(host, job)
    assert host.log(job) == b"port 23456\n"


def test_what_ran_while_its_supervisor_slept_is_known_to_have_started(host: RealHost) -> None:
    """On a busy machine a short job is over before the supervisor finds it released."""
    job = held(host, "echo x")
    supervisor = host.supervisor(job)
    os.kill(supervisor, signal.SIGSTOP)
    release(host, job)
    until((host.folder / "jobs" / job / "code").exists)
    os.kill(supervisor, signal.SIGCONT)
    report = host.over(job)
    assert (report.exit_code, host.log(job)) == (0, b"x\n")
    assert report.started_at is not None


def test_a_second_start_tells_how_far_it_is_and_starts_nothing(host: RealHost) -> None:
    job = held(host, "echo x")
    told = host.runner.start(host.instance, an_order("echo x", hold_back=600, nodes=2))
    assert told == HeldJob(staged=True, port=host.job(job).port)
    release(host, job)
    host.over(job)
    assert host.log(job) == b"x\n"


def test_a_port_that_somebody_listens_on_is_passed_by(host: RealHost) -> None:
    with socket.socket() as taken:
        port = next(port for port in PORTS if bound(taken, port))
        taken.listen()
        job = held(host, "true", master_port=port)
        assert host.job(job).port not in (0, port)
        alone = host.start('echo "$DSTACK_MASTER_PORT"', job="alone-0-1-0", master_port=port)
        host.over(alone)
        assert int(host.log(alone)) not in (0, port)
    free = host.start('echo "$DSTACK_MASTER_PORT"', job="free-0-1-0", master_port=port)
    host.over(free)
    assert int(host.log(free)) == port


def bound(listener: socket.socket, port: int) -> bool:
    try:
        listener.bind(("127.0.0.1", port))
    except OSError:
        return False
    return True


def test_waiting_is_not_running(host: RealHost) -> None:
    """`max_duration` counts from the release."""
    job = held(host, "sleep 600", max_duration=1)
    began = os.times().elapsed
    until(lambda: os.times().elapsed - began > 2.5)
    assert host.job(job).phase == "held"
    release(host, job)
    until(lambda: host.job(job).phase == "running" or host.job(job).phase == "ended")
    assert host.over(job).reason == "max duration 1s"


def test_a_node_that_nobody_releases_gives_its_machine_back(host: RealHost) -> None:
    job = held(host, "echo ran", hold_back=1, max_duration=10)
    until((host.folder / "jobs" / job / "end").exists)  # a look would be a sign that somebody comes
    report = host.over(job)
    assert (report.phase, report.reason, report.started_at) == ("ended", "its start was never released", None)
    with pytest.raises(HostError, match="not held back"):
        release(host, job)
    assert host.log(job) == b""


def test_stopped_while_it_waits_it_never_runs(host: RealHost) -> None:
    job = held(host, "echo ran")
    host.stop(job)
    with pytest.raises(HostError, match="not held back"):
        release(host, job)
    assert host.over(job).started_at is None
    assert b"ran" not in host.log(job).replace(b"asked for", b"")


def test_a_supervisor_that_dies_while_it_waits_is_lost_and_nothing_runs(host: RealHost) -> None:
    job = held(host, "echo ran")
    os.kill(host.supervisor(job), signal.SIGKILL)
    assert host.over(job).phase == "lost"
    with pytest.raises(HostError, match="not held back"):
        release(host, job)
    assert host.log(job) == b""
    assert host.pids(job) == []


@pytest.mark.parametrize("strike", ["unknown", "plain", "fenced"])
def test_a_release_of_what_does_not_wait_is_refused(host: RealHost, strike: str) -> None:
    wrong: dict[str, tuple[type[Exception], Callable[[], object]]] = {
        "unknown": (HostError, lambda: release(host, "nobody-0-1-0")),
        "plain": (HostError, lambda: release(host, host.start("sleep 600"))),
        "fenced": (Fenced, lambda: release(host, held(host, "true", generation=5), generation=4)),
    }
    error, call = wrong[strike]
    with pytest.raises(error):
        call()


def test_files_that_cannot_be_unpacked_end_it_before_it_is_ready(host: RealHost, tmp_path: Path) -> None:
    bundle = tmp_path / "bundle.tar.gz"
    bundle.write_bytes(b"no archive")
    runner = HostRunner(lambda one: LocalTransport(Path(one.address), environ=os.environ))
    order = an_order("echo ran", hold_back=600, nodes=2, files_bundle=bundle)
    assert runner.start(host.instance, order) == HeldJob(staged=False)
    report = host.over(order.job)
    assert (report.exit_code, report.started_at) == (1, None)
