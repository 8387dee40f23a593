"""Build the real `Ports` of one project: its stores, places, hosts and clock."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from reconciler.app.site import Site
from reconciler.app.stores import artifacts_of, blobs_of, deliveries_of, ledger_of, markers_of, scratch_of, store_of
from reconciler.store.ledger.folder import Telling
from reconciler.system.concurrent import Asking, unheard
from reconciler.system.process import boot_clock, boot_time, nonce, now, spawn, who

if TYPE_CHECKING:
    from reconciler.engine.ports import Ports
    from reconciler.hosts.ssh.declared_hosts import SshReach
    from reconciler.state.authority import GitFacts
    from reconciler.store.blobs.bucket import Told
    from schemas.desired import Desired
    from schemas.run import Container, RunSpec
    from schemas.state import Applied, Revision


def wire(
    site: Site,
    *,
    environ: Mapping[str, str],
    unattended: bool,
    told: Told | None = None,
    reach: SshReach | None = None,
    asking: Asking = unheard,
    now: Callable[[], int] = now,
) -> Ports:
    """Ports on the real world. Nothing is read or made until they are used. `reach`: whose connections are shared.

    `now` is this machine's clock, in Unix seconds.
    """
    from backends.registry import regions
    from reconciler.app.connections import connector, transports
    from reconciler.engine.catalog import catalog_of
    from reconciler.engine.expire_blobs import tidying
    from reconciler.engine.ports import Ports
    from reconciler.hosts.shell_runner import HostRunner
    from reconciler.hosts.ssh.declared_hosts import reach_from
    from reconciler.store.blobs.bundle import bundle

    store, ledger, reach = store_of(site), ledger_of(site), reach or reach_from(site.root, who=who(), environ=environ)
    blobs, artifacts, deliveries = blobs_of(site, told=told), artifacts_of(site, told=told), deliveries_of(site)
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
        connect=connector(site, address=store.address, environ=environ, reach=reach, now=now),
        regions=regions,
        runner=HostRunner(transports(environ, reach), scratch=scratch_of(site), shown=reach.shown, seal=reach.seal),
        now=now,
        boot_time=boot_time,
        clock=boot_clock,
        sleep=time.sleep,
        nonce=nonce,
        spawn=spawn,
        who=who(),
        lacking=lacking_here(site, environ=environ),
        undeclared=undeclared_anywhere,
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


def undeclared_anywhere(spec: RunSpec, desired: Desired) -> str:
    """Why no machine has what the run needs, as the documents stand."""
    if not (spec.env or spec.container):
        return ""
    from reconciler.secrets.resolve import undeclared

    return undeclared(spec, desired)


def _resolver(site: Site, *, environ: Mapping[str, str]) -> Callable[[RunSpec, Desired], Mapping[str, str]]:
    def resolve(spec: RunSpec, desired: Desired) -> Mapping[str, str]:
        from reconciler.secrets.project_key import project_key
        from reconciler.secrets.resolve import resolve as resolved

        key = project_key(site.keys, environ=environ, mint=False) if spec.sealed else None
        return resolved(spec, desired, environ, key, root=site.root, parameter=_parameters(desired))

    return resolve


def _parameters(desired: Desired) -> Callable[[str, str], str]:
    """Of the declared backends' accounts."""

    def parameter(kind: str, name: str) -> str:
        from backends.registry import parameter as asked

        return asked(kind, name, desired.backends)

    return parameter


def _filler(site: Site, *, environ: Mapping[str, str]) -> Callable[[Container, Desired], Container]:
    def fill(container: Container, desired: Desired) -> Container:
        from reconciler.secrets.project_key import project_key
        from reconciler.secrets.resolve import fill as filled

        key = project_key(site.keys, environ=environ, mint=False) if container.sealed else None
        return filled(container, desired, environ, key, root=site.root, parameter=_parameters(desired))

    return fill


def _facts(site: Site) -> Callable[[Revision, Applied], GitFacts | None]:
    def facts(mine: Revision, applied: Applied) -> GitFacts | None:
        from reconciler.config.git_revision import facts_of

        return facts_of(site.root, mine, applied.revision, authority=site.authority)

    return facts
