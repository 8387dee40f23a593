"""Real work on a real host: what the supervisor promises when nobody of ours is there."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread

import pytest

from reconciler.hosts.runner import HostError
from schemas.run import Probe
from tests.doubles.hosts.real_host import RealHost, alive, until

ROOT = Path(__file__).parents[2]


@pytest.fixture
def host(tmp_path: Path) -> Iterator[RealHost]:
    rig = RealHost(tmp_path / "host")
    yield rig
    rig.end_everything()


@pytest.mark.parametrize(
    ("command", "code", "reason"),
    [
        ("true", 0, ""),
        ("exit 3", 3, "exit 3"),
        ("false; exit 0", 0, ""),
        ("exit 255", 255, "exit 255"),
        ("no-such-command", 127, "exit 127"),
        ("kill -9 $$", 137, "killed by signal 9 (SIGKILL)"),
        ("sh -c 'kill -SEGV $$'", 139, "killed by signal 11 (SIGSEGV)"),
        ("kill -TERM $$", 143, "killed by signal 15 (SIGTERM)"),
        ("echo 'unclosed", 2, "exit 2"),
    ],
)
def test_exit_codes_and_signals(host: RealHost, command: str, code: int, reason: str) -> None:
    report = host.over(host.start(command))
    assert (report.phase, report.exit_code, report.reason, report.interrupted) == ("ended", code, reason, False)


def test_commands_end_at_the_first_that_fails(host: RealHost) -> None:
    job = host.start("cd /", "pwd", "# only words", "sh -c 'exit 4'", "echo never")
    assert host.over(job).exit_code == 4
    assert host.log(job) == b"/\n"


def test_what_our_own_shells_say_of_a_kill_is_not_in_the_log(host: RealHost) -> None:
    job = host.start("echo mine", "kill -TERM $$")
    assert host.over(job).exit_code == 143
    assert host.log(job) == b"mine\n"


def test_the_signals_of_a_keyboard_work_in_a_job(host: RealHost) -> None:
    job = host.start("trap 'echo got it; exit 5' INT", "kill -INT $$", "echo not here")
    assert host.over(job).exit_code == 5
    assert host.log(job) == b"got it\n"


def test_output_of_any_bytes_is_kept(host: RealHost) -> None:
    every = bytes(range(256)) * 300
    job = host.start("""python3 -c 'import sys; sys.stdout.buffer.write(bytes(range(256)) * 300)'""")
    assert host.over(job).exit_code == 0
    assert host.log(job) == every


def test_stdin_is_empty(host: RealHost) -> None:
    job = host.start("cat", "echo end")
    host.over(job)
    assert host.log(job) == b"end\n"


def test_a_log_is_seen_while_it_grows(host: RealHost) -> None:
    job = host.start("""python3 -c 'import time; print("first"); time.sleep(600)'""")
    host.says(job, b"first\n")
    assert host.runner.read_log(host.instance, job, offset=2) == b"rst\n"
    assert host.runner.read_log(host.instance, job, offset=6) == b""


def test_of_a_long_log_the_beginning_and_the_end_are_kept(host: RealHost) -> None:
    words = "echo first; yes 123456789 | head -c 3000000; echo 'RuntimeError: CUDA out of memory' >&2; exit 3"
    job = host.start(words, log_limit=65536)
    assert host.over(job).exit_code == 3
    log = host.log(job)
    assert log.startswith(b"first\n123456789\n")
    assert log.endswith(b"123456789\nRuntimeError: CUDA out of memory\n")
    kept, notes = log.count(b"123456789\n"), re.findall(rb"\n\[dstack\] ([^\n]*)", log)
    assert len(notes) == 2
    assert b"log limit (log_limit) of 65536 bytes" in notes[0]
    left = int(re.match(rb"(\d+) bytes are left out here", notes[1])[1])  # type: ignore[index]
    assert abs(kept * 10 + left - 3_000_000) < 64
    assert len(log) < 66_500


@pytest.mark.parametrize("size", [20_000, 40_000, 60_000])
def test_a_log_below_its_limit_loses_no_byte(host: RealHost, size: int) -> None:
    job = host.start(f"seq 1 100000 | head -c {size}", log_limit=65536)
    host.over(job)
    text = b"".join(b"%d\n" % number for number in range(1, 100001))[:size]
    assert re.sub(rb"\n\[dstack\] log limit [^\n]*\n", b"", host.log(job)) == text


def test_the_end_of_a_long_log_is_there_while_the_job_runs(host: RealHost) -> None:
    job = host.start("yes 123456789 | head -c 300000; echo now; exec sleep 600", log_limit=65536)
    until(lambda: read_whole(host, job).endswith(b"now\n"))
    assert b"now" not in host.runner.read_log(host.instance, job, offset=0)
    host.stop(job)
    host.over(job)
    assert b"now\n" in host.log(job)[-200:]


def read_whole(host: RealHost, job: str) -> bytes:
    return host.runner.read_log(host.instance, job, offset=0, to_the_end=True)


def test_a_restarted_service_goes_on_at_the_end_of_its_log(host: RealHost) -> None:
    job = host.start("yes 123456789 | head -c 100000; echo end of one go; exit 4", restart=True, log_limit=65536)
    until(lambda: host.job(job).failing.endswith("restarted 2 times"))
    host.stop(job)
    host.over(job)
    log = host.log(job)
    assert b"end of one go\n\n[dstack] exit 4: begun again in 2 s" in log
    assert len(log) < 67_000


def test_a_double_fork_with_setsid_ends_with_its_job(host: RealHost) -> None:
    escape = "(setsid sh -c 'trap \"\" TERM HUP; (sleep 600; :) & echo $! > pid; wait' &)"
    job = host.start(escape, "until [ -s pid ]; do sleep 0.05; done")
    host.over(job)
    assert not alive(int(host.at(job, "work/pid").read_text()))
    assert host.pids(job) == []


def test_a_process_that_clears_its_environment_ends_with_its_job(host: RealHost) -> None:
    job = host.start("env -i /bin/sh -c 'sleep 600 & echo $! > pid; wait' &", "until [ -s pid ]; do :; done")
    host.over(job)
    assert not alive(int(host.at(job, "work/pid").read_text()))


def test_max_duration_ends_it_with_all_its_processes(host: RealHost) -> None:
    job = host.start("(trap '' TERM; sleep 600) & sleep 600", max_duration=1, grace=1)
    report = host.over(job)
    assert report.reason == "max duration 1s"
    assert host.pids(job) == []
    assert b"[dstack] ended: max-duration:1" in host.log(job)


def test_a_stop_lets_it_finish_within_its_grace(host: RealHost) -> None:
    job = host.start("trap 'echo saved; exit 0' TERM", "echo ready", "sleep 600 & wait")
    host.says(job, b"ready")
    host.stop(job)
    report = host.over(job)
    assert (report.reason, report.exit_code) == ("stopped", 0)
    assert b"saved" in host.log(job)
    assert b"[dstack] stop: asked for" in host.log(job)


def test_an_abort_cuts_the_grace(host: RealHost) -> None:
    job = host.start("trap 'echo no' TERM", "echo ready", "while :; do sleep 600 & wait; done", grace=600)
    host.says(job, b"ready")
    host.stop(job)
    host.says(job, b"no\n")
    host.stop(job, abort=True)
    report = host.over(job)
    assert (report.reason, report.exit_code) == ("aborted", 137)


def test_a_stop_right_after_the_start_ends_it(host: RealHost) -> None:
    for number in range(5):
        job = host.start("sleep 600", job=f"quick-{number}")
        host.stop(job)
    assert {host.over(f"quick-{number}").reason for number in range(5)} == {"stopped"}


def test_an_exit_under_notice_is_an_interruption(host: RealHost) -> None:
    (host.folder / "notice").touch()
    gone = host.over(host.start("exit 1", job="gone"))
    done = host.over(host.start("true", job="done"))
    assert (gone.reason, gone.interrupted) == ("interrupted", True)
    assert (done.reason, done.interrupted) == ("", False)


SAVES = ("trap 'echo saved; exit 0' TERM", "echo up", "while :; do sleep 600 & wait; done")


@pytest.mark.parametrize(
    ("order", "reason", "interrupted"),
    [
        ("stop", "stopped", False),
        ("retire", "its instance was ended", True),
        ("shutdown", "its machine was shut down", True),
        ("max_duration", "max duration 1s", False),
        ("disk", "used more than 1 MB of disk", False),
    ],
)
def test_a_job_that_saves_and_exits_with_0_when_it_is_told_to_end(
    host: RealHost, order: str, reason: str, interrupted: bool
) -> None:
    """The reason stays: by its exit code alone it would pass for finished."""
    limits = {"max_duration": {"max_duration": 1}, "disk": {"disk": 1, "inactivity": 19}}.get(order, {})
    fill = ("head -c 3000000 /dev/zero > big",) if order == "disk" else ()
    job = host.start(*fill, *SAVES, **limits)
    host.says(job, b"up")
    match order:
        case "stop":
            host.stop(job)
        case "retire":
            host.runner.retire(host.instance, generation=1)
        case "shutdown":  # as an init does it: everything at once, our supervisor too
            for pid in (host.supervisor(job), *host.pids(job)):
                os.kill(pid, signal.SIGTERM)
    report = host.over(job)
    assert (report.reason, report.interrupted) == (reason, interrupted)
    if order != "retire":  # there the end of the machine is not delayed
        assert report.exit_code == 0


def test_an_end_of_its_own_before_the_stop_came_counts(host: RealHost) -> None:
    job = host.start("true")
    host.over(job)
    host.stop(job)
    report = host.over(job)
    assert (report.exit_code, report.reason) == (0, "")


def test_inactivity_ends_it(host: RealHost) -> None:
    assert host.over(host.start("sleep 600", inactivity=1)).reason == "inactive for 1s"


def test_the_disk_has_a_limit(host: RealHost) -> None:
    job = host.start("head -c 3000000 /dev/zero > big", "sleep 600", disk=1, inactivity=19)
    assert host.over(job).reason == "used more than 1 MB of disk"


def test_a_full_disk_loses_no_exit_code_and_can_be_cleaned(tmp_path: Path) -> None:
    small = tmp_path / "small"
    small.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=400k", "tmpfs", str(small)], check=False)
    if mounted.returncode:
        pytest.skip("only root can mount a small disk")
    try:
        host = RealHost(small / "host")
        job = host.start("head -c 9000000 /dev/zero > big; exit 6")
        assert host.over(job).exit_code == 6
        notes = host.runner.collect(host.instance, job, artifacts=("big",)).notes
        assert "the disk of its host was full: its log and its files may be cut" in notes
        with pytest.raises(HostError, match="No space left"):
            host.start("true", job="next")
        host.runner.clean(host.instance, job, generation=1)
        assert host.over(host.start("true", job="next")).exit_code == 0
        assert host.runner.collect(host.instance, "next", artifacts=()).notes == ()
    finally:
        subprocess.run(["umount", "-l", str(small)], check=True)


def test_a_service_is_begun_again_with_a_pause(host: RealHost) -> None:
    job = host.start("echo go >> goes", "wc -l < goes", "exit 7", restart=True)
    host.says(job, b"2\n")
    running = host.job(job)
    assert running.phase == "running"
    assert b"[dstack] exit 7: begun again in 1 s" in host.log(job)
    host.stop(job)
    assert host.over(job).reason == "stopped"


class _Page(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


PAGE = """\
import http.server, os, sys
class Page(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200 if os.path.exists("healthy") and self.path == "/health" else 503)
        self.end_headers()
http.server.HTTPServer(("127.0.0.1", int(os.environ["DSTACK_SERVICE_PORT"])), Page).serve_forever()
"""


def serving(host: RealHost, *, port: int, job: str = "r1-0-1-0") -> str:
    probe = Probe(path="/health", interval=1)
    command = f"exec {shlex.quote(sys.executable)} -c {shlex.quote(PAGE)}"
    return host.start(command, job=job, restart=True, probe=probe, port=port)


def test_a_probe_of_a_path_tells_when_a_service_is_ready(host: RealHost) -> None:
    job = serving(host, port=free_port())
    until(lambda: host.at(job, "work").exists())
    assert host.job(job).ready is False
    host.at(job, "work/healthy").touch()
    until(lambda: host.job(job).ready)


def test_a_probe_does_not_believe_what_another_job_answers(host: RealHost) -> None:
    port = free_port()
    first = serving(host, port=port)
    until(lambda: host.at(first, "work").exists())
    host.at(first, "work/healthy").touch()
    until(lambda: host.job(first).ready)
    second = serving(host, port=port, job="r2-0-1-0")
    host.says(second, b"Address already in use")
    until(lambda: "restarted 2 times" in host.job(second).failing)
    assert host.job(second).failing.startswith("exit 1, ")
    assert host.job(second).ready is False
    assert (host.job(first).ready, host.job(first).failing) == (True, "")


def test_a_probe_does_not_believe_a_program_that_is_no_job(host: RealHost) -> None:
    server = HTTPServer(("127.0.0.1", 0), _Page)
    Thread(target=server.serve_forever, daemon=True).start()
    try:
        probe = Probe(path="/", interval=1)
        job = host.start("sleep 600", restart=True, probe=probe, port=server.server_port)
        host.says(job, f"another process answers at port {server.server_port}".encode())
        assert host.job(job).ready is False
    finally:
        server.shutdown()
        server.server_close()


def test_a_listener_in_a_child_of_the_job_counts(host: RealHost) -> None:
    probe = Probe(path="/health", interval=1)
    command = f"touch healthy; (setsid {shlex.quote(sys.executable)} -c {shlex.quote(PAGE)} &) ; sleep 600"
    job = host.start(command, restart=True, probe=probe, port=free_port())
    until(lambda: host.job(job).ready)


def test_what_keeps_a_service_from_running_is_told_until_it_holds(host: RealHost) -> None:
    probe = Probe(command="[ -e up ]", interval=1)
    job = host.start("[ -e mended ] || exit 3", "touch up", "sleep 600", restart=True, probe=probe)
    until(lambda: host.job(job).failing == "exit 3, restarted 1 time")
    host.at(job, "work/mended").touch()
    until(lambda: host.job(job).ready)
    until(lambda: host.job(job).failing == "")


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def test_a_probe_that_fails_after_it_was_ready_begins_the_service_again(host: RealHost) -> None:
    probe = Probe(command="[ ! -e sick ]", interval=1, fail_after=1)
    job = host.start("rm -f sick", "echo up", "sleep 600", restart=True, probe=probe)
    until(lambda: host.job(job).ready)
    host.at(job, "work/sick").touch()
    host.says(job, b"begun again")
    until(lambda: host.log(job).count(b"up\n") == 2)


def test_the_commands_files_and_the_secrets_are_gone_when_it_is_over(host: RealHost) -> None:
    canary = "canary-4f1d9a"
    job = host.start(f"test ${{#TOKEN}} = {len(canary)} # {canary}", env={"TOKEN": canary})
    assert host.over(job).exit_code == 0
    holders = [path for path in host.folder.rglob("*") if path.is_file() and canary.encode() in path.read_bytes()]
    assert holders == []


def test_a_process_list_shows_neither_values_nor_commands(host: RealHost) -> None:
    host.start("mkfifo gate", "echo begun", "read -r _ < gate # canary-c", env={"TOKEN": "canary-v"}, job="quiet")
    host.says("quiet", b"begun")
    shown = subprocess.run(["ps", "axww", "-o", "args"], capture_output=True, check=True).stdout
    assert b"quiet" in shown
    assert b"canary-c" not in shown
    assert b"canary-v" not in shown


def test_only_the_owner_can_read_a_job(host: RealHost) -> None:
    job = host.start("sleep 600")
    until(lambda: host.at(job, "begun").exists())
    for path in (host.at(job, "env"), host.at(job, "script"), host.at(job, "log")):
        until(path.exists)
        assert path.stat().st_mode & 0o077 == 0
    assert host.at(job, ".").stat().st_mode & 0o077 == 0


def test_only_what_it_was_given_is_in_its_environment(host: RealHost, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "canary")
    job = host.start("env", env={"GIVEN": "a 'b' \"c\"\n$d é"})
    host.over(job)
    shown = host.log(job).decode()
    assert "GIVEN=a 'b' \"c\"\n$d é\n" in shown
    assert "AWS_SECRET" not in shown


SURVIVOR = """
    import os, signal, sys
    sys.path[:0] = [{root!r}, {tests!r}]
    from pathlib import Path
    from tests.doubles.hosts.real_host import RealHost
    host = RealHost(Path({folder!r}))
    host.start("until [ -e go ]; do sleep 0.05; done", "echo survived")
    os.killpg(0, signal.SIGKILL)
"""


def test_a_job_survives_the_death_of_whoever_started_it(host: RealHost) -> None:
    program = textwrap.dedent(SURVIVOR).format(root=str(ROOT), tests=str(ROOT / "tests"), folder=str(host.folder))
    starter = subprocess.run([sys.executable, "-c", program], start_new_session=True, check=False)
    assert starter.returncode == -signal.SIGKILL
    assert host.job("r1-0-1-0").phase == "running"
    until(lambda: host.at("r1-0-1-0", "work").exists())
    host.at("r1-0-1-0", "work/go").touch()
    assert host.over("r1-0-1-0").exit_code == 0
    assert host.log("r1-0-1-0") == b"survived\n"


RACER = """
    import sys
    sys.path[:0] = [{root!r}, {tests!r}]
    from pathlib import Path
    from tests.doubles.hosts.real_host import RealHost
    host = RealHost(Path({folder!r}))
    sys.stdin.readline()
    for number in range(5):
        host.start("echo $$ >> {folder}/started", job=f"race-{{number}}")
"""


def test_two_that_start_the_same_job_at_once_start_it_once(host: RealHost) -> None:
    program = textwrap.dedent(RACER).format(root=str(ROOT), tests=str(ROOT / "tests"), folder=str(host.folder))
    racers = [subprocess.Popen([sys.executable, "-c", program], stdin=subprocess.PIPE) for _ in range(2)]
    for racer in racers:
        assert racer.stdin is not None
        racer.stdin.write(b"go\n")
        racer.stdin.close()
    assert [racer.wait() for racer in racers] == [0, 0]
    for number in range(5):
        assert host.over(f"race-{number}").exit_code == 0
    assert len((host.folder / "started").read_text().splitlines()) == 5


def test_a_job_is_started_once_for_ever(host: RealHost) -> None:
    for _ in range(3):
        host.over(host.start(f"echo go >> {host.folder}/goes"))
    host.runner.clean(host.instance, "r1-0-1-0", generation=1)
    host.start(f"echo go >> {host.folder}/goes")
    assert host.job("r1-0-1-0").phase == "absent"
    assert (host.folder / "goes").read_text() == "go\n"


def given_up(host: RealHost, job: str) -> None:
    """A claim whose supervisor never began, doubted for long."""
    (host.folder / "claims" / job).mkdir(parents=True)
    (host.folder / "claims" / job / "doubt").write_text("another-boot 5\n")


def test_a_crash_between_claim_and_start_is_a_lost_job(host: RealHost) -> None:
    host.look()
    given_up(host, "crashed")
    until(lambda: host.job("crashed").phase == "lost")
    host.start("echo never", job="crashed")
    assert host.job("crashed").phase == "lost"


def test_a_claim_without_a_supervisor_is_given_time(tmp_path: Path) -> None:
    host = RealHost(tmp_path / "host", patience=3600)
    (host.folder / "claims" / "slow").mkdir(parents=True)
    assert [host.job("slow").phase for _ in range(3)] == ["running"] * 3
    (host.folder / "claims" / "slow" / "doubt").write_text("another-boot 5\n")
    assert host.job("slow").phase == "lost"


def test_a_supervisor_that_comes_late_gives_way(host: RealHost) -> None:
    job = host.over(host.start("true", job="model")).id
    late = host.folder / "jobs" / "late"
    given_up(host, "late")
    until(lambda: host.job("late").phase == "lost")
    for path in (*host.at(job, ".").glob("*.sh"), host.at(job, "token")):
        (late / path.name).write_bytes(path.read_bytes())
    (late / "order").touch()
    assert subprocess.run(["sh", "./supervisor.sh", "late"], cwd=late, check=False).returncode == 0
    assert host.job("late").phase == "lost"
    assert not (late / "work").exists()


def test_claimed_and_dead_is_lost_and_nothing_of_it_lives(host: RealHost) -> None:
    job = host.start("echo $$", "trap '' TERM; sleep 600", env={"TOKEN": "canary"})
    host.says(job, b"\n")
    shell = int(host.log(job))
    os.kill(host.supervisor(job), signal.SIGKILL)
    report = host.over(job)
    assert (report.phase, report.exit_code) == ("lost", None)
    assert not alive(shell)
    assert host.pids(job) == []
    assert not host.at(job, "env").exists()


def test_another_boot_is_lost_and_kills_nobody(host: RealHost) -> None:
    job = host.start("sleep 600")
    pid = host.supervisor(job)
    until(lambda: host.at(job, "session").exists())
    record = host.at(job, "pid")
    bystander = subprocess.Popen(["setsid", "sleep", "600"])
    try:
        host.at(job, "session").write_text(f"{bystander.pid} 1\n")
        record.write_text(record.read_text().rsplit(" ", 1)[0] + " another-boot\n")
        assert host.over(job).phase == "lost"
        assert alive(bystander.pid)
    finally:
        bystander.kill()
        bystander.wait()
        (host.folder / "ending").touch()
        until(lambda: not alive(pid))


def test_a_reused_pid_is_not_taken_for_the_supervisor(host: RealHost) -> None:
    job = host.start("sleep 600")
    os.kill(host.supervisor(job), signal.SIGKILL)
    bystander = subprocess.Popen(["sleep", "600"])
    try:
        record = host.at(job, "pid")
        _, born, boot = record.read_text().split()
        record.write_text(f"{bystander.pid} {born} {boot}\n")
        assert host.over(job).phase == "lost"
        assert alive(bystander.pid)
    finally:
        bystander.kill()
        bystander.wait()


def test_fifty_jobs_at_once(host: RealHost) -> None:
    jobs = [host.start("echo $DSTACK_JOB_ID", job=f"many-{number}") for number in range(50)]
    until(lambda: sum(job.phase == "ended" for job in host.look().jobs) == 50)
    assert {job.exit_code for job in host.look().jobs} == {0}
    assert [host.log(job) for job in jobs] == [f"{job}\n".encode() for job in jobs]


def test_a_folder_removed_under_a_job_ends_it(host: RealHost) -> None:
    job = host.start("trap '' TERM", "(trap '' TERM; env -i sleep 600) &", "echo up", "sleep 600", inactivity=10)
    host.says(job, b"up")
    supervisor, pids = host.supervisor(job), host.pids(job)
    assert pids
    shutil.rmtree(host.folder)
    host.folder.mkdir()
    until(lambda: not alive(supervisor))
    assert not any(alive(pid) for pid in pids)


def test_a_host_that_ends_takes_its_jobs_along(host: RealHost) -> None:
    job = host.start("trap '' TERM; sleep 600", inactivity=600, max_duration=10)
    host.supervisor(job)
    host.runner.retire(host.instance, generation=1)
    assert host.over(job).reason == "its instance was ended"


# ---------------------------------------------------------------- a share of the machine


SYSTEMD_RUN = """\
#!/bin/sh
# Answers as systemd-run --scope does: what it was asked for, then the command in its own place.
echo "$*" >> "$SCOPES"
while [ "${1#-}" != "$1" ]; do case $1 in -p) shift 2 ;; *) shift ;; esac; done
exec "$@"
"""


def test_a_process_is_held_to_its_share_by_systemd_and_ends_as_any_other(tmp_path: Path) -> None:
    path = tmp_path / "bin/systemd-run"
    path.parent.mkdir()
    scopes = tmp_path / "scopes"
    path.write_text(SYSTEMD_RUN.replace("$SCOPES", str(scopes)))
    path.chmod(0o755)
    environ = {**os.environ, "PATH": f"{path.parent}:{os.environ['PATH']}"}
    host = RealHost(tmp_path / "host", environ=environ)
    job = host.start("echo held; sleep 600 & sleep 600", limit_cpus=2, limit_memory=512)
    until(lambda: host.log(job) == b"held\n")
    tried, used = scopes.read_text().splitlines()
    assert tried.endswith(" true")
    assert "-p MemoryMax=512M -p MemorySwapMax=0 -p CPUQuota=200%" in used
    assert ("--user" in used) == (os.geteuid() != 0)
    host.stop(job)
    assert host.over(job).exit_code == 143
    assert not host.pids(job)


def test_without_a_way_to_hold_a_process_its_log_says_so(tmp_path: Path) -> None:
    programs = tmp_path / "bin"
    programs.mkdir()
    for one in os.environ["PATH"].split(":"):
        for tool in Path(one).glob("*") if Path(one).is_dir() else ():
            if tool.name != "systemd-run" and not (programs / tool.name).exists():
                (programs / tool.name).symlink_to(tool)
    host = RealHost(tmp_path / "host", environ={**os.environ, "PATH": str(programs)})
    job = host.start("echo ran", limit_cpus=2, limit_memory=512)
    assert host.over(job).exit_code == 0
    said = b"[dstack] this host holds no process to its share, 2 CPUs and 512 MB: an image would be"
    assert said in host.log(job) or (Path("/sys/fs/cgroup/cgroup.controllers").exists() and os.geteuid() == 0)


@pytest.mark.parametrize(
    ("given", "held", "files"),
    [
        (["memory.max", "memory.swap.max", "cpu.max"], True, {"memory.max": "536870912", "cpu.max": "200000 100000"}),
        (["cpu.max"], False, {}),
    ],
)
def test_a_cgroup_of_its_own_holds_it(tmp_path: Path, given: list[str], held: bool, files: dict[str, str]) -> None:
    """The controllers that the kernel gives a folder, as files here: this system may have none to give."""
    group = tmp_path / "parent/job"
    group.mkdir(parents=True)
    for name in given:
        (group / name).write_text("max\n")
    (group / "memory.events").write_text("low 0\noom 1\noom_kill 1\n")
    program = ROOT / "reconciler/hosts/programs/share.sh"
    script = f"note() {{ :; }}; . {program}; group={group} limit_cpus=2 limit_memory=512; limit_group || exit 1; "
    ran = subprocess.run(["sh", "-c", script + "told_out_of_memory"], check=False)
    assert (ran.returncode == 0) is held
    for name, content in files.items():
        assert (group / name).read_text().strip() == content
