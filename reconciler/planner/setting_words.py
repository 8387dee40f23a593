"""Write values of the configuration as the YAML has them, on one line. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from reconciler.planner.placement.fit import asked
from reconciler.text.format import clean, hourly, size, span
from schemas.access import Way
from schemas.host import Host
from schemas.pool import Pool
from schemas.profile import Retry
from schemas.resources import Need
from schemas.run import Container, Probe

MOST = 120
"""Characters of a text that is shown as it is."""
DURATIONS = frozenset(
    {
        "idle_duration", "max_duration", "stop_duration", "max_lifetime", "hold", "unattended", "unreachable_grace",
        "artifacts_every", "inactivity", "keep",
    }
)  # fmt: skip
PRICES = frozenset({"max_price", "max_hourly", "budget", "confirm_above"})
_FLAGS = {"reuse_only": ("reuse-or-create", "reuse"), "destroy_after": ("dont-destroy", "destroy-after-idle")}
SIZES = frozenset({"disk_floor", "log_limit", "shm"})


def nodes_words(pool: Pool) -> str:
    """`2`, `0..4`, `0..`, `0..4 (target 2)`."""
    if pool.nodes_target is not None and pool.nodes_min == pool.nodes_target == pool.nodes_max:
        return str(pool.nodes_target)
    most = "" if pool.nodes_max is None else str(pool.nodes_max)
    target = "" if pool.nodes_target is None else f" (target {pool.nodes_target})"
    return f"{pool.nodes_min}..{most}{target}"


def setting_words(field: str, value: Any) -> str:
    """The value of a field of a pool, profile, run or project; "" where nothing is said."""
    if field in DURATIONS:
        return span(value)
    if value is None or value == () or value == "":
        return ""
    if field in PRICES:
        return hourly(value)
    if field in SIZES:
        return size(value)
    match value:
        case bool():
            return _FLAGS.get(field, ("false", "true"))[value]
        case Need():
            return need_words(value)
        case Retry():
            return _retry(value)
        case Way():
            return " ".join(filter(None, (value.mode, value.name, value.jump.hostname if value.jump else "")))
        case Probe() | Container():
            return value.image if isinstance(value, Container) else "set"
        case tuple():
            return _bounded(", ".join(_item(field, one) for one in value))
        case Mapping():
            return _bounded(", ".join(f"{key}: {setting_words('', one)}" for key, one in value.items()))
    return _bounded(str(value))


def need_words(need: Need) -> str:
    """`gpu 1xA100, memory 64GB..`; "" where nothing is asked for."""
    kinds = (
        ("gpu", need.gpu is not None), ("cpu", need.cpu.asked), ("memory", need.memory.asked),
        ("disk", need.disk.asked), ("cpu architecture", bool(need.cpu_arch)),
    )  # fmt: skip
    found = [asked(need, kind=kind) for kind, wanted in kinds if wanted]
    return ", ".join([*found, *([f"shm {size(need.shm)}"] if need.shm else [])])


def _retry(retry: Retry) -> str:
    events = {"no-capacity": retry.no_capacity, "interruption": retry.interruption, "error": retry.error}
    named = ", ".join(event for event, on in events.items() if on)
    limit = "" if retry.duration is None else f" for {span(retry.duration)}"
    return f"on {named}{limit}" if named else "off"


def _item(field: str, one: Any) -> str:
    """Variables are named; what they hold may be a secret that somebody wrote there."""
    if isinstance(one, Host):
        return one.name
    if isinstance(one, tuple):
        key, value = str(one[0]), one[1]
        return key if field in ("env", "sealed") else f"{key}={value}"
    return str(one)


def _bounded(text: str) -> str:
    """Cut between two words, and said to be."""
    text = clean(text)
    if len(text) <= MOST:
        return text
    return f"{text[:MOST].rsplit(' ', 1)[0]} …"
