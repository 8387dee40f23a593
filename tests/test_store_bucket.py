"""The state in a bucket, on real servers of every kind: the conformance suite, and what only a network does."""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable
from functools import partial

import pytest
from buckets import KINDS, Server
from store_conformance import PROJECT, Open, StoreConformance

from reconciler.objects import Objects
from reconciler.open_bucket import open_bucket
from reconciler.statefile import dumps
from reconciler.store_bucket import BucketStore, packed
from schemas.location import Bucket, location
from schemas.state import State

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
