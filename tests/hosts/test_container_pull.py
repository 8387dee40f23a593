"""Images from a real registry: the login, the progress, what fails, what goes again when the disk is full."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from reconciler.hosts.runner import ContainerSpec
from tests.doubles.hosts.real_engine import IMAGE, Engine
from tests.doubles.hosts.real_host import RealHost, until
from tests.doubles.hosts.real_registry import PASSWORD, USER, Registry, registry_at
from tests.worlds.processes import command_lines


@pytest.fixture
def registry(tmp_path: Path) -> Iterator[Registry]:
    with registry_at(tmp_path) as made:
        yield made


@pytest.fixture
def host(tmp_path: Path, engine: Engine) -> Iterator[RealHost]:
    rig = RealHost(tmp_path / "host", environ={**os.environ, **engine.env})
    yield rig
    rig.end_everything()
    assert engine.containers() == []


def a_box(image: str, **changes: str) -> ContainerSpec:
    return ContainerSpec(image=image, **{"username": USER, "password": PASSWORD, **changes})


def test_a_pull_with_a_login_that_nobody_sees_later(host: RealHost, engine: Engine, registry: Registry) -> None:
    image = registry.push(engine, "team/tiny:1")
    registry.pause()
    job = host.start("echo it runs", box=a_box(image))
    until(lambda: host.job(job).pulling)
    assert (host.job(job).phase, host.job(job).started_at) == ("running", None)
    # The phase is told before its program runs, and that may begin anew: wait until it is to be seen.
    until(lambda: image.encode() in command_lines())
    assert PASSWORD.encode() not in command_lines()
    assert host.at(job, "auth/config.json").stat().st_mode & 0o777 == 0o600
    registry.go_on()
    host.says(job, b"it runs\n")
    assert not host.at(job, "auth").exists()
    assert host.over(job).exit_code == 0
    assert f"[dstack] pulling {image}\n".encode() in host.log(job)


def test_a_wrong_password_fails_in_the_engines_words(host: RealHost, engine: Engine, registry: Registry) -> None:
    image = registry.push(engine, "team/tiny:1")
    report = host.over(host.start("true", box=a_box(image, password="wrong-5512")))
    assert report.exit_code == 1
    assert report.reason.startswith(f"no image: image {image}: ")
    assert "auth" in report.reason
    assert "wrong-5512" not in report.reason


def test_a_stop_ends_a_pull(host: RealHost, engine: Engine, registry: Registry) -> None:
    image = registry.push(engine, "team/tiny:1")
    registry.pause()
    job = host.start("true", box=a_box(image))
    until(lambda: host.job(job).pulling)
    host.stop(job)
    report = host.over(job)
    assert (report.reason, report.exit_code) == ("stopped", 143)
    assert host.pids(job) == []
    registry.go_on()


def test_what_is_here_is_used_where_latest_cannot_be_pulled(host: RealHost, engine: Engine) -> None:
    engine.run("tag", IMAGE, "127.0.0.1:9/tiny:latest")
    job = host.start("echo it runs", box=ContainerSpec(image="127.0.0.1:9/tiny"))
    assert host.over(job).exit_code == 0
    assert b"127.0.0.1:9/tiny could not be pulled: the one that is here is used" in host.log(job)
    assert host.log(job).endswith(b"it runs\n")
    engine.run("rmi", "127.0.0.1:9/tiny:latest")


def test_below_the_disk_floor_only_our_own_images_go(host: RealHost, engine: Engine, registry: Registry) -> None:
    ours, others = registry.push(engine, "team/ours:1"), registry.push(engine, "team/others:1")
    engine.run("tag", IMAGE, others)
    host.over(host.start("true", box=a_box(ours)))
    host.over(host.start("true", box=a_box(others), job="r1-0-2-0"))
    names = engine.run("images", "--format", "{{.Repository}}:{{.Tag}}").split()
    assert {ours, others} <= set(names)
    host.over(host.start("true", box=ContainerSpec(image=IMAGE), job="r1-0-3-0", disk_floor=10**9))
    names = engine.run("images", "--format", "{{.Repository}}:{{.Tag}}").split()
    assert ours not in names
    assert others in names
    engine.run("rmi", others)
