"""Refresh prices: gpuhunt's list and the regions' live offers, concurrently, with deadlines."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from fnmatch import fnmatchcase
from functools import partial

from backends.errors import CallFailed
from reconciler.engine.catalog import cataloged, layers
from reconciler.system.concurrent import Asking, Threads, awaited, gather, unheard
from reconciler.text.format import few
from schemas.base import Seconds
from schemas.catalog import LiveRegion
from schemas.desired import BackendConfig, Desired

LIMIT = 60.0  # seconds


def refresh(
    desired: Desired,
    environ: Mapping[str, str],
    *,
    threads: Threads,
    now: Callable[[], Seconds],
    regions: Sequence[str] = (),
    asking: Asking = unheard,
) -> list[str]:
    """What could not be had, each in one sentence. `regions` (or patterns of them) are asked alone, where given."""
    warnings: list[str] = []
    configs = cataloged(desired)
    for provider in dict.fromkeys(config.type for config in configs):
        warnings += published_again(provider, environ, now=now(), force=True, asking=asking)
    for config in configs:
        warnings += _asked(config, environ, threads=threads, now=now, regions=regions, asking=asking)
    return warnings


def freshen(desired: Desired, environ: Mapping[str, str], *, now: Seconds, asking: Asking = unheard) -> None:
    """A published list that is a day old is asked for anew; where it cannot be had, the old one does."""
    for provider in dict.fromkeys(config.type for config in cataloged(desired)):
        published_again(provider, environ, now=now, asking=asking)


def published_again(
    provider: str, environ: Mapping[str, str], *, now: Seconds, force: bool = False, asking: Asking = unheard
) -> list[str]:
    """Once a day, unless forced. Why there is no younger list."""
    from backends.catalog.cache import cache_of
    from backends.catalog.refresh import refresh_published

    asking((f"gpuhunt's prices of {provider}",), 1)
    try:
        why = refresh_published(provider, cache_of(environ), environ, now=now, force=force)
    finally:
        asking((), 0)
    return [f"no younger prices from gpuhunt: {why}"] if why else []


def _asked(
    config: BackendConfig,
    environ: Mapping[str, str],
    *,
    threads: Threads,
    now: Callable[[], Seconds],
    regions: Sequence[str],
    asking: Asking,
) -> Iterator[str]:
    """Each region that may be used; what they told is kept, whatever the others did."""
    from backends.catalog.cache import cache_of
    from backends.catalog.refresh import keep_regions
    from backends.registry import live_region
    from backends.registry import regions as every_region

    asking((config.name,), 1)
    try:
        names = config.regions or tuple(every_region(config))
    except CallFailed as error:
        yield f"{config.name} was not asked for its own prices: {error}"
        return
    finally:
        asking((), 0)
    names = tuple(name for name in names if not regions or any(fnmatchcase(name, each) for each in regions))
    known = layers(config, environ, now=now())
    tasks = {name: partial(live_region, config, name, known, now=now()) for name in names}
    places = {name: f"{config.name} {name}" for name in tasks}
    answers = dict(awaited(gather(threads, tasks, limit=LIMIT), places, asking=asking))
    told = {name: answer for name, answer in answers.items() if isinstance(answer, LiveRegion)}
    alike: dict[str, list[str]] = {}
    for name in names:
        if why := _trouble(answers.get(name)):
            alike.setdefault(why, []).append(name)
    yield from (f"{config.name} {few(where)}: {why}" for why, where in alike.items())
    if why := keep_regions(config, cache_of(environ), told):
        yield f"what {config.name} told is not kept: {why}"


def _trouble(answer: LiveRegion | Exception | None) -> str:
    match answer:
        case None:
            return f"no answer within {LIMIT:.0f} s"
        case CallFailed():
            return str(answer)
        case Exception():
            raise answer
        case _:
            return f"no spot prices: {answer.spot_error}" if answer.spot_error else ""
