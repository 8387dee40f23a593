"""`dstack state migrate | rollback`: move the state, or restore an earlier one."""

from __future__ import annotations

import os
from dataclasses import replace as changed

from msgspec.structs import replace

from reconciler.app.site import Site
from reconciler.app.stores import blobs_of, ledger_of, markers_of, store_of
from reconciler.cli.exits import Fail
from reconciler.cli.project import ports_of, site
from reconciler.cli.terminal.streams import must_agree, out, say
from reconciler.cli.terminal.transfer_bar import Transfer
from reconciler.state.errors import StateRefused
from reconciler.state.status import alive
from reconciler.store.blobs.folder import BlobError
from reconciler.store.bucket import BucketStore
from reconciler.store.statefile import loads
from reconciler.system.process import now
from reconciler.text.format import ago, counted, stamp
from schemas.location import Bucket, location
from schemas.state import State

MARGIN = 100  # as after a rebuild: a writer may have got further than any tag shows


def migrate_state(to: str, *, yes: bool) -> int:
    """Verified copies of everything, then the old one is sealed."""
    from reconciler.store.migrate import Memory, migrate

    old = site()
    kept = old.state_backend if _scheme(to) == _scheme(old.state) else ""
    new = changed(old, state=to, state_backend=kept)
    if _same(old, new):
        raise Fail(f"{to}: that is where the state lies now")
    must_agree(f"Move the state of this project from {store_of(old).address} to {store_of(new).address}?", yes=yes)
    with Transfer() as transfer:

        def memory(where: Site, url: str) -> Memory:
            return Memory(
                url=url,
                store=store_of(where, moving=True),
                blobs=blobs_of(where, told=transfer.told),
                markers=markers_of(where),
                ledger=ledger_of(where),
            )

        try:
            done = migrate(memory(old, old.state), memory(new, _written(to)), tell=transfer.say)
        except BlobError as error:
            raise Fail(f"{error}; the old state still rules: try again") from error
    copied = f"{counted(done.blobs, 'blob')}, {counted(done.markers, 'marker')} and "
    copied += counted(done.entries, "entry", several="entries")
    out(f"{store_of(new).address}: moved ({copied}); the old one is sealed\n")
    written = f"{{url: {_written(to)}, backend: {kept}}}" if kept else _written(to)
    say(f"now write `state: {written}` in .dstack, and commit it: until then every command says where it went")
    return 0


def _written(to: str) -> str:
    where = location(to)
    return where.url if isinstance(where, Bucket) else os.path.expanduser(to)


def _scheme(text: str) -> str:
    where = location(text)
    return where.scheme if isinstance(where, Bucket) else ""


def _same(old: Site, new: Site) -> bool:
    return store_of(old).address == store_of(new).address


def list_versions() -> int:
    """What the bucket keeps, the newest first."""
    store = _versioned(site())
    found = store.versions()
    if not found:
        raise Fail(f"{store.address}: the bucket keeps no versions of it; turn versioning on for the next time")
    for one in found:
        out(f"{one.id}  {stamp(one.at)}  {ago(one.at, now=now())}\n")
    say("`dstack state rollback VERSION` puts one back")
    return 0


def rollback_state(version: str, *, yes: bool) -> int:
    """That version again, its generation above every tag and fence that is to be seen."""
    where = site()
    store = _versioned(where)
    chosen = loads(store.version(version), f"{store.address} version {version}")
    current = _current(store)
    if chosen.project != where.project or (current is not None and current.lineage != chosen.lineage):
        raise Fail(f"version {version} is of another project or lineage than the state there")
    highest, strange = _seen(where, chosen)
    generation = max(highest, current.generation if current else 0, chosen.generation) + MARGIN
    say(f"version {version}: generation {chosen.generation}, {counted(sum(map(alive, chosen.instances)), 'instance')}")
    if strange:
        say(f"warning: it does not know {', '.join(strange)}: they are left alone, and counted; `dstack gc` ends them")
    must_agree(f"Put it back, as generation {generation}?", yes=yes)
    kept = store.supersede(replace(chosen, generation=generation), now=now())
    out(f"{store.address}: rolled back to version {version}, generation {generation}\n")
    if kept:
        say(f"note: what was there is kept as {kept}")
    return 0


def _versioned(where: Site) -> BucketStore:
    store = store_of(where)
    if not isinstance(store, BucketStore):
        raise Fail(f"{store.address}: a file has no versions; put a copy back with `dstack state push FILE`")
    return store


def _current(store: BucketStore) -> State | None:
    try:
        return store.read()[0]
    except StateRefused as error:
        say(f"note: {error}")
        return None


def _seen(where: Site, chosen: State) -> tuple[int, list[str]]:
    """The highest generation that an instance or a host carries, and living instances that `chosen` does not know."""
    from reconciler.engine.observe import observe
    from reconciler.engine.ports import Connections

    ports = ports_of(where)
    observed = observe(ports, chosen, Connections(ports, chosen.lineage))
    silent = [listing for listing in observed.listings if listing.error]
    if silent:
        raise Fail(f"{silent[0].place} cannot say what lives there ({silent[0].error}): try again when it answers")
    seen = [one for listing in observed.listings for one in listing.instances]
    known = {one.id for one in chosen.instances}
    strange = sorted(one.id or one.external_id for one in seen if one.phase != "ended" and one.id not in known)
    fences = (report.generation for report in observed.reports if not report.error)
    return max((*(one.generation for one in seen), *fences), default=0), strange
