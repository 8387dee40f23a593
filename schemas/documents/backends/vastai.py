"""The backend `vastai`."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from schemas.documents.backends.base import ApiKeyForm
from schemas.documents.scalars import Flag, Texts
from schemas.documents.shape import Shape, Wrong, kind_of


def _share(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1:
        raise Wrong(f"should be a number from 0 to 1, not {kind_of(value)}")
    return float(value)


Share = Annotated[float, Shape(_share, {"type": "number", "minimum": 0, "maximum": 1})]


class VastaiForm(ApiKeyForm):
    """`regions`: codes of countries (`DE`), or `world`. `verified`, `datacenter`, `min_reliability`: whose machines."""

    type: Literal["vastai"]
    regions: Texts | None = ("world",)
    min_reliability: Share | None = None
    verified: Flag | None = None
    datacenter: Flag | None = None
