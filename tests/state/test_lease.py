"""What a tick leaves with each bought machine's timer, and what comes back from it into memory."""

from __future__ import annotations

from typing import Any

import pytest
from msgspec.structs import replace

from reconciler.hosts.report import LONGEST, parse_report
from reconciler.report.in_progress import under_way
from reconciler.report.instance_rows import explain_instances
from reconciler.state.access_modes import with_ways
from reconciler.state.deadman import disarmed
from reconciler.state.leases import leases
from reconciler.state.observe.hosts import absorb_hosts
from reconciler.state.observe.listings import POWERED_OFF
from reconciler.state.pending_effects import Admit, Arm, effects, keys_digest
from reconciler.state.record_outcomes import Armed, fold
from reconciler.state.settle import conclude
from schemas.access import Way
from schemas.base import Price
from schemas.desired import BackendConfig, Desired
from schemas.host import Host, Jump
from schemas.instance import HostReport, Instance
from schemas.lease import Lease
from schemas.pool import Pool
from schemas.profile import Retry
from schemas.run import Job, Run, RunSpec
from schemas.state import Applied, Revision, State
from tests.state.test_absorb import NOW, a_state, an_attempt, an_instance

DAY = 86400


def a_machine(id: str = "l-0", **facts: Any) -> Instance:
    """Idle for a minute, 5m by its run."""
    return an_instance(
        id, **{"address": "10.0.0.1", "ready_at": NOW - 60, "last_job_end": None, "idle_duration": 300, **facts}
    )


def applied(*pools: Pool, **fields: Any) -> Applied:
    return Applied(revision=Revision(digest="d"), by="ann", at=NOW, desired=Desired(pools=pools, **fields))


@pytest.mark.parametrize(
    ("facts", "lease"),
    [
        ({}, Lease(rule="idle", span=300, idle_for=60, hold=DAY)),
        ({"last_job_end": NOW - 20, "hold": 60}, Lease(rule="idle", span=300, idle_for=20, hold=60)),
        ({"ready_at": None, "phase": "provisioning"}, Lease(rule="idle", span=300, idle_for=0, hold=DAY)),
        ({"idle_duration": None, "unattended": DAY}, Lease(rule="unattended", span=DAY, hold=DAY)),
        ({"idle_duration": None, "unattended": None}, Lease(rule="unattended", span=None, hold=DAY)),
        ({"prevent_destroy": True}, Lease(rule="unattended", span=3 * DAY, hold=DAY)),
        ({"max_lifetime": 2 * DAY}, Lease(rule="idle", span=300, idle_for=60, hold=DAY, lifetime=2 * DAY)),
        ({"reserved_for": "r", "reserved_until": NOW + 540}, Lease(rule="idle", span=600, idle_for=60, hold=DAY)),
    ],
)
def test_a_lease(facts: dict[str, Any], lease: Lease) -> None:
    assert leases(a_state(a_machine(**facts)), now=NOW) == {"l-0": lease}


@pytest.mark.parametrize(
    "facts",
    [
        {"orphan": "nobody's"},
        {"unreachable_since": NOW, "unreachable_why": "unreadable status: 'x'"},
        {"phase": "terminated"},
        {"phase": "pending"},
        {"address": "/home/a/local-0"},
        {"host": Host(name="h", hostname="h")},
    ],
)
def test_no_lease(facts: dict[str, Any]) -> None:
    assert leases(a_state(a_machine(**facts)), now=NOW) == {}


def test_the_floor_is_unattended_and_the_rest_is_idle() -> None:
    """Of five, `nodes: 2` would keep the declared one and the cheapest: what is dear goes."""
    machines = (
        a_machine("dear", pool="p", price=Price(9)),
        a_machine("cheap", pool="p", price=Price(1)),
        a_machine("declared", pool="p", price=Price(9), origin="declared"),
        a_machine("other", pool="q"),
    )
    machines = tuple(replace(one, origin="run") if one.id != "declared" else one for one in machines)
    state = a_state(*machines, applied=applied(Pool(name="p", nodes_target=2, unattended=DAY), Pool(name="q")))
    rules = {id: (lease.rule, lease.span) for id, lease in leases(state, now=NOW).items()}
    assert rules == {
        "dear": ("idle", 300), "cheap": ("unattended", DAY), "declared": ("unattended", DAY), "other": ("idle", 300),
    }  # fmt: skip


# ---------------------------------------------------------------- what comes back


def looked(was: Instance, **said: Any) -> Instance:
    report = HostReport(instance=was.id, at=NOW, boot_id="b", **said)
    return absorb_hosts(a_state(was), reports=[report], before=None, now=NOW).instances[0]


@pytest.mark.parametrize(
    ("known", "told", "then"),
    [
        (None, NOW + 900, NOW + 900),
        (NOW + 900, None, None),
        (NOW + 900, NOW + 901, NOW + 900),
        (NOW + 900, NOW + 850, NOW + 900),  # no write for that
        (NOW + 900, NOW + 1501, NOW + 1501),
        (NOW + 900, NOW + 800, NOW + 800),
    ],
)
def test_its_own_end_is_written_anew_only_when_it_moved(known: int | None, told: int | None, then: int | None) -> None:
    assert looked(a_machine(self_destruct_at=known), self_destruct_at=told).self_destruct_at == then


TICKING = ("30", "ok", "loaded", "active", "enabled")


@pytest.mark.parametrize(
    ("told", "uptime", "words"),
    [
        (TICKING, 9000, ""),
        (("600", *TICKING[1:]), 9000, ""),
        (("601", *TICKING[1:]), 9000, "has not run for more than 10m"),
        (("-", *TICKING[1:]), 600, ""),  # just booted: the first check may be late
        (("-", *TICKING[1:]), 601, "has not run for more than 10m"),
        (("-5", *TICKING[1:]), 9000, ""),  # it asked between two lines of the look
        (("-90000", *TICKING[1:]), 9000, "tells of a time that has not come"),
        (("30", "changed", *TICKING[2:]), 20, "was changed"),
        (("30", "missing", *TICKING[2:]), 20, "is not there any more"),
        (("30", "ok", "masked", "inactive", "masked"), 9000, "is masked"),
        (("30", "ok", "not-found", "inactive", "-"), 9000, "is not there any more"),
        (("30", "ok", "loaded", "active", "disabled"), 9000, "is disabled"),
        (("30", "ok", "loaded", "inactive", "enabled"), 9000, "was stopped"),
        (("30", "ok", "loaded", "failed", "enabled"), 9000, "was stopped"),
        (("-", "ok", "not-found", "inactive", "disabled"), 299, ""),  # its system has not come to that yet
        (("30", "ok", "-", "-", "-"), 9000, ""),  # without systemd, or one that does not answer in time
        (("900", "ok", "-", "-", "-"), 9000, "has not run for more than 10m"),
    ],
)
def test_what_a_look_says_of_the_timer(told: tuple[str, ...], uptime: int, words: str) -> None:
    assert disarmed(*told, uptime=uptime) == (f"dead-man timer {words}" if words else "")
    line = f"dstack-host 1\nhost b {uptime} 1790000000 0 -\nuntil 900\ntimer {' '.join(told)}\n.\n"
    report = parse_report(line.encode(), instance="l-0", now=NOW)
    assert (report.disarmed, report.self_destruct_at) == (disarmed(*told, uptime=uptime), None if words else NOW + 900)


@pytest.mark.parametrize("said", ["9" * 12, "99999999999999999999", "--5", "-" * 40, "-999999999999", "-"])
def test_no_machine_says_that_it_ends_in_a_time_that_is_none(said: str) -> None:
    answer = f"dstack-host 1\nhost b 9000 1790000000 0 -\nuntil {said}\n.\n"
    at = parse_report(answer.encode(), instance="l-0", now=NOW).self_destruct_at
    assert at is None or at <= NOW + LONGEST


def test_a_stopped_timer_is_shown_and_armed_again() -> None:
    stopped = looked(a_machine(self_destruct_at=NOW + 900), disarmed="dead-man timer was stopped")
    assert (stopped.disarmed, stopped.self_destruct_at) == ("dead-man timer was stopped", None)
    (row,) = explain_instances(a_state(stopped), now=NOW)
    assert row.reason == "degraded: dead-man timer was stopped"
    silent = replace(stopped, id="silent", unreachable_since=NOW)
    goes = replace(stopped, id="goes", phase="terminating")
    asked = [one for one in effects(a_state(stopped, silent, goes), now=NOW) if isinstance(one, Arm)]
    assert asked == [Arm(instance="l-0")]
    assert under_way(a_state(stopped)) == {stopped.name: "its dead-man timer was stopped: it is armed again"}
    armed = fold(a_state(stopped), [Armed(instance="l-0")], now=NOW).instances[0]
    assert armed.disarmed == ""


def test_the_key_that_it_showed_first_is_its_pin() -> None:
    assert looked(a_machine(), host_key="ssh-ed25519 AAAA").host_key == "ssh-ed25519 AAAA"
    assert looked(a_machine(host_key="ssh-ed25519 AAAB"), host_key="").host_key == "ssh-ed25519 AAAB"


def test_who_met_it_first_wins_over_who_still_knew_its_birth_key() -> None:
    """The other one saw a key that it did not know: by now it is written down."""
    before, now = a_machine(), a_machine(host_key="ssh-ed25519 AAAA")
    report = HostReport(instance="l-0", at=NOW, error="host key of another machine", untrusted=True)
    state = absorb_hosts(a_state(now), reports=[report], before=a_state(before), now=NOW)
    assert state.instances == (now,)


# ---------------------------------------------------------------- ended by its own timer


def ended(job: Job, *, reason: str = f"{POWERED_OFF}: its dead-man timer did, or whoever was there") -> Run:
    gone = a_machine(phase="terminated", reason=reason, terminated_at=NOW)
    retry = Retry(no_capacity=True, interruption=True, error=True, duration=3600)
    run = Run(id="r", spec=RunSpec(name="train", retry=retry), status="running")
    return conclude(a_state(gone, runs=(run,), attempts=(an_attempt(job),)), now=NOW).runs[0]


@pytest.mark.parametrize(
    "job",
    [
        Job(id="a", instance="l-0", status="ended", exit_code=0, ended_at=NOW - DAY),
        Job(id="a", instance="l-0", status="running"),  # its end is what nobody saw
        Job(id="a", instance="l-0"),  # and perhaps its start
    ],
)
def test_with_a_result_aboard_it_is_lost_and_never_tried_again_in_silence(job: Job) -> None:
    run = ended(job)
    assert (run.status, run.reason) == ("failed", "result lost")


def test_a_machine_that_was_taken_away_is_another_matter() -> None:
    run = ended(Job(id="a", instance="l-0", status="running"), reason="spot interruption")
    assert (run.status, run.reason) == ("submitted", "again after: spot interruption")


# ---------------------------------------------------------------- keys and ways


def test_keys_are_brought_where_they_differ() -> None:
    keys = ("ssh-ed25519 AAAA ann",)
    machines = (
        a_machine("new"),
        a_machine("has", authorized=keys_digest(keys)),
        a_machine("boots", phase="provisioning"),
        a_machine("here", address="/home/a"),
        a_machine("silent", unreachable_since=NOW),
    )
    state = a_state(*machines, applied=applied(authorized_keys=keys))
    assert list(effects(state, now=NOW)) == [Admit(instance="new", keys=keys)]
    none = a_state(a_machine("had", authorized="x" * 64), applied=applied())
    assert list(effects(none, now=NOW)) == [Admit(instance="had", keys=())]


def reached(state: State, **options: Any) -> Instance:
    config = BackendConfig(name="aws", type="aws", options=options)
    places = tuple(replace(place, config=config) for place in state.places)
    return with_ways(replace(state, places=places)).instances[0]


def test_the_way_is_as_the_documents_have_it_now() -> None:
    machine, documents = a_machine(pool="p", way=Way(mode="program", name="ssm")), applied(Pool(name="p"))
    assert reached(a_state(machine, applied=documents)).way == Way()
    connect = {"mode": "jump", "jump": {"hostname": "bastion"}}
    over = reached(a_state(machine, applied=documents), connect=connect, creds={"profile": "me"})
    assert (over.way, over.via) == (Way(mode="jump", jump=Jump(hostname="bastion"), profile="me"), "bastion")
    own = applied(Pool(name="p", connect=Way(mode="instance-connect")))
    assert reached(a_state(machine, applied=own), connect=connect).way == Way(mode="instance-connect")
    left = reached(a_state(machine, applied=applied()), connect=connect, creds={"profile": "me"})
    assert left.way == Way(mode="program", name="ssm", profile="me"), (
        "its pool was removed from the configuration: reached as before"
    )
