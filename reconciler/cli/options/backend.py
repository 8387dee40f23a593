"""Options of `dstack backend …` and `dstack aws …`."""

from __future__ import annotations

from typing import Annotated

import typer

from reconciler.cli.completion import names
from reconciler.cli.options import shared as o
from reconciler.cli.options.factory import new_app

Name = Annotated[
    str,
    typer.Argument(metavar="NAME", help="Default: all of them.", show_default=False, autocompletion=names.backends),
]


def list_backends(as_json: o.AsJson = False) -> int:
    """List backends, their instances and hourly cost."""
    from reconciler.cli.commands.backend.list import list_backends as listed

    return listed(as_json=as_json)


def check(name: Name = "", as_json: o.AsJson = False) -> int:
    """Check credentials, rights, quotas and network.

    Starts with what this machine lacks. Changes nothing.
    """
    from reconciler.cli.commands.backend.check import check_backends

    return check_backends(name, as_json=as_json)


def policy(
    name: Name = "",
    plan: Annotated[bool, typer.Option("--plan", help="For those who plan: nothing but looks.")] = False,
    apply: Annotated[bool, typer.Option("--apply", help="For those who apply.")] = False,
    instance_role: Annotated[
        str, typer.Option(metavar="ROLE", help="The machines' role, where `iam_instance_profile` is named otherwise.")
    ] = "",
) -> int:
    """Print the IAM policy that the project needs."""
    from reconciler.cli.commands.backend.policy import print_policy
    from reconciler.cli.exits import Fail

    if plan == apply:
        raise Fail("give one of --plan and --apply: two policies, for two kinds of people and jobs")
    return print_policy(name, kind="plan" if plan else "apply", instance_role=instance_role)


def key() -> int:
    """Create the project's key, or print where it is.

    The key opens the instances that dstack creates. It is never printed.
    """
    from reconciler.cli.commands.backend.key import make_key

    return make_key()


def configure(
    profile: Annotated[str, typer.Option(metavar="NAME", help="A profile of AWS's files, or where a key goes.")] = "",
    key_id: Annotated[str, typer.Option("--key-id", metavar="ID", help="An access key of an IAM user.")] = "",
    secret_stdin: Annotated[bool, typer.Option("--secret-stdin", help="Its secret is read from stdin.")] = False,
    region: Annotated[str, typer.Option("--region", "-r", metavar="NAME", help="Where to have instances.")] = "",
    bucket: Annotated[str, typer.Option(metavar="BUCKET", help="Where artifacts go: s3://BUCKET/PREFIX.")] = "",
    role_arn: Annotated[str, typer.Option(metavar="ARN", help="A role to take on with these credentials.")] = "",
    external_id: Annotated[str, typer.Option(metavar="ID", help="What that role wants to hear.")] = "",
    name: Annotated[str, typer.Option("--name", metavar="NAME", help="What the backend is called.")] = "aws",
    as_json: o.AsJson = False,
    yes: o.Yes = False,
) -> int:
    """Check AWS credentials and add the backend.

    A new key is stored in AWS's own file.
    """
    from reconciler.cli.commands.backend.aws_configure import AwsAsk
    from reconciler.cli.commands.backend.aws_configure import configure as configured

    return configured(
        AwsAsk(
            name=name,
            profile=profile,
            key_id=key_id,
            secret_stdin=secret_stdin,
            region=region,
            bucket=bucket,
            role_arn=role_arn,
            external_id=external_id,
            as_json=as_json,
            yes=yes,
        )
    )


def register(app: typer.Typer) -> None:
    """Hang `backend` and `aws` and their commands into `app`."""
    backends = new_app("Inspect backends: identity, rights, cost, key.")
    backends.command("list")(list_backends)
    backends.command("check")(check)
    backends.command("policy")(policy)
    backends.command("key")(key)
    app.add_typer(backends, name="backend")
    aws = new_app("Set up AWS.")
    aws.command("configure")(configure)
    aws.callback()(_nothing)
    app.add_typer(aws, name="aws")


def _nothing() -> None:
    """Set up AWS."""
