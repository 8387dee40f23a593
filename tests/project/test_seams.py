"""Real processes that end themselves at every seam of an apply; the command itself then heals what they left.

`make test` takes every sixth seam, other ones before and after; `make chaos` takes all.
"""

from __future__ import annotations

import os
import random
from pathlib import Path

import pytest

from tests.chaos import chaos
from tests.chaos.seams import DEAD
from tests.doubles.commands import warm
from tests.doubles.commands.command import PATIENCE, folder_at

SEAMS = 54  # the story has some effects fewer or more, as its processes come along: later ones are not reached
STEP = 1 if os.environ.get("DSTACK_TEST_SEAMS") == "all" else 6
CASES = [(at, "before") for at in range(1, SEAMS, STEP)] + [(at, "after") for at in range(1 + STEP // 2, SEAMS, STEP)]
DOCUMENTS = chaos.DOCUMENTS.replace("idle_duration: 2s", "idle_duration: 0s")


def made(path: Path) -> chaos.Chaos:
    """A task of two nodes with a result, and a service."""
    folder = folder_at(path, documents=DOCUMENTS)
    site = chaos.Chaos(folder=folder, scratch=path / "tmp", counter=path / "begun", random=random.Random(0))  # noqa: S311
    site.counter.touch()
    site.scratch.mkdir()
    begun = chaos.BEGUN.format(counter=site.counter)
    folder.write(".dstack/runs/gang.yml", chaos.a_run("gang", begun, *chaos.RESULT, extra="nodes: 2\n"))
    service = chaos.a_run("service", begun, *chaos.RESULT, "sleep 600", kind="service", extra="port: 8000\n")
    folder.write(".dstack/runs/service.yml", service)
    return site


def told(site: chaos.Chaos, *, at: int, moment: str = "before") -> tuple[int, list[str]]:
    """How the process ended, and the effects that it told where it came to its end."""
    args = [str(site.folder.root), str(at), moment]
    story = warm.start(args, cwd=site.folder.root, env=site.env, module="tests.chaos.seams")
    out, err = story.communicate(timeout=PATIENCE)
    assert story.wait() in (0, DEAD), err.decode()
    return story.wait(), out.decode().split()


@pytest.mark.parametrize(("at", "moment"), CASES)
def test_dead_at_a_seam(at: int, moment: str, tmp_path: Path) -> None:
    site = made(tmp_path)
    code, effects = told(site, at=at, moment=moment)
    assert code == DEAD or len(effects) < at
    site.converge()
    site.check()


def test_the_story_has_every_effect(tmp_path: Path) -> None:
    site = made(tmp_path)
    code, effects = told(site, at=0)
    wanted = {"prepare", "launch", "start", "release", "stop", "terminate", "collect", "clean"}
    wanted |= {"bundle", "put", "write", "record"}
    assert (code, wanted - set(effects)) == (0, set())
    assert len(effects) >= SEAMS - 12
    site.converge()
    site.check()
