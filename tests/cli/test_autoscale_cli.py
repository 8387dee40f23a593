"""`dstack autoscale` by its command line, on the double of AWS: the YAML and the machines, both at once."""

from __future__ import annotations

import json
import re
from pathlib import Path

import jsonschema
import pytest

from schemas.documents.generate import schema
from tests.doubles.aws.aws_double import AwsServer
from tests.doubles.commands.command import folder_at

DOCUMENTS = """\
project: {name: demo, id: demo12345678}
state: local
backends:
  - {type: aws, regions: [eu-west-1]}
pools:
  - name: gpu
    default: true
    nodes: 2
    spot_policy: spot
    instance_types: [m5.large]
    resources: {cpu: 2, memory: 8GB, disk: 20GB}
"""
IDLE = """\
project: {{name: demo, id: demo12345678}}
state: local
pools: [{{name: gpu, default: true, nodes: 1..2, idle_duration: {}}}]
"""
RULES = """\
autoscale:
  # what we may have
  - {instance_type: m5.large, max: 2, region: eu-west-1}
"""


def test_from_a_rule_to_the_machines(tmp_path: Path, aws_server: AwsServer) -> None:
    account = aws_server.account()
    account.set(hosts=True)  # it has addresses of nobody else's, and waits for none
    folder = folder_at(tmp_path, documents=DOCUMENTS)
    rules = folder.write(".dstack/autoscale.yml", RULES)

    def said(*args: str, code: int = 0) -> str:
        ran = folder.dstack(*args, env=account.environ)
        assert ran.code == code, ran
        return ran.said

    assert "did you mean m5.large" in said("autoscale", "allow", "m5.larg", "--max", "2", code=1)
    said("apply", "-y", "--detach")
    found = json.loads(folder.dstack("autoscale", "info", "--json", env=account.environ).out)
    jsonschema.validate(found, schema("autoscale-json"))
    assert [(one["used"], one["maximum"], one["status"]) for one in found["rules"]] == [(2, 2, "OK")]
    listed = json.loads(folder.dstack("backend", "list", "--json", env=account.environ).out)
    assert [one["identities"] for one in listed["backends"]] == [[f"aws:{account.number}"]]
    # The state, which has not seen them yet, has the second one begin last; their place says when they truly did.
    state = folder.root / ".dstack/state/demo12345678.yml"
    later, made = re.subn(r'("name":"gpu-1".*?"created_at":)\d+', r"\g<1>1999999999", state.read_text(), count=1)
    state.write_text(later)
    assert made == 1
    asked = said("autoscale", "allow", "m5.large", "--max", "1", "-r", "eu-west-1", code=1)
    assert re.search(r"gpu-[01]: m5.large, aws/eu-west-1, \$0.11/h", asked)
    assert "no terminal to ask at; nothing was done" in asked
    assert (rules.read_text(), len(account.living())) == (RULES, 2)
    # As a death between the two leaves it: the YAML has it, the state does not.
    rules.write_text(RULES.replace("max: 2", "max: 1"))
    said("autoscale", "allow", "m5.large", "--max", "1", "-r", "eu-west-1", "-y")
    assert len(account.living()) == 1
    account.fault("DescribeInstances")
    held = said("autoscale", "disable", "-y", code=3)
    (left,) = account.living()
    assert "aws/eu-west-1, $0.11/h: aws/eu-west-1 is unknown (RequestLimitExceeded: slow down)" in held
    assert held.endswith("the same command again ends it, once its place answers\n"), left
    assert "it holds until other documents are applied" in said("autoscale", "disable", "-y")
    assert account.living() == []
    lines = rules.read_text().splitlines()
    assert lines[:3] == ["autoscale:", "  enabled: false", "  rules:"]
    assert "    # what we may have" in lines
    assert "disabled" in said("autoscale", "info")


def test_a_rule_without_a_type_is_refused(tmp_path: Path) -> None:
    folder = folder_at(tmp_path)
    assert folder.dstack("apply", "-y", "-d").code == 0
    assert folder.dstack("autoscale", "allow", "", "--max", "1", "-y").err.startswith("error: TYPE is empty")
    assert folder.dstack("autoscale", "allow", " ", "--max", "0", "-y").err.startswith("error: TYPE is empty")
    assert not (folder.root / ".dstack/autoscale.yml").exists()


@pytest.mark.parametrize("words", ["autoscale enable -y", "pool drain bench -y", "pool pause bench --yes"])
def test_yes_is_taken_where_nothing_is_asked(tmp_path: Path, words: str) -> None:
    folder = folder_at(tmp_path)
    assert folder.dstack("apply", "-y", "-d").code == 0
    ran = folder.dstack(*words.split())
    assert (ran.code, "No such option" in ran.said) == (0, False), ran
    if words.startswith("pool"):
        assert folder.dstack("pool", "resume", "bench", "-y").code == 0


def test_a_plan_says_what_an_edited_idle_duration_reaches(tmp_path: Path) -> None:
    folder = folder_at(tmp_path, documents=IDLE.format("2h"))
    assert folder.dstack("apply", "-y", "-d").code == 0
    folder.write(".dstack/pools.yml", IDLE.format("1h"))
    assert "pool gpu: idle_duration 2h → 1h: gpu-0, from now on" in folder.dstack("plan").out


@pytest.mark.parametrize("words", ["autoscale enable", "autoscale clear"])
def test_what_is_so_already_is_said(tmp_path: Path, words: str) -> None:
    folder = folder_at(tmp_path)
    ran = folder.dstack(*words.split())
    assert ran.code == 0
    assert "already" in ran.err or "there are no rules" in ran.err
    assert not (folder.root / ".dstack/autoscale.yml").exists()
