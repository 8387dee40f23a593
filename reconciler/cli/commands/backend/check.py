"""`dstack backend check`: run a backend's checks one by one, each with what to do next."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import chain
from typing import Literal

from backends.checks import BackendCheck, NotKnown
from backends.errors import CallFailed
from backends.registry import probes
from reconciler.app.connections import surroundings
from reconciler.app.stores import store_of
from reconciler.cli.commands.backend.buckets import credentials_said, opened_by
from reconciler.cli.exits import Fail, Finished
from reconciler.cli.project import documents_of, project_root, site_of, state_if_any
from reconciler.cli.terminal.streams import out, painter, say
from reconciler.hosts.ssh.declared_hosts import reach_from
from reconciler.system.process import who
from reconciler.text.format import clean
from schemas.desired import BackendConfig, Desired

Verdict = Literal["ok", "failed", "not known"]
MARKS = {"ok": "ok", "failed": "FAILED", "not known": "?"}


@dataclass(frozen=True, kw_only=True)
class CheckResult:
    """What one probe gave. `seconds` it took; `then` is "" where nothing needs doing."""

    backend: str
    name: str
    verdict: Verdict
    seconds: float
    said: str
    then: str = ""


def check_backends(name: str, *, as_json: bool) -> int:
    """1 where anything failed. What is not known is no failure."""
    documents = documents_of(project_root())
    where = site_of(documents)
    state = state_if_any(where)
    found: list[CheckResult] = []
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
        for one in chain.from_iterable(looked(config.name, each, clock=time.monotonic) for each in asked):
            found.append(one)
            if not as_json:
                _show(one)
    if as_json:
        from reconciler.report.json import dump

        out(dump({"version": 1, "checks": [_json(one) for one in found]}))
    failed = [one for one in found if one.verdict == "failed"]
    if failed:
        say(f"{len(failed)} of {len(found)} failed: {', '.join(dict.fromkeys(one.name for one in failed[:5]))}")
        raise Finished(1)
    return 0


def looked(backend: str, asked: Iterable[BackendCheck], *, clock: Callable[[], float]) -> Iterator[CheckResult]:
    """Each in turn. Without credentials nothing else can be told, and nothing else is asked."""
    for probe in asked:
        began = clock()
        verdict, said, then = _verdict(probe)
        seconds = clock() - began
        yield CheckResult(
            backend=backend, name=probe.name, verdict=verdict, seconds=seconds, said=clean(said), then=then
        )
        if probe.name == "credentials" and verdict == "failed":
            return


def _verdict(probe: BackendCheck) -> tuple[Verdict, str, str]:
    try:
        return "ok", probe.look(), ""
    except NotKnown as why:
        return "not known", str(why), ""
    except CallFailed as error:
        return "failed", str(error), probe.mends(error)


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
