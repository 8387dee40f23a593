"""Options of the commands that start and follow runs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from reconciler.cli.options import shared as o


def run(
    working_dir: Annotated[Path, typer.Argument(metavar="DIR", help="The folder that the run works on.")],
    args: Annotated[list[str] | None, typer.Argument(metavar="ARGS", help="For ${{ run.args }}.")] = None,
    file: Annotated[Path | None, typer.Option("--file", "-f", metavar="FILE", help="Default: .dstack.yml.")] = None,
    name: Annotated[str, typer.Option("--name", "-n", metavar="NAME", help="The run's name.")] = "",
    detach: Annotated[bool, typer.Option("--detach", "-d", help="Return once the job is handed over.")] = False,
    yes: o.Yes = False,
    yes_above: o.YesAbove = "",
    max_offers: Annotated[int, typer.Option(metavar="N", min=1, help="How many offers to show.")] = 3,
    profile: o.ProfileName = None,
    max_price: o.MaxPrice = None,
    max_duration: Annotated[str | None, typer.Option(metavar="DUR", help="End it after so long (or off).")] = None,
    backend: o.Backends = None,
    region: o.Regions = None,
    instance_type: o.InstanceTypes = None,
    pool: o.PoolToUse = None,
    reuse: Annotated[bool, typer.Option("--reuse", help="Only on instances that exist; wait for one.")] = False,
    dont_destroy: o.DontDestroy = False,
    idle_duration: o.IdleDuration = None,
    instance: o.InstanceToUse = None,
    spot: o.Spot = False,
    on_demand: o.OnDemand = False,
    spot_auto: o.SpotAuto = False,
    spot_policy: o.SpotPolicyName = None,
    retry: o.RetryOn = False,
    no_retry: o.RetryOff = False,
    retry_duration: o.RetryDuration = None,
    env: o.Env = None,
    gpu: o.Gpu = None,
    cpu: o.Cpu = None,
    memory: o.Memory = None,
    disk: o.Disk = None,
    port: Annotated[list[str] | None, typer.Option("--port", "-p", metavar="PORT", help="A port of the run.")] = None,
    deadline: o.Deadline = "",
    exit_code_from: Annotated[
        int | None, typer.Option(metavar="N", min=0, help="End with the exit code of node N (0: the first).")
    ] = None,
) -> int:
    """Run a configuration and follow its log.

    Shows the offers and asks before an instance is created.
    """
    from reconciler.cli.commands.offers.flags import retry_flag, spot_flag
    from reconciler.cli.commands.run.run import RunAsk, run_run

    flags = {
        "name": name or None, "profile": profile, "pool": pool, "instance": instance, "reuse": reuse or None,
        "backends": tuple(backend or ()), "regions": tuple(region or ()), "instance_types": tuple(instance_type or ()),
        "spot": spot_flag(spot=spot, on_demand=on_demand, auto=spot_auto, policy=spot_policy),
        "retry": retry_flag(retry=retry, no_retry=no_retry), "retry_duration": retry_duration,
        "max_price": max_price, "max_duration": max_duration, "idle_duration": idle_duration,
        "dont_destroy": dont_destroy or None, "ports": tuple(port or ()),
        "gpu": gpu, "cpu": cpu, "memory": memory, "disk": disk,
    }  # fmt: skip
    asked = RunAsk(
        working_dir=working_dir, file=file, detach=detach, yes=yes, yes_above=yes_above, max_offers=max_offers,
        deadline=deadline, args=tuple(args or ()), env=tuple(env or ()), flags=flags, exit_code_from=exit_code_from,
    )  # fmt: skip
    return run_run(asked)


def ps(
    everything: Annotated[bool, typer.Option("--all", "-a", help="Also the runs that ended.")] = False,
    verbose: o.Verbose = False,
    watch: o.Watch = False,
    as_json: o.AsJson = False,
    cached: o.Cached = False,
) -> int:
    """List runs: unfinished ones, or the last one."""
    from reconciler.cli.commands.run.ps import show_runs

    return show_runs(everything=everything, verbose=verbose, watch=watch, as_json=as_json, cached=cached)


def logs(
    name: Annotated[str, o.RunName],
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Wait for more until the run ends.")] = False,
    job: Annotated[int, typer.Option(metavar="N", min=0, help="The node whose log to show.")] = 0,
    replica: Annotated[int, typer.Option(metavar="N", min=0, help="The replica of a service.")] = 0,
    attempt: Annotated[int, typer.Option(metavar="N", min=0, help="An earlier attempt (default: the last).")] = 0,
    tail: Annotated[int | None, typer.Option(metavar="N", min=0, help="Only its last N lines.")] = None,
    deadline: o.Deadline = "",
) -> int:
    """Print a run's log.

    From its host while it runs, from the store afterwards.
    """
    from reconciler.cli.commands.run.log_output import kept_out_of_runs
    from reconciler.cli.commands.run.logs import show_logs

    with kept_out_of_runs():
        return show_logs(name, follow=follow, job=job, replica=replica, attempt=attempt, tail=tail, deadline=deadline)


def stop(
    names: Annotated[list[str] | None, typer.Argument(metavar="RUN", autocompletion=o.complete_runs)] = None,
    everything: Annotated[bool, typer.Option("--all", help="Every run that has not ended.")] = False,
    abort: Annotated[bool, typer.Option("--abort", "-x", help="At once, without its result.")] = False,
    yes: o.Yes = False,
    deadline: o.Deadline = "",
) -> int:
    """Stop runs and wait until they have ended."""
    from reconciler.cli.commands.run.stop import stop_runs

    return stop_runs(tuple(names or ()), everything=everything, abort=abort, yes=yes, deadline=deadline)


def artifacts(
    name: Annotated[str, o.RunName],
    folder: Annotated[Path | None, typer.Argument(metavar="DIR", help="Default: ./RUN-artifacts.")] = None,
    job: Annotated[int | None, typer.Option(metavar="N", min=0, help="Only this node's.")] = None,
    deadline: o.Deadline = "",
) -> int:
    """Copy a run's artifacts into a folder."""
    from reconciler.cli.commands.run.artifacts import fetch_artifacts

    return fetch_artifacts(name, folder=folder, job=job, deadline=deadline)


def attach(
    name: Annotated[str, o.RunName],
    port: Annotated[
        list[str] | None, typer.Option("--port", "-p", metavar="LOCAL:REMOTE", help="Also forward this port.")
    ] = None,
    job: Annotated[int, typer.Option(metavar="N", min=0, help="The node to attach to.")] = 0,
    replica: Annotated[int, typer.Option(metavar="N", min=0, help="The replica of a service.")] = 0,
    ssh_config: Annotated[
        bool, typer.Option("--ssh-config/--no-ssh-config", help="Make `ssh RUN` enter the run.")
    ] = True,
    yes: o.Yes = False,
    deadline: o.Deadline = "",
) -> int:
    """Follow a run and forward its ports.

    `ssh RUN` and editors can enter the run meanwhile.
    """
    from reconciler.cli.commands.run.attach import AttachFlags, attach_run

    return attach_run(
        AttachFlags(
            name=name,
            ports=tuple(port or ()),
            job=job,
            replica=replica,
            ssh_config=ssh_config,
            yes=yes,
            deadline=deadline,
        )
    )


def enter(
    name: Annotated[str, o.RunName],
    project: Annotated[Path, typer.Option(metavar="DIR", help="The project's folder.")] = Path(),
    job: Annotated[int, typer.Option(metavar="N", min=0)] = 0,
    replica: Annotated[int, typer.Option(metavar="N", min=0)] = 0,
) -> int:
    """What `ssh RUN` starts, as its ProxyCommand."""
    from reconciler.cli.commands.run.enter import enter_run

    return enter_run(name, project=project, job=job, replica=replica)


def cp(
    source: Annotated[str, o.CopyFrom],
    target: Annotated[str, o.CopyTo],
    job: Annotated[int, typer.Option(metavar="N", min=0, help="The node to copy from or to.")] = 0,
    replica: Annotated[int, typer.Option(metavar="N", min=0, help="The replica of a service.")] = 0,
    deadline: o.Deadline = "",
) -> int:
    """Copy files out of a run, or into it.

    After its end, files are copied from its artifacts.
    """
    if ":" in target and "/" not in target.partition(":")[0] and not Path(target).exists():
        from reconciler.cli.commands.run.copy_into import copy_into

        return copy_into(Path(source), target=target, job=job, replica=replica, deadline=deadline)
    from reconciler.cli.commands.run.cp import copy_out

    return copy_out(source, target=Path(target), job=job, replica=replica, deadline=deadline)
