"""`dstack validate`: folders, documents, and run configurations of every type."""

from pathlib import Path

import pytest

from reconciler.config.validate import validate

OLD = Path(__file__).parent / "documents" / "dstack018"


def verdict(path: Path, home: Path) -> tuple[list[str], list[str]]:
    problems, warnings = validate([path], home=home)
    return [str(problem) for problem in problems], warnings


@pytest.mark.parametrize("file", sorted(OLD.glob("*.yml")), ids=lambda file: file.stem)
def test_what_dstack_0_18_accepts_is_valid(file: Path, tmp_path: Path) -> None:
    """Each of these files was accepted by the models of dstack 0.18.44."""
    assert verdict(file, tmp_path)[0] == []


@pytest.mark.parametrize(
    ("name", "warned"),
    [
        ("task-full", "`volumes` need an `image`: a process finds the instance's folders where they are"),
        ("task-full", "`shm_size` needs an `image`: a process has the host's own /dev/shm"),
        ("service", "gateway: has no effect: there is no gateway here"),
    ],
)
def test_what_does_not_work_yet_is_warned_of(name: str, warned: str, tmp_path: Path) -> None:
    assert any(line.endswith(warned) for line in verdict(OLD / f"{name}.yml", tmp_path)[1])


def test_a_supported_run_has_no_warning(tmp_path: Path) -> None:
    assert verdict(OLD / "task-minimal.yml", tmp_path) == ([], [])


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("type: task\ncomands: [x]", ":2:1: unknown key `comands`, did you mean `commands`?"),
        ("type: dev-environment\nide: vscod", ":2:6: ide: `vscod` is not an IDE, did you mean `vscode`?"),
        (
            "type: service\ncommands: [x]\nport: many",
            ":3:7: port: the text `many` is not a port: such as `8000`, `80:8000`, `*:8000`, or `auto`",
        ),
        ("commands: [x]", ":1:1: `type` is missing: task, service, dev-environment"),
        ("tpe: task", ":1:1: `type` is missing: task, service, dev-environment (`tpe` is no key)"),
    ],
)
def test_wrong_run_configurations(text: str, said: str, tmp_path: Path) -> None:
    file = tmp_path / "run.yml"
    file.write_text(text)
    problems, _ = verdict(file, tmp_path)
    assert f"{file}{said}" in problems


def test_a_folder_its_documents_and_a_file_among_them_are_one_project(tmp_path: Path) -> None:
    documents = tmp_path / "work" / ".dstack"
    (documents / "runs").mkdir(parents=True)
    (documents / "a.yml").write_text("pools: [{name: a}]")
    (documents / "runs" / "r.yml").write_text("type: task\ncommands: [x]\npool_name: b")
    said = [".dstack/runs/r.yml:3:12: pool_name: unknown pool `b`; known: a"]
    for path in (tmp_path / "work", documents, documents / "a.yml", documents / "runs" / "r.yml"):
        assert verdict(path, tmp_path)[0] == said
    assert len(validate([tmp_path / "work", documents], home=tmp_path)[0]) == 1


def test_the_environment_is_never_read(tmp_path: Path) -> None:
    file = tmp_path / "run.yml"
    file.write_text("type: task\ncommands: [x]\nenv: [SURELY_NOT_SET_ANYWHERE, 'A=${{ env.NEITHER_THIS }}']")
    assert verdict(file, tmp_path) == ([], [])


def test_a_folder_without_documents(tmp_path: Path) -> None:
    assert verdict(tmp_path, tmp_path)[0] == [f"{tmp_path}:1:1: holds no `.dstack`: `dstack init` makes one"]


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    assert verdict(tmp_path / "no.yml", tmp_path)[0] == [
        f"{tmp_path}/no.yml:1:1: cannot be read: No such file or directory"
    ]


def test_a_document_on_its_own(tmp_path: Path) -> None:
    (tmp_path / "profiles.yml").write_text("profiles: [{name: a, max_prize: 3}]")
    assert verdict(tmp_path / "profiles.yml", tmp_path)[0] == [
        f"{tmp_path}/profiles.yml:1:22: profiles[0]: unknown key `max_prize`, did you mean `max_price`?"
    ]
