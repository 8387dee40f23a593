"""What the AWS example says it prints, on the double of AWS; what the pages about AWS claim, by the code."""

from __future__ import annotations

import re
import shutil
from functools import cache
from pathlib import Path

from backends.aws.iam_policy import actions, policy
from backends.boot.spec import DeadMan
from backends.scope import PolicyScope
from schemas.desired import BackendConfig
from schemas.documents.backends.aws import AwsForm
from schemas.documents.backends.base import BackendForm
from schemas.pool import Pool
from tests.doubles.aws.aws_double import AwsServer
from tests.doubles.commands.command import Folder
from tests.project.test_docs import dstack

ROOT = Path(__file__).parents[3]
EXAMPLE = ROOT / "examples" / "aws-spot-training"


def steps(page: Path) -> list[tuple[str, list[str]]]:
    blocks = re.findall(r"```console\n(.*?)```", page.read_text(), re.S)
    found = [step.splitlines() for block in blocks for step in re.split(r"^\$ ", block, flags=re.M) if step.strip()]
    return [(lines[0], [line for line in lines[1:] if line.strip()]) for lines in found]


def likened(line: str) -> str:
    return re.sub(r"\s+", " ", line).strip()


def test_the_example_prints_what_it_says(tmp_path: Path, aws_server: AwsServer) -> None:
    account = aws_server.account()
    account.set(hosts=True)  # none is dialled that is not ours
    shutil.copytree(EXAMPLE, tmp_path / "project", ignore=shutil.ignore_patterns("state", "keys"))
    folder = Folder(tmp_path / "project")
    place = {"LocationConstraint": "eu-west-1"}
    account.client("s3").create_bucket(Bucket="team-dstack", CreateBucketConfiguration=place)
    account.client("iam").create_instance_profile(InstanceProfileName="spot-training")
    for command, lines in steps(EXAMPLE / "README.md"):
        ran = folder.dstack(*command.split()[1:], env={**account.environ, "DSTACK_ADDRESS": "203.0.113.7"})
        assert ran.code == 0, ran
        printed = {likened(line) for line in ran.said.splitlines()}
        assert [line for line in lines if likened(line) not in printed] == [], f"{command}\n{ran.said}"
    assert len(steps(EXAMPLE / "README.md")) >= 7
    assert account.living() == []


# ---------------------------------------------------------------- what the pages say


PAGES = ("docs/aws.md", "docs/offers.md", "docs/cloud-machines.md", "examples/aws-spot-training/README.md")


def cells(name: str, *, under: str) -> set[str]:
    """What stands in backquotes in the first column of the tables below that heading."""
    section = re.split(r"^#+ ", (ROOT / name).read_text(), flags=re.M)
    (text,) = [part for part in section if part.startswith(under)]
    rows = re.findall(r"^\|([^|]*)\|", text, re.M)
    return {word for row in rows for span in re.findall(r"`([^`]+)`", row) for word in re.findall(r"[\w/-]+", span)}


@cache
def helped(*words: str) -> str:
    ran = dstack(*words, "--help")
    assert ran.code == 0, ran
    return ran.out


def test_every_command_line_has_options_that_exist() -> None:
    groups = ("aws", "backend", "autoscale", "pool", "state")
    text = "\n".join((ROOT / name).read_text() for name in PAGES)
    lines = re.findall(r"(?:`|^ {4,}|^\$ )(dstack [a-z][^`\n]*)", text, re.M)
    wrong, seen = [], 0
    for line in lines:
        words = line.split()[1:]
        command = words[: 2 if words[0] in groups else 1]
        for option in (word for word in words if re.fullmatch(r"--?[a-z][a-z-]*", word)):
            seen += 1
            wrong += [] if re.search(rf"(?<![\w-]){option}(?![\w-])", helped(*command)) else [f"{line}: {option}"]
    assert wrong == []
    assert seen > 20


def test_every_option_of_offers_is_described_and_exists() -> None:
    there = set(re.findall(r"^  (?:-\w, )?(--[a-z-]+)", helped("offers"), re.M)) - {"--help"}
    text = (ROOT / "docs/offers.md").read_text()
    assert {one for one in there if one not in text} == set()


def test_every_key_of_the_backend_is_described_and_exists() -> None:
    form = set(AwsForm.model_fields) - set(BackendForm.model_fields) - {"type", "creds"}  # said above the table
    told = cells("docs/aws.md", under="What the backend takes") - {"false"}
    assert form - told == set()
    assert told - set(AwsForm.model_fields) == set()


def test_the_times_of_the_timer_are_those_of_the_code() -> None:
    text = (ROOT / "docs/cloud-machines.md").read_text()
    timer, pool = DeadMan(), Pool(name="p")
    assert f"| no tick has reached it yet | {timer.first // 60} minutes, and the grace |" in text
    assert f"The grace is {timer.grace // 60} minutes" in text
    assert f"`hold` ({pool.hold // 3600}h)" in text
    assert pool.unattended is not None
    assert f"`unattended` ({pool.unattended // 3600}h)" in text


def test_the_permissions_that_a_page_names_are_in_the_policy_to_look() -> None:
    named = set(re.findall(r"`((?:ec2|ssm|sts):\w+)`", (ROOT / "docs/offers.md").read_text()))
    config = BackendConfig(name="aws", type="aws", regions=("eu-west-1",))
    assert named
    assert named - actions(policy("plan", config, PolicyScope(project="demo12345678"))) == set()
