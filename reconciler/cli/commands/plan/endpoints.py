"""Ask whether a backend's credentials may be sent to a new endpoint, before anything is sent there."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from reconciler.cli.did_you_mean import near
from reconciler.cli.exits import Fail
from reconciler.cli.terminal.streams import ask, interactive, say
from reconciler.config.endpoints import NewEndpoint
from reconciler.config.load import Documents, load


def with_agreed_endpoints(documents: Documents, *, allowed: Iterable[str]) -> Documents:
    """The documents with each new endpoint confirmed: by its backend's name in `allowed`, or at the prompt.

    Raises:
        Fail: an endpoint is not confirmed. Nothing was sent.
    """
    named = frozenset(allowed)
    _known(named, [config.name for config in documents.desired.backends])
    new = documents.new_endpoints
    if not new:
        return documents
    for one in new:
        say(f"configuration: {one}")
    asked = [one for one in new if one.backend not in named]
    if asked:
        _agree(asked)
    confirmed = {**documents.endpoints, **{one.backend: one.new for one in new}}
    agreed = load(documents.root, home=Path.home(), endpoints=confirmed)
    if agreed.new_endpoints:
        raise Fail(".dstack changed while you were asked. Nothing was sent. Run the command again.")
    return agreed


def _agree(asked: Sequence[NewEndpoint]) -> None:
    """`Fail` where a person says no, or none can be asked. `-y` alone does not cover it."""
    names = ", ".join(dict.fromkeys(one.backend for one in asked))
    flags = " ".join(dict.fromkeys(f"--allow-endpoint {one.backend}" for one in asked))
    if not interactive():
        raise Fail(
            f"the endpoint of backend {names} is not confirmed: this is not a terminal, and -y does not cover it. "
            f"Nothing was sent. Review it, then add {flags}"
        )
    if not ask(f"Send the credentials of backend {names} there?"):
        raise Fail(f"the endpoint of backend {names} was declined. Nothing was sent and nothing was changed")


def _known(named: frozenset[str], names: Sequence[str]) -> None:
    for name in sorted(named - {*names}):
        raise Fail(f"--allow-endpoint {name}: no such backend in .dstack; {near(name, names)}")
