"""A server that leaves the pool is left without the images that dstack pulled for it."""

from __future__ import annotations

import os
import subprocess
import time
from importlib.resources import files
from pathlib import Path


def test_images_that_were_pulled_go_with_the_folder(tmp_path: Path) -> None:
    base, tools, notes = tmp_path / ".dstack-ssh/p/i", tmp_path / "bin", tmp_path / "notes"
    (base / "host/images").mkdir(parents=True)
    (base / "claim").write_text("project p\nid i\n")
    (base / "host/images/1").write_text("podman docker.io/library/ubuntu:24.04\n")
    (base / "host/images/2").write_text("rm -rf\n")
    tools.mkdir()
    for name in ("podman", "docker", "rm-rf"):
        (tools / name).write_text(f'#!/bin/sh\necho "{name} $*" >> {notes}\n')
        (tools / name).chmod(0o755)
    rules = files("reconciler.hosts.programs").joinpath("rules.sh").read_text("utf-8")
    program = rules + files("backends.ssh").joinpath("detach.sh").read_text("utf-8")
    done = subprocess.run(
        ["sh", "-c", program, "sh", ".dstack-ssh/p/i", "p", "i"],
        env={**os.environ, "HOME": str(tmp_path), "PATH": f"{tools}:{os.environ['PATH']}"},
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    assert not (base / "host").exists()
    deadline = time.monotonic() + 60
    while "rmi" not in notes.read_text():
        assert time.monotonic() < deadline, "the image stayed"
        time.sleep(0.02)
    asked = [line for line in notes.read_text().splitlines() if " ps " not in line]
    assert asked == ["podman rmi docker.io/library/ubuntu:24.04"]
