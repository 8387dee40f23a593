"""Options of `dstack offers`."""

from __future__ import annotations

from typing import Annotated

import typer

from reconciler.cli.completion import names
from reconciler.cli.options import shared as o


def offers(
    gpu: o.Gpu = None,
    cpu: o.Cpu = None,
    memory: o.Memory = None,
    disk: o.Disk = None,
    spot: o.Spot = False,
    on_demand: o.OnDemand = False,
    spot_auto: o.SpotAuto = False,
    spot_policy: o.SpotPolicyName = None,
    backend: o.Backends = None,
    region: o.Regions = None,
    instance_type: o.InstanceTypes = None,
    max_price: o.MaxPrice = None,
    max_offers: Annotated[int | None, typer.Option(metavar="N", min=1, help="How many to show (10).")] = None,
    pool: Annotated[
        str,
        typer.Option(
            "--pool", metavar="NAME", help="Under this pool's limits, in its blocks.", autocompletion=names.pools
        ),
    ] = "",
    group_by: Annotated[
        str,
        typer.Option(
            metavar="WHAT", help="gpu, region or backend.", autocompletion=names.one_of("gpu", "region", "backend")
        ),
    ] = "",
    refresh: Annotated[bool, typer.Option("--refresh", help="Ask for younger prices first, AWS itself too.")] = False,
    as_json: o.AsJson = False,
) -> int:
    """List instance offers, cheapest first.

    Needs no credentials and changes nothing. PRICED says where each price comes from.
    """
    from reconciler.cli.commands.offers.flags import spot_flag
    from reconciler.cli.commands.offers.list import OffersFlags, show_offer_list

    return show_offer_list(
        OffersFlags(
            gpu=gpu,
            cpu=cpu,
            memory=memory,
            disk=disk,
            spot=spot_flag(spot=spot, on_demand=on_demand, auto=spot_auto, policy=spot_policy),
            backends=tuple(backend or ()),
            regions=tuple(region or ()),
            instance_types=tuple(instance_type or ()),
            max_price=max_price or "",
            most=max_offers,
            pool=pool,
            group_by=group_by,
            as_json=as_json,
            refresh=refresh,
        )
    )
