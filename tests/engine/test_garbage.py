"""`gc` asks an account-wide backend once an account, whatever regions and backends are declared."""

from __future__ import annotations

from pathlib import Path

import pytest
from msgspec.structs import replace

from backends.errors import BackendError, PartlyListed
from backends.fake.backend import Fault
from reconciler.engine.garbage import GarbageQuestion, ask_everywhere
from reconciler.engine.ports import Connections
from schemas.backend_types import TYPES
from schemas.leftover import Leftover
from schemas.pool import Pool
from tests.worlds.world import Site, apply, desired

POOL = Pool(name="default-pool", default=True, nodes_min=1)


def a_site(tmp_path: Path, kind: str) -> Site:
    site = Site(scratch=tmp_path, kind=TYPES[kind])
    apply(site, desired(pools=[POOL]))
    return site


def asked(site: Site) -> GarbageQuestion:
    return ask_everywhere(site.ports(), site.state, Connections(site.ports(), site.state.lineage))


@pytest.mark.parametrize(("kind", "times"), [("fake-account", 1), ("fake", 3)])
def test_regions_of_one_account_are_asked_once_where_one_answer_is_of_all(
    tmp_path: Path, kind: str, times: int
) -> None:
    site = a_site(tmp_path, kind)
    applied = site.state.applied
    assert applied is not None
    (config,) = applied.desired.backends
    wide = replace(config, regions=("r1", "r2", "r3"))
    state = replace(
        site.state,
        applied=replace(applied, desired=replace(applied.desired, backends=(wide,))),
        places=tuple(replace(place, config=wide) for place in site.state.places),
    )
    before = site.world.calls["leftovers"]
    found = ask_everywhere(site.ports(), state, Connections(site.ports(), state.lineage))
    assert (found.whole, len(found.found)) == (True, times)
    assert site.world.calls["leftovers"] - before == times


def test_two_backends_of_one_account_are_asked_once(tmp_path: Path) -> None:
    site = a_site(tmp_path, "fake-account")
    applied = site.state.applied
    assert applied is not None
    (config,) = applied.desired.backends
    other = replace(config, name="again")
    state = replace(site.state, applied=replace(applied, desired=replace(applied.desired, backends=(config, other))))
    before = site.world.calls["leftovers"]
    found = ask_everywhere(site.ports(), state, Connections(site.ports(), state.lineage))
    assert (found.whole, len(found.found), site.world.calls["leftovers"] - before) == (True, 1, 1)


def test_what_a_place_refuses_hides_neither_its_machines_nor_the_rest(tmp_path: Path) -> None:
    site = a_site(tmp_path, "fake")
    volume = Leftover(kind="volume", place=site.state.places[0].name, id="v")
    site.world.faults.append(Fault(call="leftovers", error=PartlyListed([volume], {"address": "denied"})))
    found = asked(site)
    assert (found.silent, list(found.refused.values()), found.whole) == ({}, [{"address": "denied"}], False)
    assert [one.id for one in found.found[0].others] == ["v"]
    site.world.faults.append(Fault(call="leftovers", error=BackendError("denied")))
    found = asked(site)
    assert list(found.refused.values()) == [{"": "denied"}]
    assert len(found.found[0].instances) == 1


def test_a_backend_that_may_not_list_leaves_its_account_to_the_next(tmp_path: Path) -> None:
    site = a_site(tmp_path, "fake-account")
    applied = site.state.applied
    assert applied is not None
    (config,) = applied.desired.backends
    other = replace(config, name="again")
    state = replace(site.state, applied=replace(applied, desired=replace(applied.desired, backends=(config, other))))
    site.world.faults.append(Fault(call="instances", error=BackendError("denied")))
    found = ask_everywhere(site.ports(), state, Connections(site.ports(), state.lineage))
    assert (list(found.silent.values()), [len(one.instances) for one in found.found]) == (["denied"], [1])
    volume = Leftover(kind="volume", place=site.state.places[0].name, id="v")
    site.world.faults += [
        Fault(call="leftovers", error=PartlyListed([], {"volume": "denied"})),
        Fault(call="leftovers", error=PartlyListed([volume], {})),
    ]
    found = ask_everywhere(site.ports(), state, Connections(site.ports(), state.lineage))
    assert sorted(len(one.instances) for one in found.found) == [0, 1]
    assert [one.id for contents in found.found for one in contents.others] == ["v"]
