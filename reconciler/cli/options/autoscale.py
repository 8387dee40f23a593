"""Options of `dstack autoscale …`."""

from __future__ import annotations

from typing import Annotated

import typer

from reconciler.cli.completion import names
from reconciler.cli.options import shared as o
from reconciler.cli.options.factory import new_app

Maximum = Annotated[
    int, typer.Option("--max", metavar="N", min=0, max=100_000, help="At most so many; 0 takes the rule away.")
]
Region = Annotated[str, typer.Option("--region", "-r", metavar="NAME", help="Only there (default: all together).")]


def allow(
    instance_type: Annotated[str, typer.Argument(metavar="TYPE", help="As its cloud calls it: g5.xlarge.")],
    maximum: Maximum,
    region: Region = "",
    backend: Annotated[
        str, typer.Option("--backend", "-b", metavar="NAME", help="Only there.", autocompletion=names.backends)
    ] = "",
    on_demand: Annotated[bool, typer.Option("--on-demand", help="Of on-demand instances, not of spot.")] = False,
    yes: o.Yes = False,
) -> int:
    """Set the maximum number of instances of a type.

    Spot instances above a lowered maximum terminate at once.
    """
    from reconciler.cli.commands.autoscale.edit import allow as allowed
    from schemas.desired import Cap

    cap = Cap(instance_type=instance_type, max=maximum, backend=backend, region=region, spot=not on_demand)
    return allowed(cap, yes=yes)


def info(as_json: o.AsJson = False) -> int:
    """List the rules, their usage and availability."""
    from reconciler.cli.commands.autoscale.info import show_rules

    return show_rules(as_json=as_json)


def clear(yes: o.Yes = False) -> int:
    """Delete all rules; terminate spot instances at once."""
    from reconciler.cli.commands.autoscale.edit import clear as cleared

    return cleared(yes=yes)


def enable(yes: o.Yes = False) -> int:
    """Create spot instances by the rules again."""
    from reconciler.cli.commands.autoscale.edit import switch

    del yes  # nothing is asked: it ends nothing
    return switch(enabled=True, yes=True)


def disable(yes: o.Yes = False) -> int:
    """Terminate spot instances and create no more.

    The rules are kept.
    """
    from reconciler.cli.commands.autoscale.edit import switch

    return switch(enabled=False, yes=yes)


def register(app: typer.Typer) -> None:
    """Hang `autoscale` and its commands into `app`."""
    scale = new_app("Limit instances by type, over all pools.")
    scale.command("allow")(allow)
    scale.command("info")(info)
    scale.command("clear")(clear)
    scale.command("enable")(enable)
    scale.command("disable")(disable)
    app.add_typer(scale, name="autoscale")
