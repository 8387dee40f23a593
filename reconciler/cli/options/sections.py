"""Under which heading help shows a command of `dstack` and an option of a command that has many."""

from __future__ import annotations

from schemas.backend_types import TYPES

OTHER = "Other commands"

COMMANDS = {
    "Plan and apply commands": ("plan", "apply", "show", "destroy", "gc"),
    "Run commands": ("run", "ps", "logs", "attach", "stop", "cp", "artifacts", "metrics"),
    "Pool commands": ("pool", "offers", "autoscale"),
    "Inspection commands": ("explain", "events", "cost", "report"),
    "State commands": ("state",),
    "Setup commands": ("init", "validate", "schema", "backend", *TYPES, "completion"),
}

_RESOURCES = ("gpu", "cpu", "memory", "shared_memory", "disk")
_OFFERS = (
    "backend", "region", "instance_type", "profile", "max_price", "spot", "on_demand", "spot_auto", "spot_policy",
    "max_offers",
)  # fmt: skip
_INSTANCE = ("pool", "instance", "reuse", "idle_duration", "dont_destroy")
_RETRY = ("retry", "no_retry", "retry_duration")
_CONSENT = ("yes", "yes_above", "deadline", "strict", "watch", "until_done", "quiet")
_ALLOWANCES = (
    "config_force", "allow_destroy", "allow_endpoint", "allow_mass_destroy", "first_run", "replace", "assume_lost",
    "retry_hosts", "trust_clock", "upgrade_state", "revive",
)  # fmt: skip

OPTIONS = {
    name: title
    for title, names in {
        "Resources": _RESOURCES,
        "Offers": _OFFERS,
        "Instance": _INSTANCE,
        "Retry": _RETRY,
        "Confirmation and waiting": _CONSENT,
        "Permissions of this apply": _ALLOWANCES,
    }.items()
    for name in names
}
