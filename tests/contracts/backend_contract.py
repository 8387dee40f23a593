"""What every backend promises, as one suite: subclass `BackendContract` and give it a `rig`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Protocol

import pytest
from msgspec.structs import replace

from backends.base import Backend
from backends.boot.spec import Boot
from backends.errors import BackendError, TryLater
from reconciler.engine.backend_answers import refusal_of
from schemas.backend_type import BackendType
from schemas.instance import Seen
from schemas.launch import Ending, LaunchAnswer, Made, Refused, Request
from schemas.offer import Offer
from schemas.resources import Resources, Where

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

    kind: BackendType
    project: str
    lineage: str
    room: int
    """How many instances of the first offer can be had at most; at least 3, or 1 of a declared server."""

    def connect(self, *, lineage: str = "") -> Backend:
        """A new connection to the same world; `lineage` "" is the rig's own."""

    def settle(self) -> None:
        """Time passes: what was accepted is done, and every listing shows it."""


class BackendContract:
    """Asks of a backend what its type promises."""

    kind: BackendType
    several = 2
    """How many instances are launched where it matters that they are several; 1 for a place that has one."""

    @pytest.fixture
    def rig(self) -> BackendRig:
        raise NotImplementedError

    @property
    def _one_request(self) -> int:
        return min(self.several, self.kind.batch)

    def test_identity_is_the_same_from_every_connection(self, rig: BackendRig) -> None:
        first = rig.connect().identity()
        assert first
        assert first == rig.connect().identity()

    def test_offers_are_priced_and_of_this_place(self, rig: BackendRig) -> None:
        backend = rig.connect()
        offers = backend.offers((), Where(spot="auto"))
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

    def test_a_launch_is_answered_for_each_id_and_listed_with_our_tags(self, rig: BackendRig) -> None:
        backend = rig.connect()
        asked = request(rig, "l1", count=self._one_request)
        answers = sent(backend, asked)
        assert set(answers) == set(asked.ids)
        assert all(isinstance(answer, Made) for answer in answers.values())
        rig.settle()
        for number, seen in enumerate(living(backend)):
            assert seen.id == f"l1-{number}"
            assert (seen.launch, seen.pool, seen.lineage) == ("l1", "pool", rig.lineage)
            assert seen.generation == 1
            assert seen.instance_type
            answer = answers[seen.id]
            assert isinstance(answer, Made)
            assert seen.external_id
            assert answer.external_id in ("", seen.external_id)
            assert seen.failure is None
        assert len(living(backend)) == self._one_request

    def test_the_same_request_again_makes_nothing_new(self, rig: BackendRig) -> None:
        """Of a type that sends once nothing is asked: a request that is sent twice is the sender's defect."""
        backend = rig.connect()
        prepared = backend.prepare(request(rig, "l1", count=self._one_request), an_offer(backend))
        first = backend.launch(prepared)
        rig.settle()
        before = living(backend)
        if self.kind.launch != "once":
            assert rig.connect().launch(prepared) == first
        rig.settle()
        assert [seen.external_id for seen in living(rig.connect())] == [seen.external_id for seen in before]

    def test_the_same_request_at_once_from_several_makes_nothing_new(self, rig: BackendRig) -> None:
        backends = [rig.connect() for _ in range(1 if self.kind.launch == "once" else 4)]
        prepared = backends[0].prepare(request(rig, "l1", count=self._one_request), an_offer(backends[0]))
        with ThreadPoolExecutor(4) as pool:
            list(pool.map(lambda backend: launched_or_later(backend, prepared), backends))
        rig.settle()
        assert [seen.id for seen in living(backends[0])] == list(prepared.ids)

    def test_a_look_up_gives_only_what_was_asked(self, rig: BackendRig) -> None:
        launch(rig, "l1", count=self.several)
        backend = rig.connect()
        wanted = living(backend)[-1]
        assert [seen.id for seen in backend.instances([wanted.external_id])] == [wanted.id]

    def test_what_was_never_there_does_not_live(self, rig: BackendRig) -> None:
        found = rig.connect().instances(["never-there"])
        assert [seen for seen in found if seen.phase != "ended"] == []

    def test_no_capacity_promises_that_nothing_was_made(self, rig: BackendRig) -> None:
        """Of each id that is refused; a type that makes its machines one by one may make some of the others."""
        backend = rig.connect()
        launch(rig, "l1", count=max(0, rig.room + 1 - self.kind.batch))
        before = {seen.id for seen in living(backend)}
        asked = request(rig, "big", count=rig.room + 1 - len(before))
        answers = sent(backend, asked)
        rig.settle()
        refused = {id for id, answer in answers.items() if isinstance(answer, Refused)}
        assert refused
        assert all(one.meaning == "capacity" for one in answers.values() if isinstance(one, Refused))
        assert {seen.id for seen in living(backend)} == before | (set(asked.ids) - refused)

    def test_terminate_ends_just_these_and_twice_is_no_error(self, rig: BackendRig) -> None:
        launch(rig, "l1", count=min(3, rig.room))
        backend = rig.connect()
        before = living(backend)
        victim = before[len(before) // 2]
        assert backend.terminate([victim.external_id]) == {victim.external_id: Ending()}
        assert backend.terminate([victim.external_id]) == {victim.external_id: Ending()}
        rig.settle()
        gone = [victim.external_id, "never-there"]
        assert backend.terminate(gone) == dict.fromkeys(gone, Ending())
        assert [seen.id for seen in living(backend)] == [seen.id for seen in before if seen != victim]
        assert [seen for seen in backend.instances([victim.external_id]) if seen.phase != "ended"] == []

    def test_what_ended_makes_room(self, rig: BackendRig) -> None:
        launch(rig, "l1", count=rig.room)
        backend = rig.connect()
        backend.terminate([seen.external_id for seen in living(backend)])
        rig.settle()
        assert launch(rig, "l2", count=rig.room) == [seen.id for seen in living(rig.connect())]

    def test_another_lineage_is_told_apart(self, rig: BackendRig) -> None:
        launch(rig, "l1", count=1)
        assert [seen for seen in living(rig.connect(lineage="otherlin")) if seen.lineage == "otherlin"] == []


def an_offer(backend: Backend) -> Offer:
    """What is declared is not offered: it is attached."""
    offers = backend.offers((), Where())
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


def launch(rig: BackendRig, name: str, *, count: int) -> list[str]:
    """In requests of at most a batch, each at its time. Ids of the machines."""
    backend, ids = rig.connect(), []
    size = rig.kind.batch
    for start in range(0, count, size):
        n = min(size, count - start)
        asked = request(rig, name if n == count else f"{name}{start}", count=n)
        sent(backend, asked)
        ids += asked.ids
        rig.settle()
    return ids


def sent(backend: Backend, asked: Request) -> Mapping[str, LaunchAnswer]:
    """A raised refusal is one of every id."""
    try:
        return backend.launch(backend.prepare(asked, an_offer(backend)))
    except BackendError as error:
        return dict.fromkeys(asked.ids, refusal_of(error))


def launched_or_later(backend: Backend, prepared: Request) -> None:
    """A type may refuse to be asked so often."""
    with suppress(TryLater):
        backend.launch(prepared)


def living(backend: Backend) -> Sequence[Seen]:
    return sorted((seen for seen in backend.instances() if seen.phase != "ended"), key=lambda seen: seen.id)
