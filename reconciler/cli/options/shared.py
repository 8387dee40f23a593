"""Options that several commands share, declared once so that they read the same everywhere."""

from __future__ import annotations

from typing import Annotated

import typer

from reconciler.cli.completion import names

Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]
YesAbove = Annotated[
    str, typer.Option(metavar="PRICE", help="With -y: say yes up to this $/h, above the documents' confirm_above.")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON of a stable shape.")]
Watch = Annotated[bool, typer.Option("--watch", "-w", help="Show it again as it changes.")]
Cached = Annotated[bool, typer.Option("--cached", help="Show what the last apply observed.")]
Verbose = Annotated[bool, typer.Option("--verbose", "-v", help="Show more columns.")]
Since = Annotated[str, typer.Option(metavar="WHEN", help="A date (2026-11-01) or how long ago (7d).")]
PoolName = Annotated[str, typer.Option("--pool", metavar="NAME", help="Only this pool.", autocompletion=names.pools)]
ConfigForce = Annotated[
    bool, typer.Option("--config-force", help="Apply these documents although others that are newer rule.")
]
AllowDestroy = Annotated[
    list[str] | None,
    typer.Option(
        "--allow-destroy", metavar="POOL", help="This pool may be removed with all it has.", autocompletion=names.pools
    ),
]
AllowEndpoint = Annotated[
    list[str] | None,
    typer.Option(
        "--allow-endpoint",
        metavar="BACKEND",
        help="Send its credentials to its new endpoint.",
        autocompletion=names.backends,
    ),
]
AllowMassDestroy = Annotated[
    bool, typer.Option("--allow-mass-destroy", help="End more than half of a pool for inferred reasons.")
]
FirstRun = Annotated[bool, typer.Option("--first-run", help="Start the declared runs that a rebuild holds back.")]
Replace = Annotated[
    list[str] | None,
    typer.Option(
        "--replace", metavar="RUN", help="Replace this changed run now, not at its end.", autocompletion=names.runs
    ),
]
AssumeLost = Annotated[
    list[str] | None,
    typer.Option(
        "--assume-lost", metavar="RUN", help="Take this run's unknown attempt for lost.", autocompletion=names.runs
    ),
]
RetryHosts = Annotated[
    bool, typer.Option("--retry-hosts", help="Look at failing hosts now, though put off (at a terminal: always).")
]
TrustClock = Annotated[
    bool, typer.Option("--trust-clock", help="This machine's clock is right, whatever the last apply wrote.")
]
Deadline = Annotated[str, typer.Option(metavar="DUR", help="Wait no longer than this (10m, 1h30m); then exit 3.")]
Again = Annotated[bool, typer.Option("--watch", help="Apply again every 60s, or --watch EVERY, until Ctrl-C.")]
Every = Annotated[str, typer.Option("--every", hidden=True, metavar="DUR")]
UntilDone = Annotated[
    bool, typer.Option("--until-done", help="Apply again until no run waits or runs; exit 1 where one failed.")
]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Print nothing where nothing changes.")]
CostBy = Annotated[
    str,
    typer.Option(
        metavar="WHAT",
        help="pool, user, run, backend or tag.",
        autocompletion=names.one_of("pool", "user", "run", "backend", "tag"),
    ),
]
OnlyRun = Annotated[
    str, typer.Option("--run", metavar="RUN", help="Only this run, by name or id.", autocompletion=names.runs)
]

PoolToUse = Annotated[
    str | None, typer.Option("--pool", metavar="NAME", help="The pool to run in.", autocompletion=names.pools)
]
InstanceToUse = Annotated[
    str | None, typer.Option("--instance", metavar="NAME", help="On this instance.", autocompletion=names.instances)
]
CopyFrom = typer.Argument(
    metavar="RUN:PATH", help="Or a file or folder here, to copy into a run.", autocompletion=names.run_paths
)
CopyTo = typer.Argument(metavar="DEST", help="A file or folder here, or RUN:PATH.", autocompletion=names.run_paths)
complete_runs = names.runs
RunName = typer.Argument(metavar="RUN", autocompletion=names.runs)

# Offers, for `run` and `pool add`: a flag that is not given changes nothing.
Backends = Annotated[
    list[str] | None,
    typer.Option("--backend", "-b", metavar="NAME", help="Only this backend.", autocompletion=names.backends),
]
Regions = Annotated[list[str] | None, typer.Option("--region", "-r", metavar="NAME", help="Only this region.")]
InstanceTypes = Annotated[
    list[str] | None, typer.Option("--instance-type", metavar="NAME", help="Only this instance type.")
]
ProfileName = Annotated[
    str | None,
    typer.Option("--profile", metavar="NAME", help="A profile of the documents.", autocompletion=names.profiles),
]
MaxPrice = Annotated[str | None, typer.Option("--max-price", metavar="PRICE", help="At most this $/h an instance.")]
Spot = Annotated[bool, typer.Option("--spot", help="Only spot instances.")]
OnDemand = Annotated[bool, typer.Option("--on-demand", help="Only on-demand instances.")]
SpotAuto = Annotated[bool, typer.Option("--spot-auto", help="Both, by price.")]
SpotPolicyName = Annotated[
    str | None,
    typer.Option(
        "--spot-policy", metavar="POLICY", help="spot, on-demand or auto.", autocompletion=names.spot_policies
    ),
]
RetryOn = Annotated[bool, typer.Option("--retry", help="Try again on every kind of failure.")]
RetryOff = Annotated[bool, typer.Option("--no-retry", help="Never try again.")]
RetryDuration = Annotated[str | None, typer.Option("--retry-duration", metavar="DUR", help="For how long to retry.")]
IdleDuration = Annotated[
    str | None, typer.Option("--idle-duration", metavar="DUR", help="End the instance after so long idle (or off).")
]
DontDestroy = Annotated[bool, typer.Option("--dont-destroy", help="Keep the instance when it is idle.")]
Gpu = Annotated[str | None, typer.Option("--gpu", metavar="SPEC", help="Such as A100:80GB:2.")]
Cpu = Annotated[str | None, typer.Option("--cpu", metavar="RANGE", help="Such as 4.. or arm:8.")]
Memory = Annotated[str | None, typer.Option("--memory", metavar="RANGE", help="Such as 16GB.. or 8GB..32GB.")]
Disk = Annotated[str | None, typer.Option("--disk", metavar="RANGE", help="Such as 100GB.. or 50GB..200GB.")]
Env = Annotated[
    list[str] | None, typer.Option("--env", "-e", metavar="K=V", help="For the run, sealed; K alone: its value here.")
]
