"""Compile the keys that profiles and runs share: each value and where it was written."""

from __future__ import annotations

from typing import Any

from schemas.documents.profile import ProfileForm, ProfileKeys
from schemas.documents.span import OFF
from schemas.profile import Profile, Retry

Layer = tuple[str, Profile]
"""(where it was written, its values)."""

_EMPTY = Profile(name="")


def compile_profile(form: ProfileForm) -> Profile:
    return layer_of(form, name=form.name, default=bool(form.default))


def layer_of(form: ProfileKeys, *, name: str = "", default: bool = False) -> Profile:
    """The profile keys of a profile or of a run, each `None` or empty where it is silent."""
    idle = idle_of(form)
    return Profile(
        name=name,
        default=default,
        backends=form.backends or (),
        regions=form.regions or (),
        zones=form.availability_zones or (),
        instance_types=form.instance_types or (),
        spot=form.spot_policy,
        retry=retry_of(form),
        max_duration=None if form.max_duration == OFF else form.max_duration,
        max_duration_off=form.max_duration == OFF,
        stop_duration=None if form.stop_duration == OFF else form.stop_duration,
        stop_off=form.stop_duration == OFF,
        max_price=form.max_price,
        pool=form.pool_name or "",
        instance_name=form.instance_name or "",
        reuse_only=None if form.creation_policy is None else form.creation_policy == "reuse",
        idle_duration=None if idle == OFF else idle,
        idle_off=idle == OFF,
        reservation=form.reservation or "",
        log_limit=form.log_limit,
        utilization=True if form.utilization_policy is not None else None,
        tags=form.tags or (),
    )


def idle_of(form: ProfileKeys) -> int | None:
    """Seconds, `OFF`, or `None` for unsaid: `idle_duration`, or its two older names."""
    if form.idle_duration is not None:
        return form.idle_duration
    if form.termination_policy == "dont-destroy":
        return OFF
    return form.termination_idle_time


def retry_of(form: ProfileKeys) -> Retry | None:
    return form.retry if form.retry is not None else form.retry_policy


class Chosen:
    """Picks each value from the first layer that says it, and remembers where that was."""

    def __init__(self, layers: list[Layer]) -> None:
        self.layers = layers
        self.sources: dict[str, str] = {}

    def pick(self, field: str, default: Any, *, shown: str = "") -> Any:
        """The first value that is neither `None` nor empty."""
        for source, layer in self.layers:
            value = getattr(layer, field)
            if value not in (None, (), ""):
                return self.note(shown or field, value, source)
        return self.note(shown or field, default, "default")

    def duration(self, field: str, off: str, default: int | None) -> int | None:
        """Like `pick` where `None` is `off`."""
        for source, layer in self.layers:
            if getattr(layer, off):
                self.note(field, None, source)
                return None
            if getattr(layer, field) is not None:
                return int(self.note(field, getattr(layer, field), source))
        self.note(field, default, "default")
        return default

    def note(self, field: str, value: Any, source: str) -> Any:
        self.sources[field] = source
        return value

    def written(self) -> tuple[tuple[str, str], ...]:
        """(field, where it was written), but what is a default."""
        return tuple(sorted((field, source) for field, source in self.sources.items() if source != "default"))
