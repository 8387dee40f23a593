"""`requires: ">=0.4,<0.5"`: may this version of the program use the documents?"""

from __future__ import annotations

import re

DISTRIBUTION = "dstack-pools"

_CLAUSE = re.compile(r"(>=|<=|==|!=|~=|<|>)([0-9.]+)")


def unmet_requirement(requires: str, *, version: str = "") -> str:
    """Why not, in words; "" when it is met. `version` is the installed one where not given."""
    have = version or _installed()
    if not have:
        return ""
    for operator, wanted in _CLAUSE.findall(requires):
        if not _holds(_parts(have), operator, _parts(wanted), given=wanted.count(".")):
            return f"{DISTRIBUTION} {have} is installed, and the documents require {requires}"
    return ""


def _installed() -> str:
    """"" where the program runs from a source tree that is not installed."""
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version(DISTRIBUTION)
    except PackageNotFoundError:
        return ""


def _parts(version: str) -> tuple[int, ...]:
    numbers = re.match(r"[0-9]+(\.[0-9]+)*", version)
    parts = tuple(int(number) for number in numbers[0].split(".")) if numbers else ()
    return parts + (0,) * (4 - len(parts))


def _holds(have: tuple[int, ...], operator: str, wanted: tuple[int, ...], *, given: int) -> bool:
    """`given` is how many dots `wanted` was written with: `~=1.2.3` stays within 1.2."""
    match operator:
        case ">=":
            return have >= wanted
        case "<=":
            return have <= wanted
        case "<":
            return have < wanted
        case ">":
            return have > wanted
        case "!=":
            return have != wanted
        case "~=":
            return have >= wanted and have[: max(given, 1)] == wanted[: max(given, 1)]
        case _:
            return have == wanted
