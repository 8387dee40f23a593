"""Edits of pools in YAML: exactly the lines that are meant, and every other byte as it was."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from reconciler.config.edit.pools import Edit, EditRefused, create_pool, declared, delete_pool, set_default

BLOCK = """\
# the team's pools
pools:
  # the cheap one
  - name: a   # one
    default: true
    nodes: 0..3

  # the dear one
  - name: 'b'
    nodes: 2   # both of them

# runs below
runs: []
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / ".dstack"
    made.mkdir()
    return made


def changed(edit: Edit) -> list[str]:
    """Lines that the diff takes away and adds."""
    lines = edit.diff(edit.path.parent.parent).splitlines()
    return [line for line in lines if line[:1] in "+-" and line[:3] not in ("+++", "---")]


def test_a_new_pool_follows_the_last_one(folder: Path) -> None:
    (folder / "all.yml").write_text(BLOCK)
    assert changed(create_pool(folder, "c")) == ["+  - name: c"]


def test_a_deleted_pool_takes_its_own_comment(folder: Path) -> None:
    (folder / "all.yml").write_text(BLOCK)
    whole = ["-  # the dear one", "-  - name: 'b'", "-    nodes: 2   # both of them"]
    assert changed(delete_pool(folder, "b")) == whole
    assert changed(delete_pool(folder, "a")) == ["-  - name: a   # one", "-    default: true", "-    nodes: 0..3"]


def test_the_default_moves(folder: Path) -> None:
    (folder / "all.yml").write_text(BLOCK)
    (edit,) = set_default(folder, "b")
    assert changed(edit) == ["-    default: true", "+    default: true"]
    assert set_default(folder, "a") == ()


def test_the_default_moves_between_files(folder: Path) -> None:
    (folder / "one.yml").write_text("pools:\n- name: a\n  default: true\n")
    (folder / "two.yml").write_text("pools:\n- name: b\n")
    edits = {edit.path.name: changed(edit) for edit in set_default(folder, "b")}
    assert edits == {"one.yml": ["-  default: true"], "two.yml": ["+  default: true"]}


def test_flow_style_stays_flow_style(folder: Path) -> None:
    (folder / "all.yml").write_text("pools: [{name: a, default: true}, {name: b}] # both\n")
    assert create_pool(folder, "c").after == "pools: [{name: a, default: true}, {name: b}, {name: c}] # both\n"
    assert delete_pool(folder, "a").after == "pools: [{name: b}] # both\n"
    assert delete_pool(folder, "b").after == "pools: [{name: a, default: true}] # both\n"
    (edit,) = set_default(folder, "b")
    assert edit.after == "pools: [{name: a}, {name: b, default: true}] # both\n"


@pytest.mark.parametrize(
    "text", ["pools:\n- name: a\n- default: false\n  name: b", "pools:\r\n- name: a\r\n- name: b\r\n"]
)
def test_odd_layouts_keep_their_line_ends(folder: Path, text: str) -> None:
    with (folder / "all.yml").open("w", newline="") as file:
        file.write(text)
    edit = create_pool(folder, "c")
    assert edit.after.startswith(text)
    assert edit.after.count("\r\n") == (4 if "\r\n" in text else 0)
    (edit,) = set_default(folder, "b")
    assert [pool.get("default", False) for pool in yaml.safe_load(edit.after)["pools"]] == [False, True]


def test_the_last_pool_leaves_an_empty_list(folder: Path) -> None:
    (folder / "all.yml").write_text("# head\npools:\n- name: a\n")
    assert yaml.safe_load(delete_pool(folder, "a").after) == {"pools": []}
    assert "# head" in delete_pool(folder, "a").after


def test_without_pools_a_file_is_made(folder: Path) -> None:
    (folder / "project.yml").write_text("project: {name: x}\n")
    edit = create_pool(folder, "gpu")
    assert (edit.path.name, edit.before, edit.after) == ("pools.yml", "", "pools:\n  - name: gpu\n")
    (folder / "pools.yml").write_text("# pools will come here\n")
    assert create_pool(folder, "gpu").after == "# pools will come here\npools:\n  - name: gpu\n"


def test_what_cannot_be_edited_is_refused_with_its_place(folder: Path) -> None:
    (folder / "all.yml").write_text(BLOCK)
    assert declared(folder) == ("a", "b")
    with pytest.raises(EditRefused, match=r"all\.yml: there is a pool a already"):
        create_pool(folder, "a")
    with pytest.raises(EditRefused, match="no pool z; there are a, b"):
        delete_pool(folder, "z")
    with pytest.raises(EditRefused, match="no pool z"):
        set_default(folder, "z")
    (folder / "broken.yml").write_text("pools: [\n")
    with pytest.raises(EditRefused, match=r"broken\.yml:2:1: cannot be edited while it cannot be read"):
        create_pool(folder, "c")


NAMES = st.lists(st.from_regex(r"[a-z][a-z0-9]{0,5}", fullmatch=True), min_size=1, max_size=5, unique=True)


@given(names=NAMES, indent=st.sampled_from([0, 2, 4]), gap=st.booleans(), comment=st.booleans())
def test_any_list_reads_back_as_meant(
    tmp_path_factory: pytest.TempPathFactory, names: list[str], indent: int, gap: bool, comment: bool
) -> None:
    names = [f"p{name}" for name in names]
    folder = tmp_path_factory.mktemp("edit")
    items = [
        f"{'# about ' + name if comment else ''}\n{' ' * indent}- name: {name}\n{' ' * indent}  nodes: 0..2\n"
        for name in names
    ]
    (folder / "all.yml").write_text("pools:\n" + ("\n" if gap else "").join(items) + "# tail\nkeep: 30d\n")
    before = [{"name": name, "nodes": "0..2"} for name in names]
    assert yaml.safe_load(create_pool(folder, "new-one").after)["pools"] == [*before, {"name": "new-one"}]
    assert (yaml.safe_load(delete_pool(folder, names[-1]).after)["pools"] or []) == before[:-1]
    (edit,) = set_default(folder, names[0])
    assert yaml.safe_load(edit.after)["pools"] == [{**before[0], "default": True}, *before[1:]]
    assert edit.after.endswith("# tail\nkeep: 30d\n")
