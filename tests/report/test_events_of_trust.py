"""What `dstack events` tells of drains, pauses, quarantines and of jobs that come back: each once, with its reason."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from reconciler.cli.commands.cost import EventFlags, _chosen
from reconciler.report.cost import event_line
from reconciler.state.job_results import ASSUMED_LOST
from reconciler.state.ledger.entries import entries
from schemas.desired import Desired
from schemas.ledger import Entry
from schemas.run import Attempt, Job, Run, RunSpec
from schemas.state import VERSION, Applied, Override, Revision, State
from tests.report.test_cost import T, instance, told

ONE = instance("i1", name="gpu-0", place="lab", launch="l1")
QUIET = State(version=VERSION, project="p" * 8, lineage="l", instances=(ONE,))
POOL = Override(kind="drain", subject="gpu", by="ann@lab", at=T + 5, reason="disk swap")
ALONE = Override(kind="drain", subject="instance i1", by="ann@lab", at=T + 5)
PAUSE = Override(kind="pause", subject="gpu", by="ann@lab", at=T + 5)


def now_(**fields: object) -> State:
    return replace(QUIET, instances=(replace(ONE, **fields),))


def given_up(**fields: object) -> State:
    run = Run(id="r1", spec=RunSpec(name="train", pool="gpu", hash="h"), submitted_at=T, origin="declared")
    job = Job(id="r1-0-1-0", instance="i1", status="lost", reason=ASSUMED_LOST)
    attempt = Attempt(id="r1-0-1", run="r1", number=1, jobs=(job,))
    return replace(now_(stray_jobs=("r1-0-1-0",), **fields), runs=(run,), attempts=(attempt,))


WORDS = {
    "drained": (QUIET, replace(QUIET, overrides=(POOL,)),
                "drained      pool gpu: drained by ann@lab, until it is resumed (disk swap)  [ann@lab]"),
    "drained alone": (QUIET, replace(QUIET, overrides=(ALONE,)),
                      "drained      instance gpu-0 (pool gpu): drained by ann@lab, until it is resumed  [ann@lab]"),
    "paused": (QUIET, replace(QUIET, overrides=(PAUSE,)),
               "paused       pool gpu: paused by ann@lab, until it is resumed  [ann@lab]"),
    "resumed": (replace(QUIET, overrides=(PAUSE,)), QUIET,
                "resumed      pool gpu: was paused by ann@lab, until it is resumed  [cron@lab]"),
    "draining": (QUIET, now_(draining="pool drained by ann@lab"),
                 "draining     instance gpu-0 (pool gpu, lab): pool drained by ann@lab  [cron@lab]"),
    "kept": (now_(draining="left the YAML"), QUIET,
             "kept         instance gpu-0 (pool gpu, lab): drained no more: left the YAML  [cron@lab]"),
    "quarantined": (QUIET, now_(quarantined="3 jobs in a row"),
                    "quarantined  instance gpu-0 (pool gpu, lab): 3 jobs in a row  [cron@lab]"),
    "trusted": (now_(quarantined="3 jobs in a row"), QUIET,
                "trusted      instance gpu-0 (pool gpu, lab): was quarantined: 3 jobs in a row  [cron@lab]"),
    "disarmed": (QUIET, now_(disarmed="dead-man timer was stopped"),
                 "disarmed     instance gpu-0 (pool gpu, lab): dead-man timer was stopped  [cron@lab]"),
    "armed": (now_(disarmed="dead-man timer was stopped"), QUIET,
              "armed        instance gpu-0 (pool gpu, lab): was: dead-man timer was stopped  [cron@lab]"),
    "returned": (given_up(unreachable_since=T), given_up(),
                 "returned     instance gpu-0 (pool gpu, lab): job r1-0-1-0 of run train was given up (assumed lost)"),
}  # fmt: skip


@pytest.mark.parametrize("kind", WORDS)
def test_each_is_told_once_and_in_these_words(kind: str) -> None:
    was, then, words = WORDS[kind]
    found = list(entries(was, then, by="cron@lab", now=T + 9))
    lines = [event_line(entry, {}).split("Z  ", 1)[1] for entry in found]
    assert len(lines) == 1, lines
    assert lines[0].startswith(words.replace("(assumed lost)", f"({ASSUMED_LOST})"))
    assert found[0].kind == kind.split()[0]
    assert not list(entries(then, then, by="cron@lab", now=T + 10))


def test_again_is_another_event_and_a_job_that_hides_again_is_not() -> None:
    ill, gone = now_(quarantined="x"), given_up(unreachable_since=T)
    again = [one.id for at, was, then in ((1, QUIET, ill), (2, ill, QUIET), (3, QUIET, ill))
             for one in entries(was, then, by="", now=T + at)]  # fmt: skip
    assert len(set(again)) == 3
    back = [one.id for at in (1, 2) for one in entries(gone, given_up(), by="", now=T + at)]
    assert len(set(back)) == 1


def test_of_an_instance_that_ended_its_end_is_told() -> None:
    ended = now_(phase="terminated", draining="left the YAML", terminated_at=T + 9)
    assert "draining" not in {one.kind for one in told(QUIET, ended)}


@pytest.mark.parametrize(
    ("commit", "dirty", "words"),
    [
        ("c" * 40, False, "commit cccccccccc"),
        ("c" * 40, True, "commit cccccccccc with edits"),
        ("", True, "documents without git"),
    ],
)
def test_documents_that_were_edited_say_so(commit: str, dirty: bool, words: str) -> None:
    """Once two applies of one commit looked the same, though one of them had more in it."""
    revision = Revision(digest="d" * 64, commit=commit, dirty=dirty)
    applied = Applied(revision=revision, by="ann@lab", at=T, desired=Desired(project="p" * 8))
    (entry,) = entries(QUIET, replace(QUIET, applied=applied), by="ann@lab", now=T)
    assert event_line(entry, {}).endswith(f"applied      project: {words}  [ann@lab]")


def test_what_happened_in_one_second_is_told_in_its_order() -> None:
    kinds = ("ended", "used", "ready", "seen", "applied", "launched", "started", "submitted")
    told_at_once = [Entry(id=kind, at=T, kind=kind, subject="run r") for kind in kinds]  # type: ignore[arg-type]
    order = [entry.kind for entry in _chosen(told_at_once, EventFlags())]
    assert order == ["applied", "submitted", "launched", "seen", "ready", "started", "used", "ended"]
