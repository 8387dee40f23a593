"""The seeds' sentences, walked in their order by the installed command, on a double of EC2 with a real server for each
instance: what a user of dstack 0.16–0.18 types, and what is answered.
"""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Iterator

import pytest

from tests.cli.test_cloud_by_hand import Person, person  # noqa: F401 - a fixture
from tests.doubles.aws.aws_double import KEY
from tests.doubles.aws.cloud_hosts import why_not

pytestmark = pytest.mark.skipif(bool(why_not()), reason=why_not() or "-")

DOCUMENTS = """\
state: local
pools:
  # kept by every edit
  - name: default-pool
    default: true
    instance_types: [m5.large, m5.xlarge]
"""
TRAIN = """\
type: task
name: train
commands:
  - echo "from $DSTACK_RUN_NAME, node $DSTACK_NODE_RANK of $DSTACK_NODES_NUM, attempt $DSTACK_ATTEMPT"
  - echo "args ${{ run.args }}"
  - until [ -e ~/go-train ]; do sleep 0.05; done
  - echo all > out.txt
artifacts: [out.txt]
"""


@pytest.fixture
def attended(person: Person) -> Iterator[Person]:  # noqa: F811
    """What EC2 launches boots, while commands wait for it. Its servers end with the thread that began them."""
    over = threading.Event()

    def attend() -> None:
        while not over.wait(0.1):
            person.machines.attend()

    thread = threading.Thread(target=attend, daemon=True)
    thread.start()
    try:
        yield person
    finally:
        over.set()
        thread.join(30)


def line_of(text: str, start: str) -> str:
    return next(line for line in text.splitlines() if line.startswith(start))


def columns(text: str) -> list[str]:
    """Of the head of a table."""
    lines = (line for line in text.splitlines() if not line.startswith(("note: ", "warning: ")))
    return next(lines).split()


def test_the_walk(attended: Person) -> None:
    person = attended  # noqa: F811
    project = person.folder / "project"
    bucket = f"team-{person.account.number}"
    person.account.client("s3").create_bucket(
        Bucket=bucket, CreateBucketConfiguration={"LocationConstraint": "eu-west-1"}
    )

    # ------------------------------------------------ dstack aws configure: key, secret, region, artifact bucket
    person.types("init -y")
    (project / ".dstack/runs/hello.yml").unlink()
    secret = "secretSECRET0123456789secretSECRET012345"
    given = f"--key-id {KEY}{person.account.number} --secret-stdin --region eu-west-1 --bucket {bucket}/runs"
    said = person.types(f"aws configure {given}", given=f"{secret}\n")
    assert f"account {person.account.number} as " in said
    assert secret not in said
    assert secret in (person.folder / "home/.aws/credentials").read_text()
    assert not any(secret in file.read_text() for file in (project / ".dstack").rglob("*.yml"))
    person.writes("pools.yml", DOCUMENTS)
    assert "the configuration is applied." in person.types("apply -y -d"), (
        "what was configured works in the next command"
    )

    # ------------------------------------------------ dstack pool list, create, set-default, delete
    assert columns(person.types("pool list")) == ["NAME", "DEFAULT", "INSTANCES"]
    assert columns(person.types("pool list -v")) == ["NAME", "DEFAULT", "INSTANCES", "CREATED"]
    person.types("pool create -n gpu")
    person.types("pool set-default --pool gpu")
    assert line_of(person.types("pool list"), "gpu").split() == ["gpu", "default", "0/0"]
    person.types("pool set-default --pool default-pool")
    person.types("pool delete -n gpu")
    assert "# kept by every edit" in (project / ".dstack/pools.yml").read_text()
    assert "gpu" not in person.types("pool list")

    # ------------------------------------------------ offers: the table, and "Shown 3 of N offers, $X max"
    offers = person.types("offers --cpu 2 --memory 8GB --spot-auto --max-offers 3")
    assert columns(offers)[:7] == ["#", "BACKEND", "REGION", "INSTANCE", "RESOURCES", "SPOT", "PRICE"]
    assert re.search(r"^Shown 3 of \d+ offers, \$\d+\.\d\d max$", offers, re.MULTILINE)
    assert "2xCPU, 8GB" in offers

    # ------------------------------------------------ dstack pool add: idle 72h, on-demand; --count, --name, -y
    added = person.types("pool add --instance-type m5.large --name one -y")
    assert "$0.11" in added
    row = json.loads(person.types("pool ps --json"))[0]
    assert (row["name"], row["status"], row["spot"], row["resources"]) == (
        "one",
        "idle",
        False,
        "2xCPU, 8GB",
    )
    listed = person.types("pool ps")
    heads = "INSTANCE BACKEND REGION RESOURCES SPOT PRICE STATUS CREATED"
    assert " ".join(columns(listed)).startswith(heads)
    assert re.search(r"terminates in (3d|2d23h)", listed), "72 h"
    assert line_of(person.types("pool list"), "default-pool").split()[-1] == "1/1"

    # ------------------------------------------------ dstack run: reuses the idle one; -d, -n, --reuse, ${{ run.args }}
    (project / "train.dstack.yml").write_text(TRAIN)
    ran = person.types("run . -f train.dstack.yml -y -d --reuse --lr 3")
    assert "train" in ran
    assert len(person.account.living("")) == 1, "an idle instance before a new one"
    shown = person.types("ps")
    assert " ".join(columns(shown)).startswith("NAME BACKEND REGION RESOURCES SPOT PRICE STATUS SUBMITTED")
    assert "running" in line_of(shown, "train")
    assert person.types("logs train") == "from train, node 0 of 1, attempt 1\nargs --lr 3\n"
    assert "busy" in line_of(person.types("pool ps"), "one")

    # A run that can never fit says what is missing and exits 1; a busy instance is not removed without --force.
    never = person.types("run . -f train.dstack.yml -n other -y -d --reuse --cpu 64..", code=1)
    assert "cpu 64.. asked" in never
    assert "busy" in person.types("pool remove one -y", code=1)

    # ------------------------------------------------ stop, artifacts in the bucket of `aws configure`
    person.ends("train")
    person.types("apply -y -d")
    assert "done" in line_of(person.types("ps -a"), "train")
    person.types("artifacts train")
    assert (project / "train-artifacts/out.txt").read_text() == "all\n"
    found = person.account.client("s3").list_objects_v2(Bucket=bucket).get("Contents", [])
    assert any("artifacts" in one["Key"] or "blobs" in one["Key"] for one in found), "they lie in the bucket"

    # ------------------------------------------------ dstack pool remove (rm), --force
    removed = person.types("pool rm one -y")
    assert "one" in removed
    assert person.account.living("") == []

    # ------------------------------------------------ dstack autoscale allow, info, disable, enable, clear
    refused = person.types("autoscale allow nosuch.large --max 1 -y", code=1)
    assert "nosuch.large" in refused
    person.types("autoscale allow m5.large --max 2 -y")
    heads = "REGION INSTANCE TYPE CPU MEMORY GPU PURCHASE MAXIMUM"
    info = person.types("autoscale info")
    assert " ".join(columns(info)).startswith(heads)
    assert "OK" in line_of(info, next(line for line in info.splitlines() if "m5.large" in line)[:8])
    person.types("pool add --instance-type m5.large --spot --name cheap -y")
    assert [one["spot"] for one in person.account.living("")] == [True]
    person.types("autoscale disable -y")
    assert person.account.living("") == [], "disable shuts down all running spot instances at once"
    assert "m5.large" in person.types("autoscale info"), "and keeps the rules"
    person.types("autoscale enable -y")
    person.types("autoscale clear -y")
    assert "m5.large" not in person.types("autoscale info")

    # ------------------------------------------------ the end
    (file,) = (project / ".dstack/state").glob("*.yml")
    assert "0 remain." in person.types(f"destroy --confirm {file.stem}")
