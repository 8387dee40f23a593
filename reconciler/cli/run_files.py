"""A run's files, packed into the store; a person is asked about very many."""

from __future__ import annotations

from reconciler.cli.fail import Fail
from reconciler.cli.terminal import NoTerminal, ask, say
from reconciler.wire import Site, blobs_of
from schemas.run import RunSpec


def pack(site: Site, spec: RunSpec, *, yes: bool) -> str:
    """The digest of the bundle. Asks above the limit, listing the largest files."""
    from reconciler.bundle import CannotBundle, TooLarge, bundle

    try:
        try:
            path = bundle(site.root, spec.files)
        except TooLarge as large:
            if not agreed(str(large), yes=yes):
                raise Fail(f"{large}; leave them out by .gitignore") from large
            path = bundle(site.root, spec.files, limit=None)
    except CannotBundle as error:
        raise Fail(str(error)) from error
    try:
        return blobs_of(site).put(path)
    finally:
        path.unlink(missing_ok=True)


def agreed(what: str, *, yes: bool) -> bool:
    """Whether so much may be taken along."""
    say(f"note: {what}")
    if yes:
        return True
    try:
        return ask("Take them all?")
    except NoTerminal:
        return False
