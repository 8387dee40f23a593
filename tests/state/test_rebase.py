"""Results are folded into whatever the state has become meanwhile: they overwrite nothing."""

from __future__ import annotations

from pathlib import Path

from msgspec.structs import replace

from reconciler.engine.write_state import land
from schemas.state import State, Tombstone
from tests.worlds.world import Site, apply, desired, task


def noted(state: State, id: str) -> State:
    return replace(state, tombstones=(*state.tombstones, Tombstone(id=id, kind="run", at=1, why="a test")))


def test_two_results_at_once_are_both_remembered(tmp_path: Path) -> None:
    site = Site(scratch=tmp_path)
    apply(site, desired(runs=[task("train")]))
    before = site.state.generation
    site.store.before_write = lambda: land(site.ports(who="bob@ci"), lambda state: noted(state, "bobs"))
    land(site.ports(), lambda state: noted(state, "anns"))
    assert {stone.id for stone in site.state.tombstones} == {"anns", "bobs"}
    assert site.state.generation == before + 2
