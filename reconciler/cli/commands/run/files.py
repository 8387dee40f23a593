"""Pack a run's files into the store, and ask before very many are sent."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from reconciler.app.site import Site
from reconciler.app.stores import blobs_of, scratch_of
from reconciler.cli.exits import Fail
from reconciler.cli.terminal.streams import NoTerminal, ask, say
from reconciler.cli.terminal.transfer_bar import Transfer
from reconciler.secrets.resolve import secret_files
from schemas.desired import Desired
from schemas.run import RunSpec


def pack(site: Site, spec: RunSpec, *, desired: Desired, yes: bool) -> str:
    """The digest of the bundle in the store."""
    path = packer(site, yes=yes)(site.root, spec.files, secret_files(desired))
    try:
        return blobs_of(site, told=Transfer().told).put(path)
    finally:
        path.unlink(missing_ok=True)


def packer(site: Site, *, yes: bool) -> Callable[[Path, tuple[str, ...] | None, tuple[str, ...]], Path]:
    """`bundle` of `Ports` that asks above the limit, listing the largest files; `Fail` where that is declined."""
    from reconciler.store.blobs.bundle import CannotBundle, TooLarge, bundle

    def packed(root: Path, files: tuple[str, ...] | None, never: tuple[str, ...]) -> Path:
        try:
            return bundle(root, files, scratch=scratch_of(site), never=never, told=lambda note: say(f"note: {note}"))
        except TooLarge as large:
            if not _agreed(str(large), yes=yes):
                raise Fail(f"{large}; leave them out by .gitignore, or add -y to take them along") from large
            return bundle(root, files, scratch=scratch_of(site), limit=None, never=never)
        except CannotBundle as error:
            raise Fail(str(error)) from error

    return packed


def _agreed(what: str, *, yes: bool) -> bool:
    """Whether so much may be taken along."""
    say(f"note: {what}")
    if yes:
        return True
    try:
        return ask("Take them all?")
    except NoTerminal:
        return False
