"""Whether the address that a backend is given leads to this machine. Pure."""

from __future__ import annotations

import re

_HERE = re.compile(r"https?://(localhost|127(\.[0-9]{1,3}){3}|\[::1\])(:[0-9]{1,5})?")


def leads_here(endpoint: str) -> bool:
    """A scheme, a loopback host and a port at most: no login before the host, no path behind it."""
    return bool(_HERE.fullmatch(endpoint))
