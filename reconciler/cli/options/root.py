"""Options of the top-level commands."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer

from reconciler.cli.options import shared as o
from reconciler.cli.options.documents import completion, init, schema, validate
from reconciler.cli.options.factory import EXIT_CODES
from reconciler.cli.options.inspection import explain, show
from reconciler.cli.options.offers import offers
from reconciler.cli.options.run import artifacts, attach, cp, enter, logs, ps, run, stop

GATES = "Exit 1 on any of destroy, cost>N, max-cost>N, pending, config."


def plan(
    refresh: Annotated[bool, typer.Option("--refresh", help="Observe first (writes nothing).")] = False,
    as_json: o.AsJson = False,
    out: Annotated[Path | None, typer.Option(metavar="FILE", help="Save the plan for `dstack apply FILE`.")] = None,
    detailed_exitcode: Annotated[
        bool, typer.Option("--detailed-exitcode", help="Exit 2 when there are changes.")
    ] = False,
    pool: o.PoolName = "",
    against: Annotated[str, typer.Option(metavar="REV", help="Tell apart what a change since REV brings.")] = "",
    fail_on: Annotated[str, typer.Option(metavar="GATES", help=GATES)] = "",
    markdown: Annotated[Path | None, typer.Option(metavar="FILE", help="Write it as a review comment, too.")] = None,
) -> int:
    """Show what apply would change and what it costs.

    Nothing is changed. With --refresh, backends and hosts are asked first.
    """
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
    file: Annotated[Path | None, typer.Argument(metavar="FILE", help="A saved plan: do only what it has.")] = None,
    yes: o.Yes = False,
    yes_above: o.YesAbove = "",
    detach: Annotated[bool, typer.Option("--detach", "-d", help="One pass, no waiting (for cron).")] = False,
    deadline: o.Deadline = "",
    strict: Annotated[bool, typer.Option("--strict", help="Exit 3 while anything wanted waits.")] = False,
    pool: o.PoolName = "",
    config_force: o.ConfigForce = False,
    allow_destroy: o.AllowDestroy = None,
    allow_endpoint: o.AllowEndpoint = None,
    allow_mass_destroy: o.AllowMassDestroy = False,
    first_run: o.FirstRun = False,
    replace: o.Replace = None,
    assume_lost: o.AssumeLost = None,
    retry_hosts: o.RetryHosts = False,
    trust_clock: o.TrustClock = False,
    metrics: Annotated[Path | None, typer.Option(metavar="FILE", help="Write a Prometheus textfile.")] = None,
    revive: Annotated[bool, typer.Option("--revive", help="Create a destroyed project again.")] = False,
    upgrade_state: Annotated[bool, typer.Option("--upgrade-state", help="Upgrade the state's format first.")] = False,
    watch: o.Again = False,
    every: o.Every = "",
    until_done: o.UntilDone = False,
    quiet: o.Quiet = False,
) -> int:
    """Apply the configuration: create, start and terminate.

    Shows the plan, asks for confirmation, applies it and waits until it is done. Safe to interrupt at any time.
    """
    from reconciler.cli.commands.plan.apply import ApplyFlags
    from reconciler.cli.commands.plan.apply_watch import run_apply

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
            allow_endpoint=tuple(allow_endpoint or ()),
            allow_mass_destroy=allow_mass_destroy,
            first_run=first_run,
            replace=tuple(replace or ()),
            assume_lost=tuple(assume_lost or ()),
            retry_hosts=retry_hosts,
            trust_clock=trust_clock,
            upgrade_state=upgrade_state,
            revive=revive,
            metrics=metrics,
            watch=watch,
            every=every,
            until_done=until_done,
            quiet=quiet,
        )
    )


def cost(
    since: o.Since = "",
    by: o.CostBy = "pool",
    as_json: o.AsJson = False,
    as_csv: Annotated[bool, typer.Option("--csv", help="Print CSV, without a total.")] = False,
) -> int:
    """Show what was billed, by pool, user, run or backend.

    Without --since: this month, with the share of idle time.
    """
    from reconciler.cli.commands.cost import show_cost

    return show_cost(since=since, by=by, as_json=as_json, as_csv=as_csv)


def events(
    since: o.Since = "",
    pool: o.PoolName = "",
    run: o.OnlyRun = "",
    as_json: o.AsJson = False,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Wait for more, until Ctrl-C.")] = False,
) -> int:
    """List what happened: launches, ends, runs, applies.

    Without --since: the last day.
    """
    from reconciler.cli.commands.cost import EventFlags, show_events

    return show_events(EventFlags(since=since, pool=pool, run=run, as_json=as_json, follow=follow))


def destroy(
    deadline: o.Deadline = "",
    confirm: Annotated[str, typer.Option(metavar="PROJECT", help="Instead of typing the project's name.")] = "",
) -> int:
    """Terminate every instance and run of the project.

    Asks for the project's name as confirmation.
    """
    from reconciler.cli.commands.plan.destroy import run_destroy

    return run_destroy(deadline=deadline, confirmed=confirm)


def gc(yes: o.Yes = False, as_json: o.AsJson = False) -> int:
    """List orphaned cloud resources and delete them.

    An orphan has the project's tag and no owner. Every region of every backend is checked.
    """
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
    "show": _command(show),
    "explain": _command(explain),
    "destroy": _command(destroy),
    "gc": _command(gc),
    "completion": _command(completion),
    "attach": _command(attach),
    "cp": _command(cp),
    "enter": _command(enter, hidden=True),
}
