"""`dstack backend policy`: print the least-privilege policies of a backend as JSON."""

from __future__ import annotations

import json

from backends.registry import Policy, policy_of
from backends.scope import Kind, PolicyScope
from reconciler.cli.commands.backend.buckets import buckets_of
from reconciler.cli.exits import Fail
from reconciler.cli.project import documents_of, project_root, site_of
from reconciler.cli.terminal.streams import out
from reconciler.state.access_modes import modes_of
from schemas.desired import BackendConfig, Desired


def print_policy(name: str, *, kind: Kind, instance_role: str = "") -> int:
    """To stdout, and nothing else: `> policy.json` is meant to work."""
    documents = documents_of(project_root())
    desired = documents.desired
    if not desired.project:
        raise Fail("the project has no id yet, and the policy is bound to it: `dstack init` writes one")
    config, policy = _with_policy(desired, name)
    parameters = tuple(secret.reference for secret in desired.secrets if secret.source in config.traits.parameters)
    scope = PolicyScope(
        project=desired.project,
        buckets=buckets_of(site_of(documents)),
        parameters=parameters,
        modes=modes_of(desired, config),
        instance_role=instance_role,
    )
    out(json.dumps(policy(kind, config, scope), indent=2) + "\n")
    return 0


def _with_policy(desired: Desired, name: str) -> tuple[BackendConfig, Policy]:
    having = ((one, policy_of(one.type)) for one in desired.backends if name in ("", one.name))
    found = [(one, policy) for one, policy in having if policy is not None]
    if len(found) == 1:
        return found[0]
    if found:
        raise Fail(f"several backends have policies: name one of {', '.join(one.name for one, _ in found)}")
    if name:
        raise Fail(f"no backend {name} that has policies is declared: `dstack backend list` shows them")
    raise Fail("no backend that has policies is declared: `dstack aws configure` declares one")
