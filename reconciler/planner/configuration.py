"""Compare a configuration with the one that was applied before, key by key. Pure.

A change that permits something, such as a higher maximum, is said as one that acts: a reviewer approves both.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from reconciler.planner.rules.pool_edits import EFFECTS, value_of
from reconciler.planner.setting_words import nodes_words, setting_words
from schemas.configuration import Change, ChangeKind
from schemas.desired import BackendConfig, Cap, Desired, Secret
from schemas.pool import Pool, pool_named
from schemas.profile import Profile
from schemas.run import RunSpec

NODES = ("nodes_min", "nodes_target", "nodes_max")
PROJECT: Mapping[str, str] = {
    "project_name": "project", "state": "state", "state_backend": "state", "authority": "authority", "budget": "budget",
    "confirm_above": "confirm_above", "keep": "keep", "artifact_store": "artifact_store",
    "artifact_backend": "artifact_store", "requires": "requires", "ruled": "autoscale",
    "autoscale_enabled": "autoscale.enabled", "authorized_keys": "authorized_keys",
}  # fmt: skip
"""Field of `Desired` → key in the YAML."""
NO_WORDS = ("authorized_keys", "sealed")
"""Fields whose values are long or private: they are said to have changed."""
KEYS: Mapping[str, str] = {
    "spot": "spot_policy", "zones": "availability_zones", "need": "resources", "reuse_only": "creation_policy",
    "max_hourly": "budget", "instance_name": "instance", "max_duration_off": "max_duration",
    "stop_off": "stop_duration", "idle_off": "idle_duration", "utilization": "utilization_policy", "pool": "pool_name",
    "artifacts_every": "artifacts.every", "needs_services": "needs", "inactivity": "inactivity_duration",
    "destroy_after": "termination_policy", "setup": "setup", "sealed": "env", "container": "image",
}  # fmt: skip
"""Fields of profiles and runs that the YAML calls otherwise."""
OFF = ("max_duration_off", "stop_off", "idle_off")
"""Fields of a profile that say `off` for a duration."""
UNWRITTEN = ("name", "hash", "sources", "unsupported", "formerly")


def changes(before: Desired, after: Desired) -> tuple[Change, ...]:
    """Every key that differs, in the order of the YAML: project, backends, secrets, rules, profiles, pools, runs."""
    return tuple(_changes(before, after))


def _changes(before: Desired, after: Desired) -> Iterator[Change]:
    if before == after:
        return
    for field, key in PROJECT.items():
        if (field == "ruled" and before.caps != after.caps) or (field == "project_name" and not before.project_name):
            continue
        yield from _change("project", "", key, field, getattr(before, field), getattr(after, field))
    yield from _entries(
        "backend", _said(before, after), _said(after, before), key=_name, words=_backend_words, each=_backend
    )
    yield from _entries("secret", before.secrets, after.secrets, key=_name, words=_secret_words, each=_secret)
    yield from _entries("rule", before.caps, after.caps, key=_rule, words=_rule_words, each=_max)
    yield from _entries("profile", before.profiles, after.profiles, key=_name, words=_profile_words, each=_profile)
    yield from _entries("pool", _renamed(before, after), after.pools, key=_name, words=_pool_words, each=_pool)
    yield from _entries("run", before.runs, after.runs, key=_name, words=_run_words, each=_run)


def _entries(
    kind: ChangeKind,
    before: Iterable[Any],
    after: Iterable[Any],
    *,
    key: Callable[[Any], str],
    words: Callable[[Any], str],
    each: Callable[[Any, Any], Iterator[Change]],
) -> Iterator[Change]:
    was, now = {key(one): one for one in before}, {key(one): one for one in after}
    for name, one in now.items():
        if name not in was:
            yield Change(kind=kind, name=name, op="create", new=words(one))
        elif was[name] != one:
            yield from each(was[name], one)
    for name, one in was.items():
        if name not in now:
            yield Change(kind=kind, name=name, op="remove", old=words(one))


def _said(desired: Desired, other: Desired) -> tuple[BackendConfig, ...]:
    """The backends, but for this machine where the other configuration does not name it: each project has that."""
    named = {one.name for one in other.backends}
    return tuple(one for one in desired.backends if one.traits.kind != "machine" or one.name in named)


def _name(one: Any) -> str:
    return str(one.name)


def _change(
    kind: ChangeKind, name: str, key: str, field: str, old: Any, new: Any, *, note: str = ""
) -> Iterator[Change]:
    if old == new:
        return
    if field in NO_WORDS:
        before, after = ("", "changed") if old and new else ("set", "") if old else ("", "set")
    else:
        before, after = setting_words(field, old), setting_words(field, new)
        if before == after:
            after = "changed"
    yield Change(kind=kind, name=name, op="change", key=key, old=before, new=after, note=note)


# ---------------------------------------------------------------- pools


def _renamed(before: Desired, after: Desired) -> Iterator[Pool]:
    """The pools of before under the names that they have now."""
    from msgspec.structs import replace

    for pool in before.pools:
        now = pool_named(pool.name, after.pools)
        yield replace(pool, name=now.name) if now is not None else pool


def _pool(was: Pool, now: Pool) -> Iterator[Change]:
    if nodes_words(was) != nodes_words(now):
        yield Change(
            kind="pool", name=now.name, op="change", key="nodes", old=nodes_words(was), new=nodes_words(now),
            note=f"keeps {now.floor} at least" if now.floor > was.floor else "",
        )  # fmt: skip
    for field, effect in EFFECTS.items():
        if field in NODES:
            continue
        note = "new instances only" if effect.when == "next launch" else ""
        name = field.rpartition(".")[2]
        yield from _change("pool", now.name, effect.key, name, value_of(was, field), value_of(now, field), note=note)


def _pool_words(pool: Pool) -> str:
    """`nodes 0..4, resources gpu 1xA100, idle_duration 5m`: what is not as it would be anyway."""
    usual = Pool(name=pool.name)
    said = [f"nodes {nodes_words(pool)}"] if not pool.hosts else []
    for field, effect in EFFECTS.items():
        if field in (*NODES, "name") or (value := value_of(pool, field)) == value_of(usual, field):
            continue
        said.append(f"{effect.key} {setting_words(field.rpartition('.')[2], value) or 'off'}")
    return ", ".join(said)


# ---------------------------------------------------------------- profiles and runs


def _profile(was: Profile, now: Profile) -> Iterator[Change]:
    old, new = _profile_settings(was), _profile_settings(now)
    for key in dict.fromkeys((*old, *new)):
        before, after = old.get(key, ""), new.get(key, "")
        if before != after:
            yield Change(kind="profile", name=now.name, op="change", key=key, old=before, new=after)


def _profile_words(profile: Profile) -> str:
    return ", ".join(f"{key} {words}" for key, words in _profile_settings(profile).items())


def _profile_settings(profile: Profile) -> dict[str, str]:
    """Key → value in words, of what the profile says."""
    found = {}
    usual = Profile(name=profile.name)
    for field in Profile.__struct_fields__:
        value = getattr(profile, field)
        if field not in UNWRITTEN and value != getattr(usual, field):
            found[KEYS.get(field, field)] = "off" if field in OFF else setting_words(field, value)
    return found


def _run(was: RunSpec, now: RunSpec) -> Iterator[Change]:
    found = [
        one
        for field in RunSpec.__struct_fields__
        if field not in (*UNWRITTEN, "where")
        for one in _change("run", now.name, KEYS.get(field, field), field, getattr(was, field), getattr(now, field))
    ]
    for field in was.where.__struct_fields__:
        found += _change(
            "run", now.name, KEYS.get(field, field), field, getattr(was.where, field), getattr(now.where, field)
        )
    if not found and was.hash != now.hash:
        found = [Change(kind="run", name=now.name, op="change", key="files or values", new="changed")]
    for one in found:
        yield Change(
            kind="run", name=one.name, op="change", key=one.key, old=one.old, new=one.new,
            note="runs again" if was.hash != now.hash else "does not run again",
        )  # fmt: skip


def _run_words(run: RunSpec) -> str:
    many = f", {run.nodes} nodes" if run.nodes > 1 else f", {run.replicas} replicas" if run.replicas != 1 else ""
    return f"{run.type}{many}{f' (pool {run.pool})' if run.pool else ''}"


# ---------------------------------------------------------------- backends, secrets, rules


def _backend(was: BackendConfig, now: BackendConfig) -> Iterator[Change]:
    for field in ("type", "regions"):
        yield from _change("backend", now.name, field, field, getattr(was, field), getattr(now, field))
    for key in sorted({*was.options, *now.options}):
        old, new = was.options.get(key), now.options.get(key)
        if key == "creds" and old != new:
            yield Change(kind="backend", name=now.name, op="change", key=key, new="changed")
            continue
        yield from _change("backend", now.name, key, "option", old, new)


def _backend_words(one: BackendConfig) -> str:
    return f"{one.type}{' ' + ', '.join(one.regions) if one.regions else ''}"


def _secret(was: Secret, now: Secret) -> Iterator[Change]:
    yield Change(kind="secret", name=now.name, op="change", key="from", old=_secret_words(was), new=_secret_words(now))


def _secret_words(one: Secret) -> str:
    return one.source if one.source == "command" else f"{one.source} {one.reference}"


def _rule(one: Cap) -> str:
    purchase = "spot" if one.spot else "on-demand"
    place = "/".join(filter(None, (one.backend, one.region))) or "anywhere"
    return f"{one.instance_type or 'every type'} {purchase} in {place}"


def _rule_words(one: Cap) -> str:
    return f"at most {one.max}"


def _max(was: Cap, now: Cap) -> Iterator[Change]:
    yield Change(kind="rule", name=_rule(now), op="change", key="max", old=str(was.max), new=str(now.max))
