"""The commands of examples/ci-github, ci-gitlab and cron, run as a runner, a GitLab and a cron would run them."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import threading
import urllib.parse
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.doubles.commands.command import POOLS, ROOT, Folder

EXAMPLES = ROOT / "examples"
WORKFLOWS = EXAMPLES / "ci-github" / ".github" / "workflows"
WANTED = "  - {name: more, nodes: 1, idle_duration: off, resources: {cpu: 1.., memory: 0.1GB.., disk: 0.1GB..}}\n"
DECLARED = re.sub("^project: .*\n", "", POOLS, flags=re.M)


def needed(*programs: str) -> None:
    for program in programs:
        if shutil.which(program) is None:
            pytest.skip(f"{program} is not installed")


class Loader(yaml.SafeLoader):
    """`on` is a word here."""


Loader.yaml_implicit_resolvers = {
    key: [(tag, expression) for tag, expression in found if tag != "tag:yaml.org,2002:bool"]
    for key, found in yaml.SafeLoader.yaml_implicit_resolvers.items()
}


def read(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = yaml.load(path.read_text(), Loader)  # noqa: S506 - a SafeLoader
    return found


@dataclass(frozen=True)
class Shop:
    """An origin that main is pushed to, clones of it, one shared state, and programs that stand in for others."""

    tmp: Path

    @property
    def env(self) -> dict[str, str]:
        folder = Folder(self.tmp / "any")
        path = f"{self.tmp / 'bin'}:{os.environ['PATH']}"
        return {**folder.env, "PATH": path, "SHOP": str(self.tmp), "GH": str(self.tmp / "gh.json")}

    def git(self, where: str, *words: str) -> str:
        command = ["git", "-c", "protocol.file.allow=always", "-C", str(self.tmp / where), *words]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()

    def clone(self, name: str, *, branch: str = "main") -> Path:
        self.git(".", "clone", "-q", "-b", branch, f"file://{self.tmp / 'origin.git'}", name)
        return self.tmp / name

    def commit(self, where: str, name: str, text: str) -> None:
        path = self.tmp / where / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        self.git(where, "add", ".")
        self.git(where, "commit", "-q", "-m", name)
        self.git(where, "push", "-q", "origin", "HEAD")

    def sh(self, text: str, *, cwd: Path, **env: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["bash", "-e", "-c", text],
            cwd=cwd,
            env={**self.env, **env},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )

    def program(self, name: str, text: str) -> None:
        path = self.tmp / "bin" / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
        path.chmod(0o755)


GH = '''\
#!{python}
"""A stand-in for gh: issues and comments in a file; --jq is jq's."""
import json, os, subprocess, sys
path, args = os.environ["GH"], sys.argv[1:]
assert os.environ["GH_TOKEN"] == "token"
data = json.load(open(path)) if os.path.exists(path) else {{"comments": [], "issues": [], "calls": []}}
data["calls"].append(args)
def option(name, default=""):
    return args[args.index(name) + 1] if name in args else default
def answer(value):
    done = subprocess.run(["jq", "-r", option("--jq", ".")], input=json.dumps(value), text=True, check=True)
def body():
    key, _, value = option("--field").partition("=")
    assert key == "body" and value.startswith("@"), value
    return open(value[1:]).read()
if args[0] == "api":
    url = next(a for a in args[1:] if a.startswith("repos/"))
    method = option("--method", "GET")
    if method == "GET":
        assert url == "repos/acme/shop/issues/7/comments", url
        answer(data["comments"])
    elif method == "POST":
        assert url == "repos/acme/shop/issues/7/comments", url
        data["comments"].append({{"id": 100 + len(data["comments"]), "user": {{"type": "Bot"}}, "body": body()}})
    elif method == "PATCH":
        one = next(c for c in data["comments"] if url == f"repos/acme/shop/issues/comments/{{c['id']}}")
        assert one["user"]["type"] == "Bot"
        one["body"] = body()
elif args[:2] == ["issue", "list"]:
    answer([one for one in data["issues"] if one["state"] == "open"])
elif args[:2] == ["issue", "create"]:
    text = open(option("--body-file")).read()
    data["issues"].append({{"number": len(data["issues"]) + 1, "state": "open", "body": text}})
elif args[0] == "issue":
    one = data["issues"][int(args[2]) - 1]
    if args[1] == "close":
        one["state"] = "closed"
    else:
        one["body"] = open(option("--body-file")).read()
json.dump(data, open(path, "w"))
'''


@pytest.fixture
def shop(tmp_path: Path) -> Iterator[Shop]:
    """main has a pool; its state lies where every clone finds it."""
    made = Shop(tmp_path)
    made.program("dstack", f'#!/bin/sh\nPYTHONPATH="{ROOT}" exec "{sys.executable}" -m reconciler.cli.main "$@"\n')
    made.program("pip", '#!/bin/sh\necho "$@" >> "$SHOP/pip.log"\n')
    made.program("gh", GH.format(python=sys.executable))
    made.git(".", "init", "-q", "--bare", "-b", "main", "origin.git")
    made.git(".", "clone", "-q", f"file://{tmp_path / 'origin.git'}", "ann")
    made.git("ann", "checkout", "-q", "-b", "main")
    made.commit("ann", ".dstack/.gitignore", "state/\nkeys/\n")
    project = f"project: {{name: demo, id: demo12345678}}\nstate: {tmp_path / 'shared'}\nauthority: main\n"
    made.commit("ann", ".dstack/project.yml", project)
    made.commit("ann", ".dstack/pools.yml", DECLARED)
    yield made
    ended = made.sh("dstack destroy --confirm demo", cwd=tmp_path / "ann")
    assert ended.returncode == 0 or "nothing was applied" in ended.stderr, ended.stderr


# ---------------------------------------------------------------- GitHub


def steps(workflow: str) -> list[dict[str, Any]]:
    (job,) = read(WORKFLOWS / workflow)["jobs"].values()
    found: list[dict[str, Any]] = job["steps"]
    return found


@dataclass
class Runner:
    """Runs a workflow's steps like GitHub: `bash -e`, outputs, and the expressions that `known` has."""

    shop: Shop
    cwd: Path
    known: dict[str, str]
    env: dict[str, str]
    outputs: dict[str, str] = field(default_factory=dict)
    said: str = ""

    def run(self, workflow: str) -> bool:
        """Whether it succeeded. A step without `if` is left out after one that failed."""
        fine = True
        for step in steps(workflow):
            condition = str(step.get("if", ""))
            only = re.search(r"github\.event_name == '(\w+)'", condition)
            if "run" not in step or not (fine or "!cancelled()" in condition):
                continue
            if only and only[1] != self.known["github.event_name"]:
                continue
            env = {name: self._expanded(text) for name, text in step.get("env", {}).items()}
            output = self.cwd.parent / "output"
            output.write_text("")
            assert "${{" not in step["run"], "an expression in a script is how others' text becomes commands"
            done = self.shop.sh(step["run"], cwd=self.cwd, **self.env, **env, GITHUB_OUTPUT=str(output))
            self.said += done.stdout + done.stderr
            for line in output.read_text().split():
                key, _, value = line.partition("=")
                self.known[f"steps.{step.get('id')}.outputs.{key}"] = value
            fine = fine and done.returncode == 0
        return fine

    def _expanded(self, text: str) -> str:
        return re.sub(r"\$\{\{ (.*?) \}\}", lambda found: self.known[found[1]], text)


BASE = "github.event.merge_group.base_sha || format('origin/{0}', github.base_ref)"


def runner(shop: Shop, cwd: Path, *, queue: str = "") -> Runner:
    """Of a pull request to main; of a merge queue where `queue` is the commit that it builds on."""
    known = {
        "github.token": "token",
        "github.event_name": "merge_group" if queue else "pull_request",
        "github.event.pull_request.number": "" if queue else "7",
        "secrets.DSTACK_PROJECT_KEY": "",
        "vars.DSTACK_PACKAGE": "",
        BASE: queue or "origin/main",
    }
    return Runner(shop, cwd, known, {"GITHUB_REPOSITORY": "acme/shop"})


def hub(shop: Shop) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((shop.tmp / "gh.json").read_text())
    return found


def test_a_pull_request_gets_one_comment_that_is_edited_in_place(shop: Shop) -> None:
    needed("jq")
    shop.git("ann", "checkout", "-q", "-b", "feature")
    shop.commit("ann", ".dstack/pools.yml", DECLARED + WANTED)
    theirs = "<!-- dstack-plan:demo12345678 -->\nnot ours"
    forged = {"comments": [{"id": 1, "user": {"type": "User"}, "body": theirs}], "issues": [], "calls": []}
    (shop.tmp / "gh.json").write_text(json.dumps(forged))
    pull = runner(shop, shop.clone("ci", branch="feature"))
    assert pull.run("plan.yml"), pull.said
    assert "Of this: 1 action because of this change" in pull.said
    first = hub(shop)["comments"]
    assert [one["body"] for one in first][:1] == [theirs]
    assert "+ more-0" in first[1]["body"]
    shop.commit("ann", ".dstack/pools.yml", DECLARED)
    shop.commit("ann", ".dstack/runs/big.yml", "type: task\nname: big\ncommands: [x]\nresources: {cpu: 4000..}\n")
    again = runner(shop, shop.clone("ci2", branch="feature"))
    assert not again.run("plan.yml")
    assert "error: gate pending: run big: " in again.said
    second = hub(shop)["comments"]
    assert [one["id"] for one in second] == [one["id"] for one in first]
    assert "Gates that failed" in second[1]["body"]
    assert not (shop.tmp / "shared").exists(), "a plan wrote a state"
    assert "dstack-pools[aws]>=0.1,<0.2" in (shop.tmp / "pip.log").read_text()


def test_a_merge_queue_passes_the_same_gates_and_comments_nothing(shop: Shop) -> None:
    base = shop.git("ann", "rev-parse", "HEAD")
    shop.git("ann", "checkout", "-q", "-b", "queue")
    shop.commit("ann", ".dstack/pools.yml", DECLARED + WANTED)
    fine = runner(shop, shop.clone("ci", branch="queue"), queue=base)
    assert fine.run("plan.yml"), fine.said
    assert "Of this: 1 action because of this change" in fine.said
    shop.commit("ann", ".dstack/runs/big.yml", "type: task\nname: big\ncommands: [x]\nresources: {cpu: 4000..}\n")
    held = runner(shop, shop.clone("ci2", branch="queue"), queue=base)
    assert not held.run("plan.yml")
    assert not (shop.tmp / "gh.json").exists()


def test_a_plan_that_fails_makes_no_comment(shop: Shop) -> None:
    shop.git("ann", "checkout", "-q", "-b", "feature")
    shop.commit("ann", ".dstack/pools.yml", "pols: []\n")
    pull = runner(shop, shop.clone("ci", branch="feature"))
    assert not pull.run("plan.yml")
    assert "unknown key `pols`" in pull.said
    assert not (shop.tmp / "gh.json").exists()


def test_a_merge_is_applied_and_the_night_finds_drift(shop: Shop) -> None:
    needed("jq")
    shop.commit("ann", ".dstack/pools.yml", DECLARED + WANTED)
    merged = runner(shop, shop.clone("ci"))
    assert merged.run("apply.yml"), merged.said
    assert "Done: 1 instance created." in merged.said
    settled = runner(shop, shop.clone("ci2"))
    assert settled.run("apply.yml")
    assert runner(shop, shop.clone("night1")).run("drift.yml")
    assert hub(shop)["issues"] == []
    shop.commit("ann", ".dstack/pools.yml", DECLARED + WANTED.replace("nodes: 1", "nodes: 2"))
    for name in ("night2", "night3"):
        drift = runner(shop, shop.clone(name))
        assert drift.run("drift.yml"), drift.said
    (issue,) = hub(shop)["issues"]
    assert issue["state"] == "open"
    assert "+ more-1" in issue["body"]
    for name in ("ci3", "ci4"):
        assert runner(shop, shop.clone(name)).run("apply.yml")
    assert runner(shop, shop.clone("night4")).run("drift.yml")
    assert [one["state"] for one in hub(shop)["issues"]] == ["closed"]
    broken = runner(shop, shop.clone("night5"))
    (broken.cwd / ".dstack/pools.yml").write_text("pols: []\n")
    assert not broken.run("drift.yml")


def test_what_the_workflows_may_do() -> None:
    plan, apply, drift = (read(WORKFLOWS / f"{name}.yml") for name in ("plan", "apply", "drift"))
    assert apply["concurrency"] == {"group": "dstack-apply", "cancel-in-progress": "false"}
    assert apply["permissions"] == {"contents": "read", "id-token": "write"}
    assert plan["permissions"] == {"contents": "read", "pull-requests": "write", "id-token": "write"}
    assert drift["permissions"] == {"contents": "read", "issues": "write", "id-token": "write"}
    assert list(plan["on"]) == ["pull_request", "merge_group"], (
        "pull_request_target would give a fork's documents our token"
    )
    for workflow in (plan, apply, drift):
        (job,) = workflow["jobs"].values()
        assert job["steps"][0]["with"]["fetch-depth"] == 0
        roles = [step["with"]["role-to-assume"] for step in job["steps"] if "role-to-assume" in step.get("with", {})]
        assert roles == ["${{ vars.DSTACK_%s_ROLE }}" % ("APPLY" if workflow is apply else "PLAN")]


# ---------------------------------------------------------------- GitLab

GITLAB = EXAMPLES / "ci-gitlab" / ".gitlab-ci.yml"


class Notes(BaseHTTPRequestHandler):
    """What GitLab's notes do, in a list of the server."""

    def do_GET(self) -> None:
        if self.path.endswith("/user"):
            return self._say({"id": 5})
        return self._say(self.server.notes)  # type: ignore[attr-defined]

    def do_POST(self) -> None:
        notes = self.server.notes  # type: ignore[attr-defined]
        notes.append({"id": 100 + len(notes), "author": {"id": 5}, "body": self._body()})
        self._say(notes[-1])

    def do_PUT(self) -> None:
        notes = self.server.notes  # type: ignore[attr-defined]
        one = next(note for note in notes if self.path.endswith(f"/notes/{note['id']}"))
        assert one["author"]["id"] == 5
        one["body"] = self._body()
        self._say(one)

    def _body(self) -> str:
        assert self.headers["PRIVATE-TOKEN"] == "glpat"
        text = self.rfile.read(int(self.headers["Content-Length"])).decode()
        return urllib.parse.parse_qs(text)["body"][0]

    def _say(self, value: Any) -> None:
        data = json.dumps(value).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, format: str, *args: Any) -> None:
        pass


@pytest.fixture
def gitlab() -> Iterator[ThreadingHTTPServer]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Notes)
    server.notes = [  # type: ignore[attr-defined]
        {"id": 1, "author": {"id": 9}, "body": "<!-- dstack-plan:demo12345678 -->\nnot ours"}
    ]
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join(10)


def script(job: str) -> str:
    return "\n".join(read(GITLAB)[job]["script"])


def test_a_merge_request_gets_one_note(shop: Shop, gitlab: ThreadingHTTPServer) -> None:
    needed("curl")
    notes: list[dict[str, Any]] = gitlab.notes  # type: ignore[attr-defined]
    env = {
        "CI_API_V4_URL": f"http://127.0.0.1:{gitlab.server_port}/api/v4", "CI_PROJECT_ID": "3",
        "CI_MERGE_REQUEST_IID": "7", "CI_MERGE_REQUEST_TARGET_BRANCH_NAME": "main", "DSTACK_COMMENT_TOKEN": "glpat",
    }  # fmt: skip
    shop.git("ann", "checkout", "-q", "-b", "feature")
    shop.commit("ann", ".dstack/pools.yml", DECLARED + WANTED)
    done = shop.sh(script("plan"), cwd=shop.clone("ci", branch="feature"), **env)
    assert done.returncode == 0, done.stderr
    assert "+ more-0" in notes[1]["body"]
    shop.commit("ann", ".dstack/runs/big.yml", "type: task\nname: big\ncommands: [x]\nresources: {cpu: 4000..}\n")
    done = shop.sh(script("plan"), cwd=shop.clone("ci2", branch="feature"), **env)
    assert done.returncode == 1
    assert [note["id"] for note in notes] == [1, 101]
    assert "pending: run big: " in notes[1]["body"]
    assert notes[0]["body"].endswith("not ours")


def test_on_gitlab_main_is_applied_and_drift_is_a_warning(shop: Shop) -> None:
    assert shop.sh(script("apply"), cwd=shop.clone("ci")).returncode == 0
    assert shop.sh(script("drift"), cwd=shop.clone("night")).returncode == 0
    shop.commit("ann", ".dstack/pools.yml", DECLARED + WANTED)
    drift = shop.sh(script("drift"), cwd=shop.clone("night2"))
    jobs = read(GITLAB)
    assert drift.returncode == int(jobs["drift"]["allow_failure"]["exit_codes"]) == 2
    assert (shop.tmp / "night2" / "drift.md").exists()
    assert (jobs["apply"]["resource_group"], jobs["apply"]["interruptible"]) == ("dstack-apply", "false")
    assert jobs["variables"]["GIT_DEPTH"] == "0"


# ---------------------------------------------------------------- cron and systemd

CRON = EXAMPLES / "cron"


def cron_line(shop: Shop) -> str:
    """The crontab's command, with its paths moved into the test's folder."""
    (line,) = [line for line in (CRON / "crontab").read_text().splitlines() if line.startswith("*/10 ")]
    command = " ".join(line.split()[5:])
    assert "%" not in command, "cron makes a line's end of it"
    return moved(command, shop)


def moved(command: str, shop: Shop) -> str:
    places = {"/usr/local/lib/dstack": CRON, "/srv/demo": shop.tmp / "ann",
              "/var/lib/prometheus/node-exporter": shop.tmp}  # fmt: skip
    for old, new in places.items():
        assert old in command
        command = command.replace(old, str(new))
    return command


def test_cron_is_quiet_where_it_goes_well_and_mails_what_goes_wrong(shop: Shop) -> None:
    done = shop.sh(cron_line(shop), cwd=shop.tmp)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    metrics = shop.tmp / "dstack-demo.prom"
    assert 'dstack_last_tick_ok{project="demo"} 1\n' in metrics.read_text()
    shop.commit("ann", ".dstack/pools.yml", "pols: []\n")
    done = shop.sh(cron_line(shop), cwd=shop.tmp)
    assert done.returncode == 1
    assert done.stdout.startswith(f"dstack apply in {shop.tmp / 'ann'} ended with 1:\nerror: ")
    assert 'dstack_last_tick_ok{project="demo"} 0\n' in metrics.read_text()
    assert list(shop.tmp.glob("tmp.*")) == []
    shop.commit("ann", ".dstack/pools.yml", DECLARED)


def test_ticks_that_overlap_are_harmless(shop: Shop) -> None:
    shop.commit("ann", ".dstack/pools.yml", DECLARED + WANTED)
    line = cron_line(shop)
    ticks = [
        subprocess.Popen(["sh", "-c", line], cwd=shop.tmp, env=shop.env, stdout=subprocess.PIPE, text=True)
        for _ in range(4)
    ]
    ended = [(tick.communicate(timeout=120)[0], tick.returncode) for tick in ticks]
    assert ended == [("", 0)] * 4
    listed = shop.sh("dstack pool ps --json", cwd=shop.tmp / "ann")
    assert [one["pool"] for one in json.loads(listed.stdout)] == ["more"]


def test_the_units_are_valid() -> None:
    needed("systemd-analyze")
    units = sorted(str(path) for path in CRON.glob("*@.*"))
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", "--recursive-errors=no", *units],
        capture_output=True,
        text=True,
        check=False,
    )
    # The programs are where the README puts them, not here.
    said = [line for line in done.stderr.splitlines() if "dstack-" in line and "is not executable" not in line]
    assert said == []


def test_the_service_runs_what_cron_runs(shop: Shop) -> None:
    text = (CRON / "dstack-apply@.service").read_text()
    (command,) = re.findall(r"^ExecStart=(.*)$", text, re.M)
    assert moved(command.replace("%i", "demo"), shop) == cron_line(shop)
    assert "KillMode=process" in text
    assert "OnFailure=dstack-failed@%i.service" in text
    assert (CRON / "dstack-failed@.service").exists()


# ---------------------------------------------------------------- the vendors' own schemas

SCHEMAS = {
    "github-workflows": ("ci-github/.github/workflows", "    runs-on: ubuntu-latest\n", "    runs_on: ubuntu-latest\n"),
    "gitlab-ci": ("ci-gitlab/.gitlab-ci.yml", "  script:\n", "  scripts:\n"),
}


@pytest.mark.parametrize("schema", SCHEMAS)
def test_the_vendors_schema_takes_them(schema: str, tmp_path: Path) -> None:
    """And would not take any: with one key misspelt it is refused."""
    where, right, wrong = SCHEMAS[schema]
    path = EXAMPLES / where
    files = sorted(path.glob("*.yml")) if path.is_dir() else [path]
    texts = [file.read_text() for file in files]
    assert any(right in text for text in texts)
    for number, text in enumerate(texts):
        (tmp_path / f"wrong-{number}.yml").write_text(text.replace(right, wrong))
    taken, refused = (_checked(schema, each) for each in (files, sorted(tmp_path.glob("wrong-*.yml"))))
    assert taken.returncode == 0, taken.stdout
    assert refused.returncode == 1, refused.stdout


def _checked(schema: str, files: list[Path]) -> subprocess.CompletedProcess[str]:
    program = Path(sys.executable).with_name("check-jsonschema")
    transform = ["--data-transform", "gitlab-ci"] if schema == "gitlab-ci" else []
    command = [str(program), "--builtin-schema", f"vendor.{schema}", *transform, *map(str, files)]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
