"""`resources`: what one node needs."""

from __future__ import annotations

import re
from typing import Annotated, Any

from schemas.documents.scalars import text
from schemas.documents.shape import Form, Schema, Shape, Wrong, form, inlined, kind_of, not_among
from schemas.documents.span import (
    COUNT_SPAN_SCHEMA,
    SIZE_SPAN_SCHEMA,
    CountSpan,
    Size,
    SizeSpan,
    count_span,
    size_span,
)
from schemas.resources import GpuNeed, Need, Span

VENDORS = ("nvidia", "amd", "google", "intel", "tenstorrent")
ARCHES = ("x86", "arm")


def read_vendor(value: Any) -> str:
    word = "google" if str(value).lower() == "tpu" else str(value).lower()
    if isinstance(value, str) and word in VENDORS:
        return word
    raise Wrong(not_among(value, VENDORS, "a GPU vendor"))


def gpu_names(value: Any) -> tuple[str, ...]:
    """`A100`, `A100,H100` or a list; lower case."""
    if any(isinstance(item, bool) for item in (value if isinstance(value, list | tuple) else [value])):
        raise Wrong("a GPU name is text, not true or false")
    items = [text(item) for item in value] if isinstance(value, list | tuple) else text(value).split(",")
    names = tuple(item.strip().lower().removeprefix("tpu-") for item in items)
    if not names or not all(names):
        raise Wrong("a GPU name is empty")
    return names


def capability(value: Any) -> Span:
    """`8.6` is 86 tenths, and asks for at least that."""
    listed = isinstance(value, list | tuple)
    parts = value if listed else text(value).strip().split(".")
    numbers = [str(part) if not listed or isinstance(part, int) else "" for part in parts]
    if len(numbers) == 1 and not listed:
        numbers.append("0")
    if len(numbers) != 2 or not all(re.fullmatch("[0-9]{1,2}", number) for number in numbers):
        raise Wrong(f"{kind_of(value)} is not a compute capability: such as `8.6`")
    return Span(min=int(numbers[0]) * 10 + int(numbers[1]))


class GpuForm(Form):
    """GPUs as a mapping."""

    vendor: (
        Annotated[
            str,
            Shape(
                read_vendor,
                lambda: {
                    "enum": [
                        spelled for word in (*VENDORS, "tpu") for spelled in (word, word.upper(), word.capitalize())
                    ]
                },
            ),
        ]
        | None
    ) = None
    name: (
        Annotated[
            tuple[str, ...],
            Shape(
                gpu_names,
                {
                    "anyOf": [
                        {"type": "string", "pattern": "^[^,]*[^, ][^,]*(,[^,]*[^, ][^,]*)*$"},
                        {"type": "number"},
                        {"type": "array", "minItems": 1, "items": {"type": ["string", "number"], "pattern": "[^ ]"}},
                    ]
                },
            ),
        ]
        | None
    ) = None
    count: CountSpan | None = None
    memory: SizeSpan | None = None
    total_memory: SizeSpan | None = None
    compute_capability: (
        Annotated[
            Span,
            Shape(
                capability,
                {
                    "anyOf": [
                        {"type": "number", "minimum": 0, "exclusiveMaximum": 100},
                        {"type": "string", "pattern": r"^\s*[0-9]{1,2}(\.[0-9]{1,2})?\s*$"},
                        {
                            "type": "array",
                            "items": {"type": "integer", "minimum": 0, "maximum": 99},
                            "minItems": 2,
                            "maxItems": 2,
                        },
                    ]
                },
            ),
        ]
        | None
    ) = None


def read_gpu(value: Any) -> GpuNeed:
    """A count, a mapping, or tokens in any order: names, a memory, a count, a vendor."""
    if isinstance(value, GpuNeed):
        return value
    if isinstance(value, dict):
        return _need(dict(form(GpuForm, value)))
    if isinstance(value, int | float) and not isinstance(value, bool):
        return GpuNeed(count=count_span(value))
    if isinstance(value, str):
        return _need(_tokens(value))
    raise Wrong(f"{kind_of(value)} does not describe GPUs: such as `A100:80GB:2`")


def _need(parts: dict[str, Any]) -> GpuNeed:
    given = {key: value for key, value in parts.items() if value is not None}
    return GpuNeed(
        vendor=given.get("vendor", ""),
        names=given.get("name", ()),
        count=given.get("count", Span(min=1, max=1)),
        memory=given.get("memory", Span()),
        total_memory=given.get("total_memory", Span()),
        compute_capability=given.get("compute_capability", Span()),
    )


def _tokens(value: str) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for token in value.replace(" ", "").split(":"):
        if not token:
            raise Wrong(f"`{value}` has an empty part")
        kind, read = _token(token)
        if kind in found:
            raise Wrong(f"`{value}` gives the {kind} twice")
        found[kind] = read
    return found


def _token(token: str) -> tuple[str, Any]:
    if token.lower() in (*VENDORS, "tpu"):
        return "vendor", read_vendor(token)
    if token[0].isalpha():
        return "name", gpu_names(token)
    if any(letter.isalpha() for letter in token):
        return "memory", size_span(token)
    return "count", count_span(token)


def read_cpu(value: Any) -> tuple[str, Span]:
    """`4`, `2..8`, `x86:4..`, `arm:8`: (architecture or "", range)."""
    if isinstance(value, str) and ":" in value:
        arch, _, amount = value.partition(":")
        if arch.strip().lower() not in ARCHES:
            raise Wrong(not_among(arch.strip(), ARCHES, "a CPU architecture"))
        return arch.strip().lower(), count_span(amount)
    return "", count_span(value)


def read_disk(value: Any) -> Span:
    """A size, a range, or `{size: …}`."""
    if isinstance(value, dict) and "size" in value:
        return form(DiskForm, value).size
    return size_span(value)


class DiskForm(Form):
    size: SizeSpan


def _cpu_schema() -> Schema:
    pattern = COUNT_SPAN_SCHEMA["anyOf"][1]["pattern"]
    arched = {"type": "string", "pattern": pattern.replace("^", "^ *(?:[xX]86|[aA][rR][mM]) *:", 1)}
    return {"anyOf": [*COUNT_SPAN_SCHEMA["anyOf"], arched]}


def gpu_schema() -> Schema:
    amounts = [each["anyOf"][1]["pattern"].strip("^$") for each in (SIZE_SPAN_SCHEMA, COUNT_SPAN_SCHEMA)]
    names, with_unit = " *[A-Za-z][^:,]*(?:,[^:,]*[^:, ][^:,]*)*", f"(?=[^:]*[A-Za-z])(?:{amounts[0]})"
    token = "|".join([names, with_unit, amounts[1]])
    tokens = {"type": "string", "pattern": f"^(?:{token})(?::(?:{token}))*$"}
    return {"anyOf": [{"type": "number", "minimum": 0, "exclusiveMaximum": 10**9}, tokens, inlined(GpuForm)]}


class ResourcesForm(Form):
    """What one node needs. What is not asked is not required (see `Offer.cloud`)."""

    cpu: Annotated[tuple[str, Span], Shape(read_cpu, _cpu_schema)] | None = None
    memory: SizeSpan | None = None
    shm_size: Size | None = None
    gpu: Annotated[GpuNeed, Shape(read_gpu, gpu_schema)] | None = None
    disk: (
        Annotated[Span, Shape(read_disk, lambda: {"anyOf": [*SIZE_SPAN_SCHEMA["anyOf"], inlined(DiskForm)]})] | None
    ) = None


def need(value: Any) -> Need:
    asked = form(ResourcesForm, value)
    arch, cpus = asked.cpu or ("", Span())
    return Need(
        cpu_arch=arch,
        cpu=cpus,
        memory=asked.memory or Span(),
        disk=asked.disk or Span(),
        shm=asked.shm_size,
        gpu=asked.gpu,
    )


Resources = Annotated[Need, Shape(need, lambda: inlined(ResourcesForm))]
