"""A later attempt begins with the artifacts of the last one, put over its files before anything of it runs."""

from __future__ import annotations

import io
import os
import tarfile
from pathlib import Path

import pytest

from reconciler.hosts.runner import ContainerSpec
from tests.doubles.hosts.real_engine import IMAGE, Engine
from tests.doubles.hosts.real_host import RealHost


def packed(path: Path, **files: str) -> Path:
    with tarfile.open(path, "w:gz") as tar:
        for name, text in files.items():
            entry = tarfile.TarInfo(name.replace("__", "/"))
            entry.size, entry.mtime, entry.mode = len(text), 1_700_000_000, 0o644
            tar.addfile(entry, io.BytesIO(text.encode()))
    return path


SHOWS = ("cat out/step data", "date -r out/step +%s", "echo $DSTACK_ATTEMPT", "echo more >> out/step")
SHOWN = b"[dstack] the artifacts of attempt 1 were put back\nsetup 7\n7\nown\n1700000000\n2\n"


@pytest.fixture
def host(tmp_path: Path) -> RealHost:
    return RealHost(tmp_path / "host")


def start(host: RealHost, tmp_path: Path, *commands: str, **changes: object) -> str:
    given = {
        "files_bundle": packed(tmp_path / "bundle.tar.gz", data="own\n", out__step="first\n"),
        "restore": packed(tmp_path / "restore.tar.gz", out__step="7\n"),
        "restored_from": 1, "number": 2, "job": "r1-0-2-0", "setup": ("echo setup $(cat out/step)",),
    }  # fmt: skip
    return host.start(*commands, **{**given, **changes})


def test_before_setup_and_over_its_files(host: RealHost, tmp_path: Path) -> None:
    job = start(host, tmp_path, *SHOWS)
    assert host.over(job).exit_code == 0
    assert host.log(job) == SHOWN
    assert list((host.folder / "stage").iterdir()) == []
    collected = host.runner.collect(host.instance, job, artifacts=("out",))
    assert collected.artifacts is not None
    with tarfile.open(collected.artifacts) as tar:
        found = tar.extractfile("out/step")
        assert found is not None
        assert found.read() == b"7\nmore\n"
    assert not host.at(job, "restore.tar.gz").exists()


@pytest.mark.parametrize("user", ["", "app"])
def test_in_a_container(tmp_path: Path, engine: Engine, user: str) -> None:
    host = RealHost(tmp_path / "host", environ={**os.environ, **engine.env})
    job = start(host, tmp_path, *(each.replace("date -r", "stat -c %Y").replace(" +%s", "") for each in SHOWS),
                box=ContainerSpec(image=IMAGE, user=user))  # fmt: skip
    assert host.over(job).exit_code == 0
    assert host.log(job) == SHOWN
    assert engine.containers() == []


def test_without_files_of_its_own(host: RealHost, tmp_path: Path) -> None:
    job = start(host, tmp_path, "ls", files_bundle=None, setup=())
    assert host.over(job).exit_code == 0
    assert host.log(job) == b"[dstack] the artifacts of attempt 1 were put back\nout\n"


def test_what_is_lost_is_told_and_the_attempt_goes_on(host: RealHost, tmp_path: Path) -> None:
    job = start(host, tmp_path, "cat out/step", restore=None, setup=())
    assert host.over(job).exit_code == 0
    assert host.log(job).startswith(b"[dstack] the artifacts of attempt 1 are not in the store any more")
    assert host.log(job).endswith(b"first\n")


def test_a_first_attempt_has_nothing(host: RealHost, tmp_path: Path) -> None:
    job = start(host, tmp_path, "cat out/step", restore=None, restored_from=0, setup=())
    assert host.over(job).exit_code == 0
    assert host.log(job) == b"first\n"


def test_damaged_artifacts_end_the_attempt_with_the_reason(host: RealHost, tmp_path: Path) -> None:
    (tmp_path / "damaged.tar.gz").write_bytes(b"no archive")
    job = start(host, tmp_path, "echo never", restore=tmp_path / "damaged.tar.gz")
    assert host.over(job).exit_code == 1
    assert b"[dstack] the artifacts of attempt 1 could not be unpacked" in host.log(job)
    assert b"never" not in host.log(job)


def test_asked_again_nothing_is_sent_a_second_time(host: RealHost, tmp_path: Path) -> None:
    job = start(host, tmp_path, "echo ready; sleep 600", setup=())
    host.says(job, b"ready")
    (tmp_path / "gone").mkdir()
    start(host, tmp_path, "echo ready; sleep 600", setup=(), restore=tmp_path / "gone/no-such-file")
    host.stop(job, abort=True)
    host.over(job)
    assert host.log(job).count(b"ready") == 1


def test_a_service_that_begins_again_keeps_what_it_has(host: RealHost, tmp_path: Path) -> None:
    job = start(host, tmp_path, "cat out/step", "echo 8 > out/step", "exit 1", setup=(), restart=True)
    host.says(job, b"\n8\n")
    host.stop(job, abort=True)
    host.over(job)
    assert host.log(job).count(b"were put back") == 1
