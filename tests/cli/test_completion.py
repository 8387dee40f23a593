"""Commands, options and names are completed by real shells, and nothing that a document holds is run by one."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from reconciler.cli.completion import names

DSTACK = str(Path(sys.executable).with_name("dstack"))
SHELLS = ("bash", "zsh", "fish")

PROJECT = """\
project: {name: words, id: words0001}
backends: [{type: local, name: here}]
profiles: [{name: cheap, max_price: 1}]
pools:
  - {name: gpu, nodes: 0..1}
  - {name: great, nodes: 0..1}
  - {name: "$(touch pwned)", nodes: 0..1}
"""
STATE = """\
{"version":3,"project":"words0001","lineage":"l","generation":4,
"instances":[
{"id":"i1","name":"gpu-0","pool":"gpu","phase":"ready","unknown":1},
{"id":"i2","name":"gpu-1","pool":"gpu","phase":"terminated"}
],
"runs":[
{"id":"r1","spec":{"name":"train"}},
{"id":"r2","spec":{"name":"`touch pwned`"}}
]
}
"""


@pytest.fixture
def project(tmp_path: Path) -> Path:
    (tmp_path / "home").mkdir()
    state = tmp_path / "project" / ".dstack" / "state"
    state.mkdir(parents=True)
    (state.parent / "project.yml").write_text(PROJECT)
    (state / "words0001.yml").write_text(STATE)
    return tmp_path / "project"


def environment(project: Path) -> dict[str, str]:
    path = f"{Path(DSTACK).parent}:/usr/local/bin:/usr/bin:/bin"
    return {"PATH": path, "HOME": str(project.parent / "home"), "LC_ALL": "C.UTF-8", "TERM": "dumb"}


def completed(shell: str, project: Path, *words: str) -> list[str]:
    """What that shell offers for the last of the words, by the script that we print."""
    if shutil.which(shell) is None:
        pytest.skip(f"{shell} is not installed")
    script = subprocess.run([DSTACK, "completion", shell], capture_output=True, text=True, check=True).stdout
    line = " ".join(["dstack", *words])
    match shell:
        case "bash":
            quoted = " ".join(f"'{word}'" for word in ("dstack", *words))
            ask = f"{script}\nCOMP_WORDS=({quoted}); COMP_CWORD={len(words)}; _dstack_completion dstack\n"
            ask += "printf '%s\\n' \"${COMPREPLY[@]}\""
        case "zsh":  # `compdef` is for the line editor: what our function hands to it is looked at
            stubs = 'compdef() { :; }; _arguments() { print -r -- "$@"; }; _files() { print files; }'
            last = "" if words[-1] else "''"
            given = f"words=({' '.join(['dstack', *words])} {last}); CURRENT={len(words) + 1}"
            ask = f"{stubs}\n{script}\n{given}; _dstack_completion"
        case _:
            ask = f"{script}\ncomplete -C '{line}'"
    done = subprocess.run(
        [shell, "-c", ask], cwd=project, env=environment(project), capture_output=True, text=True, timeout=60
    )
    assert not done.stderr, done.stderr
    return done.stdout.split()


@pytest.mark.parametrize("shell", SHELLS)
@pytest.mark.parametrize(
    ("words", "found", "not_found"),
    [
        (["pl"], ["plan"], ["ps"]),
        (["pool", "re"], ["remove", "resume"], ["add"]),
        (["plan", "--f"], ["--fail-on"], ["--json"]),
        (["plan", "--pool", "g"], ["gpu", "great"], ["gpu-0"]),
        (["logs", ""], ["train"], ["gpu"]),
        (["pool", "remove", ""], ["gpu-0"], ["gpu-1"]),
        (["pool", "drain", "gpu"], ["gpu", "gpu-0"], ["great"]),
        (["run", ".", "--profile", ""], ["cheap"], []),
        (["run", ".", "--backend", ""], ["here"], []),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_shell_completes(shell: str, project: Path, words: list[str], found: list[str], not_found: list[str]) -> None:
    offered = " ".join(completed(shell, project, *words))
    for word in found:
        assert word in offered.replace('"', " ").replace("(", " ").replace(")", " ").replace(":", " ").split(), offered
    for word in not_found:
        assert word not in offered.replace('"', " ").replace(":", " ").split(), offered


@pytest.mark.parametrize("shell", SHELLS)
@pytest.mark.parametrize("words", [["plan", "--pool", ""], ["logs", ""]], ids=" ".join)
def test_a_name_is_never_run(shell: str, project: Path, words: list[str]) -> None:
    assert "pwned" not in " ".join(completed(shell, project, *words))
    assert not (project / "pwned").exists()


@pytest.mark.parametrize(
    ("files", "offered"),
    [
        ({".dstack/project.yml": "pools: [{name: [1"}, []),
        ({".dstack/project.yml": "pools: 3\n"}, []),
        ({".dstack/project.yml": "- a\n"}, []),
        ({".dstack/project.yml": "pools: [{name: a}, 3, null, {name: {}}]\n"}, ["a"]),
        ({".dstack/state/words0001.yml": "{", ".dstack/project.yml": PROJECT}, ["gpu", "great"]),
        ({".dstack/state/words0001.yml": "\x00", ".dstack/project.yml": PROJECT}, ["gpu", "great"]),
    ],
)
def test_what_cannot_be_read_completes_nothing(tmp_path: Path, files: dict[str, str], offered: list[str]) -> None:
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    done = asked(tmp_path, "plan", "--pool", "")
    assert (done.stdout.split(), done.stderr) == (offered, "")


def test_outside_of_a_project_there_are_commands_alone(tmp_path: Path) -> None:
    assert "apply" in asked(tmp_path, "").stdout.split()
    assert asked(tmp_path, "plan", "--pool", "").stdout.split() == []


def test_another_folder_is_completed_from(tmp_path: Path, project: Path) -> None:
    assert asked(tmp_path, "-C", str(project), "plan", "--pool", "gp").stdout.split() == ["gpu"]
    assert asked(tmp_path, "-C", "/nowhere", "plan", "--pool", "gp").stdout.split() == []


def test_a_state_in_a_bucket_is_completed_from_what_was_last_read(project: Path) -> None:
    from reconciler.app.site import Site
    from reconciler.store.statefile import loads
    from schemas.state import VERSION, State

    document = project / ".dstack" / "project.yml"
    document.write_text(PROJECT + "state: s3://bucket/states\n")
    (project / ".dstack" / "state" / "words0001.yml").unlink()
    site = Site(root=project, project="words0001", state="s3://bucket/states")
    state = loads(b'{"version":%d,"project":"words0001","lineage":"l","generation":1}' % VERSION, "test")
    assert isinstance(state, State)
    assert asked(project, "pool", "remove", "").stdout.split() == []
    names.remember(site, state)
    assert (project / ".dstack" / "state" / names.NAMES).is_file()
    (project / ".dstack" / "state" / names.NAMES).write_text('{"instances": ["gpu-7"]}')
    assert asked(project, "pool", "remove", "").stdout.split() == ["gpu-7"]


def test_it_costs_little_beside_a_large_state(project: Path) -> None:
    """At most three times what `--help` costs, which has its budget in the bench: the machine's speed is left out."""
    lines = ",\n".join(f'{{"id":"i{n}","name":"gpu-{n}","pool":"gpu","phase":"ready"}}' for n in range(10_000))
    head, _, tail = STATE.partition('{"id":"i1"')
    (project / ".dstack" / "state" / "words0001.yml").write_text(head + lines + "\n" + tail[tail.index("],") :])
    asked(project, "pool", "remove", "gpu-99")

    def seconds(*command: str, **more: str) -> float:
        began = os.times()
        subprocess.run(command, cwd=project, env={**environment(project), **more}, capture_output=True, check=True)
        ended = os.times()
        return ended.children_user + ended.children_system - began.children_user - began.children_system

    bare = min(seconds(DSTACK, "--help") for _ in range(3))
    tab = {"_DSTACK_COMPLETE": "complete_bash", "COMP_WORDS": "dstack pool remove gpu-99", "COMP_CWORD": "3"}
    assert min(seconds(DSTACK, **tab) for _ in range(3)) < 3 * bare


def test_an_unknown_shell_is_refused(tmp_path: Path) -> None:
    done = subprocess.run([DSTACK, "completion", "fsh"], cwd=tmp_path, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (1, "error: no completion for fsh; did you mean fish?\n")


@pytest.mark.parametrize(
    ("shell", "file"),
    [
        ("/bin/bash", ".bash_completions/dstack.sh"),
        ("/usr/bin/zsh", ".zfunc/_dstack"),
        ("/usr/bin/fish", ".config/fish/completions/dstack.fish"),
    ],
)
def test_it_installs_itself(project: Path, shell: str, file: str) -> None:
    env = {**environment(project), "SHELL": shell}
    for _ in range(2):
        done = subprocess.run([DSTACK, "--install-completion"], cwd=project, env=env, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
    home = project.parent / "home"
    assert done.stdout == f"{home / file}\n"
    assert "_DSTACK_COMPLETE" in (home / file).read_text()
    if shell.endswith("bash"):
        assert (home / ".bashrc").read_text().count("source") == 1


def test_a_shell_that_is_not_known_is_told_what_to_do(project: Path) -> None:
    env = {**environment(project), "SHELL": "/bin/ksh"}
    done = subprocess.run([DSTACK, "--install-completion"], cwd=project, env=env, capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr == "error: $SHELL is ksh: run `dstack completion SHELL` with bash, zsh, fish\n"


def asked(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """As bash's script asks."""
    env = {
        "PATH": "/usr/bin:/bin",
        "HOME": str(folder.parent),
        "_DSTACK_COMPLETE": "complete_bash",
        "COMP_WORDS": " ".join(["dstack", *words]),
        "COMP_CWORD": str(len(words)),
    }
    return subprocess.run([DSTACK], cwd=folder, env=env, capture_output=True, text=True, timeout=60)
