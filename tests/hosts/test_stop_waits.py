"""A stop waits for the whole job, in a container and without one: for as long as `stop_duration` at most."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from reconciler.hosts.container_files import begins_with
from reconciler.hosts.runner import ContainerSpec
from tests.doubles.hosts.real_engine import IMAGE, Engine
from tests.doubles.hosts.real_host import RealHost, alive, an_order, until

# Saves for two seconds on TERM, as a training program does.
SAVES = """trap 'sleep 2; echo saved > saved; echo "saved it"; exit 0' TERM; echo ready; while :; do sleep 0.1; done"""
LAUNCHES = f"(sh -c '{SAVES.replace(chr(39), chr(39) + chr(92) + chr(39) + chr(39))}') & wait"
ENDS_FIRST = 'trap "exit 0" TERM; sh -c "$SAVES" & wait'

TREES = {
    "a child of the script": f"sh -c '{SAVES.replace(chr(39), chr(39) + chr(92) + chr(39) + chr(39))}'",
    "exec": f"exec sh -c '{SAVES.replace(chr(39), chr(39) + chr(92) + chr(39) + chr(39))}'",
    "a launcher that dies first": LAUNCHES,
    "in a session of its own": "printf '%s' \"$SAVES\" > saves; setsid sh saves & wait",
    "a shell that goes on": "trap 'echo noted' TERM; printf '%s' \"$SAVES\" > saves; sh saves & wait; wait",
}


@pytest.fixture
def boxed(tmp_path: Path, engine: Engine) -> Iterator[RealHost]:
    rig = RealHost(tmp_path / "host", environ={**os.environ, **engine.env})
    yield rig
    rig.end_everything()
    assert engine.containers() == []


@pytest.fixture
def plain(tmp_path: Path) -> Iterator[RealHost]:
    rig = RealHost(tmp_path / "host")
    yield rig
    rig.end_everything()


def saves(host: RealHost, job: str, *, reason: str = "stopped", kept: bool = True) -> None:
    """It was stopped, or is to be by a limit of its own, and nothing that it saves is lost.

    `kept`: it works in the folder of its files.
    """
    if reason == "stopped":
        host.says(job, b"ready")
        host.stop(job)
    assert host.over(job).reason == reason
    assert host.log(job).count(b"saved it") == 1
    assert not kept or host.at(job, "work/saved").read_text() == "saved\n"


@pytest.mark.parametrize("tree", TREES)
def test_a_container_has_its_time(boxed: RealHost, tree: str) -> None:
    job = boxed.start("echo begins", TREES[tree], box=ContainerSpec(image=IMAGE), grace=60, env={"SAVES": SAVES})
    saves(boxed, job)


@pytest.mark.parametrize("tree", TREES)
def test_a_process_has_its_time(plain: RealHost, tree: str) -> None:
    job = plain.start("echo begins", TREES[tree], grace=60, env={"SAVES": SAVES})
    saves(plain, job)


@pytest.mark.parametrize(
    ("commands", "changes"),
    [
        ((LAUNCHES,), {"box": ContainerSpec(image=IMAGE, user="app")}),
        ((LAUNCHES,), {"box": ContainerSpec(image=IMAGE, entrypoint=("sh", "-c"))}),
        ((), {"box": ContainerSpec(image=IMAGE, entrypoint=("sh", "-c", ENDS_FIRST))}),
        ((LAUNCHES,), {"box": ContainerSpec(image=IMAGE), "setup": ("echo of setup",)}),
    ],
    ids=["a user", "an entrypoint", "an entrypoint that ends first", "a setup"],
)
def test_whatever_begins_it(boxed: RealHost, commands: tuple[str, ...], changes: dict[str, Any]) -> None:
    job = boxed.start(*commands, grace=60, env={"SAVES": SAVES}, **changes)
    saves(boxed, job, kept=changes["box"].entrypoint is None)


def test_what_the_image_runs_by_itself_has_its_time(boxed: RealHost, engine: Engine) -> None:
    container = engine.run("create", "--network", "host", "--entrypoint", "sh", IMAGE, "-c", ENDS_FIRST).split()[0]
    engine.run("commit", container, "own:1")
    engine.run("rm", container)
    job = boxed.start(box=ContainerSpec(image="own:1"), grace=60, env={"SAVES": SAVES})
    saves(boxed, job, kept=False)


@pytest.mark.parametrize("boxing", [True, False], ids=["container", "process"])
def test_the_end_of_max_duration_too(boxed: RealHost, boxing: bool) -> None:
    box = ContainerSpec(image=IMAGE) if boxing else None
    job = boxed.start(LAUNCHES, box=box, max_duration=3, grace=60)
    saves(boxed, job, reason="max duration 3s")


@pytest.mark.parametrize("boxing", [True, False], ids=["container", "process"])
def test_what_is_begun_to_save_is_let_live(boxed: RealHost, boxing: bool) -> None:
    """A handler may start a program: only what was there when the stop came is told of it."""
    saver = "printf 'sleep 2; echo saved > saved; echo saved it' > saver; trap 'sh saver; exit 0' TERM"
    job = boxed.start(saver, "echo ready", "while :; do sleep 0.1; done", grace=60,
                      box=ContainerSpec(image=IMAGE) if boxing else None)  # fmt: skip
    saves(boxed, job)


def test_no_longer_than_its_stop_duration(boxed: RealHost, engine: Engine) -> None:
    """Its shell ends at once, and what ignores the stop is killed when the time is over."""
    job = boxed.start("(trap '' TERM; echo ready; while :; do sleep 0.1; done) & wait", grace=1,
                      box=ContainerSpec(image=IMAGE))  # fmt: skip
    boxed.says(job, b"ready")
    boxed.stop(job)
    assert boxed.over(job).reason == "stopped"
    assert engine.containers() == []


def test_what_its_commands_leave_behind_is_ended_like_a_process(boxed: RealHost) -> None:
    """At its own end: told, and given two seconds."""
    left = "sh -c 'trap \"sleep 0.2; echo tidied; exit 0\" TERM; echo up; while :; do sleep 0.1; done' &"
    job = boxed.start(left, "until grep -q up ../log 2> /dev/null || [ -f up ]; do sleep 0.1; touch up; done",
                      "sleep 1", "exit 4", box=ContainerSpec(image=IMAGE))  # fmt: skip
    assert boxed.over(job).exit_code == 4
    assert boxed.log(job).endswith(b"tidied\n")


def test_a_stop_before_its_commands_begin(boxed: RealHost) -> None:
    job = boxed.start("echo began; sleep 600", box=ContainerSpec(image=IMAGE), grace=60)
    boxed.stop(job)
    assert boxed.over(job).reason == "stopped"


@pytest.mark.parametrize(
    ("entrypoint", "begins"),
    [
        (None, "image"),
        (("/init",), ""),
        (("/usr/lib/systemd/systemd",), ""),
        (("s6-svscan", "/run"), ""),
        (("tini", "--", "python"), "words"),
    ],
)
def test_an_init_stays_the_first_process(entrypoint: tuple[str, ...] | None, begins: str) -> None:
    assert begins_with(an_order(box=ContainerSpec(image="x", entrypoint=entrypoint))) == begins


def test_no_process_of_it_is_left(plain: RealHost) -> None:
    job = plain.start("echo begins", TREES["in a session of its own"], grace=60, env={"SAVES": SAVES})
    plain.says(job, b"ready")
    pids = plain.pids(job)
    plain.stop(job)
    plain.over(job)
    until(lambda: not any(alive(pid) for pid in pids))
