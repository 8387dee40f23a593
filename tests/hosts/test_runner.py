"""The runner: orders, the fence, files and artifacts there and back, and answers that make no sense."""

from __future__ import annotations

import os
import subprocess
import tarfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from reconciler.hosts.artifacts import choose, repack
from reconciler.hosts.environment import environment
from reconciler.hosts.report import UnreadableReport, exit_words, parse_report
from reconciler.hosts.runner import Fenced, HostError, JobOrder, Unreachable
from reconciler.hosts.shell_runner import HostRunner
from reconciler.hosts.ssh.config import Here
from reconciler.hosts.ssh.connections import Lines
from reconciler.hosts.staging import stage
from reconciler.hosts.transport.base import Reply
from reconciler.hosts.transport.local import LocalTransport
from reconciler.hosts.transport.ssh import SshTransport
from reconciler.state.master_port import master_port
from reconciler.store.blobs.bundle import bundle
from schemas.instance import HostReport
from schemas.lease import Lease
from schemas.resources import Gpu, Resources
from schemas.run import Probe
from tests.doubles.hosts.real_host import RealHost, an_order, until
from tests.doubles.hosts.ssh_hosts import UID, a_lab, declared, why_not

# It looks at paths, processes or programs as this machine has them.
on_this_machine = pytest.mark.parametrize("host", ["here"], indirect=True)


@pytest.fixture(params=["here", "by ssh"])
def host(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[RealHost]:
    """The same promises whatever leads to the host."""
    rig = RealHost(tmp_path / "host") if request.param == "here" else request.getfixturevalue("ssh_host")
    yield rig
    rig.end_everything()


@pytest.fixture
def ssh_host(tmp_path: Path) -> Iterator[RealHost]:
    if why_not():
        pytest.skip(why_not())
    with a_lab(tmp_path / "lab") as lab:
        server = lab.host("server")
        folder = server.home / "folder"
        rig = RealHost(folder)
        os.chown(folder, UID, UID)
        lines = Lines(Here(root=lab.root, home=lab.root))
        way = SshTransport(lambda: lines.to(declared(server)), folder="folder")
        rig.runner = HostRunner(lambda instance: way)
        yield rig
        lines.close()


def test_a_job_finds_its_variables() -> None:
    order = an_order(
        job="r1-0-2-1",
        attempt="r1-0-2",
        number=2,
        rank=1,
        nodes=2,
        peers=("10.0.0.1", "10.0.0.2"),
        project="project1",
        gpus=("GPU-a", "GPU-b"),
        env={"DSTACK_RUN_NAME": "theirs", "OWN": "x"},
    )
    found = environment(order)
    assert found["OWN"] == "x"
    assert {name: value for name, value in found.items() if name.startswith(("DSTACK_", "CUDA"))} == {
        "DSTACK_RUN_NAME": "hello",
        "DSTACK_RUN_ID": "r1",
        "DSTACK_JOB_ID": "r1-0-2-1",
        "DSTACK_REPO_ID": "project1",
        "DSTACK_ATTEMPT": "2",
        "DSTACK_REPLICA": "0",
        "DSTACK_NODE_RANK": "1",
        "DSTACK_NODES_NUM": "2",
        "DSTACK_NODES_IPS": "10.0.0.1\n10.0.0.2",
        "DSTACK_MASTER_NODE_IP": "10.0.0.1",
        "DSTACK_MASTER_PORT": str(master_port("r1-0-2")),
        "DSTACK_GPUS_PER_NODE": "2",
        "DSTACK_GPUS_NUM": "4",
        "CUDA_VISIBLE_DEVICES": "GPU-a,GPU-b",
    }
    assert 20000 <= master_port("r1-0-2") < 30000
    assert master_port("r1-0-2") != master_port("r1-0-3")


def test_a_job_without_gpus_sees_none_unless_it_says_so() -> None:
    assert environment(an_order())["CUDA_VISIBLE_DEVICES"] == ""
    assert environment(an_order(env={"CUDA_VISIBLE_DEVICES": "0"}))["CUDA_VISIBLE_DEVICES"] == "0"


@on_this_machine
def test_the_variables_of_the_host_are_true_there(host: RealHost) -> None:
    show = 'pwd; echo "$DSTACK_WORKING_DIR"; cat "$DSTACK_MPI_HOSTFILE"; echo "$DSTACK_NODES_IPS"'
    job = host.start(show, working_dir="a/b", peers=("10.0.0.1", "10.0.0.2"), gpus=("GPU-a",), nodes=2)
    host.over(job)
    here = str(host.at(job, "work/a/b"))
    assert host.log(job).decode().splitlines() == [
        here,
        here,
        "10.0.0.1 slots=1",
        "10.0.0.2 slots=1",
        "10.0.0.1",
        "10.0.0.2",
    ]


@pytest.mark.parametrize("name", ["A B", "A=B", "1A", "", "A\n", "A;true", "É"])
def test_a_variable_has_a_name(name: str) -> None:
    with pytest.raises(HostError, match="environment variable"):
        environment(an_order(env={name: "x"}))


@pytest.mark.parametrize("order", [an_order(env={"A": "x\0y"}), an_order("a\0b"), an_order(setup=("\0",))])
def test_nul_is_refused(order: JobOrder) -> None:
    with pytest.raises(HostError, match="NUL"):
        stage(order)


@pytest.mark.parametrize("folder", ["/etc", "..", "a/../../b", "x\0y"])
def test_the_working_folder_lies_in_the_files(folder: str) -> None:
    with pytest.raises(HostError, match="working_dir"):
        stage(an_order(working_dir=folder))


@pytest.mark.parametrize("job", ["", "../x", "a/b", "A", "a b", "-x", "a;b", "a\n"])
def test_a_job_id_can_leave_no_folder_and_no_shell_line(host: RealHost, job: str) -> None:
    calls: list[Callable[[], object]] = [
        lambda: host.start("true", job=job),
        lambda: host.stop(job),
        lambda: host.runner.collect(host.instance, job, artifacts=()),
        lambda: host.runner.clean(host.instance, job, generation=1),
        lambda: host.runner.read_log(host.instance, job, offset=0),
    ]
    for call in calls:
        with pytest.raises(HostError, match="not a job id"):
            call()
    assert list(host.folder.iterdir()) == []


def test_arguments_arrive_as_they_were_given(host: RealHost) -> None:
    args = ("a b", "$HOME", "it's", "", "\\1", "--x=${{ run.args }}")
    job = host.start("""printf '<%s>' ${{ run.args }} end""", args=args)
    assert host.over(job).exit_code == 0
    assert host.log(job).decode() == "<a b><$HOME><it's><><\\1><--x=${{ run.args }}><end>"


def test_setup_comes_first_in_the_same_shell(host: RealHost) -> None:
    job = host.start('echo "$X"', setup=("X=made",))
    host.over(job)
    assert host.log(job) == b"made\n"


def test_the_files_arrive_once_for_many_jobs(host: RealHost, tmp_path: Path) -> None:
    project = tmp_path / "project"
    (project / "sub").mkdir(parents=True)
    (project / "sub/run.sh").write_text("echo from a file\n")
    (project / "sub/run.sh").chmod(0o755)
    packed = bundle(project, into=tmp_path)
    for number in range(2):
        job = host.start("sh ./run.sh", "test -x run.sh", job=f"job-{number}", files_bundle=packed, working_dir="sub")
        assert host.over(job).exit_code == 0
        assert host.log(job) == b"from a file\n"
    assert len(list((host.folder / "bundles").iterdir())) == 1
    for number in range(2):
        host.runner.clean(host.instance, f"job-{number}", generation=1)
    assert list((host.folder / "bundles").iterdir()) == []


def test_files_removed_by_a_cleaner_meanwhile_are_sent_again(host: RealHost, tmp_path: Path) -> None:
    """A host without jobs drops the files of those that it had: also while the next one is on its way."""
    (tmp_path / "project").mkdir()
    (tmp_path / "project/run.sh").write_text("echo here\n")
    packed = bundle(tmp_path / "project", into=tmp_path)
    over = threading.Event()

    def clean() -> None:
        while not over.wait(0.01):
            host.runner.clean(host.instance, "r0-0-1-0", generation=1)

    cleaner = threading.Thread(target=clean)
    cleaner.start()
    try:
        for number in range(12):
            job = host.start("sh ./run.sh", job=f"r{number + 1}-0-1-0", files_bundle=packed)
            assert host.over(job).exit_code == 0
            host.runner.clean(host.instance, job, generation=1)
    finally:
        over.set()
        cleaner.join()


def test_a_bundle_that_is_none_fails_the_job_with_a_word(host: RealHost, tmp_path: Path) -> None:
    (tmp_path / "broken.tar.gz").write_bytes(b"no archive")
    job = host.start("echo never", files_bundle=tmp_path / "broken.tar.gz")
    assert host.over(job).exit_code == 1
    assert b"the files could not be unpacked" in host.log(job)


def test_a_lower_generation_is_refused(host: RealHost) -> None:
    host.start("true", job="new", generation=7)
    for refused in (
        lambda: host.start("true", job="old", generation=6),
        lambda: host.stop("new", generation=6),
        lambda: host.runner.clean(host.instance, "new", generation=6),
    ):
        with pytest.raises(Fenced):
            refused()
    assert host.look().generation == 7
    assert host.job("old").phase == "absent"
    host.start("true", job="same", generation=7)
    assert host.over("same").exit_code == 0
    assert len(list((host.folder / "fence").iterdir())) <= 2


@on_this_machine
def test_a_host_that_takes_nothing_is_not_told_of_a_newer_generation(host: RealHost) -> None:
    """That would stop the rest of a tick, for everybody. An old one is told so all the same."""
    job = host.start("true", generation=7)
    host.over(job)
    (host.folder / "fence/7").unlink()
    (host.folder / "fence").rmdir()
    (host.folder / "fence").write_text("as where nothing can be made\n")
    asked = (
        lambda: host.start("true", job="other", generation=8),
        lambda: host.stop(job, generation=8),
        lambda: host.runner.release(host.instance, job, generation=8, port=1),
        lambda: host.runner.retire(host.instance, generation=8),
    )
    for ask in asked:
        with pytest.raises(HostError, match="its disk takes nothing") as refused:
            ask()
        assert not isinstance(refused.value, Fenced)
    host.runner.clean(host.instance, job, generation=8)  # makes room: it writes no fence
    assert not (host.folder / "jobs" / job).exists()


@on_this_machine
def test_a_fence_that_no_counter_reaches_is_not_one(host: RealHost) -> None:
    for lie in ("9" * 200, "9" * 16, "-5", "x"):
        (host.folder / "fence").mkdir(exist_ok=True)
        (host.folder / "fence" / lie).touch()
    assert host.look().generation == 0
    host.stop(host.start("sleep 600"), abort=True)
    assert host.look().generation == 1


def test_a_stop_before_the_start_forbids_it(host: RealHost) -> None:
    host.stop("never")
    host.start("echo no", job="never")
    report = host.over("never")
    assert (report.phase, report.reason, report.exit_code) == ("ended", "stopped before it started", 143)
    assert host.runner.collect(host.instance, "never", artifacts=("*",)).log.read_bytes() == b""


def test_stop_and_clean_again_are_no_error(host: RealHost) -> None:
    job = host.start("true")
    host.over(job)
    for _ in range(2):
        host.stop(job)
        host.stop(job, abort=True)
        host.runner.clean(host.instance, job, generation=1)
    assert host.look().jobs == ()


def test_a_running_job_is_not_cleaned(host: RealHost) -> None:
    job = host.start("sleep 600")
    with pytest.raises(HostError, match="still runs"):
        host.runner.clean(host.instance, job, generation=1)
    assert host.job(job).phase == "running"


def test_nothing_starts_on_a_host_that_ends(host: RealHost) -> None:
    host.runner.retire(host.instance, generation=1)
    with pytest.raises(HostError, match="being ended"):
        host.start("true")


def test_a_host_is_not_retired_by_an_older_generation(host: RealHost) -> None:
    host.over(host.start("true", generation=7))
    with pytest.raises(Fenced):
        host.runner.retire(host.instance, generation=6)
    host.over(host.start("true", job="r2-0-1-0", generation=7))


@on_this_machine
def test_what_a_dead_starter_staged_does_not_stay(host: RealHost) -> None:
    left = host.folder / "stage" / "r9-0-1-0.0123"
    left.mkdir(parents=True)
    (left / "env").write_text("canary")
    host.look()
    assert left.exists()
    os.utime(left, (1, 1))
    host.look()
    assert not left.exists()


def test_artifacts_come_back_and_links_that_leave_do_not(host: RealHost) -> None:
    make = "mkdir -p out/deep; echo 1 > out/a.txt; echo 2 > out/deep/b.pt; ln -s a.txt out/in; ln -s /etc/passwd out/no"
    odd = "touch 'out/sp ace' $'out/new\\nline' $'out/back\\\\slash' $'out/\\xff'; mkfifo out/pipe; chmod +x out/a.txt"
    job = host.start(make, odd, "echo x > other.txt")
    host.over(job)
    collected = host.runner.collect(host.instance, job, artifacts=("out/**", "../x", "nothing*"))
    assert collected.artifacts is not None
    with tarfile.open(collected.artifacts) as tar:
        assert set(tar.getnames()) == {
            "out/a.txt",
            "out/deep/b.pt",
            "out/in",
            "out/sp ace",
            "out/new\nline",
            "out/back\\slash",
            "out/\udcff",
        }
        assert tar.getmember("out/a.txt").mode == 0o755
        assert {(one.uid, one.uname) for one in tar} == {(0, "")}
        assert min(one.mtime for one in tar) > 1_700_000_000
    assert any("../x" in note for note in collected.notes)
    assert any("out/no" in note for note in collected.notes)


def test_artifacts_of_a_running_job_can_be_had(host: RealHost, tmp_path: Path) -> None:
    job = host.start("echo 1 > model.pt", "echo saved", "sleep 600")
    host.says(job, b"saved")
    first = host.runner.collect(host.instance, job, artifacts=("*.pt",))
    second = host.runner.collect(host.instance, job, artifacts=("*.pt",))
    assert first.artifacts is not None
    assert second.artifacts is not None
    assert first.artifacts.read_bytes() == second.artifacts.read_bytes()
    assert first.log.read_bytes() == b"saved\n"


def test_no_artifact_is_told(host: RealHost) -> None:
    job = host.start("true")
    host.over(job)
    collected = host.runner.collect(host.instance, job, artifacts=("*.pt",))
    assert collected.artifacts is None
    assert collected.notes == ("no file matches *.pt",)


@pytest.mark.parametrize(
    ("glob", "chosen"),
    [
        ("*", ["a", "a.pt", "d/e/f.pt", "d/g"]),
        ("*.pt", ["a.pt"]),
        ("**/*.pt", ["a.pt", "d/e/f.pt"]),
        ("d", ["d/e/f.pt", "d/g"]),
        ("d/", ["d/e/f.pt", "d/g"]),
        ("./d/*", ["d/e/f.pt", "d/g"]),
        ("d/**/f.pt", ["d/e/f.pt"]),
        ("[!b]", ["a", "d/e/f.pt", "d/g"]),
        ("?.p[tx]", ["a.pt"]),
        ("[z-a", []),
        ("d/[", []),
        ("/etc/*", []),
    ],
)
def test_globs(glob: str, chosen: list[str]) -> None:
    listed = b"".join(b"./%s\0" % name for name in (b"d/g", b"a", b"d/e/f.pt", b"a.pt"))
    names, _ = choose(listed, [glob])
    assert [name[2:].decode() for name in names] == chosen


def test_artifacts_above_the_limit_are_left_out_by_name(tmp_path: Path) -> None:
    raw = tmp_path / "raw.tar"
    with tarfile.open(raw, "w") as tar:
        for name, size in (("./small", 10), ("./big", 5000)):
            (tmp_path / "f").write_bytes(b"x" * size)
            tar.add(tmp_path / "f", name)
    packed, notes = repack(raw, into=tmp_path / "out", limit=100)
    assert packed is not None
    with tarfile.open(packed) as tar:
        assert tar.getnames() == ["small"]
    assert notes == ["left out, too large, 5000 bytes: big"]


@given(st.integers(0, 20000), st.binary(max_size=40))
def test_a_tar_cut_or_damaged_anywhere_gives_what_it_holds(
    tmp_path_factory: pytest.TempPathFactory, cut: int, damage: bytes
) -> None:
    folder = tmp_path_factory.mktemp("cut")
    raw = folder / "raw.tar"
    with tarfile.open(raw, "w") as tar:
        for number in range(3):
            (folder / "f").write_bytes(b"x" * 3000)
            tar.add(folder / "f", f"./f{number}")
    whole = raw.read_bytes()
    raw.write_bytes(whole[:cut] + damage)
    packed, _ = repack(raw, into=folder / "out")
    if packed:
        with tarfile.open(packed) as tar:
            assert all(member.size in (0, 3000) or damage for member in tar)


GOOD = b"dstack-host 1\nhost 3f77 100 1790000000 7 abc\n"


def test_a_report_is_read() -> None:
    answer = GOOD + b"job a running 1 1790000000 2 train\njob b ended 137 max-duration:7200 5 9 0 -\n"
    answer += b"job c ended 1 exit 5 9 1 train\njob d lost - lost - - 0 train\n.\n"
    report = parse_report(answer, instance="i", now=5)
    assert (report.boot_id, report.uptime, report.clock, report.generation) == ("3f77", 100, 1790000000, 7)
    a, b, c, d = report.jobs
    assert (a.phase, a.ready, a.reason, a.run) == ("running", True, "begun again 2 times", "train")
    assert (b.phase, b.exit_code, b.reason, b.run) == ("ended", 137, "max duration 2h", "")
    assert (c.reason, c.interrupted) == ("interrupted", True)
    assert (d.phase, d.exit_code) == ("lost", None)


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"\n",
        b"Welcome to Ubuntu\n" + GOOD + b".\n",
        GOOD,
        GOOD + b".",
        GOOD + b"job a running 1 5 0 x\n",
        b"dstack-host 1\n.\n",
        b"dstack-host 2\nhost 3f77 100 1790000000 7 abc\n.\n",
        GOOD + b"job a running 1 5 0 x\njob a ended 0 exit 5 9 0 x\n.\n",
        GOOD + b"job ../a running 1 5 0 x\n.\n",
        GOOD + b"job a dancing 1 5 0 x\n.\n",
        GOOD + b"job a ended 1 exit 5 9 1 x y\n.\n",
        GOOD + b"job a ended \xd9\xa1 exit 5 9 1 x\n.\n",
        GOOD + b"job a ended 99999999999999999999 exit 5 9 1 x\n.\n",
    ],
)
def test_garbage_is_an_unreadable_status(answer: bytes) -> None:
    with pytest.raises(UnreadableReport, match="unreadable status"):
        parse_report(answer, instance="i", now=5)


@given(st.binary())
@example(b"dstack-host 1\n.\n")
def test_no_bytes_are_a_traceback(noise: bytes) -> None:
    for answer in (noise, GOOD + noise, GOOD + noise + b"\n.\n", GOOD + b"job " + noise + b"\n.\n"):
        try:
            parse_report(answer, instance="i", now=5)
        except UnreadableReport:
            continue


def test_signals_in_words() -> None:
    assert exit_words(0) == ""
    assert exit_words(137) == "killed by signal 9 (SIGKILL)"
    assert exit_words(128) == "exit 128"
    assert exit_words(255) == "exit 255"


class Told:
    """A transport that answers what it was told to."""

    def __init__(self, answer: Reply | Exception) -> None:
        self.answer = answer

    def run(
        self,
        program: str,
        *,
        args: Sequence[str] = (),
        stdin: bytes | Path = b"",
        to: Path | None = None,
        timeout: float = 60.0,
        most: int | None = None,
    ) -> Reply:
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


@pytest.mark.parametrize(
    ("answer", "error", "ours"),
    [
        (Unreachable("no route", ours=True), "no route", True),
        (Unreachable("timed out"), "timed out", False),
        (Reply(0, b"Last login: today\n", ""), "unreadable status: 'Last login: today'", False),
        (Reply(127, b"", "x\nsh: not found"), "x; sh: not found", False),
        (Reply(1, b"", ""), "the host's program ended with 1", False),
    ],
)
def test_a_look_never_raises(host: RealHost, answer: Reply | Exception, error: str, ours: bool) -> None:
    runner = HostRunner(lambda _: Told(answer))
    report = runner.look(host.instance, now=5)
    assert report == HostReport(instance="i-0", at=5, error=error, not_visible=ours)


@on_this_machine
def test_a_missing_gpu_makes_the_host_degraded(host: RealHost, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tool = tmp_path / "bin" / "nvidia-smi"
    tool.parent.mkdir()
    tool.write_text("#!/bin/sh\necho GPU-1; echo GPU-2\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tool.parent}:{os.environ['PATH']}")
    for uuids, degraded in ((("GPU-1", "GPU-2"), ""), (("GPU-2", "GPU-3"), "missing GPU GPU-3")):
        own = Resources(cpus=1, memory=1024, gpu=Gpu(name="a100", memory=81920, count=2, uuids=uuids))
        report = host.runner.look(msgspec.structs.replace(host.instance, resources=own), now=5)
        assert (report.error, report.degraded) == ("", degraded)


@on_this_machine
def test_who_else_uses_its_gpus_is_told(host: RealHost, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """GPU-2 has a process of a job of ours, one of somebody else, and one that cannot be seen; GPU-9 is not ours."""
    other = subprocess.Popen(["sleep", "600"])
    try:
        job = host.start("echo begun; sleep 600")
        host.says(job, b"begun")
        mine = host.pids(job)[0]
        rows = (f"GPU-2, {mine}, 900", f"GPU-2, {other.pid}, 73000", f"GPU-1, {other.pid}, [N/A]")
        apps = "\n".join((*rows, "GPU-2, 4194305, 5", "GPU-9, 1, 5", ""))
        _nvidia_smi(tmp_path, monkeypatch, gpus="GPU-1\nGPU-2\n", apps=apps)
        own = Resources(cpus=1, memory=1024, gpu=Gpu(name="a100", memory=81920, count=2, uuids=("GPU-1", "GPU-2")))
        report = host.runner.look(msgspec.structs.replace(host.instance, resources=own), now=5)
        assert (report.error, report.degraded) == ("", "")
        assert report.foreign == f"gpu 1: pid {other.pid}, 71 GB; gpu 0: pid {other.pid}"
        assert [one.id for one in report.jobs] == [job]
    finally:
        other.kill()
        other.wait()


def _nvidia_smi(folder: Path, monkeypatch: pytest.MonkeyPatch, *, gpus: str, apps: str) -> None:
    tool = folder / "bin" / "nvidia-smi"
    tool.parent.mkdir()
    (folder / "gpus").write_text(gpus)
    (folder / "apps").write_text(apps)
    tool.write_text(f"#!/bin/sh\ncase $1 in *compute-apps*) cat {folder}/apps ;; *) cat {folder}/gpus ;; esac\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tool.parent}:{os.environ['PATH']}")


@on_this_machine
@pytest.mark.parametrize(
    ("ahead", "idle_for", "left"), [(0, 4000, 4000), (3600, 4000, 400), (7200, 4000, 0), (-3600, 0, 0), (-3600, 50, 50)]
)
def test_a_lease_by_a_clock_that_is_ahead_is_not_shorter_for_that(
    host: RealHost, ahead: int, idle_for: int, left: int
) -> None:
    """A machine would end itself an hour early for the clock of a laptop."""
    bought = msgspec.structs.replace(host.instance, backend="aws", address="192.0.2.1", phase="ready")
    runner = HostRunner(lambda instance: LocalTransport(host.folder, environ=os.environ))
    lease = Lease(rule="idle", span=7200, idle_for=idle_for, hold=60)
    assert runner.look(bought, now=int(time.time()) + ahead, lease=lease).error == ""
    _, _, rule, span, idle, hold, lifetime = (host.folder / "lease").read_text().split()
    assert (rule, span, hold, lifetime) == ("idle", "7200", "60", "-")
    assert left <= int(idle) <= (left + 20 if ahead > 0 and left else left)


@on_this_machine
def test_a_folder_that_is_gone_is_unreachable(host: RealHost) -> None:
    moved = msgspec.structs.replace(host.instance, address=str(host.folder / "gone"))
    assert "no folder" in host.runner.look(moved, now=5).error


def test_a_program_that_does_not_end_is_ended(tmp_path: Path) -> None:
    transport = LocalTransport(tmp_path, environ=os.environ)
    for timeout in (0.3, 3, 30):  # a busy machine may need longer to begin it
        with pytest.raises(Unreachable, match="no answer"):
            transport.run("sleep 600 & echo $! > pid; wait", timeout=timeout)
        if (tmp_path / "pid").exists() and (tmp_path / "pid").read_text().strip():
            break
    pid = int((tmp_path / "pid").read_text())
    until(lambda: not Path(f"/proc/{pid}/environ").exists() or Path(f"/proc/{pid}/stat").read_text().split()[2] == "Z")


def test_a_probe_of_a_path_needs_a_port() -> None:
    with pytest.raises(HostError, match="port"):
        stage(an_order(probe=Probe(path="/health")))
