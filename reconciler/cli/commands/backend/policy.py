"""`dstack backend policy`: the least-privilege IAM policies of an aws backend, as JSON ready to be attached."""

from __future__ import annotations

import json

from backends.aws.iam_policy import Kind, Scope, policy
from reconciler.cli.commands.backend.check import buckets_of
from reconciler.cli.exits import Fail
from reconciler.cli.project import documents_of, project_root, site_of
from reconciler.cli.terminal.streams import out
from reconciler.state.access_modes import modes_of
from schemas.desired import BackendConfig, Desired


def print_policy(name: str, *, kind: Kind) -> int:
    """To stdout, and nothing else: `> policy.json` is meant to work."""
    documents = documents_of(project_root())
    desired = documents.desired
    if not desired.project:
        raise Fail("the project has no id yet, and the policy is bound to it: `dstack init` writes one")
    parameters = tuple(secret.reference for secret in desired.secrets if secret.source == "ssm")
    config = _aws(desired, name)
    scope = Scope(
        project=desired.project,
        buckets=buckets_of(site_of(documents)),
        parameters=parameters,
        modes=modes_of(desired, config),
    )
    out(json.dumps(policy(kind, config, scope), indent=2) + "\n")
    return 0


def _aws(desired: Desired, name: str) -> BackendConfig:
    found = [one for one in desired.backends if one.type == "aws" and name in ("", one.name)]
    if len(found) == 1:
        return found[0]
    if found:
        raise Fail(f"there are several backends of type aws: name one of {', '.join(one.name for one in found)}")
    if name:
        raise Fail(f"no backend {name} of type aws; policies are AWS's alone")
    raise Fail("no backend of type aws is declared: `dstack aws configure` declares one")
