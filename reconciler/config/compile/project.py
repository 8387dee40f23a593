"""Compile all forms of a project into one `Desired`, with every problem and warning located."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

from msgspec.structs import replace

from reconciler.config.compile.credentials import creds_faults, with_secrets
from reconciler.config.compile.hosts import host_faults
from reconciler.config.compile.pool import (
    DEFAULT_POOL,
    backend_access,
    compile_pool,
    pool_access,
    waits,
)
from reconciler.config.compile.profile import Layer, compile_profile, layer_of
from reconciler.config.compile.project_keys import autoscale_keys, project_keys
from reconciler.config.compile.run import compile_run, run_hash
from reconciler.config.compile.run_faults import run_faults
from reconciler.config.known_hosts import Known
from reconciler.config.lint import pool_contradictions, project_contradictions, run_contradictions
from reconciler.config.problems import Problem, in_order
from reconciler.config.read import FormEntry, Read, entry_name
from reconciler.config.warnings import backend_notices, run_notices, unsupported_notices
from schemas.backend_types import LOCAL, type_of
from schemas.desired import BackendConfig, Desired, Secret
from schemas.documents.backends.forms import TYPES
from schemas.documents.backends.local import DEFAULT_INSTANCES
from schemas.documents.backends.others import OTHER_TYPES
from schemas.documents.shape import suggestion
from schemas.pool import Pool, pool_named, renamed_words
from schemas.profile import Profile
from schemas.run import RunSpec

NO_ENDPOINTS: Mapping[str, str] = MappingProxyType({})
HERE = BackendConfig(name=LOCAL.name, type=LOCAL.name, options={"instances": DEFAULT_INSTANCES})
"""What a project has that declares no backend."""


class Notes(NamedTuple):
    """Located: what is contradictory or in vain, and what does not work yet."""

    warnings: list[Problem]
    unsupported: list[Problem]

    def renamed(self, entry: FormEntry, name: str, pool: Pool) -> None:
        """Two changes that meet in a merge: one renames a pool, the other uses it by its old name."""
        if words := renamed_words(name, pool):
            self.warnings.append(entry.problem(words, "pool_name"))


def compile_documents(
    read: Read,
    *,
    own: Iterable[Profile] = (),
    known: Known | None = None,
    endpoints: Mapping[str, str] = NO_ENDPOINTS,
) -> tuple[Desired, list[Problem]]:
    """The documents' meaning, and what of it does not work yet, located.

    Problems are added to `read.problems`, contradictions are `Desired.warnings`.

    `own` are the user's profiles: the project's of the same name win. `known` are the project's pinned host keys.
    `endpoints` are those that a person confirmed, by backend: another one on another machine is not used.
    """
    notes = Notes([], [])
    configs = [_backend(entry, endpoints) for entry in read.backends] or [HERE]
    backends = {config.name: config for config in configs}
    profiles = _profiles(read, own)
    _known_stores(read, backends)
    for entry in read.profiles:
        _known_backends(entry.form.backends, backends, entry, read)
    pools = _pools(read, profiles, backends, notes, known or Known(""))
    for entry in read.profiles:
        if entry.form.pool_name and (pool := pool_named(entry.form.pool_name, pools.values())):
            notes.renamed(entry, entry.form.pool_name, pool)
        else:
            _known(entry.form.pool_name, pools, entry, ("pool_name",), read, kind="pools")
    runs = _runs(read, profiles, pools, backends, notes)
    notes.warnings.extend(project_contradictions(read, pools))
    secrets = tuple(secrets_of(read))
    for entry in read.backends:
        notes.warnings.extend(backend_notices(entry))
        read.problems.extend(creds_faults(entry, secrets) if type_of(entry.form.type).available else ())
        read.problems.extend(backend_access(entry, backends[entry_name(entry)]))
    return Desired(
        **project_keys(read),
        backends=tuple(with_secrets(config, secrets) for config in backends.values()),
        pools=tuple(pools.values()),
        profiles=tuple(profiles.values()),
        runs=tuple(runs),
        **autoscale_keys(read),
        secrets=secrets,
        authorized_keys=tuple(key for entry in read.singles.get("authorized_keys", ()) for key in entry.form),
        warnings=tuple(map(str, in_order(notes.warnings))),
    ), in_order([*notes.unsupported, *_unsupported_entries(read, backends)])


def secrets_of(read: Read) -> Iterator[Secret]:
    seen: dict[str, FormEntry] = {}
    for entry in read.singles.get("secrets", ()):
        for name, source, reference in entry.form:
            if name in seen:
                read.problems.append(
                    entry.problem(
                        f"`{name}` is declared twice, first at {seen[name].at(name, key=True)}", name, key=True
                    )
                )
            else:
                seen[name] = entry
                yield Secret(name=name, source=source, reference=reference)


def run_layers(form: Any, profile: Profile | None) -> list[Layer]:
    layers: list[Layer] = [("run", layer_of(form))]
    return [*layers, (f"profile {profile.name}", profile)] if profile else layers


def pick_profile(asked: str | None, profiles: Mapping[str, Profile]) -> Profile | None:
    """The named one, or the one marked `default: true`."""
    if asked:
        return profiles.get(asked)
    return next((profile for profile in profiles.values() if profile.default), None)


def _known_stores(read: Read, backends: Mapping[str, BackendConfig]) -> None:
    """Report a `backend` of `state` or `artifact_store` that is not declared, or is of another cloud."""
    for entry in (*read.singles.get("state", ()), *read.singles.get("artifact_store", ())):
        if not entry.form.backend:
            continue
        scheme, named = entry.form.url.partition("://")[0], backends.get(entry.form.backend)
        if named is None or scheme not in named.traits.buckets:
            fits = ", ".join(one.name for one in backends.values() if scheme in one.traits.buckets) or "none"
            said = "not declared" if named is None else f"of type {named.type}, which opens no {scheme}:// bucket"
            read.problems.append(entry.problem(f"backend `{entry.form.backend}` is {said}; there is {fits}", "backend"))


def _backend(entry: FormEntry, endpoints: Mapping[str, str]) -> BackendConfig:
    form = entry.form
    name = entry_name(entry)
    config = BackendConfig(name=name, type=form.type, regions=form.places, options=form.options())
    if config.withheld and endpoints.get(name) == config.endpoint:
        config = replace(config, confirmed_endpoint=config.endpoint)
    return replace(config, unsupported=tuple(_not_usable(config)))


def _not_usable(config: BackendConfig) -> Iterator[str]:
    """Credentials must not follow an edited file to another server before a person has confirmed that."""
    if not config.traits.available:
        yield f"the backend `{config.name}` is not available in this version of dstack"
    elif config.withheld:
        yield f"the backend `{config.name}` is not used: {config.withheld}"


def _profiles(read: Read, own: Iterable[Profile]) -> dict[str, Profile]:
    declared = {entry.form.name: entry for entry in read.profiles}
    marked = [entry for entry in read.profiles if entry.form.default]
    for entry in marked[1:]:
        read.problems.append(
            entry.problem(
                f"`{marked[0].form.name}` is the default profile already, at {marked[0].at('default')}", "default"
            )
        )
    mine = {
        profile.name: profile for profile in own if profile.name not in declared and not (marked and profile.default)
    }
    return {**{name: compile_profile(entry.form) for name, entry in declared.items()}, **mine}


def _pools(
    read: Read, profiles: Mapping[str, Profile], backends: Mapping[str, BackendConfig], notes: Notes, known: Known
) -> dict[str, Pool]:
    default = _default_pool(read)
    pools: dict[str, Pool] = {}
    for entry in read.pools:
        form = entry.form
        _known(form.profile, profiles, entry, ("profile",), read, kind="profiles")
        _known_backends(form.backends, backends, entry, read)
        pool = compile_pool(form, profile=profiles.get(form.profile or ""), backends=backends, known=known)
        if pool.name == default and not pool.default:
            pool = replace(pool, default=True)
        pools.setdefault(pool.name, pool)
        read.problems.extend(pool_access(entry, pool, backends))
        notes.warnings.extend(pool_contradictions(entry, pool))
        notes.unsupported.extend(unsupported_notices(entry, pool.unsupported))
    _host_faults(read, pools, known)
    if not read.pools and "pools" not in read.broken:
        pools[DEFAULT_POOL] = Pool(name=DEFAULT_POOL, default=True, unsupported=_default_unsupported(backends))
    return pools


def _host_faults(read: Read, pools: dict[str, Pool], known: Known) -> None:
    entries = {entry.form.name: entry for entry in read.pools}
    for pool, message in host_faults(pools, known=known):
        read.problems.append(entries[pool].problem(message, "ssh", "hosts"))


def _default_unsupported(backends: Mapping[str, BackendConfig]) -> tuple[str, ...]:
    if any(not config.unsupported for config in backends.values()):
        return ()
    if waiting := waits(backends.values()):
        return (waiting,)
    return ("none of its backends is available in this version of dstack",)


def _default_pool(read: Read) -> str:
    """The one marked, else the one named `default-pool`, else the only one."""
    marked = [entry for entry in read.pools if entry.form.default]
    for entry in marked[1:]:
        read.problems.append(
            entry.problem(
                f"`{marked[0].form.name}` is the default pool already, at {marked[0].at('default')}", "default"
            )
        )
    if marked:
        return str(marked[0].form.name)
    names = [entry.form.name for entry in read.pools]
    return DEFAULT_POOL if DEFAULT_POOL in names else str(names[0]) if len(names) == 1 else ""


def _runs(
    read: Read,
    profiles: Mapping[str, Profile],
    pools: Mapping[str, Pool],
    backends: Mapping[str, BackendConfig],
    notes: Notes,
) -> Iterator[RunSpec]:
    for entry in read.runs:
        form, name = entry.form, entry_name(entry)
        if not _run_name(entry, name, read):
            continue
        _known(form.profile, profiles, entry, ("profile",), read, kind="profiles")
        _known_backends(form.backends, backends, entry, read)
        read.problems.extend(run_faults(entry))
        layers = run_layers(form, pick_profile(form.profile, profiles))
        pool = _pool_of(entry, layers, pools, read, notes)
        if pool is None:
            continue
        spec = compile_run(form, name=name, hash_=run_hash(entry.raw), layers=layers, pool=pool, backends=backends)
        notes.warnings.extend((*run_notices(entry, boxed=spec.need.container), *run_contradictions(entry, spec, pool)))
        notes.unsupported.extend(unsupported_notices(entry, spec.unsupported))
        yield spec


def _run_name(entry: FormEntry, name: str, read: Read) -> bool:
    from schemas.documents.scalars import NAME_SHAPE
    from schemas.documents.shape import Wrong

    try:
        NAME_SHAPE.read(name)
    except Wrong:
        if "name" in entry.dropped:
            return False
        said = (
            "`name` is missing: a declared run is known by it"
            if not entry.form.name and entry.path
            else (f"`name` is missing, and the file's name cannot stand for it: {name!r} is not a-z, 0-9 and -")
        )
        read.problems.append(entry.problem(said))
        return False
    return True


def _known(
    name: str | None, known: Mapping[str, object], entry: FormEntry, path: tuple[str, ...], read: Read, *, kind: str
) -> bool:
    """Whether a reference leads somewhere; not judged where its target could not be read."""
    if not name or name in known or kind in read.broken:
        return not name or name in known
    one = {"pools": "pool", "profiles": "profile"}[kind]
    hint = suggestion(name, known) or (f"; known: {', '.join(known)}" if known else f": no {one} is declared")
    read.problems.append(entry.problem(f"unknown {one} `{name}`{hint}", *path))
    return False


def _known_backends(
    names: tuple[str, ...] | None, backends: Mapping[str, BackendConfig], entry: FormEntry, read: Read
) -> None:
    """A type of backend may be named without being declared: older run configurations do."""
    known = (*backends, *TYPES, *OTHER_TYPES)
    for index, name in enumerate(names or ()):
        if name not in known and "backends" not in read.broken:
            read.problems.append(
                entry.problem(
                    f"unknown backend `{name}`" + (suggestion(name, known) or f"; declared: {', '.join(backends)}"),
                    "backends",
                    index,
                )
            )


def _pool_of(entry: FormEntry, layers: list[Layer], pools: Mapping[str, Pool], read: Read, notes: Notes) -> Pool | None:
    source, name = next(((source, layer.pool) for source, layer in layers if layer.pool), ("", ""))
    if name:
        if pool := pool_named(name, pools.values()):
            if source == "run":
                notes.renamed(entry, name, pool)
            return pool
        path = ("pool_name",) if source == "run" else ("profile",)
        declared = any(source == f"profile {each.form.name}" for each in read.profiles)
        if not declared:
            _known(name, pools, entry, path, read, kind="pools")
        return None
    default = next((pool for pool in pools.values() if pool.default), None)
    if default is None and "pools" not in read.broken:
        read.problems.append(
            entry.problem(
                f"no pool is the default one: say `pool_name` ({', '.join(pools)}) or mark a pool `default: true`"
            )
        )
    return default


def _unsupported_entries(read: Read, backends: Mapping[str, BackendConfig]) -> Iterator[Problem]:
    for entry in read.backends:
        yield from unsupported_notices(entry, backends[entry_name(entry)].unsupported)
