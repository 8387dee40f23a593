"""What every value of the program shares: frozen, strict, compared by content.

Units, everywhere: a time is whole seconds since the epoch (UTC), a duration whole seconds,
a size whole MiB, a price `Decimal` US dollars an hour (written as a string, since float
exponents do not survive YAML 1.1 readers). `None` for a duration means `off`: never.
"""

from __future__ import annotations

from decimal import Decimal

import msgspec

Seconds = int
Mib = int
Price = Decimal

NAME = r"[a-z][a-z0-9-]{0,40}"
PROJECT_ID = r"[a-z0-9]{8,32}"
MOST = Price(10**12)
HOURS = 730
"""Of a month, as clouds count."""


class Value(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True, gc=False):
    """A frozen value. Unknown fields are refused when it is read: never dropped.

    `frozen=True, kw_only=True` are repeated in every subclass: mypy and msgspec want it so.
    """


def is_price(price: Price | None) -> bool:
    """NaN compares with nothing, infinity is no price, and 1e99999 cannot be shown to a cent. Unknown is one."""
    return price is None or (price.is_finite() and abs(price) < MOST)


def place_of(backend: str, region: str = "") -> str:
    """The key of a place: `local`, or `aws/us-east-1` where a backend has regions."""
    return f"{backend}/{region}" if region else backend
