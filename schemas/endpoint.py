"""Whether requests may be sent to the address that a backend is given. Pure."""

from __future__ import annotations

import re

_HERE = re.compile(r"https?://(localhost|127(\.[0-9]{1,3}){3}|\[::1\])(:[0-9]{1,5})?")


def leads_here(endpoint: str) -> bool:
    """A scheme, a loopback host and a port at most: no login before the host, no path behind it."""
    return bool(_HERE.fullmatch(endpoint))


def withheld(endpoint: str, *, confirmed: str) -> str:
    """Why nothing may be sent to `endpoint`; "" where it may.

    Credentials are sent to the vendor's own address, to this machine, and to the one address that a person confirmed.
    """
    if not endpoint or leads_here(endpoint) or endpoint == confirmed:
        return ""
    return "endpoint is not applied yet: run `dstack apply`"
