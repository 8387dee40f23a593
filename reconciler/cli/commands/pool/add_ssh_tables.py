"""Tables of host keys and checks for `dstack pool add-ssh`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from backends.ssh.probe_facts import Check
from reconciler.engine.survey_hosts import ShownKey, Surveyed
from reconciler.report.tables import GAP, fitted
from reconciler.text.format import clean, resources
from schemas.host import fingerprint

if TYPE_CHECKING:
    from rich.console import RenderableType

_WORDS = {
    "known": "pinned",
    "yours": "in your known_hosts",
    "given": "given",
    "new": "new: compare it on the server",
    "changed": "CHANGED",
    "revoked": "REVOKED",
}


def key_table(keys: Sequence[ShownKey], *, width: int) -> RenderableType:
    """HOST ADDRESS TYPE FINGERPRINT KEY; where that is too wide, a few lines a key: no fingerprint is ever cut."""
    heads = ["HOST", "ADDRESS", "TYPE", "FINGERPRINT", "KEY"]
    lines = [
        [key.name, key.address, key.key.split()[0].removeprefix("ssh-"), fingerprint(key.key), _state(key)]
        for key in keys
    ]
    if not width or sum(max(map(len, column)) + GAP for column in zip(heads, *lines, strict=True)) - GAP <= width:
        return fitted(heads, lines, core=len(heads), width=0)
    from rich.console import Group
    from rich.text import Text

    said = [
        line
        for name, address, kind, print_, state in lines
        for line in (f"{name} ({address}), {kind}", f"  {print_}", f"  {state}")
    ]
    return Group(*(Text(clean(line), overflow="ignore", no_wrap=True) for line in said))


def _state(key: ShownKey) -> str:
    said = {"changed": f": pinned is {fingerprint(key.pinned)}" if key.pinned else "", "revoked": f" in {key.revoked}"}
    return _WORDS[key.trust] + said.get(key.trust, "")


def check_lines(one: Surveyed) -> Iterator[str]:
    """Every check by its name, with the time it took; those that failed first."""
    host = one.host
    if one.looked is None:
        yield clean(f"{host.name} ({host.address}): {one.error}")
        return
    has = one.looked.probed
    yield clean(f"{host.name} ({host.address}): {resources(has.resources)}, {has.kernel}, as {has.login}")
    checks = one.looked.checks
    for check in (*(c for c in checks if c.ok is False), *(c for c in checks if c.ok is None and c.said)):
        yield clean(f"  {'failed' if check.ok is False else 'note'}  {check.name}: {check.said}")
    if has.foreign:
        yield clean(f"  note  gpu-processes: {has.foreign}")
    good = ", ".join(_good(check) for check in checks if check.ok)
    yield clean(f"  ok    {good}")


def _good(check: Check) -> str:
    took = f" {check.took}ms" if check.took else ""
    return f"{check.name}{took}"
