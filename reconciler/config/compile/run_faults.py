"""Find keys of a run that contradict each other or its type."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from reconciler.config.problems import Problem
from reconciler.config.read import FormEntry
from schemas.environment import too_large


def run_faults(entry: FormEntry) -> Iterator[Problem]:
    """What no key is guilty of alone."""
    if entry.dropped & {"commands", "image", "python", "replicas", "scaling"}:
        return
    for path, message in _run_faults(entry.form, entry.raw):
        yield entry.problem(message, *path)


def _run_faults(form: Any, raw: Mapping[str, Any]) -> Iterator[tuple[tuple[str | int, ...], str]]:
    if form.type != "dev-environment" and not form.commands and form.image is None:
        yield ("commands",), "`commands` or `image` is missing: nothing would run"
    if (large := too_large(form.env or ())) is not None:
        name, why = large
        listed = isinstance(raw.get("env"), list)
        at = next((index for index, (each, _) in enumerate(form.env) if each == name), 0)
        yield ("env", at if listed else name), why
    if form.image is not None and form.python is not None:
        yield ("python",), "`python` and `image` exclude each other"
    if form.type == "service":
        yield from _service_faults(form)


def _service_faults(form: Any) -> Iterator[tuple[tuple[str | int, ...], str]]:
    span = form.replicas
    ranged = span is not None and span.min != span.max
    if ranged and form.scaling is None:
        yield ("replicas",), "a range of replicas needs `scaling`"
    if form.scaling is not None and not ranged:
        yield ("scaling",), "`scaling` needs `replicas` to be a range: such as `1..4`"
