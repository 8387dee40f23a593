"""Kubernetes' quantities (`500m`, `512Gi`, `1e3`) as numbers. Pure."""

from __future__ import annotations

import re
from decimal import Decimal
from typing import Any

_QUANTITY = re.compile(r"([+-]?[0-9.]+)(?:([eE][+-]?[0-9]+)|(m|k|[MGTPE]|[KMGTPE]i|u|n)?)")
_FACTORS = {
    "": Decimal(1), "n": Decimal("1e-9"), "u": Decimal("1e-6"), "m": Decimal("0.001"), "k": Decimal(1000),
    **{letter: Decimal(1000) ** power for power, letter in enumerate("MGTPE", 2)},
    **{f"{letter}i": Decimal(1024) ** power for power, letter in enumerate("KMGTPE", 1)},
}  # fmt: skip
MIB = 1024 * 1024


def number(text: Any) -> Decimal:
    """The plain number that a quantity means; 0 for what is none, so that a strange node offers nothing."""
    found = _QUANTITY.fullmatch(str(text).strip())
    if found is None or found[1].count(".") > 1 or not any(map(str.isdigit, found[1])):
        return Decimal(0)
    return Decimal(found[1] + (found[2] or "")) * _FACTORS[found[3] or ""]


def mib(text: Any) -> int:
    """A size in whole MiB, rounded down."""
    return int(number(text) / MIB)
