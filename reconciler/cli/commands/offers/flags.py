"""Turn flags that exclude one another into one value. A flag that is not given stays unset."""

from __future__ import annotations

from reconciler.cli.exits import Fail
from schemas.resources import SpotPolicy


def spot_flag(*, spot: bool, on_demand: bool, auto: bool, policy: str | None) -> SpotPolicy | None:
    """Of `--spot`, `--on-demand`, `--spot-auto` and `--spot-policy`, at most one."""
    found: list[SpotPolicy] = []
    if spot:
        found.append("spot")
    if on_demand:
        found.append("on-demand")
    if auto:
        found.append("auto")
    match policy:
        case None:
            pass
        case "spot" | "on-demand" | "auto":
            found.append(policy)
        case _:
            raise Fail(f"--spot-policy {policy}: must be spot, on-demand or auto")
    if len(set(found)) > 1:
        raise Fail("give one of --spot, --on-demand, --spot-auto and --spot-policy")
    return found[0] if found else None


def retry_flag(*, retry: bool, no_retry: bool) -> bool | None:
    if retry and no_retry:
        raise Fail("give one of --retry and --no-retry")
    return True if retry else False if no_retry else None
