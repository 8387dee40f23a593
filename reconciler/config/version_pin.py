"""Check that this version of dstack satisfies `requires: ">=0.4,<0.5"`.

Asked of whatever plans or ticks. Lists (`ps`, `logs`, `cost` …) are shown whatever is required: a person must see
what runs and what it costs.
"""

from __future__ import annotations

DISTRIBUTION = "dstack-pools"


def unmet_requirement(requires: str, *, version: str = "") -> str:
    """Why not, with the next step; "" when it is met. `version` is the installed one where not given."""
    from packaging.specifiers import SpecifierSet  # 25 ms, paid where something is required

    have = version or _installed()
    if not have or SpecifierSet(requires).contains(have, prereleases=True):
        return ""
    return (
        f"dstack {have} is installed, and the documents require {requires}: "
        f"`pip install '{DISTRIBUTION}{requires}'`, or change `requires`"
    )


def _installed() -> str:
    """ "" where the program runs from a source tree that is not installed."""
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version(DISTRIBUTION)
    except PackageNotFoundError:
        return ""
