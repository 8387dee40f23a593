"""`cost`, `events`, `--metrics` and the state's upgrade, with the state in a bucket of each real server."""

from __future__ import annotations

import itertools
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.doubles.buckets.buckets import KINDS, Server
from tests.doubles.commands.command import POOLS, ROOT, Folder, Ran, folder_at

NUMBERS = itertools.count()
PROJECT = "demo12345678"
RUN = "type: task\nname: hello\ncommands: [sleep 1.2]\ntags: {team: vision}\n"
# An older program would have written this.
AGE = """
import os, sys
from pathlib import Path
from reconciler.app.stores import store_of
from reconciler.app.site import Site
store = store_of(Site(root=Path(), project=sys.argv[2], state=sys.argv[1]))
data, token = store.raw()
assert b'"version":3' in data
store.replace_raw(data.replace(b'"version":3', b'"version":1'), token)
"""


class Elsewhere(Folder):
    """A project whose commands reach that server."""

    server: Server
    url: str

    def at(self, *args: str) -> Ran:
        return self.dstack(*args, env=self.server.environ)


@pytest.fixture(params=KINDS)
def project(request: pytest.FixtureRequest, tmp_path: Path, server_of: Callable[[str], Server]) -> Iterator[Elsewhere]:
    server = server_of(request.param)
    made = Elsewhere(folder_at(tmp_path, documents=POOLS).root)
    object.__setattr__(made, "server", server)
    object.__setattr__(made, "url", server.state("first-bucket", f"reports-{os.getpid()}-{next(NUMBERS)}"))
    made.write(".dstack/state.yml", f"state: {made.url}\n")
    made.write(".dstack/runs/hello.yml", RUN)
    yield made
    made.at("destroy", "--confirm", "demo")


def test_reports_of_a_state_in_a_bucket(project: Elsewhere) -> None:
    ends = time.monotonic() + 180
    while "finished" not in project.at("events", "--run", "hello").out:
        assert time.monotonic() < ends
        ran = project.at("apply", "-y", "--detach", "--metrics", "out.prom")
        assert ran.code == 0, ran.said
    assert 'dstack_runs{project="demo",status="done"} 1\n' in (project.root / "out.prom").read_text()
    events = json.loads(project.at("events", "--json").out)
    assert {"applied", "launched", "seen", "ready", "submitted", "started", "used", "finished"} == {
        one["kind"] for one in events
    }
    assert len({one["id"] for one in events}) == len(events)
    cost = json.loads(project.at("cost", "--by", "tag", "--json").out)
    assert cost["rows"][0]["name"] == "team=vision"
    assert cost["alive"] == 1
    subprocess.run(
        [sys.executable, "-c", AGE, project.url, PROJECT],
        env={**project.env, **project.server.environ},
        cwd=ROOT,
        check=True,
    )
    assert "`dstack apply --upgrade-state`" in project.at("plan").out
    assert "`dstack apply --upgrade-state`" in project.at("apply", "-y").err
    upgraded = project.at("apply", "-y", "--upgrade-state")
    assert upgraded.code == 0, upgraded.said
    assert f"it is kept as {project.url}/{PROJECT}.yml.gz.format-1-generation-" in upgraded.err
