"""Options of `dstack pool …`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from reconciler.cli.completion import names
from reconciler.cli.options import shared as o
from reconciler.cli.options.factory import new_app
from reconciler.cli.options.ssh_flags import TakesSshFlags, given

RequiredPool = Annotated[str, typer.Option("--pool", metavar="NAME", help="The pool.", autocompletion=names.pools)]
For = Annotated[str, typer.Option("--for", metavar="DUR", help="Ends that long after it begins.")]
Until = Annotated[str, typer.Option("--until", metavar="TIME", help="Ends then (default: with `pool resume`).")]
Reason = Annotated[str, typer.Option(metavar="TEXT", help="Shown in every plan.")]
Held = Annotated[
    str, typer.Argument(metavar="NAME", help="A pool, or one instance.", autocompletion=names.pools_and_instances)
]
PoolArgument = Annotated[str, typer.Argument(metavar="POOL", autocompletion=names.pools)]


def list_pools(verbose: o.Verbose = False) -> int:
    """List pools and their available instances."""
    from reconciler.cli.commands.pool.ps import show_pools

    return show_pools(verbose=verbose)


def ps(pool: o.PoolName = "", watch: o.Watch = False, as_json: o.AsJson = False, cached: o.Cached = False) -> int:
    """List instances, their status and when they terminate."""
    from reconciler.cli.commands.pool.ps import show_instances

    return show_instances(pool=pool, watch=watch, as_json=as_json, cached=cached)


def create(name: Annotated[str, typer.Option("--name", "-n", metavar="NAME", help="The new pool's name.")]) -> int:
    """Add a pool to the configuration."""
    from reconciler.cli.commands.pool.edit import create_pool

    return create_pool(name)


def delete(
    name: Annotated[
        str, typer.Option("--name", "-n", metavar="NAME", help="The pool to delete.", autocompletion=names.pools)
    ],
) -> int:
    """Delete a pool from the configuration.

    Refused while the pool has instances.
    """
    from reconciler.cli.commands.pool.edit import delete_pool

    return delete_pool(name)


def set_default(pool: RequiredPool) -> int:
    """Make a pool the default pool."""
    from reconciler.cli.commands.pool.edit import set_default_pool

    return set_default_pool(pool)


def add(
    pool: Annotated[
        str | None,
        typer.Option("--pool", metavar="NAME", help="Default: the default pool.", autocompletion=names.pools),
    ] = None,
    name: Annotated[str, typer.Option("--name", "-n", metavar="NAME", help="The instance's name.")] = "",
    count: Annotated[int, typer.Option(metavar="N", min=1, max=1000, help="How many.")] = 1,
    gpu: o.Gpu = None,
    cpu: o.Cpu = None,
    memory: o.Memory = None,
    shared_memory: Annotated[str | None, typer.Option(metavar="SIZE", help="Such as 16GB.")] = None,
    disk: o.Disk = None,
    spot: o.Spot = False,
    on_demand: o.OnDemand = False,
    spot_auto: o.SpotAuto = False,
    spot_policy: o.SpotPolicyName = None,
    retry: o.RetryOn = False,
    no_retry: o.RetryOff = False,
    retry_duration: o.RetryDuration = None,
    max_price: o.MaxPrice = None,
    backend: o.Backends = None,
    region: o.Regions = None,
    instance_type: o.InstanceTypes = None,
    profile: o.ProfileName = None,
    idle_duration: o.IdleDuration = None,
    dont_destroy: o.DontDestroy = False,
    yes: o.Yes = False,
    yes_above: o.YesAbove = "",
    deadline: o.Deadline = "",
) -> int:
    """Create instances in a pool; they terminate after 72h idle."""
    from reconciler.cli.commands.offers.flags import retry_flag, spot_flag
    from reconciler.cli.commands.pool.add import AddAsk, add_to_pool

    asked = AddAsk(
        pool=pool,
        name=name,
        count=count,
        gpu=gpu,
        cpu=cpu,
        memory=memory,
        shared_memory=shared_memory,
        disk=disk,
        spot=spot_flag(spot=spot, on_demand=on_demand, auto=spot_auto, policy=spot_policy),
        retry=retry_flag(retry=retry, no_retry=no_retry),
        retry_duration=retry_duration,
        max_price=max_price,
        backends=tuple(backend or ()),
        regions=tuple(region or ()),
        instance_types=tuple(instance_type or ()),
        profile=profile,
        idle_duration=idle_duration,
        dont_destroy=dont_destroy,
        yes=yes,
        yes_above=yes_above,
        deadline=deadline,
    )
    return add_to_pool(asked)


def add_ssh(
    ctx: typer.Context,
    destination: Annotated[list[str], typer.Argument(metavar="DEST", help="`[user@]host`, or `ssh://user@host:port`.")],
    identity: Annotated[str, typer.Option("-i", metavar="KEY", help="The login's private key, on this machine.")] = "",
    port: Annotated[int | None, typer.Option("-p", metavar="PORT", help="Of all destinations.")] = None,
    login: Annotated[str, typer.Option("-l", metavar="USER", help="Of all destinations.")] = "",
    option: Annotated[list[str] | None, typer.Option("-o", metavar="K=V", help="As `ssh` has it.")] = None,
    jump: Annotated[str, typer.Option("-J", metavar="JUMP", help="`[user@]host[:port]` on the way, or A,B.")] = "",
    config: Annotated[Path | None, typer.Option("-F", metavar="FILE", help="Instead of ~/.ssh/config.")] = None,
    region: Annotated[str, typer.Option(metavar="NAME", help="What runs may ask for as `regions`.")] = "",
    pool: o.PoolName = "",
    name: Annotated[str, typer.Option("--name", metavar="NAME", help="What the host is called.")] = "",
    network: Annotated[str, typer.Option(metavar="CIDR", help="The network that its pool's hosts share.")] = "",
    host_key: Annotated[str, typer.Option(metavar="KEY", help="The key that it must show: `ssh-ed25519 AAAA…`.")] = "",
    take_over: Annotated[bool, typer.Option("--take-over", help="Also a host that another project has.")] = False,
    yes: o.Yes = False,
) -> int:
    """Add SSH hosts to a pool.

    Checks the hosts, shows their keys, asks, and writes them into the configuration.
    """
    from reconciler.cli.commands.pool.add_ssh import add_ssh
    from reconciler.cli.commands.pool.add_ssh_flags import AddSshAsk

    flags = AddSshAsk(
        destinations=tuple(destination),
        identity=identity,
        port=port,
        login=login,
        options=tuple(option or ()),
        ssh_flags=given(ctx),
        jump=jump,
        config=config,
        region=region,
        pool=pool,
        name=name,
        network=network,
        host_key=host_key,
        take_over=take_over,
        yes=yes,
    )
    return add_ssh(flags)


def remove(
    name: Annotated[str, typer.Argument(metavar="NAME", autocompletion=names.instances)],
    pool: o.PoolName = "",
    force: Annotated[bool, typer.Option("--force", help="Also while it is busy: its runs are ended.")] = False,
    yes: o.Yes = False,
    deadline: o.Deadline = "",
) -> int:
    """Terminate an instance."""
    from reconciler.cli.commands.pool.remove import remove_from_pool

    return remove_from_pool(name, pool=pool, force=force, yes=yes, deadline=deadline)


def drain(
    name: Held,
    at: Annotated[str, typer.Option("--at", metavar="TIME", help="From then: 22:00, 'tomorrow 06:00', 2h, ISO.")] = "",
    until: Until = "",
    duration: For = "",
    stop_after: Annotated[str, typer.Option(metavar="DUR", help="Stop what still runs that long after.")] = "",
    reason: Reason = "",
    yes: o.Yes = False,
) -> int:
    """Start no more runs in a pool or on an instance.

    Its instances terminate as they become idle.
    """
    from reconciler.cli.commands.pool.override import PoolOverride, override_pool

    del yes  # nothing is asked: the next apply acts on it, and shows it first
    word = PoolOverride(kind="drain", at=at, until=until, duration=duration, stop_after=stop_after, reason=reason)
    return override_pool(name, word)


def pause(pool: PoolArgument, until: Until = "", duration: For = "", reason: Reason = "", yes: o.Yes = False) -> int:
    """Create no more instances in a pool."""
    from reconciler.cli.commands.pool.override import PoolOverride, override_pool

    del yes  # nothing is asked
    return override_pool(pool, PoolOverride(kind="pause", until=until, duration=duration, reason=reason))


def resume(name: Held, yes: o.Yes = False) -> int:
    """Undo pool drain and pool pause; clear a quarantine."""
    from reconciler.cli.commands.pool.override import resume_pool

    del yes  # nothing is asked
    return resume_pool(name)


def register(app: typer.Typer) -> None:
    """Hang `pool` and its commands into `app`."""
    pools = new_app("Manage pools and their instances.")
    pools.command("list")(list_pools)
    pools.command("ps")(ps)
    pools.command("create")(create)
    pools.command("delete")(delete)
    pools.command("set-default")(set_default)
    pools.command("add")(add)
    pools.command("add-ssh", cls=TakesSshFlags)(add_ssh)
    pools.command("remove")(remove)
    pools.command("rm", hidden=True)(remove)
    pools.command("drain")(drain)
    pools.command("pause")(pause)
    pools.command("resume")(resume)
    app.add_typer(pools, name="pool")
