"""Run checks one by one, with the time that each takes and what to do next."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Literal

from backends.checks import BackendCheck, NotKnown
from backends.errors import CallFailed
from reconciler.text.format import clean

Verdict = Literal["ok", "failed", "not known"]


@dataclass(frozen=True, kw_only=True)
class CheckResult:
    """What one probe gave. `seconds` it took; `then` is "" where nothing needs doing."""

    backend: str
    name: str
    verdict: Verdict
    seconds: float
    said: str
    then: str = ""


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
