"""Find our own public address, as AWS sees it."""

from __future__ import annotations

from collections.abc import Mapping

from backends import own_address as found


def own_address(environ: Mapping[str, str]) -> str:
    """ "" where it is not known: no way there, or another endpoint than AWS's own. `DSTACK_ADDRESS` says it."""
    elsewhere = environ.get("AWS_ENDPOINT_URL") or environ.get("AWS_ENDPOINT_URL_EC2")
    return found.own_address(environ, elsewhere=bool(elsewhere))
