"""Jobs in containers, by real engines: what the supervisor promises of processes, it promises of them."""

from __future__ import annotations

import io
import os
import shutil
import signal
import subprocess
import tarfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from reconciler.hosts.runner import ContainerSpec, HostError
from reconciler.hosts.shell_runner import HostRunner
from reconciler.hosts.transport.base import Reply
from reconciler.hosts.transport.local import LocalTransport
from schemas.run import Probe
from tests.doubles.hosts.real_engine import IMAGE, Engine
from tests.doubles.hosts.real_host import RealHost, until
from tests.worlds import leftovers
from tests.worlds.processes import command_lines


@pytest.fixture
def host(tmp_path: Path, engine: Engine) -> Iterator[RealHost]:
    rig = RealHost(tmp_path / "host", environ={**os.environ, **engine.env})
    yield rig
    rig.end_everything()
    assert engine.containers() == []


def a_box(**changes: object) -> ContainerSpec:
    return ContainerSpec(image=IMAGE, **changes)  # type: ignore[arg-type]


def test_commands_run_in_the_container(host: RealHost, engine: Engine) -> None:
    job = host.start("cat /etc/passwd | head -1", "echo $DSTACK_RUN_NAME in $DSTACK_WORKING_DIR", "pwd", box=a_box())
    report = host.over(job)
    assert (report.phase, report.exit_code, report.reason) == ("ended", 0, "")
    assert host.log(job) == b"root:x:0:0:root:/:/bin/sh\nhello in /workflow\n/workflow\n"
    assert engine.containers() == []
    assert host.look().runtime == engine.name


@pytest.mark.parametrize(
    ("command", "code", "reason"),
    [
        ("exit 3", 3, "exit 3"),
        ("exit 125", 125, "exit 125"),
        ("no-such-command", 127, "exit 127"),
        ("kill -9 $$; sleep 5; sh -c 'kill -9 $$'", 137, "killed by signal 9 (SIGKILL)"),
    ],
)
def test_exit_codes_pass_through(host: RealHost, command: str, code: int, reason: str) -> None:
    report = host.over(host.start(command, "echo never", box=a_box()))
    assert (report.phase, report.exit_code, report.reason) == ("ended", code, reason)


def test_values_survive_and_none_is_an_argument(host: RealHost) -> None:
    env = {
        "LINES_OF": "one\ntwo 'three'\n", "QUOTES": "\"$HOME` \\", "EMPTY": "", "TOKEN": "secret-value-77",
        "PATH": "/bin:/own", "HOME": "/home", "LD_LIBRARY_PATH": "/own/lib", "DOCKER_CONFIG": "/own",
    }  # fmt: skip
    shown = [f'printf "%s|" "${name}"' for name in env]
    job = host.start(*shown, "touch ready", "until [ -f go ]; do sleep 0.1; done", box=a_box(), env=env)
    until(lambda: host.at(job, "work/ready").exists())
    commands = command_lines()
    assert b"secret-value-77" not in commands
    host.at(job, "work/go").touch()
    assert host.over(job).exit_code == 0
    assert host.log(job).decode() == "".join(f"{value}|" for value in env.values())


def test_a_value_of_several_lines_for_the_client_is_refused(host: RealHost) -> None:
    with pytest.raises(HostError, match="PATH has several lines"):
        host.start("true", box=a_box(), env={"PATH": "/bin\n/sbin"})


def test_files_go_in_and_come_out(host: RealHost, tmp_path: Path) -> None:
    bundle = tmp_path / "bundle.tar.gz"
    with tarfile.open(bundle, "w:gz") as tar:
        entry = tarfile.TarInfo("sub/in.txt")
        entry.size = 5
        tar.addfile(entry, io.BytesIO(b"hello"))
    commands = ("pwd", "cat in.txt", "mkdir ../out", "cp in.txt ../out/a || cat in.txt > ../out/a")
    job = host.start(*commands, box=a_box(), working_dir="sub", files_bundle=bundle)
    assert host.over(job).exit_code == 0
    assert host.log(job).startswith(b"/workflow/sub\nhello")
    collected = host.runner.collect(host.instance, job, artifacts=("out",))
    assert collected.artifacts is not None
    with tarfile.open(collected.artifacts) as tar:
        assert tar.getnames() == ["out/a"]


def test_a_stop_lets_it_finish_within_its_grace(host: RealHost, engine: Engine) -> None:
    child = "sh -c 'trap \"echo child; exit 0\" TERM; echo ready; while :; do sleep 0.1; done' & wait $!"
    job = host.start("trap 'echo first' TERM", f"{child}; wait $!; exit 0", box=a_box())
    host.says(job, b"ready")
    host.stop(job)
    report = host.over(job)
    assert report.reason == "stopped"
    assert [host.log(job).count(word) for word in (b"ready", b"child", b"first")] == [1, 1, 1]
    assert engine.containers() == []


def test_what_ignores_a_stop_is_killed_and_gone(host: RealHost, engine: Engine) -> None:
    job = host.start("trap '' TERM", "echo ready", "while :; do sleep 1; done", box=a_box(), grace=1)
    host.says(job, b"ready")
    host.stop(job)
    assert (host.over(job).reason, host.job(job).exit_code) == ("stopped", 137)
    assert engine.containers() == []


def test_max_duration_and_an_abort_leave_no_container(host: RealHost, engine: Engine) -> None:
    job = host.start("trap '' TERM", "sleep 600", box=a_box(), max_duration=2, grace=1)
    assert host.over(job).reason == "max duration 2s"
    job = host.start("trap '' TERM", "echo ready; sleep 600", box=a_box(), job="r1-0-2-0")
    host.says(job, b"ready")
    host.stop(job, abort=True)
    assert host.over(job).reason == "aborted"
    assert engine.containers() == []


def test_a_look_ends_the_container_of_a_killed_supervisor(host: RealHost, engine: Engine) -> None:
    job = host.start("trap '' TERM", "echo ready; sleep 600", box=a_box())
    host.says(job, b"ready")
    os.kill(host.supervisor(job), signal.SIGKILL)
    assert host.over(job).phase == "lost"
    assert engine.containers() == []


def test_a_look_ends_the_container_where_the_client_was_killed_too(host: RealHost, engine: Engine) -> None:
    job = host.start("trap '' TERM", "echo ready; sleep 600", box=a_box())
    host.says(job, b"ready")
    os.kill(host.supervisor(job), signal.SIGKILL)
    for pid in host.pids(job):
        if engine.name.encode() in Path(f"/proc/{pid}/cmdline").read_bytes():
            os.kill(pid, signal.SIGKILL)
    assert len(engine.containers()) == 1
    assert host.over(job).phase == "lost"
    assert engine.containers() == []


def test_a_killed_client_takes_its_container_along(host: RealHost, engine: Engine) -> None:
    job = host.start("echo ready; sleep 600", box=a_box())
    host.says(job, b"ready")
    for pid in host.pids(job):
        if b"\0run\0" in Path(f"/proc/{pid}/cmdline").read_bytes():
            os.kill(pid, signal.SIGKILL)
    assert host.over(job).exit_code == 137
    assert engine.containers() == []


def test_out_of_memory_is_told_from_a_kill(host: RealHost) -> None:
    greedy = "x=$(dd if=/dev/zero bs=1M count=200 | tr '\\0' x); echo ${#x}"
    job = host.start("echo begun", greedy, box=a_box(memory=32))
    report = host.over(job)
    assert (report.exit_code, report.reason) == (137, "out of memory: more than 32 MB")


def test_out_of_memory_in_a_child_is_told(host: RealHost) -> None:
    greedy = "sh -c 'x=$(dd if=/dev/zero bs=1M count=200 | tr \"\\0\" x); echo ${#x}'; exit $?"
    report = host.over(host.start(greedy, box=a_box(memory=32)))
    assert report.exit_code not in (0, None)
    assert report.reason == "out of memory: more than 32 MB"


def test_an_entrypoint_takes_the_commands_as_its_arguments(host: RealHost) -> None:
    job = host.start("one $HOME", "${{ run.args }}", box=a_box(entrypoint=("printf", "<%s>")), args=("a b", "c"))
    assert host.over(job).exit_code == 0
    assert host.log(job) == b"<one $HOME><a b><c>"


def test_a_user_may_write_in_the_files(host: RealHost) -> None:
    job = host.start("id -u", "echo mine > file", "cat file", box=a_box(user="app"))
    assert (host.over(job).exit_code, host.log(job)) == (0, b"1000\nmine\n")


def test_folders_of_the_host_and_shared_memory(host: RealHost, tmp_path: Path) -> None:
    box = a_box(volumes=((str(tmp_path / "data"), "/data"),), shm=7)
    job = host.start("df -k /dev/shm | tail -1", "echo kept > /data/file", box=box)
    assert host.over(job).exit_code == 0
    assert host.log(job).split()[1] == b"7168"
    assert (tmp_path / "data" / "file").read_text() == "kept\n"


def test_a_missing_folder_of_the_host_belongs_to_the_runs_user(host: RealHost, tmp_path: Path) -> None:
    """One that is there stays as it is."""
    (tmp_path / "there").mkdir()
    volumes = ((str(tmp_path / "missing"), "/missing"), (str(tmp_path / "there"), "/there"))
    box = a_box(volumes=volumes, user="app")
    job = host.start("echo mine > /missing/file", "echo no > /there/file", box=box)
    assert host.over(job).exit_code == 1
    assert (tmp_path / "missing/file").read_text() == "mine\n"
    assert (tmp_path / "missing").stat().st_uid == 1000
    assert (tmp_path / "there").stat().st_uid == os.geteuid()


def test_an_absolute_working_dir_is_the_containers(host: RealHost) -> None:
    job = host.start("pwd", "ls /workflow", box=a_box(), working_dir="/tmp")
    assert (host.over(job).exit_code, host.log(job)) == (0, b"/tmp\n")


def test_a_service_is_begun_again_in_a_new_container(host: RealHost, engine: Engine) -> None:
    job = host.start("echo n >> runs", "cat runs | wc -l", "[ $(cat runs | wc -l) -gt 2 ] && sleep 600", "exit 4",
                     box=a_box(), restart=True)  # fmt: skip
    host.says(job, b"\n3\n")
    assert host.job(job).reason == "begun again 2 times"
    assert len(engine.containers()) == 1
    host.stop(job)
    host.over(job)


def test_a_probe_asks_inside(host: RealHost) -> None:
    probe = Probe(command="grep -q up /tmp/state", interval=1, timeout=2)
    job = host.start("sleep 1; echo up > /tmp/state; sleep 600", box=a_box(), probe=probe)
    until(lambda: host.job(job).ready is True)
    host.stop(job, abort=True)
    host.over(job)


def test_an_image_that_cannot_be_had_fails_in_the_engines_words(host: RealHost) -> None:
    job = host.start("true", box=ContainerSpec(image="127.0.0.1:9/no/such:1"))
    report = host.over(job)
    assert (report.exit_code, report.phase) == (1, "ended")
    assert report.reason.startswith("no image: image 127.0.0.1:9/no/such:1: ")
    assert "connection refused" in report.reason
    assert b"[dstack] pulling 127.0.0.1:9/no/such:1" in host.log(job)


def test_a_container_that_does_not_start_fails_in_the_engines_words(host: RealHost) -> None:
    report = host.over(host.start("true", box=a_box(user="nobody-of-that-name")))
    assert report.reason.startswith("the container did not start: ")
    assert "nobody-of-that-name" in report.reason


def test_nothing_that_the_user_gave_outlives_the_job(host: RealHost) -> None:
    job = host.start("true", box=a_box(username="me", password="hidden-88"), env={"TOKEN": "hidden-77", "HOME": "/h"})
    host.over(job)
    kept = b"".join(path.read_bytes() for path in host.at(job, ".").rglob("*") if path.is_file())
    assert b"hidden" not in kept
    assert b"aGlkZGVuLTg4" not in kept


def test_an_entered_job_is_its_container(host: RealHost) -> None:
    job = host.start("echo ready; sleep 600", box=a_box(), env={"COLOUR": "blue"}, working_dir="/tmp")
    host.says(job, b"ready")
    entered = subprocess.run(
        ["sh", str(host.at(job, "enter.sh")), "sh", "-c", "pwd; echo $COLOUR; exit 5"],
        env={**os.environ, **host.environ},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=60,
        check=False,
    )
    assert (entered.stdout, entered.returncode) == (b"/tmp\nblue\n", 5)
    host.stop(job, abort=True)
    host.over(job)


class _AsNobody:
    """A login without rights, which may only ask docker."""

    def __init__(self, folder: Path, environ: dict[str, str]) -> None:
        self._way = LocalTransport(folder, environ=environ)

    def run(self, program: str, *, args: Sequence[str] = (), **options: Any) -> Reply:
        step = 'program=$1; shift; exec setpriv --reuid 65534 --regid 65534 --clear-groups sh -c "$program" sh "$@"'
        return self._way.run(step, args=(program, *args), **options)


# Podman's containers are never root's where we are not.
@pytest.mark.parametrize("engine", ["docker"], indirect=True)
def test_what_a_container_left_is_ours_again(engine: Engine) -> None:
    daemon = Path(engine.env["DOCKER_HOST"].removeprefix("unix://"))
    daemon.chmod(0o666)
    daemon.parent.chmod(0o711)
    folder = leftovers.folder_of_ours()
    os.chown(folder, 65534, 65534)
    environ = {**os.environ, **engine.env, "HOME": str(folder), "DOCKER_CONFIG": str(folder)}
    host = RealHost(folder / "host", environ=environ)
    os.chown(host.folder, 65534, 65534)
    host.runner = HostRunner(lambda _: _AsNobody(host.folder, environ))
    job = host.start("umask 077", "mkdir d", "echo kept > d/secret.txt", "echo ready; sleep 600", box=a_box())
    host.says(job, b"ready")
    assert host.at(job, "work/d/secret.txt").stat().st_uid == 0
    host.stop(job)
    assert host.over(job).reason == "stopped"
    assert host.at(job, "work/d/secret.txt").stat().st_uid == 65534
    collected = host.runner.collect(host.instance, job, artifacts=("d",))
    assert collected.artifacts is not None
    host.runner.clean(host.instance, job, generation=1)
    assert not host.at(job, ".").exists()
    assert engine.containers() == []
    shutil.rmtree(folder)


# Podman has no daemon that could hang.
@pytest.mark.parametrize("engine", ["docker"], indirect=True)
def test_an_engine_that_hangs_is_no_proof_of_an_end(host: RealHost, engine: Engine) -> None:
    job = host.start("echo ready; sleep 600", box=a_box())
    host.says(job, b"ready")
    daemon = int((Path(engine.env["DOCKER_HOST"].removeprefix("unix://")).parent / "docker.pid").read_text())
    os.kill(daemon, signal.SIGSTOP)
    try:
        os.kill(host.supervisor(job), signal.SIGKILL)
        report = host.look()
        assert [one.phase for one in report.jobs] == ["running"]
    finally:
        os.kill(daemon, signal.SIGCONT)
    assert host.over(job).phase == "lost"
    assert engine.containers() == []
