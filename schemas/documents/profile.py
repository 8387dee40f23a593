"""Profiles, and the keys that profiles and runs share."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from schemas.documents.scalars import FLAG_SCHEMA, Flag, Positive, Text, Texts, flag, text, whole
from schemas.documents.shape import Form, Shape, Wrong, each, form, inlined, kind_of, one_of
from schemas.documents.span import OFF_SCHEMA, SIZE_SCHEMA, Duration, OffDuration, duration, size
from schemas.profile import Retry
from schemas.run import LARGEST_LOG

SPOT = one_of("spot", "on-demand", "auto", what="a spot policy")
EVENT = one_of("no-capacity", "interruption", "error", what="an event to retry on")
RESERVED = {"aws:": "AWS's", "dstack-": "dstack's"}
LONGEST_KEY, LONGEST_VALUE = 128, 256  # docs.aws.amazon.com/AWSEC2: "Tag restrictions"
EVERY_EVENT = Retry(no_capacity=True, interruption=True, error=True)


class RetryForm(Form):
    on_events: Annotated[tuple[str, ...], each(EVENT.read, EVENT.schema, least=1)]
    duration: Annotated[int, Shape(lambda value: duration(value, off=True), OFF_SCHEMA)] | None = None


class RetryPolicyForm(Form):
    """The older way to say `retry`."""

    retry: Flag | None = None
    duration: Duration | None = None
    limit: Duration | None = None


def retry(value: Any) -> Retry:
    """`true` is every event for 1h; or the events and for how long."""
    if not isinstance(value, dict):
        try:
            return EVERY_EVENT if flag(value) else Retry()
        except Wrong:
            raise Wrong(f"should be true, false or a mapping with `on_events`, not {kind_of(value)}") from None
    asked = form(RetryForm, value)
    span = 3600 if asked.duration is None else asked.duration
    return Retry(
        no_capacity="no-capacity" in asked.on_events,
        interruption="interruption" in asked.on_events,
        error="error" in asked.on_events,
        duration=None if span < 0 else span,
    )


def retry_policy(value: Any) -> Retry:
    asked = form(RetryPolicyForm, value)
    span = asked.duration if asked.duration is not None else asked.limit
    if span is None and not asked.retry:
        return Retry()
    return Retry(no_capacity=True, interruption=True, error=True, duration=3600 if span is None else span)


def tags(value: Any) -> tuple[tuple[str, str], ...]:
    if not isinstance(value, dict):
        raise Wrong(f"should be a mapping of tags, not {kind_of(value)}")
    found = []
    for key, item in value.items():
        try:
            found.append((str(key), _tag(str(key), text(item))))
        except Wrong as wrong:
            raise Wrong(str(wrong), key) from None
    return tuple(found)


def _tag(key: str, value: str) -> str:
    """Within what EC2 takes: a launch would be refused for it, or its value cut short."""
    for start, whose in RESERVED.items():
        if key.lower().startswith(start):
            raise Wrong(f"tags that begin with `{start}` are {whose} own")
    if not 1 <= len(key) <= LONGEST_KEY or len(value) > LONGEST_VALUE:
        raise Wrong(f"a tag has at most {LONGEST_KEY} characters of name and {LONGEST_VALUE} of value")
    return value


TAGS = Shape(tags, {"type": "object", "additionalProperties": {"type": ["string", "number", "boolean"]}})
SpotPolicy = Annotated[Literal["spot", "on-demand", "auto"], SPOT]
RetryKey = Annotated[Retry, Shape(retry, lambda: {"anyOf": [FLAG_SCHEMA, inlined(RetryForm)]})]
RetryPolicyKey = Annotated[Retry, Shape(retry_policy, lambda: inlined(RetryPolicyForm))]


def _log_limit(value: Any) -> int:
    """MiB."""
    asked = size(value)
    if not 1 <= asked <= LARGEST_LOG:
        raise Wrong(f"`log_limit` is from 1MB to {LARGEST_LOG // 1024}GB")
    return asked


class UtilizationForm(Form):
    min_gpu_utilization: Annotated[int, whole(0, 100)]
    time_window: Duration


UTILIZATION = Shape(lambda value: form(UtilizationForm, value), lambda: inlined(UtilizationForm))


class ProfileKeys(Form):
    """What a profile may say, and a run for itself."""

    backends: Texts | None = None
    regions: Texts | None = None
    availability_zones: Texts | None = None
    instance_types: Texts | None = None
    reservation: Text | None = None
    spot_policy: SpotPolicy | None = None
    retry: RetryKey | None = None
    retry_policy: RetryPolicyKey | None = None
    max_duration: OffDuration | None = None
    stop_duration: OffDuration | None = None
    log_limit: Annotated[int, Shape(_log_limit, SIZE_SCHEMA)] | None = None
    max_price: Positive | None = None
    pool_name: Text | None = None
    instance_name: Text | None = None
    creation_policy: Annotated[str, one_of("reuse", "reuse-or-create", what="a creation policy")] | None = None
    idle_duration: OffDuration | None = None
    termination_policy: (
        Annotated[str, one_of("destroy-after-idle", "dont-destroy", what="a termination policy")] | None
    ) = None
    termination_idle_time: OffDuration | None = None
    utilization_policy: Annotated[Any, UTILIZATION] | None = None
    tags: Annotated[tuple[tuple[str, str], ...], TAGS] | None = None


class ProfileForm(ProfileKeys):
    """One of `profiles`."""

    name: Text
    default: Flag | None = None
