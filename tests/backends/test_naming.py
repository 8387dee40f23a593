"""Our ids survive a vendor's names and labels unchanged, or are refused."""

from __future__ import annotations

import re

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from backends.errors import BackendError
from backends.naming import LONGEST, LabelRules, labels, labels_of, mark, marks_of, project8, read_labels, read_mark
from schemas.base import NAME, PROJECT_ID
from schemas.launch import Request

projects = st.from_regex(PROJECT_ID, fullmatch=True).filter(str.isascii)
launches = st.text("abcdefghijklmnopqrstuvwxyz0123456789", min_size=1, max_size=30)
indexes = st.integers(0, 99999)
pools = st.from_regex(NAME, fullmatch=True).filter(lambda name: name.isascii() and not name.endswith("-"))
STRICT = LabelRules(key=r"[a-z][a-z0-9_-]*", value=r"|[a-z0-9]|[a-z0-9][a-z0-9._-]*[a-z0-9]")


def request(project: str, launch: str, pool: str, *, count: int = 2) -> Request:
    return Request(
        place="cloud/r1",
        launch=launch,
        token="t",
        ids=tuple(f"{launch}-{n}" for n in range(count)),
        names=(),
        pool=pool,
        instance_type="small",
        lineage="lineage1",
        generation=7,
        project=project,
    )


@given(projects, launches, indexes)
def test_a_mark_gives_its_id_back(project: str, launch: str, index: int) -> None:
    made = mark(project, f"{launch}-{index}")
    assert len(made) <= LONGEST
    assert re.fullmatch(r"[a-z0-9-]+", made)
    found = read_mark(made, project=project)
    assert found is not None
    assert (found.project, found.launch, found.index) == (project8(project), launch, index)
    assert found.id == f"{launch}-{index}"


@given(projects, projects, launches)
def test_a_mark_of_another_project_is_not_ours(project: str, other: str, launch: str) -> None:
    assume(project8(project) != project8(other))
    assert read_mark(mark(project, f"{launch}-0"), project=other) is None


@given(projects, st.text(max_size=80))
def test_every_other_id_is_refused_or_given_back(project: str, id: str) -> None:
    try:
        made = mark(project, id)
    except BackendError:
        return
    found = read_mark(made)
    assert found is not None
    assert found.id == id


@given(st.text(max_size=80))
def test_a_name_is_a_mark_only_as_we_would_write_it(name: str) -> None:
    found = read_mark(name)
    assert found is None or name == f"dstack-{found.project}-{found.id}"


@pytest.mark.parametrize(
    "name",
    [
        "",
        "dstack-",
        "dstack-0123abcd-l1",
        "dstack-0123abcd-l1-01",
        "Dstack-0123abcd-l1-0",
        "dstack-0123abcd-l1-0\n",
        "dstack-0123abcd--0",
        f"dstack-0123abcd-{'l' * 60}-0",
        "dstack-0123abcd-l1-٣",
    ],
)
def test_other_names_are_no_marks(name: str) -> None:
    assert read_mark(name) is None


def test_a_launch_names_each_machine() -> None:
    asked = request("project1", "k3x", "gpu")
    assert marks_of(asked) == (f"dstack-{project8('project1')}-k3x-0", f"dstack-{project8('project1')}-k3x-1")
    assert re.fullmatch(r"[0-9a-f]{8}", project8("project1"))


@given(projects, launches, pools)
def test_labels_give_our_ids_back(project: str, launch: str, pool: str) -> None:
    asked = request(project, launch, pool)
    found = read_labels(labels(labels_of(asked, asked.ids[1]), STRICT))
    assert (found.id, found.launch, found.pool) == (asked.ids[1], launch, pool)
    assert (found.lineage, found.generation) == ("lineage1", 7)


@given(st.dictionaries(st.text(max_size=70), st.text(max_size=70), max_size=4))
def test_labels_are_unchanged_or_refused(ours: dict[str, str]) -> None:
    try:
        assert labels(ours, STRICT) == ours
    except BackendError:
        assert any(
            not re.fullmatch(r"[a-z][a-z0-9_-]{0,62}", key)
            or not re.fullmatch(r"([a-z0-9]([a-z0-9._-]{0,61}[a-z0-9])?)?", value)
            for key, value in ours.items()
        )


@pytest.mark.parametrize(
    ("ours", "why"),
    [
        ({"k" * 64: ""}, "the key is not allowed"),
        ({"key": "v" * 64}, "the value 'vvv.* is not allowed here .at most 63"),
        ({"key": "ends-"}, "the value 'ends-' is not allowed"),
        ({"key": "line\n"}, "is not allowed"),
        ({f"k{n}": "" for n in range(65)}, "65 labels; 64 are allowed"),
    ],
)
def test_a_refused_label_is_named(ours: dict[str, str], why: str) -> None:
    with pytest.raises(BackendError, match=why):
        labels(ours, STRICT)


def test_changed_labels_are_left_out() -> None:
    assert read_labels({"dstack-generation": "seven", "dstack-pool": "gpu"}).generation == 0
    assert read_labels({}).id == ""
