"""Canary secrets by every route that there is, and everywhere that one could turn up: nowhere but in its job.

In the state, plans, blobs, the ledger, what is said (also with DSTACK_DEBUG=1), the arguments of every process that
was begun (told by strace), and on the disk of the host after the run.
"""

from __future__ import annotations

import base64
import re
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from reconciler.hosts.boot_keys import host_key_of, login_of
from reconciler.secrets.project_key import ProjectKey
from reconciler.store.statefile import loads
from tests.cli.test_hostile import holders, shown_by_processes
from tests.doubles.aws.aws_double import AwsServer
from tests.doubles.commands.command import DSTACK, Folder, Ran, folder_at
from tests.store.test_power_loss import traced

CANARY = "canary-8c4f02"
STATE = ".dstack/state/demo12345678.yml"
SECRETS = """\
secrets:
  BY_ENV: {env: GIVEN_BY_ENV}
  BY_FILE: {file: ~/secret.txt}
  BY_COMMAND: {command: "cat ~/secret.txt >&2; cat ~/secret.txt"}
  BROKEN: {command: "cat ~/secret.txt; cat ~/secret.txt >&2; exit 3"}
"""
RUN = """\
type: task
name: NAME
env:
  A: "x${{ secrets.BY_ENV }}"
  B: "${{ secrets.BY_FILE }}"
  C: "${{ secrets.BY_COMMAND }}"
  D: "${{ env.BARE }}"
commands:
  - '[ -n "$A$B$C$D$E" ] && echo begun > began.txt'
  - sh -c 'true'
artifacts: [began.txt]
"""
GIVEN = {"GIVEN_BY_ENV": f"{CANARY}-env", "BARE": f"{CANARY}-bare"}


@dataclass
class Story:
    """One project's life with secrets. `said` is all that it said, `begun` the arguments of every process."""

    folder: Folder
    said: list[str] = field(default_factory=list)
    begun: list[str] = field(default_factory=list)
    scratch: Path = Path()

    def dstack(self, *args: str, **env: str) -> Ran:
        """Under strace where that is to be had."""
        log = self.folder.root.parent / f"execs-{len(self.said)}"
        tracer = [] if traced() else ["strace", "-f", "-qq", "-s", "100000", "-e", "trace=execve", "-o", str(log)]
        done = subprocess.run(
            [*tracer, *DSTACK, *args],
            cwd=self.folder.root,
            env={**self.folder.env, **GIVEN, **env},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=120,
            check=False,
        )
        self.said.append(done.stdout.decode() + done.stderr.decode())
        if tracer:
            _, *others = log.read_text().splitlines()
            self.begun += others  # the first is what the person typed
            log.unlink()
        return Ran(done.returncode, done.stdout.decode(), done.stderr.decode())


@pytest.fixture(scope="module")
def story(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Story]:
    folder = folder_at(tmp_path_factory.mktemp("canaries"))
    told = Story(folder)
    folder.write("../home/secret.txt", f"{CANARY}-file\n")
    folder.write(".dstack/secrets.yml", SECRETS)
    folder.write("good.yml", RUN.replace("NAME", "good"))
    folder.write("bad.yml", RUN.replace("NAME", "bad").replace("secrets.BY_ENV", "secrets.BROKEN"))
    folder.write(".dstack/runs/declared.yml", RUN.replace("NAME", "declared").replace("$A$B$C$D$E", "$A$B$C$D"))
    assert told.dstack("run", ".", "-f", "good.yml", "-y", "-e", f"E={CANARY}-flag").code == 0
    told.dstack("run", ".", "-f", "bad.yml", "-y", "-d", "-e", f"E={CANARY}-flag")
    told.dstack("run", ".", "-f", "bad.yml", "-n", "worse", "-y", "-d", "-e", f"E={CANARY}-flag", DSTACK_DEBUG="1")
    for line in ("plan", "plan --json", "plan --out p.plan", "apply -y", "apply -y", "ps -av", "ps -a --json",
                 "pool ps --json", "logs good", "logs declared", "artifacts good", "state show"):  # fmt: skip
        told.dstack(*line.split())
    yield told
    folder.dstack("stop", "bad", "-y")
    folder.dstack("stop", "worse", "-y")
    folder.dstack("destroy", "--confirm", "demo")


def words(folder: Folder) -> dict[str, bytes]:
    """The values, the project's key, and the keys derived from it for every launch; as they are and as text."""
    coded = (folder.root / ".dstack/keys/project.key").read_bytes().strip()
    secret = base64.b64decode(coded)
    state = loads((folder.root / STATE).read_bytes(), STATE)
    launches = {one.launch for one in state.instances}
    assert launches
    found = {"value": CANARY.encode(), "project key": coded, "raw project key": secret}
    for launch in sorted(launches):
        for purpose in (launch, f"host:{launch}", f"host-key:{launch}", f"endorse:{launch}", "login"):
            derived = ProjectKey(secret).derive(purpose)
            for name, form in (("raw", derived), ("hex", derived.hex().encode()), ("text", base64.b64encode(derived))):
                found[f"{name} key of {purpose}"] = form
    return found


def test_the_jobs_had_them(story: Story) -> None:
    """Otherwise the rest would prove nothing."""
    state = loads((story.folder.root / STATE).read_bytes(), STATE)
    assert {run.spec.name: run.status for run in state.runs if run.status == "done"} == {
        "good": "done",
        "declared": "done",
    }
    assert "secret BROKEN: its command exited with 3" in "".join(story.said)


def test_nothing_that_is_said_shows_one(story: Story) -> None:
    told = "".join(story.said).encode()
    assert [name for name, word in words(story.folder).items() if word in told] == []


def test_no_file_holds_one(story: Story) -> None:
    """Of the project, its state, blobs and ledger, the saved plan, the host's folder, or the temporary one."""
    assert holders(story.folder.root.parent, *words(story.folder).values()) == []


@pytest.mark.skipif(bool(traced()), reason=traced() or "-")
def test_no_process_has_one_among_its_arguments(story: Story) -> None:
    begun = "\n".join(story.begun)
    assert len(story.begun) > 50, "strace told of too few"
    assert re.search(r'execve\("[^"]*/sh", \["sh"', begun), "not even the command of a secret"
    shown = [name for name, word in words(story.folder).items() if word.decode("latin-1") in begun]
    assert shown == []


def test_no_living_process_has_one(story: Story) -> None:
    assert shown_by_processes(CANARY, but="DSTACK_CLAIM=") == []


REGISTRY = """\
type: task
name: private
image: registry.example/secret
registry_auth: {username: me, password: PASSWORD}
commands: [env]
"""


def test_the_password_of_a_registry_is_sealed_before_it_is_wished(story: Story) -> None:
    """Images are not supported yet; their passwords enter no state for all that."""
    folder = story.folder
    folder.write("private.yml", REGISTRY.replace("PASSWORD", "canary-registry"))
    ran = folder.dstack("run", ".", "-f", "private.yml", "-y", "-d")
    assert "canary-registry" not in ran.said
    (folder.root / "private.yml").unlink()
    assert holders(folder.root.parent, b"canary-registry") == []
    folder.dstack("stop", "private", "-y")


# ---------------------------------------------------------------- in a cloud

CLOUD = """\
project: {name: demo, id: demo12345678}
state: local
backends: [{type: aws, regions: [eu-west-1]}]
pools: [{name: cloud, default: true, nodes: 1, instance_types: [m5.large], resources: {cpu: 2, memory: 8GB}}]
secrets: {BY_ENV: {env: GIVEN_BY_ENV}}
"""
LINES = ("plan --out p.plan", "apply -y -d", "apply -y -d", "ps -av", "state show")


def test_in_aws_only_the_user_data_holds_the_first_host_key_and_nothing_any_other(
    tmp_path: Path, aws_server: AwsServer
) -> None:
    """The state, the saved plan, the ledger, what is said, and everything that EC2 is asked to make, with its tags."""
    account = aws_server.account()
    account.set(hosts=True)  # it has an address of nobody's
    folder = folder_at(tmp_path, documents=CLOUD)
    folder.write(".dstack/runs/one.yml", 'type: task\nname: one\nenv: {A: "x${{ secrets.BY_ENV }}"}\ncommands: [env]\n')
    env = {**GIVEN, **account.environ, "AWS_SECRET_ACCESS_KEY": f"{CANARY}-key", "AWS_SESSION_TOKEN": f"{CANARY}-token"}
    env |= {"DSTACK_DEBUG": "1"}
    told = "".join(folder.dstack(*line.split(), env=env).said for line in LINES)
    state = loads((folder.root / STATE).read_bytes(), STATE)
    assert [run.spec.name for run in state.runs] == ["one"]
    assert (folder.root / "p.plan").exists()
    coded = (folder.root / ".dstack/keys/project.key").read_bytes().strip()
    key = ProjectKey(base64.b64decode(coded))
    ((asked,), (launch,)) = (account.requests(), {one.launch for one in state.instances})
    data = base64.b64decode(asked.pop("UserData"))
    first = body(host_key_of(key, launch).private)
    assert first in data, "by design: the first contact replaces it"
    others = [CANARY.encode(), coded, key.derive("login"), body(login_of(key).private)]
    for purpose in (launch, f"host:{launch}", f"endorse:{launch}", f"host-key:{launch}", "fence"):
        others += [key.derive(purpose), key.derive(purpose).hex().encode(), base64.b64encode(key.derive(purpose))]
    assert [word for word in others if word in data] == []
    assert [word for word in (*others, first) if word in repr(asked).encode() or word in told.encode()] == []
    assert holders(tmp_path, *others, first) == []
    told = folder.dstack("destroy", "--confirm", "demo", env=env).said
    assert [word for word in (*others, first) if word in told.encode()] == []
    assert holders(tmp_path, *others, first) == []
    assert account.living() == []


def body(private: str) -> bytes:
    """A line of an OpenSSH private key that holds a part of its seed, so no other key has it."""
    return private.strip().splitlines()[4].encode()
