"""What a backend's answers mean: ids that it leaves out, several refusals at once, waits that it asks for."""

from __future__ import annotations

from pathlib import Path

from msgspec.structs import replace

from backends.errors import TryLater
from backends.fake.backend import Fault
from reconciler.cli.commands.plan.apply_report import _done, _done_line
from reconciler.engine.backend_answers import end_outcome, launch_outcome
from reconciler.engine.tick import TickResult
from reconciler.state.capacity_backoff import BACKOFF, SOLD_OUT
from reconciler.state.pending_effects import End, Send
from reconciler.state.record_outcomes import Accepted, Failed, LaunchRefused, NotSent, Sent, Throttled, fold
from schemas.backend_types import TYPES
from schemas.launch import Ending, Made, Refused, Request, TerminateAnswer, Unknown
from schemas.plan import Launch, Plan, Resume, Terminate
from schemas.pool import Pool
from tests.state.test_absorb import NOW, PLACE, a_state, an_instance, an_intent, pending
from tests.worlds.world import Site, apply, desired, offer, ticks

END = End(place=PLACE, external_ids=("i-1", "i-2"))
REQUEST = Request(
    place=PLACE,
    launch="l",
    token="l",
    ids=("l-0", "l-1", "l-2"),
    names=("a-0", "a-1", "a-2"),
    pool="a",
    instance_type="small",
)
SEND = Send(intent="l", request=REQUEST)
SOLD = Refused(meaning="capacity", why="sold out")
FULL = Refused(meaning="quota", why="limit of 4 reached", quota="vCPUs")
DENIED = Refused(meaning="permanent", why="no permission")
BUSY = Unknown(why="slow down", retry_after=90)


# ---------------------------------------------------------------- ends


def test_an_id_without_an_answer_is_not_ended() -> None:
    outcome = end_outcome(END, {"i-1": Ending()})
    assert isinstance(outcome, Failed)
    assert (outcome.not_ended, outcome.lasting) == (("i-2",), False)
    assert "not ended: i-2" in outcome.why
    assert end_outcome(END, {"i-1": Ending(), "i-2": Ending()}) == Accepted(place=PLACE, external_ids=("i-1", "i-2"))


def test_one_refused_end_hides_none_that_was_accepted() -> None:
    answers: dict[str, TerminateAnswer] = {"i-1": Ending(), "i-2": Refused(meaning="permanent", why="it is protected")}
    outcome = end_outcome(END, answers)
    assert isinstance(outcome, Failed)
    assert (outcome.not_ended, outcome.lasting) == (("i-2",), True)
    state = a_state(*(replace(an_instance(id=f"l-{n}"), external_id=f"i-{n}") for n in (1, 2)))
    actions = tuple(Terminate(instance=f"l-{n}", name=f"a-{n}", pool="a", why="idle") for n in (1, 2))
    plan = Plan(version=1, project="p", generation=1, actions=actions)
    result = TickResult(state=state, plan=plan, approved=plan, outcomes=(outcome,))
    assert _done(result) == [actions[0]]


def test_two_applies_at_once_launch_once() -> None:
    """The one that finds the other's launch under way sends it again, and does not count it as its own."""
    mine = Launch(launch="m", pool="a", ids=("m-0",), names=("a-9",), offer=offer("small", "1"), why="nodes 1")
    again = Resume(launch="l", request=REQUEST, why="sent again")
    for actions, said in (
        ((again,), "Done: 3 launches of another apply sent again.\n"),
        ((mine, again), "Done: 1 instance created, 3 launches of another apply sent again.\n"),
        ((mine,), "Done: 1 instance created.\n"),
    ):
        plan = Plan(version=1, project="p", generation=1, actions=actions)
        result = TickResult(state=a_state(), plan=plan, approved=plan)
        assert _done_line(result, hindered=False) == said


# ---------------------------------------------------------------- launches


def test_a_launch_without_any_answer_is_not_sent_for_sure() -> None:
    assert isinstance(launch_outcome(SEND, {}, now=NOW), Failed)
    assert launch_outcome(SEND, {"l-0": Made(external_id="i-1")}, now=NOW) == Sent(intent="l", hints=("i-1",))


def test_a_batch_that_is_refused_for_several_reasons_remembers_each() -> None:
    outcome = launch_outcome(SEND, {"l-0": SOLD, "l-1": FULL, "l-2": DENIED}, now=NOW)
    assert isinstance(outcome, LaunchRefused)
    assert outcome.ids == REQUEST.ids
    place, offer = outcome.capacities
    assert (place.instance_type, place.why) == ("", "no permission")
    assert (offer.instance_type, offer.why, offer.quota) == ("small", "sold out; limit of 4 reached", "vCPUs")
    assert offer.until == NOW + max(BACKOFF, SOLD_OUT)
    state = fold(a_state(intents=(an_intent("l-0"),)), [outcome], now=NOW)
    assert state.capacity == (place, offer)


def test_one_reason_for_all_of_a_batch_is_told_once() -> None:
    same = replace(FULL, why="limit of 4 reached; ask for more")
    outcome = launch_outcome(SEND, dict.fromkeys(REQUEST.ids, same), now=NOW)
    assert isinstance(outcome, LaunchRefused)
    assert [(one.why, one.quota) for one in outcome.capacities] == [(same.why, same.quota)]


def test_a_wait_is_kept_beside_a_refusal_and_beside_what_was_made() -> None:
    state = a_state(pending(), intents=(an_intent("l-0"),))
    refused = launch_outcome(SEND, {"l-0": SOLD, "l-1": BUSY, "l-2": BUSY}, now=NOW)
    assert isinstance(refused, LaunchRefused)
    assert [pace.not_before for pace in fold(state, [refused], now=NOW).paces] == [NOW + 90]
    made = launch_outcome(SEND, {"l-0": Made(external_id="i-1"), "l-1": BUSY}, now=NOW)
    assert isinstance(made, Throttled)
    after = fold(state, [made], now=NOW)
    assert [pace.not_before for pace in after.paces] == [NOW + 90]
    assert [intent.hints for intent in after.intents] == [("i-1",)]


# ---------------------------------------------------------------- waits that hold for a whole account

TWO = desired(pools=[Pool(name=name, nodes_min=1, nodes_max=2, idle_duration=60) for name in ("a", "b")])


def test_what_is_asked_to_wait_holds_for_the_other_requests_of_the_same_apply(tmp_path: Path) -> None:
    site = Site(scratch=tmp_path)
    site.world.faults.append(Fault(call="launch", error=TryLater("slow down", retry_after=90)))
    apply(site, TWO)
    assert site.world.calls["launch"] == 1
    ticks(site, 8)
    assert site.world.calls["launch"] == 1
    ticks(site, 3)
    assert sorted(one.pool for one in site.state.instances if one.phase == "ready") == ["a", "b"]


def test_one_that_may_be_sent_once_is_planned_anew_where_it_has_to_wait(tmp_path: Path) -> None:
    site = Site(scratch=tmp_path, kind=TYPES["fake-once"])
    site.world.faults.append(Fault(call="launch", error=TryLater("slow down", retry_after=90)))
    asked = site.clock.now()
    result = apply(site, TWO)
    assert site.world.calls["launch"] == 1
    assert [type(one) for one in result.outcomes] == [Throttled, NotSent]
    ticks(site, 12)
    assert site.world.calls["launch"] == 2
    assert [machine.born for machine in site.world.living()] == [asked + 90]


def test_a_short_wait_is_sat_out_by_the_apply_that_gave_the_request_its_time(tmp_path: Path) -> None:
    """Nobody else may send it: left behind, it would be looked for until it counts as lost."""
    site = Site(scratch=tmp_path, kind=TYPES["fake-once"])
    site.world.faults.append(Fault(call="launch", error=TryLater("slow down", retry_after=20)))
    apply(site, desired(pools=[TWO.pools[0]]))
    asked = site.clock.now()
    site.clock.at += 5
    apply(site, TWO)
    (machine,) = site.world.living()
    assert (machine.request.pool, machine.born) == ("b", asked + 20)
