"""Compile a run: every value effective, flag > run > profile > pool > default."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Mapping
from typing import Any

from msgspec.structs import replace

from reconciler.config.compile.container import KEPT_CHANGES, container_of, needs_engine, unsupported_here
from reconciler.config.compile.pool import DEFAULT_IDLE, unusable, where_of
from reconciler.config.compile.profile import Chosen, Layer
from schemas.desired import BackendConfig
from schemas.documents.ports import AUTO
from schemas.documents.run import DevEnvironmentForm, RunForm, ServiceForm, TaskForm
from schemas.documents.span import OFF
from schemas.pool import Pool
from schemas.profile import Profile, Retry
from schemas.resources import Need
from schemas.run import Container, Probe, RunSpec

HOUR = 3600
MAX_DURATION = {"task": 72 * HOUR, "dev-environment": 6 * HOUR, "service": None}
STOP_DURATION = 10

SCHEDULING_KEYS = frozenset(
    {
        "name",
        "formerly",
        "profile",
        "priority",
        "retry",
        "retry_policy",
        "tags",
        "max_price",
        "backends",
        "regions",
        "availability_zones",
        "instance_types",
        "reservation",
        "spot_policy",
        "pool_name",
        "instance_name",
        "creation_policy",
        "idle_duration",
        "termination_policy",
        "termination_idle_time",
        "utilization_policy",
        "stop_duration",
        "log_limit",
        "hold",
        "restore",
    }
)
"""What says where, when and at what price a run runs, and not what it does: no part of its hash.

`name` and `formerly` are left out too, so that a renamed run is the same run.
"""


COUNTS = frozenset({"replicas", "scaling"})
"""How many replicas a service has: another number adds or removes some, and leaves the others alone."""


def run_hash(raw: Mapping[str, Any]) -> str:
    """16 hex digits of the run as written (`rerun` with it), but `SCHEDULING_KEYS`.

    Canonical JSON, sha256. A key that is empty counts as not written; a number as it was spelled.
    """
    left_out = SCHEDULING_KEYS | COUNTS if raw.get("type") == "service" else SCHEDULING_KEYS
    kept = {key: _as_written(value) for key, value in raw.items() if key not in left_out and value is not None}
    text = json.dumps(kept, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _as_written(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _as_written(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_as_written(item) for item in value]
    return {"number": getattr(value, "text", str(value))} if isinstance(value, float) else value


def _need(form: RunForm, container: Container | None) -> Need:
    image = container.image if container else ""
    engine = needs_engine(form, container)
    return replace(form.resources or Need(), container=container is not None, image=image, engine=engine)


def compile_run(
    form: RunForm, *, name: str, hash_: str, layers: list[Layer], pool: Pool, backends: Mapping[str, BackendConfig]
) -> RunSpec:
    """`layers` are what flags, the run and its profile say, the strongest first."""
    chosen = Chosen([*layers, *pool_layers(pool)])
    where = where_of(chosen, backends)
    kind: Any = getattr(form, "type", "task")
    container = container_of(form, default_image=pool.default_image)
    need = _need(form, container)
    developing = isinstance(form, DevEnvironmentForm)
    chosen.note("pool", None, next((source for source, layer in layers if layer.pool), "default"))
    chosen.note("resources", None, "run" if form.resources is not None else "default")
    idle = chosen.duration("idle_duration", "idle_off", DEFAULT_IDLE)
    return RunSpec(
        name=name,
        type=kind,
        pool=pool.name,
        hash=hash_,
        nodes=(form.nodes or 1) if isinstance(form, TaskForm) else 1,
        replicas=replicas_of(form),
        need=need,
        where=where,
        commands=getattr(form, "init" if developing else "commands") or (),
        setup=form.setup or (),
        env=tuple((key, value) for key, value in form.env or () if _ENV_NAME.fullmatch(key)),
        working_dir=form.working_dir or "",
        files=form.files,
        priority=50 if form.priority is None else form.priority,
        retry=chosen.pick("retry", Retry()),
        max_duration=chosen.duration("max_duration", "max_duration_off", MAX_DURATION[kind]),
        stop_duration=chosen.duration("stop_duration", "stop_off", STOP_DURATION),
        idle_duration=idle,
        reuse_only=bool(chosen.pick("reuse_only", False, shown="creation_policy")),
        destroy_after=idle is not None,
        instance_name=chosen.pick("instance_name", ""),
        artifacts=(*(form.artifacts or ()), *((KEPT_CHANGES,) if developing else ())),
        artifacts_every=form.artifacts_every,
        restore=form.restore or "artifacts",
        rerun=form.rerun or 0,
        hold=form.hold,
        formerly=form.formerly or (),
        stop_criteria=form.stop_criteria or "all-done",
        port=_service_port(form),
        ports=getattr(form, "ports", None) or (),
        needs_services=form.needs_services or (),
        log_limit=chosen.pick("log_limit", RunSpec(name="").log_limit),
        probe=_probe(form),
        shm=need.shm,
        python=form.python or "",
        container=container,
        inactivity=_inactivity(form),
        ide=form.ide if isinstance(form, DevEnvironmentForm) else "",
        tags=chosen.pick("tags", ()),
        unsupported=tuple(_unsupported(form, container, unusable(where, backends), chosen)),
        sources=chosen.written(),
    )


UTILIZATION = (
    "`utilization_policy` is not supported yet, and a run that was to stop by it would run on: take it out, and set "
    "`max_duration`"
)
_ENV_NAME = re.compile("[A-Za-z_][A-Za-z0-9_]*")


def pool_layers(pool: Pool) -> list[Layer]:
    """What the pool says, under the source that the plan shows; what it only defaults stays default."""
    said = dict(pool.sources)
    by_source: dict[str, dict[str, Any]] = {}
    values: dict[str, tuple[str, Any]] = {
        "backends": ("backends", pool.where.backends),
        "regions": ("regions", pool.where.regions),
        "availability_zones": ("zones", pool.where.zones),
        "reservation": ("reservation", pool.where.reservation),
        "instance_types": ("instance_types", pool.where.instance_types),
        "spot_policy": ("spot", pool.where.spot),
        "max_price": ("max_price", pool.where.max_price),
        "retry": ("retry", pool.retry),
        "tags": ("tags", pool.tags),
        "idle_duration": (
            "idle_off" if pool.idle_duration is None else "idle_duration",
            pool.idle_duration is None or pool.idle_duration,
        ),
    }
    for shown, (field, value) in values.items():
        source = said.get(shown, "default")
        if source != "default":
            by_source.setdefault(f"pool {pool.name}" if source == "pool" else source, {})[field] = value
    return [(source, Profile(name=pool.name, **fields)) for source, fields in by_source.items()]


def _service_port(form: RunForm) -> int | None:
    """0 is `auto`."""
    if not isinstance(form, ServiceForm) or not form.port:
        return None
    return 0 if form.port == AUTO else int(form.port.split(":")[-1])


def _inactivity(form: RunForm) -> int | None:
    asked = form.inactivity_duration if isinstance(form, DevEnvironmentForm) else None
    return None if asked == OFF else asked


def replicas_of(form: RunForm) -> int:
    if not isinstance(form, ServiceForm) or form.replicas is None:
        return 1
    return max(1, form.replicas.min or 0)


def _probe(form: RunForm) -> Probe | None:
    if not isinstance(form, ServiceForm) or form.probe is None:
        return None
    given = {key: value for key, value in form.probe if value is not None}
    return Probe(**given)


def _unsupported(form: RunForm, container: Container | None, backend: str, chosen: Chosen) -> Iterable[str]:
    yield from unsupported_here(form, container)
    for name, _ in form.env or ():
        if not _ENV_NAME.fullmatch(name):
            yield f"the environment variable `{name}` is not supported yet: letters, digits and _"
    if isinstance(form, ServiceForm) and form.replicas is not None and form.replicas.max == 0:
        yield "a service without replicas is not supported yet"
    if chosen.pick("utilization", None, shown="utilization_policy"):
        yield UTILIZATION
    if backend:
        yield backend
