"""Load one run configuration for `dstack run -f`: flag > run > profile > pool > default."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from msgspec.structs import replace

from reconciler.config.compile.pool import DEFAULT_POOL
from reconciler.config.compile.profile import Layer
from reconciler.config.compile.project import HERE, pick_profile, run_layers
from reconciler.config.compile.run import compile_run, run_hash
from reconciler.config.compile.run_faults import run_faults
from reconciler.config.lint import run_contradictions
from reconciler.config.load import Documents
from reconciler.config.options import BadOption, parse_duration, read_option, resolve_need
from reconciler.config.problems import Invalid, Problem, in_order
from reconciler.config.read import FormEntry, read_run
from reconciler.config.references import check_references
from reconciler.config.warnings import run_notices, unsupported_notices
from reconciler.config.yaml.reader import read_yaml
from schemas.desired import Desired
from schemas.documents.ports import read_port
from schemas.documents.profile import EVERY_EVENT, SPOT
from schemas.documents.scalars import NAME_SHAPE, price
from schemas.documents.shape import not_among
from schemas.environment import too_large
from schemas.pool import Pool, pool_named, renamed_words
from schemas.profile import Profile, Retry
from schemas.resources import Need
from schemas.run import RunSpec


@dataclass(frozen=True, kw_only=True)
class RunFlags:
    """The options of `dstack run` that change the run, as typed; `None` or `()` when not given.

    `env` has `K` and `K=V`; a `V` never enters the run: the caller seals it (`sealed_env`).
    """

    name: str | None = None
    profile: str | None = None
    max_price: str | float | None = None
    max_duration: str | None = None
    backends: tuple[str, ...] = ()
    regions: tuple[str, ...] = ()
    instance_types: tuple[str, ...] = ()
    pool: str | None = None
    reuse: bool | None = None
    dont_destroy: bool | None = None
    idle_duration: str | None = None
    instance: str | None = None
    spot: str | None = None
    retry: bool | None = None
    retry_duration: str | None = None
    env: tuple[str, ...] = ()
    gpu: str | None = None
    cpu: str | None = None
    memory: str | None = None
    disk: str | None = None
    ports: tuple[str, ...] = ()


def load_run(
    path: Path, *, documents: Documents | None, desired: Desired, flags: RunFlags, args: tuple[str, ...]
) -> RunSpec:
    """The run that `path` and `flags` ask for, among the pools and profiles of `desired`.

    `name` is "" where neither says one: the caller mints it. Raises `Invalid` for the file
    and `BadOption` for the flags. `documents` only helps to show the path from their root.
    """
    return read_run_file(path, documents=documents, desired=desired, flags=flags, args=args)[0]


def read_run_file(
    path: Path, *, documents: Documents | None, desired: Desired, flags: RunFlags, args: tuple[str, ...]
) -> tuple[RunSpec, tuple[str, ...]]:
    """`load_run`, and the located warnings."""
    source, _ = read_yaml(path, shown=_shown(path, documents))
    read = read_run(source)
    secrets = {secret.name for secret in desired.secrets}
    problems = [*read.problems, *check_references(source, run_file=True, secrets=secrets)]
    for entry in read.runs:
        problems += [*run_faults(entry), *_unknown(entry, desired, flags)]
    if problems or not read.runs:
        raise Invalid(in_order(problems))
    return _spec(read.runs[0], desired, flags, args)


def sealed_env(flags: RunFlags) -> dict[str, str]:
    """The values of `-e K=V`, to be sealed before they are stored anywhere."""
    pairs = (item.partition("=") for item in flags.env)
    return {name: value for name, equals, value in pairs if equals}


def _shown(path: Path, documents: Documents | None) -> str:
    if documents is not None and path.resolve().is_relative_to(documents.root.resolve()):
        return path.resolve().relative_to(documents.root.resolve()).as_posix()
    return path.as_posix()


def _unknown(entry: FormEntry, desired: Desired, flags: RunFlags) -> list[Problem]:
    known = {profile.name for profile in desired.profiles}
    asked = entry.form.profile
    if flags.profile is None and asked and asked not in known:
        return [entry.problem(not_among(asked, known, "a profile of this project"), "profile")]
    return []


def _spec(
    entry: FormEntry, desired: Desired, flags: RunFlags, args: tuple[str, ...]
) -> tuple[RunSpec, tuple[str, ...]]:
    form = entry.form
    profiles = {profile.name: profile for profile in desired.profiles}
    if flags.profile is not None and flags.profile not in profiles:
        raise BadOption(f"--profile: {not_among(flags.profile, profiles, 'a profile of this project')}")
    profile = pick_profile(flags.profile or form.profile, profiles)
    layers = [("flag", _flag_layer(flags)), *run_layers(form, profile)]
    pool = _pool(layers, entry, desired)
    backends = {config.name: config for config in desired.backends or (HERE,)}
    name = flags.name or (form.name or "")
    if flags.name is not None:
        read_option(NAME_SHAPE.read, flags.name, "--name")
    spec = compile_run(form, name=name, hash_=run_hash(entry.raw), layers=layers, pool=pool, backends=backends)
    spec = replace(
        spec,
        need=_need(spec.need, flags),
        args=args,
        env=_env(spec.env, flags.env),
        ports=(*(read_option(read_port, port, "--port") for port in flags.ports),) or spec.ports,
    )
    named = next((layer.pool for source, layer in layers if source == "run" and layer.pool), pool.name)
    renamed = renamed_words(named, pool) if pool_named(named, desired.pools) == pool else ""
    notices = [
        *([entry.problem(renamed, "pool_name")] if renamed else []),
        *run_notices(entry, boxed=spec.need.container),
        *unsupported_notices(entry, spec.unsupported),
        *run_contradictions(entry, spec, pool),
    ]
    return spec, tuple(map(str, in_order(notices)))


def _flag_layer(flags: RunFlags) -> Profile:
    idle = None if flags.idle_duration is None else parse_duration(flags.idle_duration, option="--idle-duration")
    limit = None if flags.max_duration is None else parse_duration(flags.max_duration, option="--max-duration")
    return Profile(
        name="",
        backends=flags.backends,
        regions=flags.regions,
        instance_types=flags.instance_types,
        spot=None if flags.spot is None else read_option(SPOT.read, flags.spot, "--spot-policy"),
        retry=_retry(flags),
        max_duration=limit,
        max_duration_off=flags.max_duration is not None and limit is None,
        max_price=None if flags.max_price is None else read_option(price, flags.max_price, "--max-price"),
        pool=flags.pool or "",
        instance_name=flags.instance or "",
        reuse_only=True if flags.reuse or flags.instance else None,
        idle_duration=idle,
        idle_off=bool(flags.dont_destroy) or (flags.idle_duration is not None and idle is None),
    )


def _retry(flags: RunFlags) -> Retry | None:
    if flags.retry is False:
        return Retry()
    if flags.retry_duration is not None:
        return replace(EVERY_EVENT, duration=parse_duration(flags.retry_duration, option="--retry-duration"))
    return EVERY_EVENT if flags.retry else None


def _pool(layers: list[Layer], entry: FormEntry, desired: Desired) -> Pool:
    pools: Mapping[str, Pool] = {pool.name: pool for pool in desired.pools} or {
        DEFAULT_POOL: Pool(name=DEFAULT_POOL, default=True)
    }
    source, name = next(((source, layer.pool) for source, layer in layers if layer.pool), ("", ""))
    if found := pool_named(name, pools.values()):
        return found
    if name and source == "flag":
        raise BadOption(f"--pool: {not_among(name, pools, 'a pool of this project')}")
    if name:
        key = "pool_name" if source == "run" else "profile"
        raise Invalid([entry.problem(not_among(name, pools, "a pool of this project"), key)])
    default = next((pool for pool in pools.values() if pool.default), None)
    if default is None:
        raise Invalid([entry.problem(f"no pool is the default one: say `pool_name` or --pool ({', '.join(pools)})")])
    return default


def _need(need: Need, flags: RunFlags) -> Need:
    asked = resolve_need(gpu=flags.gpu, cpu=flags.cpu, memory=flags.memory, disk=flags.disk)
    changes: dict[str, Any] = {}
    if flags.cpu is not None:
        changes |= {"cpu": asked.cpu, "cpu_arch": asked.cpu_arch}
    changes |= {key: getattr(asked, key) for key in ("gpu", "memory", "disk") if getattr(flags, key) is not None}
    return replace(need, **changes)


def _env(written: tuple[tuple[str, str | None], ...], given: tuple[str, ...]) -> tuple[tuple[str, str | None], ...]:
    """The file's, but what the flags give; a bare `K` of a flag is kept bare, a `K=V` is the caller's to seal."""
    names = {item.partition("=")[0] for item in given}
    for name in names:
        if not name.isidentifier() or not name.isascii():
            raise BadOption(f"--env: `{name}` cannot name an environment variable")
    pairs = (item.partition("=") for item in given)
    if (large := too_large((name, value) for name, _, value in pairs)) is not None:
        raise BadOption(f"--env: {large[1]}")
    bare = dict.fromkeys(item for item in given if "=" not in item)
    kept = tuple(pair for pair in written if pair[0] not in names)
    return (*kept, *((name, None) for name in bare))
