"""Which hosts are quarantined for what failed on them: the rule in cases, and its law."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from reconciler.state.quarantine import REASON, quarantine
from schemas.instance import Instance
from schemas.resources import Resources
from schemas.run import Attempt, Job, Run, RunSpec
from schemas.state import State

NOW = 1_800_000_000


def a_host(id: str, **fields: Any) -> Instance:
    known = {"pool": "gpu", "backend": "ssh", "place": "ssh", "phase": "ready", "ready_at": 1}
    return Instance(id=id, name=id, resources=Resources(cpus=1, memory=1), **{**known, **fields})


def lived(*story: str, hosts: int = 4, **fields: Any) -> State:
    """Each word is `RUN@HOST=FATE`, in the order of their ends: `bad@h0=fell`, `stood`, `stopped`, `rebooted`."""
    runs, attempts = {}, []
    for number, word in enumerate(story, start=1):
        where, fate = word.split("=")
        run, host = where.split("@")
        runs[run] = Run(id=run, spec=RunSpec(name=run, hash=run), status="failed", reason="x")
        attempts.append(an_attempt(run, host, number=number, fate=fate))
    instances = tuple(a_host(f"h{index}", **(fields if index == 0 else {})) for index in range(hosts))
    return State(
        version=1, project="p", lineage="l", instances=instances, runs=tuple(runs.values()), attempts=tuple(attempts)
    )


FATES: dict[str, dict[str, Any]] = {
    "fell": {"status": "failed", "exit_code": 1, "reason": "exit 1", "started_at": -60},
    "never": {"status": "failed", "reason": "no space left on device"},
    "died": {"status": "lost", "reason": "its supervisor died without an exit code", "started_at": -5},
    "stood": {"status": "failed", "exit_code": 1, "reason": "exit 1", "started_at": -61},
    "done": {"status": "done", "exit_code": 0, "started_at": -1},
    "stopped": {"status": "terminated", "reason": "stopped by ann", "started_at": -1},
    "rebooted": {"status": "lost", "reason": "its host rebooted", "interrupted": True, "started_at": -1},
    "assumed": {"status": "lost", "reason": "assumed lost by a person", "started_at": -1},
}


def an_attempt(run: str, host: str, *, number: int, fate: str) -> Attempt:
    at = NOW - 1000 + 10 * number
    facts = dict(FATES[fate])
    if "started_at" in facts:
        facts["started_at"] += at
    id = f"{run}-0-{number}"
    return Attempt(id=id, run=run, number=number, jobs=(Job(id=f"{id}-0", instance=host, ended_at=at, **facts),))


def ill(state: State) -> list[str]:
    return [one.id for one in quarantine(state, now=NOW).instances if one.quarantined]


@pytest.mark.parametrize(
    ("story", "expected"),
    [
        ("a@h0=fell b@h0=fell c@h0=fell", ["h0"]),
        ("a@h0=fell b@h0=fell", []),
        ("a@h0=never b@h0=died c@h0=fell", ["h0"]),
        # in a row: what stood in between speaks for the host, what was ended from outside says nothing
        ("a@h0=fell b@h0=fell x@h0=stood c@h0=fell", []),
        ("a@h0=fell b@h0=fell x@h0=done c@h0=fell", []),
        ("x@h0=stood a@h0=fell b@h0=fell c@h0=fell", ["h0"]),
        ("a@h0=fell b@h0=fell x@h0=stopped y@h0=rebooted z@h0=assumed c@h0=fell", ["h0"]),
        ("a@h0=stopped b@h0=rebooted c@h0=assumed", []),
        # the same run again: its own fault, as far as anybody can tell …
        ("a@h0=fell a@h0=fell a@h0=fell a@h0=fell", []),
        ("a@h0=fell a@h1=fell a@h0=fell b@h0=fell c@h0=fell", []),
        ("a@h0=fell a@h1=fell a@h2=fell a@h3=fell", []),
        # … unless it stood elsewhere
        ("a@h1=stood a@h0=fell a@h0=fell a@h0=fell", ["h0"]),
        ("a@h0=fell a@h0=fell a@h0=fell a@h1=done", ["h0"]),
        ("a@h1=fell a@h1=stood a@h0=fell b@h0=fell c@h0=fell", ["h0"]),
        # bad runs that went round tell nothing of the hosts that they went to
        ("a@h0=fell b@h0=fell c@h0=fell a@h1=fell b@h1=fell c@h1=fell", []),
    ],
)
def test_the_rule(story: str, expected: list[str]) -> None:
    assert ill(lived(*story.split())) == expected


def test_the_reason_has_the_three_runs() -> None:
    one = quarantine(lived("a@h0=fell", "b@h0=never", "c@h0=fell"), now=NOW).instances[0]
    assert one.quarantined == f"{REASON}: a (exit 1), b (no space left on device), c (exit 1)"


def test_what_failed_before_a_person_trusted_it_again_counts_no_more() -> None:
    story = ("a@h0=fell", "b@h0=fell", "c@h0=fell")
    assert ill(lived(*story, trusted_at=NOW - 970)) == []
    assert ill(lived(*story, "d@h0=fell", "e@h0=fell", trusted_at=NOW - 970)) == []
    assert ill(lived(*story, "d@h0=fell", "e@h0=fell", "f@h0=fell", trusted_at=NOW - 970)) == ["h0"]


@pytest.mark.parametrize(("hosts", "expected"), [(1, ["h0"]), (2, ["h0"]), (3, ["h0"]), (4, ["h0", "h1"])])
def test_no_more_than_half_of_a_pool(hosts: int, expected: list[str]) -> None:
    """Three other runs fall on each host: whatever strikes them all is not theirs. The first that had enough go."""
    story = [f"r{index}-{host}@h{host}=fell" for index in range(3) for host in range(hosts)]
    assert ill(lived(*story, hosts=hosts)) == expected


def test_a_half_that_is_quarantined_already_counts() -> None:
    state = lived("a@h1=fell", "b@h1=fell", "c@h1=fell", hosts=2, quarantined=f"{REASON}: x, y, z")
    assert ill(state) == ["h0"]
    assert ill(lived("a@h1=fell", "b@h1=fell", "c@h1=fell", hosts=2, quarantined="its key changed")) == ["h0", "h1"]


@pytest.mark.parametrize("fields", [{"phase": "terminating"}, {"quarantined": "ECC"}])
def test_only_those_in_use_are_judged(fields: dict[str, Any]) -> None:
    state = lived("a@h0=fell", "b@h0=fell", "c@h0=fell", **fields)
    assert quarantine(state, now=NOW) is state


WORDS = st.builds(
    lambda run, host, fate: f"{run}@h{host}={fate}",
    st.sampled_from("abc"),
    st.integers(0, 3),
    st.sampled_from([*FATES, "fell", "fell"]),
)


@given(st.lists(WORDS, max_size=25), st.lists(st.integers(0, 3), min_size=1, max_size=40))
def test_one_bad_run_takes_no_pool(story: list[str], visits: list[int]) -> None:
    """Whatever happened before: a run that falls everywhere, again and again, brings no host under quarantine."""
    before = ill(lived(*story))
    falls = [f"bad@h{host}=fell" for host in visits]
    assert set(ill(lived(*story, *falls))) <= set(before) | {f"h{host}" for host in _one_short(story)}
    assert len(ill(lived(*story, *falls))) <= 2
    assert ill(lived(*falls)) == []


def _one_short(story: list[str]) -> list[int]:
    """Hosts on which two falls of others count by then: a third one, whosever it is, is enough."""
    return [
        host
        for host in range(4)
        if f"h{host}" in ill(lived(*story, f"x@h{host}=fell")) and f"h{host}" not in ill(lived(*story))
    ]


@given(st.lists(WORDS, max_size=25))
def test_who_is_quarantined_stays_so_and_nobody_else_changes(story: list[str]) -> None:
    state = lived(*story)
    after = quarantine(state, now=NOW)
    assert quarantine(after, now=NOW) == after
    assert replace(after, instances=state.instances) == state
