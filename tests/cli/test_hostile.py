"""Bad input and bad neighbours, at the real command: refused in one line, and nothing else happens."""

from __future__ import annotations

import base64
import json
import os
import re
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.doubles.commands.command import DSTACK, POOLS, Folder, Ran, folder_at
from tests.doubles.hosts.real_host import RealHost, until

ONCE = "type: task\nname: once\ncommands: [echo said]\n"


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Folder]:
    made = folder_at(tmp_path)
    yield made
    made.dstack("destroy", "--confirm", "demo")


@pytest.fixture
def host(tmp_path: Path) -> Iterator[RealHost]:
    rig = RealHost(tmp_path / "host")
    yield rig
    rig.end_everything()


def dstack(folder: Folder, *args: str | bytes, umask: int = -1, env: dict[str, str] | None = None) -> Ran:
    """With a umask, and with arguments that are no text."""
    if umask == -1 and all(isinstance(one, str) for one in args):
        return folder.dstack(*args, env=env)  # type: ignore[arg-type]
    done = subprocess.run(
        [*DSTACK, *args],
        cwd=folder.root,
        env={**folder.env, **(env or {})},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=90,
        check=False,
        umask=umask,
    )
    return Ran(done.returncode, done.stdout.decode(errors="replace"), done.stderr.decode(errors="replace"))


def contents(root: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in root.rglob("*") if path.is_file() and not path.is_symlink()}


# ---------------------------------------------------------------- files that others may write


@pytest.mark.parametrize("umask", [0, 0o002])
def test_what_is_made_is_private_whatever_the_umask(folder: Folder, umask: int) -> None:
    folder.write("once.yml", ONCE)
    ran = dstack(folder, "run", ".", "-f", "once.yml", "-y", "-e", "A=b", umask=umask)
    assert (ran.code, ran.out.splitlines()[-1]) == (0, "said")
    made = [folder.root / ".dstack/state", folder.root / ".dstack/keys", Path(folder.env["XDG_STATE_HOME"])]
    assert [oct(path.stat().st_mode & 0o777) for path in made] == ["0o700"] * 3


def test_nothing_else_in_the_temporary_folder_is_touched(folder: Folder, tmp_path: Path) -> None:
    """A run once removed the parent of its temporary files: everything in /tmp."""
    theirs = tmp_path / "tmp"
    (theirs / "deep").mkdir(parents=True)
    (theirs / "canary").write_text("a stranger's")
    (theirs / "deep" / "canary").write_text("a stranger's")
    before = contents(theirs)
    folder.write("once.yml", ONCE + "artifacts: ['*.txt']\n")
    folder.write("some.txt", "x")
    for args in (("run", ".", "-f", "once.yml", "-y"), ("artifacts", "once"), ("pool", "create", "-n", "more")):
        assert folder.dstack(*args, env={"TMPDIR": str(theirs)}).code == 0
    assert contents(theirs) == before
    assert sorted(path.name for path in theirs.iterdir()) == ["canary", "deep"]
    state = [path.name for path in (folder.root / ".dstack/state").rglob("*")]
    assert [name for name in state if name.endswith(".tmp")] == []


# ---------------------------------------------------------------- a job's environment


OWN = {
    "token": "t", "here": "/h", "shell": "/s", "working_dir": "/w", "restore": "r", "group": "g", "session": "1",
    "IFS": "x", "CDPATH": "/etc", "program": "p", "A": "two\nlines $(id) `id` 'q'",
}  # fmt: skip


def test_no_variable_of_a_run_reaches_its_supervisor(host: RealHost) -> None:
    """`token` was one: the job then carried it as its claim, and could not be found by the real one."""
    shown = [f'printf "%s=%s\\n" {name} "${name}"' for name in OWN if name != "IFS"]
    theirs = {**OWN, "DSTACK_CLAIM": "forged", "DSTACK_WORKING_DIR": "/elsewhere"}
    job = host.start(*shown, "pwd", "setsid sh -c 'setsid sleep 600' & sleep 600", env=theirs)
    host.says(job, b"work\n")
    expected = "".join(f"{name}={value}\n" for name, value in OWN.items() if name != "IFS")
    assert host.log(job).decode() == f"{expected}{host.at(job, 'work')}\n"
    until(lambda: len(host.pids(job)) >= 3)
    assert b"DSTACK_CLAIM=forged" not in Path(f"/proc/{host.pids(job)[0]}/environ").read_bytes()
    host.stop(job, abort=True)
    host.over(job)
    assert host.pids(job) == []


PUT = {
    "pipe": os.mkfifo,
    "endless": lambda path: path.symlink_to("/dev/zero"),
    "folder": Path.mkdir,
    "words": lambda path: path.write_text("1) job x ended 0 exit 1 1 0 -\x1b[31m * $(id)\njob r9-0-1-0 lost - - 0 -\n"),
}  # fmt: skip


@pytest.mark.parametrize("kind", PUT)
def test_whatever_a_job_puts_among_our_files_its_host_is_read_and_the_others_are_as_they_were(
    kind: str, host: RealHost
) -> None:
    """Jobs of a host are one login: what one writes may hide, hang or forge nothing but its own."""
    good, bad = host.start("sleep 600", job="r1-0-1-0"), host.start("exit 3", job="r2-0-1-0")
    until(lambda: host.at(good, "started").exists())
    until(lambda: host.at(bad, "end").exists())
    told = host.job(bad)
    assert (told.phase, told.exit_code) == ("ended", 3)
    names = ("name", "pulling", "ready", "restarts", "started", "pid", "staged", "why", "end", "token", "cgroup",
             "session", "engine", "image", "hold")  # fmt: skip
    for path in (*(host.at(bad, name) for name in names), host.folder / "runtime", host.folder / "fence/9"):
        kept = path.with_name("kept")
        if path.exists():
            path.rename(kept)
        PUT[kind](path)
        report = host.runner.look(host.instance, now=1790000000)
        assert (report.error, report.runtime in ("", "none", "docker", "podman")) == ("", True)
        jobs = {job.id: job for job in report.jobs}
        assert (jobs.keys(), jobs[good].phase) == ({good, bad}, "running"), path.name
        assert jobs[bad].exit_code == (None if path.name == "end" else 3)
        if kind == "folder":
            shutil.rmtree(path)
        path.unlink(missing_ok=True)
        if kept.exists():
            kept.rename(path)
    for name in ("a b", "x\njob r9-0-1-0 ended 0 exit 1 1 0 -", "-rf", "\x1b[31m", "x" * 200):
        (host.folder / "claims" / name).mkdir()
    assert {job.id for job in host.look().jobs} == {good, bad}
    host.stop(good, abort=True)
    host.over(good)


def test_a_zero_byte_is_refused_where_it_is_written(folder: Folder) -> None:
    folder.write("nul.yml", 'type: task\nname: nul\nenv: {A: "x\\0y"}\ncommands: ["echo \\0"]\n')
    ran = folder.dstack("run", ".", "-f", "nul.yml", "-y")
    assert ran.code == 1
    assert "nul.yml:3:10: holds a zero byte" in ran.err
    assert "nul.yml:4:12: holds a zero byte" in ran.err
    assert not (folder.root / ".dstack/state").exists()


# ---------------------------------------------------------------- files that are not what they should be


def test_a_document_that_is_no_file_is_refused_and_holds_up_nobody(folder: Folder) -> None:
    """A pipe that nobody writes to would hold every command for ever."""
    os.mkfifo(folder.root / ".dstack/pipe.yml")
    (folder.root / ".dstack/endless.yml").symlink_to("/dev/zero")
    (folder.root / ".dstack/loop.yml").symlink_to("loop.yml")
    for command in ("plan", "validate"):
        ran = folder.dstack(command)
        assert ran.code == 1
        for name, why in (("pipe", "not a regular file"), ("endless", "not a regular file"), ("loop", "Too many")):
            assert f".dstack/{name}.yml:1:1: cannot be read: {why}" in ran.said
    assert folder.dstack("ps").code == 0


def test_escapes_in_documents_do_not_reach_the_terminal(folder: Folder) -> None:
    folder.write(".dstack/red.yml", '"\\e[31mred\\u202e": 1\npools: [{name: "\\e]0;title\\a"}]\n')
    for command in (("validate",), ("plan",), ("apply", "-y"), ("run", ".", "-f", ".dstack/red.yml", "-y")):
        ran = folder.dstack(*command)
        assert ran.code == 1
        assert "\\x1b[31mred" in ran.said
        assert not {"\x1b", "\x07", "\u202e"} & set(ran.said)


NOT_TEXT = b"\xff\xfe"


def test_arguments_that_are_no_text(folder: Folder) -> None:
    folder.write("raw.yml", "type: task\nname: raw\ncommands: ['printf %s \"$K\" | od -An -tx1']\n")
    assert dstack(folder, "run", ".", "-f", "raw.yml", "-y", "-e", b"K=" + NOT_TEXT).out.splitlines()[-1] == " ff fe"
    for line in ((b"run", NOT_TEXT), (b"logs", NOT_TEXT), (b"apply", NOT_TEXT), (b"pool", b"add", b"--name", NOT_TEXT)):
        ran = dstack(folder, *line)
        assert (ran.code, "defect" in ran.err, ran.err.count("\n")) == (1, False, 1), ran


@pytest.mark.parametrize("name", ["../x", "$(id)", "-rf", "a\nb", "\x1b[31m"])
def test_names_that_are_none(folder: Folder, name: str) -> None:
    folder.write("once.yml", ONCE)
    for line in (("run", ".", "-f", "once.yml", "-y", f"--name={name}"), ("pool", "add", "-y", f"--name={name}"),
                 ("pool", "create", f"--name={name}")):  # fmt: skip
        ran = folder.dstack(*line)
        assert ran.code == 1, line
        assert "not a name" in ran.err
        assert "\x1b" not in ran.said
    assert not (folder.root / ".dstack/state").exists()


# ---------------------------------------------------------------- the state and what lies beside it


@pytest.fixture
def ran(folder: Folder) -> Folder:
    """A project with a state, blobs and a ledger."""
    folder.write("once.yml", ONCE + "artifacts: [once.yml]\n")
    assert folder.dstack("run", ".", "-f", "once.yml", "-y").code == 0
    return folder


def refused(folder: Folder, said: str, *line: str) -> None:
    """With one line, and nothing is written."""
    before = contents(folder.root)
    found = folder.dstack(*(line or ("ps",)))
    assert (found.code, found.err.count("\n")) == (1, 1), found
    assert said in found.err
    assert contents(folder.root) == before


def test_what_lies_beside_the_state_must_be_ours(ran: Folder, tmp_path: Path) -> None:
    """A link named `blobs` in a checkout would have us sweep somebody's folder."""
    state, elsewhere = ran.root / ".dstack/state", tmp_path / "elsewhere"
    for name in ("blobs", "ledger"):
        (state / name).rename(elsewhere)
        (state / name).symlink_to(elsewhere)
        refused(ran, f"state/{name}: is a symbolic link", "apply", "-y", "-d")
        (state / name).unlink()
        (state / name).write_text("")
        refused(ran, f"state/{name}: not a folder")
        (state / name).unlink()
        elsewhere.rename(state / name)
        (state / name).chmod(0o770)
        refused(ran, f"state/{name}: others may write in it")
        (state / name).chmod(0o700)


def test_a_state_that_is_none(ran: Folder, tmp_path: Path) -> None:
    file = ran.root / ".dstack/state/demo12345678.yml"
    file.rename(tmp_path / "kept")
    noise = {b"": "empty", b"\0" * 99: "not a state", b'{"a":' * 10**5: "truncated", b"[" * 10**6: "not a state",
             b"<<<<<<< HEAD\n" + (tmp_path / "kept").read_bytes(): "conflict markers",
             b"\xff\xfe": "byte order mark", b'{"version":' + b"9" * 5000 + b"}": "not a state"}  # fmt: skip
    for data, said in noise.items():
        file.write_bytes(data)
        file.chmod(0o600)
        refused(ran, said, "plan")
    file.unlink()
    file.mkdir()
    refused(ran, "demo12345678.yml: not a regular file", "apply", "-y", "-d")
    file.rmdir()
    os.mkfifo(file)
    refused(ran, "demo12345678.yml: not a regular file")
    file.unlink()
    (tmp_path / "kept").rename(file)
    assert ran.dstack("ps").code == 0


def test_a_lock_that_is_a_link_is_not_followed(ran: Folder, tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_text("a stranger's")
    lock = ran.root / ".dstack/state/.demo12345678.lock"
    lock.unlink(missing_ok=True)
    lock.symlink_to(victim)
    found = ran.dstack("run", ".", "-f", "once.yml", "-y")
    assert (found.code, "demo12345678.lock: is a symbolic link; remove it" in found.err) == (1, True)
    assert victim.read_text() == "a stranger's"
    lock.unlink()


def test_damaged_blobs_are_told_of_and_never_shown(ran: Folder) -> None:
    for blob in (ran.root / ".dstack/state/blobs").glob("*/*"):
        blob.write_bytes(b"\x1b]0;forged\x07" + bytes(range(256)))
    for line in (("logs", "once"), ("artifacts", "once")):
        found = ran.dstack(*line)
        assert (found.code, found.out, found.err.count("\n")) == (1, "", 1)
        assert "damaged: its content is not what was stored" in found.err


def test_the_ledger_markers_and_records_may_be_noise(ran: Folder) -> None:
    """None of them commands anything: what cannot be read is skipped, and what is sound goes on."""
    home = Path(ran.env["XDG_STATE_HOME"])
    files = [*(ran.root / ".dstack/state/ledger").iterdir(), *home.rglob("instance.json"), *home.rglob("machine-id")]
    (ran.root / ".dstack/state/done").mkdir(mode=0o700)
    (ran.root / ".dstack/state/done/..\n.x").write_text("")
    for noise in (b"\0\xff" * 99, b"[" * 10**6, b""):
        for file in files:
            file.write_bytes(noise)
        for line in (("plan",), ("ps", "-a"), ("pool", "ps"), ("apply", "-y", "-d")):
            found = ran.dstack(*line)
            assert "defect" not in found.err, found


def test_a_key_that_others_may_read_is_not_used(ran: Folder) -> None:
    (ran.root / ".dstack/keys").mkdir(mode=0o700, exist_ok=True)
    key = ran.root / ".dstack/keys/project.key"
    for data, mode, said in ((b"A" * 43 + b"=\n", 0o644, "others may have read it"), (b"\xff" * 999, 0o600, "not a p"),
                             (b"", 0o600, "not a project key")):  # fmt: skip
        key.write_bytes(data)
        key.chmod(mode)
        found = ran.dstack("run", ".", "-f", "once.yml", "-y", "-e", "A=canary-6b2e")
        assert (found.code, found.err.count("\n")) == (1, 1)
        assert said in found.err
        assert "canary-6b2e" not in found.said
        assert key.read_bytes() == data


# ---------------------------------------------------------------- words of others, and secrets


def test_escapes_in_a_reason_do_not_reach_the_terminal(folder: Folder) -> None:
    folder.write(".dstack/secrets.yml", 'secrets: {S: {file: "no\\e]0;title\\a\\x9b31m\\u202esuch"}}\n')
    folder.write(".dstack/runs/red.yml", "type: task\nname: red\nenv: {A: '${{ secrets.S }}'}\ncommands: [env]\n")
    said = [folder.dstack("apply", "-y", "-d").said]
    for line in (("ps", "-a"), ("ps", "--json"), ("plan",), ("plan", "--json"), ("stop", "red", "-y")):
        said.append(folder.dstack(*line).said)
    assert "\\x1b]0;title\\x07" in said[0]
    assert not {"\x1b", "\x07", "\x9b", "\u202e"} & set("".join(said))
    assert json.loads(folder.dstack("ps", "-a", "--json").out)[0]["name"] == "red"


CANARY = "canary-3e91c7"
SECRETS = """\
secrets:
  S_ENV: {env: GIVEN_BY_ENV}
  S_FILE: {file: ~/secret.txt}
  S_CMD: {command: "cat ~/secret.txt >&2; cat ~/secret.txt"}
  S_BAD: {command: "cat ~/secret.txt; cat ~/secret.txt >&2; exit 3"}
"""
SECRETIVE = """\
type: task
name: secretive
env: {A: "x${{ secrets.S_ENV }}", B: "${{ secrets.S_FILE }}", C: "${{ secrets.S_CMD }}", D: "${{ env.BARE }}"}
commands: ['[ -n "$A$B$C$D$E" ] && echo begun', sleep 600]
"""


def holders(root: Path, *words: bytes) -> list[str]:
    """Files below `root` that hold one of the words, but the user's own."""
    return sorted(
        path.name
        for path in root.rglob("*")
        if path.is_file()
        and path.name not in ("secret.txt", "project.key")
        and any(word in path.read_bytes() for word in words)
    )


def shown_by_processes(word: str, *, but: str) -> list[str]:
    """Command lines of all processes, and environments of those that are not the job's, which hold the word."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            line, variables = (process / "cmdline").read_text("latin-1"), (process / "environ").read_text("latin-1")
        except OSError:
            continue
        if word in line or (word in variables and but not in variables):
            found.append(line)
    return found


def test_a_secret_is_only_where_its_job_is(folder: Folder) -> None:
    """By every route; while it runs, after its supervisor was killed, and where a secret's command fails."""
    folder.write("../home/secret.txt", f"{CANARY}-file\n")
    folder.write(".dstack/secrets.yml", SECRETS)
    folder.write("s.yml", SECRETIVE)
    folder.write("bad.yml", SECRETIVE.replace("secrets.S_ENV", "secrets.S_BAD").replace("secretive", "bad"))
    given = {"GIVEN_BY_ENV": f"{CANARY}-env", "BARE": f"{CANARY}-bare"}
    said = []
    for file in ("s.yml", "bad.yml"):
        said.append(folder.dstack("run", ".", "-f", file, "-y", "-d", "-e", f"E={CANARY}-flag", env=given).said)
    lines = (("plan", "--json"), ("plan", "--out", "p.plan"), ("ps", "-av"), ("ps", "--json"), ("apply", "-y", "-d"))
    for line in lines:
        said.append(folder.dstack(*line, env=given).said)
    assert "secret S_BAD: its command exited with 3; run it by hand" in said[1]
    assert CANARY not in "".join(said)
    key = (folder.root / ".dstack/keys/project.key").read_bytes().strip()
    words = CANARY.encode(), key, base64.b64decode(key)
    assert holders(folder.root.parent, *words) == ["env"]
    assert shown_by_processes(CANARY, but="DSTACK_CLAIM=") == []
    (pid,) = Path(folder.env["XDG_STATE_HOME"]).glob("*/*/*/*/host/jobs/*/pid")
    os.kill(int(pid.read_text().split()[0]), signal.SIGKILL)
    until(lambda: folder.dstack("apply", "-y", "-d", env=given).code == 0 and holders(folder.root.parent, *words) == [])


def test_a_secret_that_fails_keeps_no_instance(folder: Folder) -> None:
    """Each plan assigned the run to the idle instance, found its secret lacking, and so never ended the instance.

    And none is made for it: it would be ended idle, and made again, for ever.
    """
    folder.write(".dstack/pools.yml", re.sub(r"idle_duration: \w+", "idle_duration: 1s", POOLS))
    folder.write(".dstack/secrets.yml", "secrets: {S: {command: exit 3}}\n")
    folder.write("bad.yml", "type: task\nname: bad\nenv: {A: '${{ secrets.S }}'}\ncommands: [env]\n")
    assert folder.dstack("pool", "add", "-y", "--idle-duration", "1s").code == 0
    ran = folder.dstack("run", ".", "-f", "bad.yml", "-y", "-d")
    assert "exited with 3" in ran.said
    assert "launch" not in ran.said
    until(lambda: "- bench-0" in folder.dstack("apply", "-y", "-d").out)
