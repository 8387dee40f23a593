"""`apply --metrics`: a strict parser reads it, every metric is documented, and failures are in it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.openmetrics.parser import text_string_to_metric_families as openmetrics
from prometheus_client.parser import text_string_to_metric_families as families

from reconciler.report.metrics import Visit, render_metrics
from schemas.desired import BackendConfig, Desired
from schemas.instance import Instance
from schemas.plan import Plan, Unmet
from schemas.pool import Pool
from schemas.resources import Resources
from schemas.run import Attempt, Job, Run, RunSpec
from schemas.state import VERSION, Applied, Place, Revision, State
from tests.doubles.commands.command import POOLS, ROOT, Folder, folder_at

BOX = Resources(cpus=1, memory=1)
CONFIG = BackendConfig(name="aws", type="aws")


def parsed(text: str) -> dict[tuple[str, ...], float]:
    """(name, label values but the project's, in the order of their names) -> value. Nothing stands there twice."""
    # The strict one wants an end, and refuses what the textfile collector would take for something else.
    assert [family.type for family in openmetrics(text + "# EOF\n")] == ["gauge"] * text.count("# TYPE ")
    samples = [sample for family in families(text) for sample in family.samples]
    found = {
        (one.name, *(value for key, value in sorted(one.labels.items()) if key != "project")): one.value
        for one in samples
    }
    assert len(found) == len(samples)
    return found


def instance(id: str, **fields: object) -> Instance:
    given = {"pool": "gpu", "price": Decimal("1.25"), "phase": "ready", **fields}
    return Instance(id=id, name=id, backend="aws", place="aws/r1", resources=BOX, **given)  # type: ignore[arg-type]


def state(name: str = "demo") -> State:
    desired = Desired(project="p" * 8, project_name=name, pools=(Pool(name="gpu"), Pool(name="empty")))
    return State(
        version=VERSION,
        project="p" * 8,
        lineage="l",
        generation=7,
        applied=Applied(revision=Revision(digest="d"), by="x", at=0, desired=desired),
        places=(
            Place(name="aws/r1", config=CONFIG, observed_at=90),
            Place(name="gcp", config=CONFIG, error="no"),
            Place(name="old", config=CONFIG, forgotten=True, error="no"),
        ),
        instances=(
            instance("a"),
            instance("b"),
            instance("c", price=None, phase="pending"),
            instance("d", phase="terminated"),
        ),
        runs=(Run(id="r", spec=RunSpec(name="r"), status="running"), Run(id="s", spec=RunSpec(name="s"))),
        attempts=(Attempt(id="r-0-1", run="r", number=1, jobs=(Job(id="j", instance="a", status="running"),)),),
    )


def test_the_numbers() -> None:
    plan = Plan(version=1, project="p", generation=7, unmet=(Unmet(subject="run s", why="x"),))
    text = render_metrics(Visit(project="demo", at=100, seconds=1.23456, code=3, state=state(), plan=plan))
    found = parsed(text)
    assert found["dstack_last_tick_timestamp_seconds",] == 100
    assert (found["dstack_last_tick_ok",], found["dstack_last_tick_exit_code",]) == (0, 3)
    assert found["dstack_last_tick_duration_seconds",] == 1.235
    assert found["dstack_instances", "gpu", "busy"] == found["dstack_instances", "gpu", "idle"] == 1
    assert found["dstack_instances", "gpu", "pending"] == 1
    assert found["dstack_instances", "empty", "idle"] == 0
    assert found["dstack_hourly_cost_dollars", "gpu"] == 2.5
    assert found["dstack_instances_unpriced",] == 1
    assert [found["dstack_runs", status] for status in ("running", "submitted", "failed")] == [1, 1, 0]
    assert (found["dstack_place_error", "aws/r1"], found["dstack_place_error", "gcp"]) == (0, 1)
    assert found["dstack_place_observed_timestamp_seconds", "aws/r1"] == 90
    assert ("dstack_place_error", "old") not in found
    assert (found["dstack_unmet",], found["dstack_state_generation",]) == (1, 7)
    assert all(sample.labels["project"] == "demo" for family in families(text) for sample in family.samples)


@given(st.text(), st.integers(0, 2**40))
def test_whatever_a_project_is_called(name: str, at: int) -> None:
    text = render_metrics(Visit(project=name, at=at, seconds=0.0, code=0, state=state(name)))
    assert parsed(text)["dstack_last_tick_ok",] == 1


def test_every_metric_is_described_and_no_other() -> None:
    text = render_metrics(Visit(project="p", at=0, seconds=0, code=0, state=state(), plan=Plan(
        version=1, project="p", generation=0)))  # fmt: skip
    made = set(re.findall(r"# TYPE (\S+)", text))
    page = (ROOT / "docs/teams.md").read_text()
    assert made == set(re.findall(r"^\| `(dstack_\w+)", page, re.M))


# ---------------------------------------------------------------- with the command


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Folder]:
    made = folder_at(tmp_path)
    yield made
    made.write(".dstack/pools.yml", POOLS)
    made.dstack("destroy", "--confirm", "demo")


def after(folder: Folder, *args: str) -> tuple[int, dict[tuple[str, ...], float]]:
    ran = folder.dstack("apply", *args, "--metrics", "out.prom")
    return ran.code, parsed((folder.root / "out.prom").read_text())


def test_of_an_apply_that_goes_well_and_of_those_that_fail(folder: Folder) -> None:
    assert after(folder)[0] == 1, "nobody to ask about the configuration"
    code, found = after(folder, "-y")
    assert (code, found["dstack_last_tick_ok",], found["dstack_last_tick_exit_code",]) == (0, 1, 0)
    folder.write(".dstack/pools.yml", POOLS.replace("0..2", "1"))
    code, found = after(folder, "-y")
    assert (code, found["dstack_last_tick_ok",], found["dstack_instances", "bench", "idle"]) == (0, 1, 1)
    assert found["dstack_unmet",] == 0
    folder.write(".dstack/pools.yml", POOLS.replace("pools", "pols"))
    code, found = after(folder, "-y", "--detach")
    assert (code, found["dstack_last_tick_ok",]) == (1, 0)
    assert "dstack_unmet" not in {key[0] for key in found}
    # What lives is known all the same, as far as the state can be found.
    assert found["dstack_instances", "bench", "idle"] == 1
    assert [path.name for path in folder.root.glob(".out*")] == []
    assert (folder.root / "out.prom").stat().st_mode & 0o777 == 0o644


def test_where_it_cannot_be_written(folder: Folder) -> None:
    ran = folder.dstack("apply", "-y", "--metrics", "nowhere/out.prom")
    assert (ran.code, ran.err.splitlines()[-1]) == (1, "error: --metrics nowhere/out.prom: No such file or directory")


@pytest.mark.parametrize("state", ["s3://bucket-of-nobody/x", "local"])
def test_a_tick_that_may_not_read_the_state_keeps_its_label(folder: Folder, state: str) -> None:
    """No credentials, or a damaged state: the series goes on under the project's name, and says that it failed."""
    folder.write(".dstack/pools.yml", f"state: {state}\n" + POOLS)
    folder.write(".dstack/state/demo12345678.yml", "{")
    nobody = {"AWS_ACCESS_KEY_ID": "", "AWS_EC2_METADATA_DISABLED": "true", "AWS_CONFIG_FILE": "/dev/null"}
    ran = folder.dstack("apply", "-y", "-d", "--metrics", "m.prom", env=nobody)
    assert ran.code == 1, ran.said
    text = (folder.root / "m.prom").read_text()
    assert 'dstack_last_tick_ok{project="demo"} 0' in text
    assert 'project=""' not in text
