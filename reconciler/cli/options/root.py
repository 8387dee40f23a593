"""The top-level commands: their options, and nothing of their work."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer

from reconciler.cli.options import shared as o
from reconciler.cli.options.factory import EXIT_CODES
from reconciler.cli.options.offers import offers


def plan(
    refresh: Annotated[bool, typer.Option("--refresh", help="Observe first (writes nothing).")] = False,
    as_json: o.AsJson = False,
    out: Annotated[Path | None, typer.Option(metavar="FILE", help="Save the plan for `dstack apply FILE`.")] = None,
    detailed_exitcode: Annotated[bool, typer.Option(help="Exit 2 when there are changes.")] = False,
    pool: o.PoolName = "",
    against: Annotated[str, typer.Option(metavar="REV", help="Tell apart what a change since REV brings.")] = "",
    fail_on: Annotated[str, typer.Option(metavar="GATES", help="Exit 1 on any of destroy, cost>N, unmet.")] = "",
    markdown: Annotated[Path | None, typer.Option(metavar="FILE", help="Write it as a review comment, too.")] = None,
) -> int:
    """Show what apply would change, what it costs, and why. Changes nothing."""
    from reconciler.cli.commands.plan.plan import PlanFlags, show_plan

    return show_plan(
        PlanFlags(
            refresh=refresh,
            as_json=as_json,
            out=out,
            detailed_exitcode=detailed_exitcode,
            pool=pool,
            against=against,
            fail_on=fail_on,
            markdown=markdown,
        )
    )


def apply(
    file: Annotated[Path | None, typer.Argument(metavar="[FILE]", help="A saved plan: do only what it has.")] = None,
    yes: o.Yes = False,
    yes_above: o.YesAbove = "",
    detach: Annotated[bool, typer.Option("--detach", "-d", help="One pass, no waiting (for cron).")] = False,
    deadline: o.Deadline = "",
    strict: Annotated[bool, typer.Option("--strict", help="Exit 3 while anything wanted waits.")] = False,
    pool: o.PoolName = "",
    config_force: o.ConfigForce = False,
    allow_destroy: o.AllowDestroy = None,
    allow_mass_destroy: o.AllowMassDestroy = False,
    first_run: o.FirstRun = False,
    replace: o.Replace = None,
    assume_lost: o.AssumeLost = None,
    retry_hosts: o.RetryHosts = False,
    metrics: Annotated[Path | None, typer.Option(metavar="FILE", help="Write a Prometheus textfile.")] = None,
    upgrade_state: Annotated[bool, typer.Option("--upgrade-state", help="Upgrade the state's format first.")] = False,
) -> int:
    """Observe, plan, ask, do it, and wait until it is seen. Safe to kill at any point."""
    from reconciler.cli.commands.plan.apply import ApplyFlags, run_apply

    return run_apply(
        ApplyFlags(
            file=file,
            yes=yes,
            yes_above=yes_above,
            detach=detach,
            deadline=deadline,
            strict=strict,
            pool=pool,
            config_force=config_force,
            allow_destroy=tuple(allow_destroy or ()),
            allow_mass_destroy=allow_mass_destroy,
            first_run=first_run,
            replace=tuple(replace or ()),
            assume_lost=tuple(assume_lost or ()),
            retry_hosts=retry_hosts,
            upgrade_state=upgrade_state,
            metrics=metrics,
        )
    )


def run(
    working_dir: Annotated[Path, typer.Argument(metavar="DIR", help="The folder that the run works on.")],
    args: Annotated[list[str] | None, typer.Argument(metavar="[ARGS]...", help="For ${{ run.args }}.")] = None,
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
    pool: Annotated[str | None, typer.Option("--pool", metavar="NAME", help="The pool to run in.")] = None,
    reuse: Annotated[bool, typer.Option("--reuse", help="Only on instances that exist; wait for one.")] = False,
    dont_destroy: o.DontDestroy = False,
    idle_duration: o.IdleDuration = None,
    instance: Annotated[str | None, typer.Option("--instance", metavar="NAME", help="On this instance.")] = None,
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
) -> int:
    """Run a configuration: show offers, ask, start it and follow its log."""
    from reconciler.cli.commands.offers.flags import retry_flag, spot_flag
    from reconciler.cli.commands.run.run import RunAsk, run_run

    asked = RunAsk(
        working_dir=working_dir,
        file=file,
        detach=detach,
        yes=yes,
        yes_above=yes_above,
        max_offers=max_offers,
        args=tuple(args or ()),
        env=tuple(env or ()),
        flags={
            "name": name or None,
            "profile": profile,
            "max_price": max_price,
            "max_duration": max_duration,
            "backends": tuple(backend or ()),
            "regions": tuple(region or ()),
            "instance_types": tuple(instance_type or ()),
            "pool": pool,
            "reuse": reuse or None,
            "dont_destroy": dont_destroy or None,
            "idle_duration": idle_duration,
            "instance": instance,
            "spot": spot_flag(spot=spot, on_demand=on_demand, auto=spot_auto, policy=spot_policy),
            "retry": retry_flag(retry=retry, no_retry=no_retry),
            "retry_duration": retry_duration,
            "gpu": gpu,
            "cpu": cpu,
            "memory": memory,
            "disk": disk,
            "ports": tuple(port or ()),
        },
    )
    return run_run(asked)


def ps(
    everything: Annotated[bool, typer.Option("--all", "-a", help="Also the runs that ended.")] = False,
    verbose: o.Verbose = False,
    watch: o.Watch = False,
    as_json: o.AsJson = False,
) -> int:
    """List runs: the unfinished ones or, without any, the last one."""
    from reconciler.cli.commands.run.ps import show_runs

    return show_runs(everything=everything, verbose=verbose, watch=watch, as_json=as_json)


def logs(
    name: Annotated[str, typer.Argument(metavar="RUN")],
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Wait for more until the run ends.")] = False,
    job: Annotated[int, typer.Option(metavar="N", min=0, help="The node whose log to show.")] = 0,
    replica: Annotated[int, typer.Option(metavar="N", min=0, help="The replica of a service.")] = 0,
    attempt: Annotated[int, typer.Option(metavar="N", min=0, help="An earlier attempt (default: the last).")] = 0,
) -> int:
    """Print a run's log: from its host while it runs, from the store afterwards."""
    from reconciler.cli.commands.run.logs import show_logs

    return show_logs(name, follow=follow, job=job, replica=replica, attempt=attempt)


def stop(
    name: Annotated[str, typer.Argument(metavar="RUN")],
    abort: Annotated[bool, typer.Option("--abort", "-x", help="At once, without its result.")] = False,
    yes: o.Yes = False,
) -> int:
    """Stop a run and wait until it has ended."""
    from reconciler.cli.commands.run.stop import stop_run_named

    return stop_run_named(name, abort=abort, yes=yes)


def artifacts(
    name: Annotated[str, typer.Argument(metavar="RUN")],
    folder: Annotated[Path | None, typer.Argument(metavar="[DIR]", help="Default: ./RUN-artifacts.")] = None,
    job: Annotated[int | None, typer.Option(metavar="N", min=0, help="Only this node's.")] = None,
) -> int:
    """Copy what a run left (its `artifacts`) into a folder."""
    from reconciler.cli.commands.run.artifacts import fetch_artifacts

    return fetch_artifacts(name, folder=folder, job=job)


def cost(
    since: o.Since = "",
    by: Annotated[str, typer.Option(metavar="WHAT", help="pool, user, run, backend or tag.")] = "pool",
    as_json: o.AsJson = False,
    as_csv: Annotated[bool, typer.Option("--csv", help="Print CSV, without a total.")] = False,
) -> int:
    """Show what was billed, by whom it was used and how much of it was idle; this month's, if nothing is said."""
    from reconciler.cli.commands.cost import show_cost

    return show_cost(since=since, by=by, as_json=as_json, as_csv=as_csv)


def events(
    since: o.Since = "",
    pool: o.PoolName = "",
    run: Annotated[str, typer.Option("--run", metavar="RUN", help="Only this run, by name or id.")] = "",
    as_json: o.AsJson = False,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Wait for more, until Ctrl-C.")] = False,
) -> int:
    """List what happened: launches, ends, runs, applies; the last day's, if nothing is said."""
    from reconciler.cli.commands.cost import EventFlags, show_events

    return show_events(EventFlags(since=since, pool=pool, run=run, as_json=as_json, follow=follow))


def validate(
    paths: Annotated[list[Path] | None, typer.Argument(metavar="[PATH]...", help="Default: this project.")] = None,
) -> int:
    """Check folders, `.dstack` files and run configurations; every problem in one pass."""
    from reconciler.cli.commands.documents import check

    return check(tuple(paths or ()))


def schema(name: Annotated[str, typer.Argument(metavar="[NAME]", help="Without it: the names.")] = "") -> int:
    """Print the JSON Schema of the documents or of an output."""
    from reconciler.cli.commands.documents import print_schema

    return print_schema(name)


def init(folder: Annotated[Path, typer.Argument(metavar="[DIR]")] = Path()) -> int:
    """Write a commented `.dstack/` to start from, with the project's id."""
    from reconciler.cli.commands.documents import start_project

    return start_project(folder)


def destroy(
    deadline: o.Deadline = "",
    confirm: Annotated[str, typer.Option(metavar="PROJECT", help="Instead of typing the project's name.")] = "",
) -> int:
    """End every instance and run of the project, after a typed confirmation."""
    from reconciler.cli.commands.plan.destroy import run_destroy

    return run_destroy(deadline=deadline, confirmed=confirm)


def attach(
    name: Annotated[str, typer.Argument(metavar="RUN")],
    port: Annotated[
        list[str] | None, typer.Option("--port", "-p", metavar="LOCAL:REMOTE", help="Also forward this port.")
    ] = None,
    job: Annotated[int, typer.Option(metavar="N", min=0, help="The node to attach to.")] = 0,
    replica: Annotated[int, typer.Option(metavar="N", min=0, help="The replica of a service.")] = 0,
    ssh_config: Annotated[
        bool, typer.Option("--ssh-config/--no-ssh-config", help="Make `ssh RUN` enter the run.")
    ] = True,
    yes: o.Yes = False,
) -> int:
    """Follow a run with its ports forwarded, until Ctrl-C; `ssh RUN` and editors enter it."""
    from reconciler.cli.commands.run.attach import AttachFlags, attach_run

    return attach_run(
        AttachFlags(name=name, ports=tuple(port or ()), job=job, replica=replica, ssh_config=ssh_config, yes=yes)
    )


def enter(
    name: Annotated[str, typer.Argument(metavar="RUN")],
    project: Annotated[Path, typer.Option(metavar="DIR", help="The project's folder.")] = Path(),
    job: Annotated[int, typer.Option(metavar="N", min=0)] = 0,
    replica: Annotated[int, typer.Option(metavar="N", min=0)] = 0,
) -> int:
    """What `ssh RUN` starts, as its ProxyCommand."""
    from reconciler.cli.commands.run.enter import enter_run

    return enter_run(name, project=project, job=job, replica=replica)


def cp(
    source: Annotated[str, typer.Argument(metavar="RUN:PATH", help="Relative to the run's working folder.")],
    target: Annotated[Path, typer.Argument(metavar="DEST", help="A file or folder here.")],
    job: Annotated[int, typer.Option(metavar="N", min=0, help="The node to copy from.")] = 0,
    replica: Annotated[int, typer.Option(metavar="N", min=0, help="The replica of a service.")] = 0,
) -> int:
    """Copy a file or folder out of a run: as it is now, or from its artifacts once it has ended."""
    from reconciler.cli.commands.run.cp import copy_out

    return copy_out(source, target=target, job=job, replica=replica)


def gc(yes: o.Yes = False, as_json: o.AsJson = False) -> int:
    """List what carries the project's id in any cloud and nobody owns, and remove it."""
    from reconciler.cli.commands.gc import collect_garbage

    return collect_garbage(yes=yes, as_json=as_json)


def _command(
    function: Callable[..., int], *, context: dict[str, bool] | None = None, hidden: bool = False
) -> Callable[[typer.Typer], None]:
    def register(app: typer.Typer) -> None:
        codes = EXIT_CODES if function.__name__ in ("plan", "apply", "run") else None
        app.command(context_settings=context, epilog=codes, hidden=hidden)(function)

    return register


COMMANDS: dict[str, Callable[[typer.Typer], None]] = {
    "plan": _command(plan),
    "apply": _command(apply),
    "run": _command(run, context={"ignore_unknown_options": True}),
    "offers": _command(offers),
    "ps": _command(ps),
    "logs": _command(logs),
    "stop": _command(stop),
    "artifacts": _command(artifacts),
    "cost": _command(cost),
    "events": _command(events),
    "validate": _command(validate),
    "schema": _command(schema),
    "init": _command(init),
    "destroy": _command(destroy),
    "gc": _command(gc),
    "attach": _command(attach),
    "cp": _command(cp),
    "enter": _command(enter, hidden=True),
}
