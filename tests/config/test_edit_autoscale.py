"""Edits of the autoscale rules: exactly the lines that are meant, and every other byte as it was."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from reconciler.config.edit.autoscale import clear_rules, remove_rule, set_enabled, set_rule
from reconciler.config.edit.pools import Edit
from schemas.desired import Cap

A = Cap(instance_type="a1.large", max=4)
B_EU = Cap(instance_type="b2.xlarge", max=2, region="eu-west-1")
C_OD = Cap(instance_type="c3.large", max=1, backend="aws", spot=False)
BLOCK = """\
# what may be bought
autoscale:
  rules:   # the list
    # the cheap one
    - {instance_type: a1.large, max: 3}   # three
    # the dear one
    - instance_type: b2.xlarge
      max: 1   # one
      region: eu-west-1

# and more
budget: {max_hourly: 9}
"""
LIST = """\
autoscale:
# first
- {instance_type: a1.large, max: 3}
- {instance_type: z, max: 1}
budget: {max_hourly: 9}
"""
FLOW = "autoscale: [{instance_type: a1.large, max: 3}] # flow\n"

STEPS: dict[str, tuple[str, Callable[[Path], Edit | None], str]] = {
    "raise in a flow rule": (BLOCK, lambda at: set_rule(at, A), BLOCK.replace("max: 3", "max: 4")),
    "raise in a block rule": (BLOCK, lambda at: set_rule(at, B_EU), BLOCK.replace("max: 1 ", "max: 2 ")),
    "one more": (
        BLOCK, lambda at: set_rule(at, C_OD),
        BLOCK.replace(
            "eu-west-1\n", "eu-west-1\n    - {instance_type: c3.large, max: 1, backend: aws, spot: false}\n"
        ),
    ),
    "take the first": (
        BLOCK, lambda at: remove_rule(at, A),
        BLOCK.replace("    - {instance_type: a1.large, max: 3}   # three\n", ""),
    ),
    "take the last": (
        BLOCK, lambda at: remove_rule(at, B_EU),
        BLOCK.replace(
            "    # the dear one\n    - instance_type: b2.xlarge\n      max: 1   # one\n      region: eu-west-1\n", ""
        ),
    ),
    "clear": (
        BLOCK, clear_rules,
        "# what may be bought\nautoscale:\n  rules: []   # the list\n    # the cheap one\n\n"
        "# and more\nbudget: {max_hourly: 9}\n",
    ),
    "disable": (
        BLOCK, lambda at: set_enabled(at, enabled=False), BLOCK.replace("  rules", "  enabled: false\n  rules"),
    ),
    "a list: disable": (
        LIST, lambda at: set_enabled(at, enabled=False),
        "autoscale:\n  enabled: false\n  rules:\n  # first\n  - {instance_type: a1.large, max: 3}\n"
        "  - {instance_type: z, max: 1}\nbudget: {max_hourly: 9}\n",
    ),
    "a list: one more": (
        LIST, lambda at: set_rule(at, B_EU),
        LIST.replace("z, max: 1}\n", "z, max: 1}\n- {instance_type: b2.xlarge, max: 2, region: eu-west-1}\n"),
    ),
    "flow: raise": (FLOW, lambda at: set_rule(at, A), FLOW.replace("3", "4")),
    "flow: one more": (
        FLOW, lambda at: set_rule(at, Cap(instance_type="z", max=1)),
        FLOW.replace("}]", "}, {instance_type: z, max: 1}]"),
    ),
    "flow: clear": (FLOW, clear_rules, "autoscale: [] # flow\n"),
    "flow: disable": (
        FLOW, lambda at: set_enabled(at, enabled=False),
        "autoscale: {enabled: false, rules: [{instance_type: a1.large, max: 3}]} # flow\n",
    ),
    "enable what was disabled": (
        "autoscale: {rules: [], enabled: false}  # off\n", lambda at: set_enabled(at, enabled=True),
        "autoscale: {rules: [], enabled: true}  # off\n",
    ),
    "the first rule of an empty list": (
        "autoscale: {rules: []}\n", lambda at: set_rule(at, A),
        "autoscale: {rules: [{instance_type: a1.large, max: 4}]}\n",
    ),
    "the first rule of a switch": (
        "autoscale:\n  enabled: false # off\nkeep: 5d\n", lambda at: set_rule(at, A),
        "autoscale:\n  enabled: false # off\n  rules:\n    - {instance_type: a1.large, max: 4}\nkeep: 5d\n",
    ),
    "said twice": (
        "autoscale:\n- {instance_type: a1.large, max: 3}\n- {instance_type: a1.large, max: 9, spot: true}\n",
        lambda at: set_rule(at, A), "autoscale:\n- {instance_type: a1.large, max: 4}\n",
    ),
    "carriage returns": (
        "autoscale:\r\n  rules:\r\n    - {instance_type: z, max: 3}", lambda at: set_rule(at, A),
        "autoscale:\r\n  rules:\r\n    - {instance_type: z, max: 3}\r\n    - {instance_type: a1.large, max: 4}\r\n",
    ),
    "nothing said": ("autoscale:\n", lambda at: set_rule(at, A), ""),
}  # fmt: skip


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / ".dstack"
    made.mkdir()
    (made / "pools.yml").write_text("pools: [{name: a}]\n")
    return made


@pytest.mark.parametrize("name", STEPS)
def test_a_step(folder: Path, name: str) -> None:
    before, step, after = STEPS[name]
    (folder / "caps.yml").write_text(before, newline="")
    edit = step(folder)
    assert edit is not None
    assert edit.path.name == "caps.yml"
    assert edit.before == before
    if after:
        assert edit.after == after
    else:
        assert yaml.safe_load(edit.after) == {"autoscale": {"rules": [{"instance_type": "a1.large", "max": 4}]}}


def test_a_file_of_its_own(folder: Path) -> None:
    edit = set_rule(folder, B_EU)
    assert edit is not None
    assert edit.path == folder / "autoscale.yml"
    rule = {"instance_type": "b2.xlarge", "max": 2, "region": "eu-west-1"}
    assert yaml.safe_load(edit.after) == {"autoscale": {"rules": [rule]}}
    off = set_enabled(folder, enabled=False)
    assert off is not None
    assert yaml.safe_load(off.after) == {"autoscale": {"enabled": False}}
    edit.path.write_text("# caps will come here\nkeep: 9d")
    behind = set_rule(folder, A)
    assert behind is not None
    assert behind.after.startswith("# caps will come here\nkeep: 9d\nautoscale:\n")


def test_what_is_so_already_changes_nothing(folder: Path) -> None:
    assert (clear_rules(folder), remove_rule(folder, A), set_enabled(folder, enabled=True)) == (None, None, None)
    (folder / "caps.yml").write_text("autoscale: {enabled: true, rules: [{instance_type: a1.large, max: 4}]}\n")
    same = (set_rule(folder, A), remove_rule(folder, B_EU), set_enabled(folder, enabled=True))
    assert same == (None, None, None)
