"""What the AWS example says it prints, on the double of AWS."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

from aws_double import AwsServer
from command import Folder

ROOT = Path(__file__).parents[1]
EXAMPLE = ROOT / "examples" / "aws-spot-training"


def steps(page: Path) -> list[tuple[str, list[str]]]:
    blocks = re.findall(r"```console\n(.*?)```", page.read_text(), re.S)
    found = [step.splitlines() for block in blocks for step in re.split(r"^\$ ", block, flags=re.M) if step.strip()]
    return [(lines[0], [line for line in lines[1:] if line.strip()]) for lines in found]


def likened(line: str) -> str:
    return re.sub(r"\s+", " ", line).strip()


def test_the_example_prints_what_it_says(tmp_path: Path, aws_server: AwsServer) -> None:
    account = aws_server.account()
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
