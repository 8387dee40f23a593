"""A transport over a command that starts programs on a host: a real `sh`, and `podman exec` where podman works."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from backends.boot.spec import FOLDER
from reconciler.app.connections import transports
from reconciler.hosts.runner import Unreachable
from reconciler.hosts.session.open import open_door
from reconciler.hosts.ssh.connections import Lines
from reconciler.hosts.ssh.declared_hosts import SshReach
from reconciler.hosts.transport.program import ProgramTransport
from schemas.access import Access, Way
from schemas.instance import Instance
from schemas.resources import Resources

# Runs its arguments, as `kubectl exec -i POD --` does; the pod's home is its own.
EXEC = ("env", "-u", "SECRET")


def over(home: Path, *, argv: tuple[str, ...] = EXEC, folder: str = "", **access: object) -> ProgramTransport:
    found = Access(argv=argv, environment=(("HOME", str(home)), ("ADDED", "yes")), speaks="sh", **access)  # type: ignore[arg-type]
    return ProgramTransport(lambda: found, folder=folder, environ=os.environ)


def test_a_program_gets_its_arguments_input_and_folder(tmp_path: Path) -> None:
    (tmp_path / "own").mkdir()
    program = 'pwd; printf "%s|" "$@"; cat; echo "$ADDED"; echo "a complaint" >&2; exit 7'
    answer = over(tmp_path, folder="own").run(program, args=("a b", "it's", "$x\n"), stdin=b"data\0\n")
    assert answer.code == 7
    assert answer.out == f"{tmp_path}/own\na b|it's|$x\n|data\0\nyes\n".encode()
    assert answer.err == "a complaint"


def test_files_are_streamed_both_ways(tmp_path: Path) -> None:
    sent, got = tmp_path / "sent", tmp_path / "got"
    sent.write_bytes(os.urandom(3_000_000))
    assert over(tmp_path).run("cat", stdin=sent, to=got) == (0, b"", "")
    assert got.read_bytes() == sent.read_bytes()


def test_what_is_not_read_and_what_comes_first_do_not_disturb(tmp_path: Path) -> None:
    noisy = ("sh", "-c", 'echo "Defaulted container"; echo warning >&2; exec "$@"', "sh")
    assert over(tmp_path, argv=noisy).run("echo done", stdin=b"x" * 1_000_000) == (0, b"done\n", "warning")


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (("sh", "-c", "echo pod not found >&2; exit 1"), "the command ran nothing: pod not found"),
        (
            ("sh", "-c", '"$@" 2> /dev/null; echo the stream broke >&2; exit 1', "sh"),
            "the connection broke: the stream",
        ),
        (("/nowhere/kubectl",), "not visible from here: /nowhere/kubectl: No such file"),
    ],
)
def test_the_commands_own_failure_is_no_answer_of_the_program(argv: tuple[str, ...], said: str, tmp_path: Path) -> None:
    with pytest.raises(Unreachable, match=said):
        over(tmp_path, argv=argv).run("exit 1")


def test_a_folder_that_is_gone_a_flood_and_a_silence_are_told(tmp_path: Path) -> None:
    with pytest.raises(Unreachable, match="our folder there is gone"):
        over(tmp_path, folder="nowhere").run("true")
    with pytest.raises(Unreachable, match="floods the answer"):
        over(tmp_path).run("yes", most=1000)
    with pytest.raises(Unreachable, match=r"no answer in 0\.2 s"):
        over(tmp_path).run("tail -f /dev/null", timeout=0.2)


def test_a_program_that_is_missing_says_what_to_install(tmp_path: Path) -> None:
    with pytest.raises(Unreachable, match="no `no-such-kubectl` on this machine: install it") as raised:
        over(tmp_path, needs=(("no-such-kubectl", "install it"),)).run("true")
    assert raised.value.ours


def test_an_instance_without_an_ssh_server_is_reached_by_its_command(tmp_path: Path) -> None:
    """Its jobs run; who wants to attach is told why that is not possible."""
    (tmp_path / FOLDER).mkdir()
    made = Access(argv=EXEC, environment=(("HOME", str(tmp_path)),), speaks="sh")
    reach = SshReach(no_lines, who="ann", access=lambda way, one: made)
    one = Instance(
        id="i", name="pod-0", pool="p", backend="k", place="k/r", external_id="pod/uid",
        resources=Resources(cpus=1, memory=1), way=Way(mode="program", name="exec"),
    )  # fmt: skip
    answer = transports(os.environ, reach)(one).run("pwd")
    assert answer == (0, f"{tmp_path}/{FOLDER}\n".encode(), "")
    with pytest.raises(Unreachable, match="pod-0 has no SSH server: `connect: exec` runs jobs only"):
        open_door(one, reach=reach, environ={})


def no_lines() -> Lines:
    raise AssertionError("no SSH connection is opened to it")
