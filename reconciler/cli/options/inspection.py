"""Options of `show` and `explain`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from reconciler.cli.options import shared as o


def explain(
    words: Annotated[
        list[str], typer.Argument(metavar="[KIND] NAME", help="A run, instance or pool; or `offer TYPE`.")
    ],
    as_json: o.AsJson = False,
) -> int:
    """Explain a run, an instance, a pool or an offer.

    Of a run: each instance, the offers by what they fail, and the smallest change that would match.
    """
    from reconciler.cli.commands.explain import explain as explained

    return explained(words, as_json=as_json)


def show(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A plan that `dstack plan --out` saved.")],
    as_json: o.AsJson = False,
    markdown: Annotated[Path | None, typer.Option(metavar="FILE", help="Write it as a review comment, too.")] = None,
) -> int:
    """Show a saved plan again.

    Nothing is asked or changed. `dstack apply FILE` applies it.
    """
    from reconciler.cli.commands.plan.show import show_saved

    return show_saved(file, as_json=as_json, markdown=markdown)
