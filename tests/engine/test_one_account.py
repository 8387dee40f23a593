"""Places that list the same machines: no machine of one is another's orphan, and each machine is one record."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from backends.aws.backend import AwsBackend
from backends.base import Backend
from reconciler.cli.commands.state.rebuild import rebuilt as rebuilt_from_places
from reconciler.engine.garbage import ask_everywhere
from reconciler.engine.ports import Connections
from reconciler.state.observe.listing_scope import homes, scope_of
from reconciler.state.observe.merge import absorb, strangers
from reconciler.state.unowned import PlaceContents, unowned
from reconciler.store.statefile import dumps, loads
from schemas.desired import BackendConfig
from schemas.instance import Instance, Listing, Seen
from schemas.leftover import Leftover
from schemas.offer import Offer
from schemas.pool import Pool
from schemas.resources import Where
from schemas.state import VERSION, Place, Revision, State
from tests.backends.aws.test_backend import account, use  # noqa: F401 - a fixture
from tests.doubles.aws.aws_double import REGION, Account
from tests.doubles.aws.aws_world import AwsSite, papers, sold
from tests.state.test_absorb import NOW, an_instance, an_intent, pending
from tests.state.test_rebuild import rebuilt
from tests.worlds.world import apply, cron

ONE, OTHER, FAR = "aws/us-east-1", "aws-ssm/us-east-1", "aws-ssm/us-west-2"


def a_place(name: str, *, identity: str = "me", type: str = "aws", **fields: Any) -> Place:
    backend, _, region = name.partition("/")
    return Place(name=name, config=BackendConfig(name=backend, type=type), region=region, identity=identity, **fields)


def a_state(*instances: Instance, places: Sequence[Place] | None = None, **fields: Any) -> State:
    known = (a_place(ONE), a_place(OTHER), a_place(FAR)) if places is None else tuple(places)
    return State(
        version=VERSION, project="proj12345", lineage="lin", generation=5, places=known, instances=instances, **fields
    )


def mine(id: str = "l-0", *, place: str = ONE, **fields: Any) -> Instance:
    return an_instance(id, place=place, backend=place.partition("/")[0], **fields)


def seen(external_id: str = "i-l-0", **fields: Any) -> Seen:
    return Seen(external_id=external_id, **{"lineage": "lin", "launch": "l", "generation": 5, **fields})


def listed(place: str, *machines: Seen, at: int = NOW, identity: str = "me", **fields: Any) -> Listing:
    return Listing(place=place, at=at, identity=identity, instances=machines, **fields)


def absorbed(state: State, *listings: Listing, now: int = NOW) -> State:
    return absorb(state, listings=listings, reports=(), now=now)


# ---------------------------------------------------------------- absorb


@pytest.mark.parametrize("place", [ONE, OTHER])
def test_a_machine_of_one_place_is_no_orphan_of_the_other(place: str) -> None:
    machine = seen(id="l-0")
    found = absorbed(a_state(mine(place=place)), listed(ONE, machine), listed(OTHER, machine))
    assert [(one.id, one.place, one.orphan) for one in found.instances] == [("l-0", place, "")]


def test_a_launch_is_seen_by_whatever_place_lists_it_first() -> None:
    state = a_state(replace(pending(), place=OTHER, backend="aws-ssm"), intents=(an_intent("l-0"),))
    found = absorbed(state, listed(ONE, seen(id="l-0")), listed(OTHER))
    (one,) = found.instances
    assert (one.place, one.external_id, one.phase) == (OTHER, "i-l-0", "provisioning")
    assert found.intents == ()


def test_it_is_absent_only_where_no_place_of_its_account_lists_it() -> None:
    gone = mine(missing_since=NOW - 400, absences=1)
    by_id = listed(ONE, at=NOW, partial=True)
    (lives,) = absorbed(a_state(gone), listed(ONE), by_id, listed(OTHER, seen(id="l-0"))).instances
    assert (lives.phase, lives.missing_since) == ("ready", None)
    (ended,) = absorbed(a_state(gone), listed(ONE), by_id, listed(OTHER)).instances
    assert ended.phase == "terminated"


def test_an_absence_in_another_place_counts_for_nothing() -> None:
    state = a_state(mine(missing_since=NOW - 400, absences=1))
    assert absorbed(state, listed(OTHER), listed(OTHER, partial=True)).instances == state.instances


def test_a_place_that_does_not_answer_is_answered_for_by_the_other() -> None:
    (one,) = absorbed(a_state(mine()), listed(ONE, error="expired"), listed(OTHER, seen(phase="ended"))).instances
    assert one.phase == "terminated"


def test_another_account_or_region_has_other_machines() -> None:
    machine = seen(id="l-0")
    assert absorbed(a_state(mine()), listed(ONE, machine), listed(FAR, machine)).instances[1].orphan
    strange = (a_place(ONE), a_place(OTHER, identity="they"))
    both = listed(ONE, machine), listed(OTHER, machine, identity="they")
    assert absorbed(a_state(mine(), places=strange), *both).instances[1].orphan


def test_where_a_listing_is_of_the_account_every_region_is_one() -> None:
    places = (a_place("gcp/a", type="gcp"), a_place("gcp/b", type="gcp"))
    machine = seen(id="l-0")
    state = a_state(mine(place="gcp/b"), places=places)
    assert len(absorbed(state, listed("gcp/a", machine), listed("gcp/b", machine)).instances) == 1


@pytest.mark.parametrize(("tag", "place"), [("aws-ssm", OTHER), ("aws", ONE), ("gone", ONE), ("", ONE)])
def test_nobodys_machine_is_one_orphan_under_the_backend_of_its_tag(tag: str, place: str) -> None:
    machine = seen("i-9", id="z-0", backend=tag)
    found = absorbed(a_state(), listed(OTHER, machine), listed(ONE, machine))
    assert [(one.place, one.backend) for one in found.instances] == [(place, place.partition("/")[0])]
    assert loads(dumps(found), "x") == found


def test_of_two_machines_with_one_mark_the_older_is_the_instance() -> None:
    twins = seen("i-1", id="l-0", created_at=NOW - 10), seen("i-2", id="l-0", created_at=NOW - 20)
    for order in (twins, twins[::-1]):
        found = absorbed(a_state(replace(pending(), place=ONE)), listed(ONE, *order), listed(OTHER, *order))
        assert [(one.external_id, bool(one.orphan)) for one in found.instances] == [("i-2", False), ("i-1", True)]
        ended = replace(twins[1], phase="ended"), twins[0]
        (one,) = absorbed(a_state(replace(pending(), place=ONE)), listed(ONE, *ended)).instances
        assert (one.external_id, one.phase) == ("i-1", "provisioning")


def test_machines_with_one_mark_that_nobody_knows_are_records_of_their_own() -> None:
    twins = seen("i-1", id="z-0", created_at=NOW - 10), seen("i-2", id="z-0", created_at=NOW - 20)
    found = absorbed(a_state(), listed(ONE, *twins))
    assert [(one.id, one.external_id) for one in found.instances] == [("z-0", "i-2"), ("x-i-1", "i-1")]
    assert loads(dumps(found), "x") == found


def test_machines_of_two_accounts_may_have_one_external_id() -> None:
    places = (a_place(ONE), a_place(OTHER, identity="they"))
    found = absorbed(a_state(places=places), listed(ONE, seen("7")), listed(OTHER, seen("7"), identity="they"))
    assert [one.id for one in found.instances] == ["x-7", "x-aws-ssm-us-east-1-7"]
    assert loads(dumps(found), "x") == found


def test_an_orphan_that_is_anothers_machine_is_forgotten_and_not_ended() -> None:
    """As states have them that were written when each place judged alone."""
    doubled = mine("x-i-l-0", place=OTHER, external_id="i-l-0", orphan="unknown", phase="terminating")
    machine = seen(id="l-0")
    found = absorbed(a_state(mine(), doubled), listed(ONE, machine), listed(OTHER, machine))
    assert [(one.id, one.phase) for one in found.instances] == [("l-0", "ready")]
    orphans = doubled, replace(doubled, id="x", place=ONE)
    assert [one.id for one in absorbed(a_state(*orphans), listed(ONE, machine)).instances] == ["x-i-l-0"]


def test_a_launch_in_a_place_that_never_answered_is_nobodys_orphan_elsewhere() -> None:
    places = (a_place(ONE, identity=""), a_place(OTHER))
    state = a_state(replace(pending(), place=ONE), places=places, intents=(an_intent("l-0"),))
    assert absorbed(state, listed(OTHER, seen(id="l-0"))).instances == state.instances


def test_a_machine_of_a_place_given_up_is_an_orphan_where_it_is_seen() -> None:
    places = (a_place(ONE, forgotten=True), a_place(OTHER))
    ended = mine(phase="terminated", terminated_at=NOW - 500, reason="forgotten by ann")
    (one,) = absorbed(a_state(ended, places=places), listed(OTHER, seen(id="l-0"))).instances
    assert (one.id, one.place, one.backend) == ("l-0", OTHER, "aws-ssm")
    assert one.orphan == "seen again after its end (forgotten by ann)"


def test_machines_of_another_copy_are_told_of_once() -> None:
    theirs = listed(ONE, seen(lineage="other")), listed(OTHER, seen(lineage="other"))
    (told,) = strangers(a_state(), theirs)
    assert told.startswith("aws/us-east-1 has 1 instance of another lineage")


def test_a_place_that_never_answered_shares_with_no_other() -> None:
    places = [a_place(ONE, identity=""), a_place(OTHER, identity=""), a_place(FAR, identity="")]
    assert dict(homes(places)) == {ONE: ONE, OTHER: OTHER, FAR: FAR}


# ---------------------------------------------------------------- gc


def found_in(place: str, *machines: Seen, others: Sequence[Leftover] = (), identity: str = "me") -> PlaceContents:
    return PlaceContents(place, scope_of(a_place(place, identity=identity)), machines, others)


def test_garbage_is_what_no_place_of_the_account_owns_and_is_listed_once() -> None:
    machines = seen(id="l-0"), seen("i-9", id="z-0", launch="z")
    state = a_state(mine(place=OTHER))
    (one,) = unowned(state, [found_in(ONE, *machines), found_in(OTHER, *machines)])
    assert (one.id, one.place) == ("i-9", ONE)


def test_a_shared_group_is_needed_by_a_pool_of_whatever_place() -> None:
    def groups(place: str) -> list[Leftover]:
        pools = {"sg-1": "pool", "sg-2": "", "sg-3": "old"}
        return [Leftover(kind="security-group", place=place, id=id, pool=pool) for id, pool in pools.items()]

    found = [found_in(place, others=groups(place)) for place in (ONE, OTHER, FAR)]
    left = unowned(a_state(mine(place=OTHER)), found)
    assert len(left) == 4
    assert {(one.id, one.place) for one in left} == {("sg-3", ONE), ("sg-1", FAR), ("sg-2", FAR), ("sg-3", FAR)}
    asked = an_intent("l-0")
    pending_there = a_state(intents=(replace(asked, request=replace(asked.request, place=OTHER)),))
    assert [one.id for one in unowned(pending_there, found[:2])] == ["sg-3"]


# ---------------------------------------------------------------- rebuild


def test_a_rebuild_makes_one_record_of_each_machine() -> None:
    machines = seen("i-1", id="a-0", backend="aws-ssm"), seen("i-2", id="b-0", backend="aws"), seen("i-3")
    places = a_place(OTHER, identity=""), a_place(ONE, identity="")
    state = rebuilt(listed(ONE, *machines), listed(OTHER, *machines), places=places)
    assert {one.external_id: one.place for one in state.instances} == {"i-1": OTHER, "i-2": ONE, "i-3": OTHER}
    assert len(state.instances) == 3
    assert loads(dumps(state), "x") == state


def test_a_rebuild_takes_the_oldest_of_machines_with_one_mark() -> None:
    twins = seen("i-1", id="l-0", created_at=NOW - 10), seen("i-2", id="l-0", created_at=NOW - 20)
    state = rebuilt(listed(ONE, *twins), places=(a_place(ONE, identity=""),))
    assert [one.external_id for one in state.instances] == ["i-2"]


def test_a_rebuild_forgets_no_machine_for_the_external_id_of_another_account() -> None:
    listings = listed(ONE, seen("7")), listed(OTHER, seen("7"), identity="they")
    state = rebuilt(*listings, places=(a_place(ONE, identity=""), a_place(OTHER, identity="")))
    assert [(one.id, one.place) for one in state.instances] == [("7", ONE), ("aws-ssm-us-east-1-7", OTHER)]


# ---------------------------------------------------------------- whole applies, over a double of EC2


class TwoBackends(AwsSite):
    """Two `aws` backends of one account and region, as a team has them that reaches some machines by `ssm`."""

    def connect(self, config: BackendConfig, region: str, lineage: str) -> Backend:
        super().connect(config, region, lineage)
        around = dataclasses.replace(self.places.around, lineage=lineage or "none")
        return AwsBackend(config, region, around, offers=lambda config, region: offered(region))


def offered(region: str) -> tuple[Offer, ...]:
    """Of both backends."""
    return tuple(replace(one, backend=name) for name in ("aws", "aws-ssm") for one in sold(region))


@pytest.fixture
def site(account: Account, tmp_path: Path) -> TwoBackends:  # noqa: F811
    return TwoBackends(scratch=tmp_path, account=account, selling=offered)


def test_two_backends_of_one_account_end_none_of_each_others_machines(site: TwoBackends) -> None:
    backends = (
        BackendConfig(name="aws", type="aws", regions=(REGION,)),
        BackendConfig(name="aws-ssm", type="aws", regions=(REGION,), options={"connect": {"mode": "ssm"}}),
    )
    pools = [
        Pool(name=name, default=name == "a", nodes_min=1, nodes_max=2, where=Where(backends=(backend,)))
        for name, backend in (("a", "aws"), ("b", "aws-ssm"))
    ]
    desired = replace(papers(pools=pools), backends=backends)
    assert apply(site, desired).refused == ""
    for _ in range(40):
        site.clock.at += 60
        assert cron(site).refused == ""
    living = {one["id"] for one in site.account.living()}
    assert {one.external_id for one in site.state.instances} == living
    assert [(one.backend, one.phase, one.orphan) for one in site.state.instances] == [
        ("aws", "ready", ""), ("aws-ssm", "ready", ""),
    ]  # fmt: skip
    connections = Connections(site.ports(), site.state.lineage)
    asked = ask_everywhere(site.ports(), site.state, connections)
    assert (unowned(site.state, asked.found), asked.silent) == ((), {})
    again = rebuilt_from_places(site.ports(), desired=desired, revision=Revision(digest="d"), old=None)
    assert {one.external_id: one.place for one in again.instances} == {
        one.external_id: one.place for one in site.state.instances
    }
    assert all(one.ready_at for one in again.instances)
