"""The state in a bucket, on real servers of every kind: the conformance suite, and what only a network does."""

from __future__ import annotations

import gzip
import itertools
import os
import time
from collections.abc import Callable, Iterator
from functools import partial

import pytest

from reconciler.state.errors import StateMoved, StateRefused
from reconciler.store.bucket import BucketStore, nonce_of, packed, unpacked
from reconciler.store.moved_pointer import pointer
from reconciler.store.objects.base import Objects, ObjectsError
from reconciler.store.objects.open import open_bucket
from reconciler.store.statefile import dumps
from schemas.location import Bucket, location
from schemas.state import State
from tests.contracts.store_conformance import PROJECT, Open, StoreConformance, a_state
from tests.doubles.buckets.buckets import AZURE_KEY, KINDS, Server
from tests.doubles.buckets.fault_proxy import Fault, FaultProxy
from tests.worlds.own_ports import free_port

NUMBERS = itertools.count()


def objects_at(url: str, environ: dict[str, str]) -> Objects:
    where = location(url)
    assert isinstance(where, Bucket)
    return open_bucket(where, environ=environ)


def store_at(url: str, environ: dict[str, str]) -> BucketStore:
    return BucketStore(objects_at(url, environ), PROJECT)


@pytest.fixture(params=KINDS)
def server(request: pytest.FixtureRequest, server_of: Callable[[str], Server]) -> Server:
    return server_of(request.param)


@pytest.fixture
def bucket(server: Server) -> str:
    """A prefix that nothing else uses, as a `state:`."""
    return server.state("first-bucket", f"team-{os.getpid()}-{next(NUMBERS)}/states")


class TestBucketStore(StoreConformance):
    @pytest.fixture
    def opened(self, server: Server, bucket: str) -> Open:
        return partial(store_at, bucket, server.environ)

    def overwrite(self, opened: Open, state: State) -> None:
        assert isinstance(opened, partial)
        objects_at(*opened.args).put(f"{PROJECT}.yml.gz", packed(dumps(state), nonce="00"))


# ---------------------------------------------------------------- what a network does


class Wire:
    """A store behind a proxy that does to each PUT of a list what that list says, in turn."""

    def __init__(self, server: Server, bucket: str, *, puts: list[Fault]) -> None:
        self.puts = list(puts)
        self.proxy = FaultProxy(server.port, choose=self._choose)
        self.slept: list[float] = []
        objects = objects_at(bucket, server.at(self.proxy.port))
        self.store = BucketStore(objects, PROJECT, sleep=self.slept.append)

    def _choose(self, method: str, path: str, number: int) -> Fault:
        writes = method == "PUT" or (method == "POST" and "upload" in path)
        return self.puts.pop(0) if writes and self.puts else ""


@pytest.fixture
def wire(server: Server, bucket: str) -> Iterator[Callable[[list[Fault]], Wire]]:
    made: list[Wire] = []

    def make(puts: list[Fault]) -> Wire:
        made.append(Wire(server, bucket, puts=puts))
        return made[-1]

    yield make
    for one in made:
        one.proxy.close()


@pytest.mark.parametrize(
    "faults",
    [["lose answer"], ["reset"], ["refuse"], ["503"], ["503", "lose answer"], ["refuse", "refuse", "reset"]],
    ids=" ".join,
)
def test_a_write_of_unknown_end_is_settled(
    wire: Callable[[list[Fault]], Wire], opened_plain: Open, faults: list[Fault]
) -> None:
    first = opened_plain().write(a_state(1), "")
    other = wire(faults)
    token = other.store.write(a_state(2), first)
    assert opened_plain().read() == (a_state(2), token)
    assert len(other.slept) == len(faults)
    assert other.store.write(a_state(3), token)


@pytest.fixture
def opened_plain(server: Server, bucket: str) -> Open:
    return partial(store_at, bucket, server.environ)


def test_a_lost_creation_is_settled_too(wire: Callable[[list[Fault]], Wire], opened_plain: Open) -> None:
    token = wire(["lose answer"]).store.write(a_state(1), "")
    assert opened_plain().read() == (a_state(1), token)


def test_somebody_elses_write_is_never_taken_for_ours(wire: Callable[[list[Fault]], Wire], opened_plain: Open) -> None:
    """Our request never arrives; before we look, another writes the very same state."""
    first = opened_plain().write(a_state(1), "")
    mine = wire(["refuse"])
    mine.store._sleep = lambda seconds: opened_plain().write(a_state(2), first)
    with pytest.raises(StateMoved):
        mine.store.write(a_state(2), first)


def test_ours_and_then_another_is_moved(wire: Callable[[list[Fault]], Wire], opened_plain: Open) -> None:
    """Ours was written, and overwritten before we looked: planned again on what it has become."""
    first = opened_plain().write(a_state(1), "")
    mine = wire(["lose answer"])

    def other(seconds: float) -> None:
        _, token = opened_plain().read()
        opened_plain().write(a_state(3), token)

    mine.store._sleep = other
    with pytest.raises(StateMoved):
        mine.store.write(a_state(2), first)
    assert opened_plain().read()[0] == a_state(3)


def test_a_write_that_arrives_late_finds_itself_overtaken(
    wire: Callable[[list[Fault]], Wire], opened_plain: Open
) -> None:
    """The first try hangs somewhere while the second one lands: when it comes at last, its condition does not hold."""
    first = opened_plain().write(a_state(1), "")
    mine = wire(["late"])
    token = mine.store.write(a_state(2), first)
    third = opened_plain().write(a_state(3), token)
    (answer,) = mine.proxy.arrive()
    assert b" 412 " in answer
    assert opened_plain().read() == (a_state(3), third)


def test_after_enough_tries_it_says_that_it_does_not_know(
    wire: Callable[[list[Fault]], Wire], opened_plain: Open
) -> None:
    first = opened_plain().write(a_state(1), "")
    mine = wire(["refuse"] * 99)
    with pytest.raises(StateRefused, match="whether it was written is not known"):
        mine.store.write(a_state(2), first)
    assert opened_plain().read()[0] == a_state(1)


def test_gcs_one_answer_holds_content_and_generation(server_of: Callable[[str], Server]) -> None:
    """Asked for in two steps, as once, what another writes between them was "there is no state"."""
    server = server_of("fake-gcs")
    url = server.state("first-bucket", f"once-{os.getpid()}-{next(NUMBERS)}")
    other = objects_at(url, server.environ)
    tags = [other.put("x", b"0")]

    def between(method: str, path: str, number: int) -> Fault:
        tags.append(other.put("x", str(number).encode()))
        return ""

    proxy = FaultProxy(server.port, choose=between)
    found = objects_at(url, server.at(proxy.port)).get("x")
    proxy.close()
    assert found is not None
    assert (proxy.methods(), found.data, found.tag) == (["GET"], b"1", tags[-1])


def test_every_server_says_what_time_it_is(server: Server, bucket: str) -> None:
    proxy = FaultProxy(server.port)
    said = store_at(bucket, server.at(proxy.port)).date()
    proxy.close()
    assert said is not None
    assert abs(said - time.time()) < 30
    assert proxy.methods() == ["HEAD"]


def test_a_server_that_says_no_time(server: Server, bucket: str) -> None:
    port = free_port()
    store = store_at(bucket, server.at(port))
    assert (store.date(), store.date(), len(store.notes)) == (None, None, 1)
    assert "by our clock alone" in store.notes[0]


# ---------------------------------------------------------------- what is refused, and in which words

SECRETS = ("testsecret", AZURE_KEY, "sig=", "Signature")


def test_a_bucket_that_is_not_there_is_not_an_empty_one(server: Server) -> None:
    store = store_at(server.state("no-such-bucket-here"), server.environ)
    with pytest.raises(StateRefused, match="no such bucket") as refused:
        store.read()
    assert not any(secret in str(refused.value) for secret in SECRETS)


def test_a_server_that_is_not_there(server: Server, bucket: str) -> None:
    port = free_port()
    objects = objects_at(bucket, server.at(port))
    with pytest.raises(ObjectsError, match=r"the connection was refused|no answer") as refused:
        objects.put("x", b"", tag="")  # a write on a condition is not tried again by itself
    assert not any(secret in str(refused.value) for secret in SECRETS)


def test_azure_says_no_to_another_key(server_of: Callable[[str], Server]) -> None:
    azure = server_of("azurite")
    environ = {**azure.environ, "AZURE_STORAGE_ACCOUNT_KEY": "AAAA" + AZURE_KEY[4:]}
    with pytest.raises(StateRefused, match="AuthorizationFailure") as refused:
        store_at(azure.state("first-bucket"), environ).read()
    assert not any(secret in str(refused.value) for secret in (*SECRETS, AZURE_KEY[4:]))


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"not gzip at all", "damaged: not a gzip file"),
        (packed(dumps(a_state(4)), nonce="00")[:-20], "truncated"),
        (packed(b"", nonce="00"), "empty"),
        (packed(pointer(a_state(4), to="s3://elsewhere/x"), nonce="00"), "state: s3://elsewhere/x"),
        (packed(dumps(a_state(4, project="another12")), nonce="00"), "project another12"),
    ],
)
def test_what_is_no_state_of_ours_is_refused(server: Server, bucket: str, data: bytes, says: str) -> None:
    objects_at(bucket, server.environ).put(f"{PROJECT}.yml.gz", data)
    with pytest.raises(StateRefused, match=says):
        store_at(bucket, server.environ).read()


def test_an_unreadable_one_is_superseded_and_kept(server: Server, bucket: str) -> None:
    objects = objects_at(bucket, server.environ)
    objects.put(f"{PROJECT}.yml.gz", b"noise")
    store = store_at(bucket, server.environ)
    kept = store.supersede(a_state(9), now=77)
    assert kept == f"{bucket}/{PROJECT}.yml.gz.before-rebuild-77"
    found = objects.get(f"{PROJECT}.yml.gz.before-rebuild-77")
    assert found is not None
    assert found.data == b"noise"
    assert store_at(bucket, server.environ).read()[0] == a_state(9)


@pytest.mark.parametrize("data", [b"", b"x", bytes(range(256)) * 999])
def test_packed_and_unpacked(data: bytes) -> None:
    stored = packed(data, nonce="0a1b")
    assert unpacked(stored, "x") == data
    assert nonce_of(stored) == "0a1b"
    assert gzip.decompress(stored) == b"# dstack 0a1b\n" + data
