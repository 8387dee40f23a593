"""The AWS CLI's commands that lead to an instance without an address: `connect: instance-connect` and `ssm`. Pure."""

from __future__ import annotations

from schemas.access import Access, Way
from schemas.instance import Instance

CLI = ("aws", "install the AWS CLI, version 2")
PLUGIN = ("session-manager-plugin", "install AWS's Session Manager plugin")


def access(way: Way, instance: Instance) -> Access:
    """Raises `KeyError` for a name that is none of AWS's."""
    where = ("--region", instance.region) if instance.region else ()
    profile = ("--profile", way.profile) if way.profile else ()
    command, needs = {
        "instance-connect": (_instance_connect(instance.external_id), (CLI,)),
        "ssm": (_session(instance.external_id), (CLI, PLUGIN)),
    }[way.name]
    return Access(argv=("aws", *command, *where, *profile), needs=needs)


def _instance_connect(id: str) -> tuple[str, ...]:
    return ("ec2-instance-connect", "open-tunnel", "--instance-id", id, "--remote-port", "22")


def _session(id: str) -> tuple[str, ...]:
    document = ("--document-name", "AWS-StartSSHSession", "--parameters", "portNumber=22")
    return ("ssm", "start-session", "--target", id, *document)
