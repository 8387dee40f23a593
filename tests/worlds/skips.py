"""What a run of the tests left out, and why: one line a reason at its end. Where CI is set, it fails for that."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable
from typing import Any

# Each is given by whoever has it: the documents of vendors' interfaces, a cluster to try.
BY_CHOICE = ("DSTACK_TEST_SPECS", "DSTACK_TEST_KUBECONFIG")


def reasons(skipped: Iterable[Any]) -> Counter[str]:
    """How many tests each reason left out; `skipped` are pytest's reports of them, of whole modules too."""
    return Counter(_reason(report.longrepr) for report in skipped)


def _reason(said: object) -> str:
    """Pytest says (file, line, "Skipped: why")."""
    text = str(said[2]) if isinstance(said, tuple) else str(said)
    return text.removeprefix("Skipped: ")


def by_choice(reason: str) -> bool:
    """Whether nothing is missing: such a reason is `NAME is not set`, with one of the names above."""
    return reason in {f"{name} is not set" for name in BY_CHOICE}


def lacking(found: Iterable[str]) -> list[str]:
    return sorted(reason for reason in found if not by_choice(reason))


def lines(found: Counter[str]) -> list[str]:
    return [
        f"{'left out' if by_choice(reason) else 'NOT TESTED'}: {number} tests: {reason}"
        for reason, number in sorted(found.items())
    ]


def must_have_all() -> bool:
    return os.environ.get("CI", "").lower() not in ("", "0", "false")
