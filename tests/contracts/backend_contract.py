"""What every backend promises, as one suite: subclass `BackendContract` and give it a `rig`."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Protocol

import pytest
from msgspec.structs import replace

from backends.base import Backend
from backends.boot.spec import Boot
from backends.errors import BackendError, NoCapacity
from schemas.instance import Seen
from schemas.launch import Request
from schemas.offer import Offer
from schemas.resources import Need, Resources, Where

FAR = 4102444800  # the year 2100
DECLARED = Offer(
    backend="ssh",
    region="",
    instance_type="ssh",
    resources=Resources(cpus=0, memory=0),
    price=None,
    cloud=False,
)


def no_boot(launch: str) -> Boot:
    """Of a place whose machines are not born with anything of ours."""
    raise BackendError(f"nothing is derived for {launch} here")


class BackendRig(Protocol):
    """A world with one project in it, and ways to it."""

    project: str
    lineage: str
    room: int
    """How many instances of the first offer can be had at most; at least 3, or 1 of a declared server."""

    def connect(self, *, lineage: str = "") -> Backend:
        """A new connection to the same world; `lineage` "" is the rig's own."""

    def settle(self) -> None:
        """Time passes: what was accepted is done, and every listing shows it."""


class BackendContract:
    several = 2
    """How many instances a launch may ask for; 1 for a place that has one."""

    @pytest.fixture
    def rig(self) -> BackendRig:
        raise NotImplementedError

    def test_identity_is_the_same_from_every_connection(self, rig: BackendRig) -> None:
        first = rig.connect().identity()
        assert first
        assert first == rig.connect().identity()

    def test_offers_are_priced_and_of_this_place(self, rig: BackendRig) -> None:
        backend = rig.connect()
        offers = backend.offers(Need(), Where(spot="auto"))
        assert offers
        for offer in offers:
            assert offer.place == backend.place
            assert offer.price is not None
            assert offer.price >= 0
            assert offer.resources.cpus >= 1
            assert offer.resources.memory > 0

    def test_prepare_makes_nothing(self, rig: BackendRig) -> None:
        backend = rig.connect()
        asked = request(rig, "p1", count=1)
        prepared = backend.prepare(asked, an_offer(backend))
        rig.settle()
        assert prepared.ids == asked.ids
        assert prepared.token == asked.token
        assert living(backend) == []

    def test_a_launch_is_listed_with_our_tags(self, rig: BackendRig) -> None:
        backend = rig.connect()
        launch(rig, "l1", count=self.several)
        for number, seen in enumerate(living(backend)):
            assert seen.id == f"l1-{number}"
            assert (seen.launch, seen.pool, seen.lineage) == ("l1", "pool", rig.lineage)
            assert seen.generation == 1
            assert seen.external_id
            assert seen.instance_type
        assert len(living(backend)) == self.several

    def test_the_same_request_again_makes_nothing_new(self, rig: BackendRig) -> None:
        launch(rig, "l1", count=self.several)
        before = living(rig.connect())
        launch(rig, "l1", count=self.several)
        assert [seen.external_id for seen in living(rig.connect())] == [seen.external_id for seen in before]

    def test_the_same_request_at_once_from_several_makes_nothing_new(self, rig: BackendRig) -> None:
        backends = [rig.connect() for _ in range(4)]
        prepared = backends[0].prepare(request(rig, "l1", count=self.several), an_offer(backends[0]))
        with ThreadPoolExecutor(4) as pool:
            list(pool.map(lambda backend: backend.launch(prepared), backends))
        rig.settle()
        assert [seen.id for seen in living(backends[0])] == ["l1-0", "l1-1"][: self.several]

    def test_a_look_up_gives_only_what_was_asked(self, rig: BackendRig) -> None:
        launch(rig, "l1", count=self.several)
        backend = rig.connect()
        wanted = living(backend)[-1]
        assert [seen.id for seen in backend.instances([wanted.external_id])] == [wanted.id]

    def test_what_was_never_there_does_not_live(self, rig: BackendRig) -> None:
        found = rig.connect().instances(["never-there"])
        assert [seen for seen in found if seen.phase != "ended"] == []

    def test_no_capacity_promises_that_nothing_was_made(self, rig: BackendRig) -> None:
        backend = rig.connect()
        prepared = backend.prepare(request(rig, "big", count=rig.room + 1), an_offer(backend))
        with pytest.raises(NoCapacity):
            backend.launch(prepared)
        rig.settle()
        assert living(backend) == []

    def test_terminate_ends_just_these_and_twice_is_no_error(self, rig: BackendRig) -> None:
        count = min(3, rig.room)
        launch(rig, "l1", count=count)
        backend = rig.connect()
        victim = living(backend)[count // 2].external_id
        backend.terminate([victim])
        backend.terminate([victim])
        rig.settle()
        backend.terminate([victim, "never-there"])
        assert [seen.id for seen in living(backend)] == [f"l1-{n}" for n in range(count) if n != count // 2]
        assert [seen for seen in backend.instances([victim]) if seen.phase != "ended"] == []

    def test_what_ended_makes_room(self, rig: BackendRig) -> None:
        launch(rig, "l1", count=rig.room)
        backend = rig.connect()
        backend.terminate([seen.external_id for seen in living(backend)])
        rig.settle()
        launch(rig, "l2", count=rig.room)
        assert [seen.launch for seen in living(backend)] == ["l2"] * rig.room

    def test_another_lineage_is_told_apart(self, rig: BackendRig) -> None:
        launch(rig, "l1", count=1)
        assert [seen for seen in living(rig.connect(lineage="otherlin")) if seen.lineage == "otherlin"] == []


def an_offer(backend: Backend) -> Offer:
    """What is declared is not offered: it is attached."""
    offers = backend.offers(Need(), Where())
    return offers[0] if offers else replace(DECLARED, at=backend.place)


def request(rig: BackendRig, name: str, *, count: int) -> Request:
    backend = rig.connect()
    return Request(
        place=backend.place,
        launch=name,
        token=name,
        ids=tuple(f"{name}-{number}" for number in range(count)),
        names=tuple(f"pool-{number}" for number in range(count)),
        pool="pool",
        instance_type=an_offer(backend).instance_type,
        lineage=rig.lineage,
        generation=1,
        project=rig.project,
        not_after=FAR,
    )


def launch(rig: BackendRig, name: str, *, count: int) -> None:
    backend = rig.connect()
    backend.launch(backend.prepare(request(rig, name, count=count), an_offer(backend)))
    rig.settle()


def living(backend: Backend) -> Sequence[Seen]:
    return sorted((seen for seen in backend.instances() if seen.phase != "ended"), key=lambda seen: seen.id)
