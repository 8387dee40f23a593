"""What people work in: a Python of the asked version, a dev environment that stays, and what is kept of it."""

from __future__ import annotations

import os
import pty
import shutil
import stat
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.doubles.hosts.real_host import RealHost, until

PLAIN = """
sh env cat sed grep sort tr mkfifo mkdir rm mv sleep setsid du wc dd date tar head tail printf cp ln chmod cut
""".split()  # noqa: SIM905
HERE = f"{sys.version_info.major}.{sys.version_info.minor}"


@pytest.fixture
def host(tmp_path: Path) -> Iterator[RealHost]:
    rig = RealHost(tmp_path / "host")
    yield rig
    rig.end_everything()


def tools(folder: Path, *names: str) -> dict[str, str]:
    """An environment in which nothing but these programs and the system's plainest are found."""
    folder.mkdir()
    for name in (*PLAIN, *names):
        found = shutil.which(name)
        if found:
            (folder / name).symlink_to(found)
    return {**os.environ, "PATH": str(folder)}


def test_a_python_of_the_host_is_taken_into_a_venv(host: RealHost) -> None:
    job = host.start("python -c 'import sys; print(sys.prefix, *sys.version_info[:2])'", "command -v pip", python=HERE)
    report = host.over(job)
    assert report.exit_code == 0, host.log(job)
    prefix = host.at(job, "venv")
    assert host.log(job).decode().split("\n")[:2] == [f"{prefix} {HERE.replace('.', ' ')}", f"{prefix}/bin/pip"]


def test_the_users_path_comes_after_its_python(host: RealHost) -> None:
    job = host.start("command -v python", python=HERE, env={"PATH": "/usr/bin:/bin"})
    assert host.over(job).exit_code == 0
    assert host.log(job).decode() == f"{host.at(job, 'venv')}/bin/python\n"


def test_uv_is_asked_where_the_host_has_no_such_python(tmp_path: Path) -> None:
    environ = tools(tmp_path / "bin")
    uv = tmp_path / "bin" / "uv"
    # uv itself would ask the network; what is shown is how it is called and that its Python is the one used.
    uv.write_text(f'#!/bin/sh\necho "$@" > {tmp_path}/asked\nexec {sys.executable} -m venv "$5"\n')
    uv.chmod(0o755)
    host = RealHost(tmp_path / "host", environ=environ)
    job = host.start("python -c 'print(1 + 1)'", python=HERE)
    assert host.over(job).exit_code == 0, host.log(job)
    assert (tmp_path / "asked").read_text() == f"venv --seed --python {HERE} venv\n"
    assert host.log(job).endswith(b"2\n")


def test_a_python_that_is_not_to_be_had_fails_before_the_commands(tmp_path: Path) -> None:
    host = RealHost(tmp_path / "host", environ=tools(tmp_path / "bin"))
    job = host.start("echo never", python="3.12")
    report = host.over(job)
    assert report.exit_code == 1
    assert report.reason == "no Python 3.12 on its host: install it or uv there, or name an image; the log says more"
    assert b"[dstack] Python 3.12 is not to be had on this host: it has no python3.12 and no uv." in host.log(job)
    assert b"never" not in host.log(job)


def a_bundle(tmp_path: Path) -> Path:
    files = tmp_path / "files"
    files.mkdir()
    (files / "a.txt").write_text("one\n")
    (files / "gone.txt").write_text("old\n")
    (files / ".gitignore").write_text("*.log\n")
    with tarfile.open(tmp_path / "bundle.tar.gz", "w:gz") as tar:
        tar.add(files, ".")
    return tmp_path / "bundle.tar.gz"


def test_a_dev_environment_stays_and_its_changes_are_kept(host: RealHost, tmp_path: Path) -> None:
    job = host.start("echo init done", stay=True, keep_changes=True, files_bundle=a_bundle(tmp_path))
    host.says(job, b"init done\n[dstack] ready\n")
    edit = "echo two >> a.txt; rm gone.txt; mkdir d; printf 'new\\0file' > 'd/a new one'; echo x > b.log; echo t > top"
    entered = subprocess.run(["sh", str(host.at(job, "enter.sh")), "sh", "-c", edit], check=False, timeout=30)
    assert entered.returncode == 0
    host.stop(job)
    report = host.over(job)
    assert (report.reason, report.exit_code) == ("stopped", 0)
    collected = host.runner.collect(host.instance, job, artifacts=("dstack-changes",))
    assert collected.artifacts is not None
    with tarfile.open(collected.artifacts) as tar:
        tar.extractall(tmp_path / "kept", filter="data")
    kept = tmp_path / "kept" / "dstack-changes"
    assert sorted(path.name for path in kept.iterdir()) == ["changes.patch", "untracked", "untracked.txt"]
    assert (kept / "untracked.txt").read_text() == "d/a new one\ntop\n"
    assert (kept / "untracked" / "d" / "a new one").read_bytes() == b"new\0file"
    assert (kept / "untracked" / "top").read_text() == "t\n"
    done = subprocess.run(["git", "apply", str(kept / "changes.patch")], cwd=tmp_path / "files", check=False)
    assert done.returncode == 0
    assert (tmp_path / "files" / "a.txt").read_text() == "one\ntwo\n"
    assert not (tmp_path / "files" / "gone.txt").exists()
    assert b"what was changed is kept as the artifacts dstack-changes" in host.log(job)


def test_a_dev_environment_without_a_change_keeps_nothing(host: RealHost, tmp_path: Path) -> None:
    job = host.start(stay=True, keep_changes=True, files_bundle=a_bundle(tmp_path))
    host.says(job, b"[dstack] ready\n")
    host.stop(job)
    host.over(job)
    assert not host.at(job, "work/dstack-changes").exists()


def test_an_init_that_fails_ends_a_dev_environment(host: RealHost) -> None:
    assert host.over(host.start("exit 3", "echo never", stay=True)).reason == "exit 3"


def test_nobody_active_is_warned_of_and_then_the_end(host: RealHost) -> None:
    job = host.start(stay=True, inactivity=4)
    report = host.over(job)
    assert report.reason == "inactive for 4s"
    log = host.log(job)
    assert b"nobody has been active for" in log
    assert log.index(b"nobody has been active for") < log.index(b"ended: inactivity:4")


def test_a_session_without_a_terminal_counts_while_it_lasts(host: RealHost) -> None:
    job = host.start(stay=True, inactivity=2)
    host.says(job, b"ready")
    session = subprocess.Popen(["sh", str(host.at(job, "enter.sh")), "sleep", "5"], stdin=subprocess.DEVNULL)
    began = host.look().uptime or 0
    report = host.over(job)
    assert report.reason == "inactive for 2s"
    assert (host.look().uptime or 0) - began >= 6
    session.wait()
    assert session.returncode == 0


def test_an_idle_terminal_is_warned(host: RealHost) -> None:
    job = host.start(stay=True, inactivity=24)
    host.says(job, b"ready")
    ours, theirs = pty.openpty()
    session = subprocess.Popen(
        ["sh", str(host.at(job, "enter.sh"))],
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        start_new_session=True,
        env={**os.environ, "PS1": "$ "},
    )
    os.close(theirs)
    seen = bytearray()

    def warned() -> bool:
        seen.extend(os.read(ours, 4096))
        return b"nobody has been active for" in seen

    until(warned)
    os.write(ours, b"exit\n")
    session.wait(240)
    host.stop(job, abort=True)
    assert host.over(job).reason == "aborted"
    os.close(ours)


def test_a_job_that_has_ended_cannot_be_entered(host: RealHost) -> None:
    job = host.start("true")
    host.over(job)
    entered = subprocess.run(["sh", str(host.at(job, "enter.sh")), "true"], capture_output=True, check=False)
    assert (entered.returncode, entered.stderr) == (1, b"this job has ended\n")
    assert stat.S_IMODE(host.at(job, "enter.sh").stat().st_mode) == 0o600


def test_what_is_too_much_is_named_and_not_kept(host: RealHost, tmp_path: Path) -> None:
    job = host.start(stay=True, keep_changes=True, files_bundle=a_bundle(tmp_path))
    host.says(job, b"[dstack] ready\n")
    order = host.at(job, "order")
    assert "changes_limit=262144\n" in order.read_text()
    host.at(job, "work/sparse").write_bytes(b"")
    subprocess.run(["fallocate", "-l", "300M", str(host.at(job, "work/sparse"))], check=True)
    host.stop(job)
    host.over(job)
    kept = host.at(job, "work/dstack-changes")
    assert sorted(path.name for path in kept.iterdir()) == ["notes.txt", "untracked.txt"]
    assert "only their names are kept" in (kept / "notes.txt").read_text()
