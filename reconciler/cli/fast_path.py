"""Parse the most frequent commands without typer, when they have switches alone.

Everything else, help and mistakes included, is typer's: it and what it imports cost more than a plan.
"""

from __future__ import annotations

from collections.abc import Sequence

PLAN = {"--refresh": "refresh", "--json": "as_json", "--detailed-exitcode": "detailed_exitcode"}
PS = {
    "--all": "everything", "-a": "everything", "--verbose": "verbose", "-v": "verbose", "--watch": "watch",
    "-w": "watch", "--json": "as_json", "--cached": "cached",
}  # fmt: skip
POOL_PS = {"--watch": "watch", "-w": "watch", "--json": "as_json", "--cached": "cached"}


def quick(arguments: Sequence[str]) -> int | None:
    """The exit code, or None where the command line is not one of these."""
    match list(arguments):
        case ["plan", *given] if _only(given, PLAN):
            from reconciler.cli.commands.plan.plan import PlanFlags, show_plan

            on = _switches(given, PLAN)
            return show_plan(
                PlanFlags(refresh=on["refresh"], as_json=on["as_json"], detailed_exitcode=on["detailed_exitcode"])
            )
        case ["ps", *given] if _only(given, PS):
            from reconciler.cli.commands.run.ps import show_runs

            return show_runs(**_switches(given, PS))
        case ["pool", "ps", *given] if _only(given, POOL_PS):
            from reconciler.cli.commands.pool.ps import show_instances

            return show_instances(pool="", **_switches(given, POOL_PS))
    return None


def _only(given: Sequence[str], known: dict[str, str]) -> bool:
    return all(one in known for one in given)


def _switches(given: Sequence[str], known: dict[str, str]) -> dict[str, bool]:
    """Every switch by its parameter's name, true where it was given."""
    return dict.fromkeys(known.values(), False) | {known[one]: True for one in given}
