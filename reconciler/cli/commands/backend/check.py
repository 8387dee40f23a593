"""`dstack backend check`: run a backend's checks one by one, each with what to do next."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterable, Iterator

from backends.checks import BackendCheck
from backends.registry import probes
from reconciler.app.connections import surroundings
from reconciler.app.stores import store_of
from reconciler.cli.commands.backend import here
from reconciler.cli.commands.backend.buckets import credentials_said, opened_by
from reconciler.cli.commands.backend.run_checks import CheckResult, looked
from reconciler.cli.exits import Fail, Finished
from reconciler.cli.project import documents_of, project_root, site_of, state_if_any
from reconciler.cli.terminal.streams import out, painter, say
from reconciler.hosts.ssh.declared_hosts import reach_from
from reconciler.system.process import who
from schemas.desired import BackendConfig, Desired

MARKS = {"ok": "ok", "failed": "FAILED", "not known": "?"}


def check_backends(name: str, *, as_json: bool) -> int:
    """1 where anything failed. What is not known is no failure."""
    documents = documents_of(project_root())
    where = site_of(documents)
    found: list[CheckResult] = []

    def told(backend: str, asked: Iterable[BackendCheck]) -> None:
        for one in looked(backend, asked, clock=time.monotonic):
            found.append(one)
            if not as_json:
                _show(one)

    told(here.NAME, here.probes_here(where, documents.desired, os.environ))
    state = state_if_any(where)
    around = surroundings(
        where,
        lineage=state.lineage if state else "",
        address=store_of(where).address if where.project else "",
        reach=reach_from(where.root, who=who()),
    )
    opened = opened_by(where)
    for config, regions in _chosen(documents.desired, name):
        mine = tuple(bucket for bucket, by in opened.items() if by.backend in ("", config.name))
        asked = (probes(config, regions, around, buckets=mine), credentials_said(config, opened))
        for each in asked:
            told(config.name, each)
    if as_json:
        from reconciler.report.json import dump

        out(dump({"version": 1, "checks": [_json(one) for one in found]}))
    failed = [one for one in found if one.verdict == "failed"]
    if failed:
        say(f"{len(failed)} of {len(found)} failed: {', '.join(dict.fromkeys(one.name for one in failed[:5]))}")
        raise Finished(1)
    return 0


def _chosen(desired: Desired, name: str) -> Iterator[tuple[BackendConfig, tuple[str, ...]]]:
    """Each backend with its regions; a declared server is a place, and so one of its own."""
    from reconciler.state.host_place import config_of

    hosts = [(config_of(host), (host.region,)) for pool in desired.pools for host in pool.hosts]
    known = [*((config, config.regions) for config in desired.backends), *hosts]
    found = [(config, regions) for config, regions in known if name in ("", config.name, config.type)]
    if not found:
        names = ", ".join(dict.fromkeys(config.name for config, _ in known))
        raise Fail(f"no backend {name}; there are {names}")
    yield from found


def _show(one: CheckResult) -> None:
    paint = painter(sys.stdout)
    mark = MARKS[one.verdict]
    shade = {"ok": "green", "failed": "red", "not known": "dim"}[one.verdict]
    out(f"{paint(f'{mark:<7}', shade)}{one.backend} {one.name} ({one.seconds:.1f}s): {one.said}\n")
    if one.then:
        out(f"       next: {one.then}\n")


def _json(one: CheckResult) -> dict[str, object]:
    return {
        "backend": one.backend,
        "check": one.name,
        "status": one.verdict,
        "seconds": round(one.seconds, 3),
        "said": one.said,
        "next": one.then,
    }
