"""The real world for one project: its store, its places, its hosts, the clock. The only place that builds `Ports`."""

from __future__ import annotations

import getpass
import os
import secrets
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from reconciler.store.base import StateRefused, Store
from reconciler.store.blobs.folder import Blobs, FolderBlobs
from reconciler.store.folder import FolderStore
from reconciler.store.ledger.folder import FolderLedger, Ledger, Telling
from reconciler.store.markers.folder import Markers
from reconciler.system.concurrent import Asking, unheard
from schemas.location import Bucket, Location, location

if TYPE_CHECKING:
    from reconciler.engine.ports import Ports
    from reconciler.hosts.ssh.declared_hosts import SshReach
    from reconciler.hosts.uploads import Deliveries
    from reconciler.state.authority import GitFacts
    from reconciler.store.blobs.bucket import Told
    from reconciler.store.markers.bucket import BucketMarkers
    from schemas.desired import Desired
    from schemas.run import Container, RunSpec
    from schemas.state import Applied, Revision

NONCE_LETTERS = "abcdefghijklmnopqrstuvwxyz0123456789"
STATE = ".dstack/state"
KEYS = ".dstack/keys"


@dataclass(frozen=True, kw_only=True)
class Site:
    """A project where it lies: `root` holds `.dstack`, `state` is as written in the documents ("" is the default).

    `artifacts` is `artifact_store` as written: where artifacts go when the state is a folder.
    """

    root: Path
    project: str
    state: str = ""
    authority: str = ""
    artifacts: str = ""

    @property
    def location(self) -> Location:
        """Of the state. `StateRefused` where it is none."""
        return _location(self.state, key="state")

    @property
    def folder(self) -> Path:
        """Of the state; with a state in a bucket, of what is kept of it here: copies only."""
        where = self.location
        if isinstance(where, Bucket) or not where.path:
            return self.root / STATE
        return self.root / Path(where.path).expanduser()

    @property
    def beside(self) -> Path:
        """Where blobs, done-markers and the ledger lie. A folder that was named may hold several projects."""
        where = self.location
        named = not isinstance(where, Bucket) and where.path
        return self.folder / self.project if named else self.folder

    @property
    def keys(self) -> Path:
        return self.root / KEYS


def store_of(site: Site, *, moving: bool = False) -> Store:
    """The project's state, wherever it lies. Nothing is read yet. `moving`: one in the checkout is no surprise."""
    where = site.location
    if isinstance(where, Bucket):
        from reconciler.app import bucket_parts as beside_bucket

        before = None if moving else site.root / STATE / f"{site.project}.yml"
        return beside_bucket.store(where, site.project, before=before)
    return FolderStore(site.folder, site.project)


def blobs_of(site: Site, *, told: Told | None = None) -> Blobs:
    """The files, logs and artifacts of runs. `told` hears of large transfers."""
    where = site.location
    if isinstance(where, Bucket):
        from reconciler.app import bucket_parts as beside_bucket

        return beside_bucket.blobs(where, site.project, cache=scratch_of(site), told=told)
    return FolderBlobs(scratch_of(site))


def artifacts_of(site: Site, *, told: Told | None = None) -> Blobs:
    """Where artifacts go: beside the state, or with a state in a folder to `artifact_store`."""
    beside = blobs_of(site, told=told)
    if not site.artifacts or isinstance(site.location, Bucket):
        return beside
    from reconciler.app import bucket_parts as beside_bucket

    where = _location(site.artifacts, key="artifact_store")
    cache = scratch_of(site)
    return beside_bucket.apart(where, site.project, root=site.root, beside=beside, cache=cache, told=told)


def scratch_of(site: Site) -> Path:
    """Where temporary files lie: the folder of the blobs, which sweeps what a killed process left there."""
    return site.beside / "blobs"


def markers_of(site: Site) -> Markers | BucketMarkers:
    where = site.location
    if isinstance(where, Bucket):
        from reconciler.app import bucket_parts as beside_bucket

        return beside_bucket.markers(where, site.project)
    return Markers(site.beside / "done")


def ledger_of(site: Site) -> Ledger:
    """What happened and what it cost, by month."""
    where = site.location
    if isinstance(where, Bucket):
        from reconciler.app import bucket_parts as beside_bucket

        return beside_bucket.ledger(where, site.project)
    return FolderLedger(site.beside / "ledger")


def _deliveries(site: Site) -> Deliveries | None:
    """How hosts put results themselves; with a state in a folder they cannot."""
    where = site.location
    if not isinstance(where, Bucket):
        return None
    from reconciler.app import bucket_parts as beside_bucket

    return beside_bucket.deliveries(where, site.project, scratch=scratch_of(site))


def _location(text: str, *, key: str) -> Location:
    try:
        return location(text)
    except ValueError as error:
        raise StateRefused(f"{key}: {error}") from None


def wire(
    site: Site, *, environ: Mapping[str, str], unattended: bool, told: Told | None = None,
    reach: SshReach | None = None, asking: Asking = unheard,
) -> Ports:  # fmt: skip
    """Ports on the real world. Nothing is read or made until they are used. `reach`: whose connections are shared."""
    from backends.registry import regions
    from reconciler.app.connections import connector, transports
    from reconciler.engine.catalog import catalog_of
    from reconciler.engine.expire_blobs import tidying
    from reconciler.engine.ports import Ports
    from reconciler.hosts.shell_runner import HostRunner
    from reconciler.hosts.ssh.declared_hosts import reach_from
    from reconciler.store.blobs.bundle import bundle

    store, ledger, reach = store_of(site), ledger_of(site), reach or reach_from(site.root, who=who(), environ=environ)
    blobs, artifacts, deliveries = blobs_of(site, told=told), artifacts_of(site, told=told), _deliveries(site)
    apart = [blobs, artifacts] if site.artifacts else [blobs]
    return Ports(
        store=store,
        blobs=blobs,
        artifacts=artifacts,
        tidy=tidying(apart, deliveries=deliveries, store=store, ledger=ledger, now=now),
        markers=markers_of(site),
        deliver=deliveries.requests if deliveries else None,
        delivered=deliveries.result if deliveries else None,
        record=Telling(ledger),
        connect=connector(site, address=store.address, environ=environ, reach=reach),
        regions=regions,
        runner=HostRunner(transports(environ, reach), scratch=scratch_of(site), shown=reach.shown, seal=reach.seal),
        now=now,
        clock=boot_clock,
        sleep=time.sleep,
        nonce=nonce,
        spawn=spawn,
        who=who(),
        lacking=lacking_here(site, environ=environ),
        resolve=_resolver(site, environ=environ),
        fill=_filler(site, environ=environ),
        bundle=lambda root, files, never: bundle(root, files, scratch=scratch_of(site), never=never),
        facts=_facts(site),
        unattended=unattended,
        asking=asking,
        catalog=lambda desired: catalog_of(desired, environ, now=now()),
    )


def lacking_here(site: Site, *, environ: Mapping[str, str]) -> Callable[[RunSpec, Desired], str]:
    """Why a run's secrets or variables are not to be had on this machine."""

    def lacking(spec: RunSpec, desired: Desired) -> str:
        if not (spec.env or spec.sealed or spec.container):
            return ""
        from reconciler.secrets.resolve import lacking as missing

        has_key = bool(environ.get("DSTACK_PROJECT_KEY")) or (site.keys / "project.key").exists()
        return missing(spec, desired, environ, root=site.root, has_key=has_key)

    return lacking


@dataclass(frozen=True)
class OwnThreads:
    """`reconciler.system.concurrent.Threads` of whoever has no ports."""

    clock: Callable[[], float] = lambda: boot_clock()
    spawn: Callable[[Callable[[], None]], object] = lambda work: spawn(work)


def now() -> int:
    return int(time.time())


def boot_clock() -> float:
    """Seconds that also count while the machine sleeps, where the system tells them."""
    kind = getattr(time, "CLOCK_BOOTTIME", None)
    return time.monotonic() if kind is None else time.clock_gettime(kind)


def nonce() -> str:
    return "".join(secrets.choice(NONCE_LETTERS) for _ in range(8))


def spawn(work: Callable[[], None]) -> object:
    """On a daemon thread: a late answer must not hold up the end of the process."""
    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    return thread


def who() -> str:
    """`user@host`, for people to know whom to ask."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # a container's user without a name
        user = str(os.getuid())
    return f"{user}@{os.uname().nodename.split('.')[0]}"


def _resolver(site: Site, *, environ: Mapping[str, str]) -> Callable[[RunSpec, Desired], Mapping[str, str]]:
    def resolve(spec: RunSpec, desired: Desired) -> Mapping[str, str]:
        from reconciler.secrets.project_key import project_key
        from reconciler.secrets.resolve import resolve as resolved

        key = project_key(site.keys, environ=environ, mint=False) if spec.sealed else None
        return resolved(spec, desired, environ, key, root=site.root)

    return resolve


def _filler(site: Site, *, environ: Mapping[str, str]) -> Callable[[Container, Desired], Container]:
    def fill(container: Container, desired: Desired) -> Container:
        from reconciler.secrets.project_key import project_key
        from reconciler.secrets.resolve import fill as filled

        key = project_key(site.keys, environ=environ, mint=False) if container.sealed else None
        return filled(container, desired, environ, key, root=site.root)

    return fill


def _facts(site: Site) -> Callable[[Revision, Applied], GitFacts | None]:
    def facts(mine: Revision, applied: Applied) -> GitFacts | None:
        from reconciler.config.git_revision import facts_of

        return facts_of(site.root, mine, applied.revision, authority=site.authority)

    return facts
