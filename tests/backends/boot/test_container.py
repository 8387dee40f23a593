"""A machine that is a container: its start command, as the first process of real namespaces, with a real sshd."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from backends.boot import cloud_init, container
from backends.boot.spec import DeadMan
from reconciler.hosts.boot_keys import boot_of, endorsement, host_key_of, login_of
from schemas.backend_type import BackendType
from schemas.backend_types import TYPES, UNKNOWN
from tests.backends.boot.test_boot import KEY, REQUEST
from tests.worlds.own_ports import free_port

BOOT = boot_of(KEY, "l-abc")
ROOT = type(BOOT)(
    host_key_private=BOOT.host_key_private,
    host_key_public=BOOT.host_key_public,
    authorized_keys=BOOT.authorized_keys,
    user="root",
)
HOST = Path(__file__).parents[3] / "reconciler/hosts/programs"


def why_not() -> str:
    if os.geteuid() != 0:
        return "namespaces are made by root"
    tools = ("unshare", "nsenter", "ssh", "ssh-keyscan", "dash")
    missing = [tool for tool in tools if not shutil.which(tool)]
    if not Path("/usr/sbin/sshd").exists():
        missing.append("sshd")
    return f"not installed here: {', '.join(missing)}" if missing else ""


needs_namespaces = pytest.mark.skipif(bool(why_not()), reason=why_not() or "-")

# A container's first process: processes, /run and /etc of its own; the kernel's boot, and its machine's uptime.
BEGIN = r"""
mount --make-rprivate /
mount -t tmpfs none /run
mount --bind "$FOLDER/etc" /etc
mount --bind "$FOLDER/root" /root
mkdir -p /var/lib/dstack
mount --bind "$FOLDER/base" /var/lib/dstack
mount --bind "$FOLDER/uptime" /proc/uptime
exec "$SHELL_OF_IT" -c "$(cat "$FOLDER/start")"
"""


class Box:
    def __init__(self, folder: Path, *, shell: str, text: Callable[[int], str]) -> None:
        self.folder, self.shell, self.port = folder, shell, free_port()
        for name in ("root", "base"):
            (folder / name).mkdir(parents=True)
        shutil.copytree("/etc", folder / "etc", symlinks=True)
        (folder / "uptime").write_text("9000000.00 1.00\n")
        (folder / "start").write_text(text(self.port))
        (folder / "login").write_text(login_of(KEY).private)
        (folder / "login").chmod(0o600)
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        command = ["unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc", "sh", "-c", BEGIN]
        env = {"PATH": "/usr/bin:/bin:/own/bin", "FOLDER": str(self.folder), "SHELL_OF_IT": self.shell,
               "VENDOR_API_KEY": "hidden-99", "CUDA_HOME": "/cuda"}  # fmt: skip
        log = (self.folder / "log").open("ab")
        self.process = subprocess.Popen(command, env=env, stdin=subprocess.DEVNULL, stdout=log, stderr=log)

    @property
    def inside(self) -> int:
        """Its first process."""
        assert self.process is not None
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()
        return int(children[0])

    def enter(self, program: str, *args: str) -> str:
        command = ["nsenter", "--target", str(self.inside), "--mount", "--pid", "sh", "-c", program, "sh", *args]
        return subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stdout

    def ssh(self, program: str, *, key: str) -> subprocess.CompletedProcess[str]:
        (self.folder / "known").write_text(f"[127.0.0.1]:{self.port} {key}\n")
        command = [
            "ssh", "-F", "none", "-p", str(self.port), "-i", str(self.folder / "login"), "-o", "IdentitiesOnly=yes",
            "-o", f"UserKnownHostsFile={self.folder}/known", "-o", "StrictHostKeyChecking=yes", "-o", "BatchMode=yes",
            "root@127.0.0.1", program,
        ]  # fmt: skip
        return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)

    def pass_time(self, seconds: float) -> None:
        with (self.folder / "uptime").open("r+") as file:
            now = float(file.read().split()[0])
            file.seek(0)
            file.write(f"{now + seconds:.2f} 1.00\n")

    def left(self) -> int:
        return int(self.enter("sh /var/lib/dstack/deadman.sh tell /var/lib/dstack"))

    def incarnation(self) -> str:
        return self.enter("cat /run/dstack/incarnation").strip()

    def over(self) -> bool:
        assert self.process is not None
        return self.process.poll() is not None

    def end(self) -> None:
        if self.process is not None and self.process.poll() is None:
            os.kill(self.process.pid, signal.SIGKILL)
            self.process.wait()


def until(met: Callable[[], object], *, patience: float = 120.0) -> None:
    deadline = time.monotonic() + patience
    while not met():
        assert time.monotonic() < deadline, "it never came to be"
        time.sleep(0.05)


@pytest.fixture(params=["dash", "bash", "busybox"])
def box(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Box]:
    program = shutil.which(request.param)
    if why_not() or program is None:
        pytest.skip(why_not() or f"no {request.param} here")
    folder = tmp_path / "box"
    if request.param == "busybox":
        (tmp_path / "sh").symlink_to(program)
        program = str(tmp_path / "sh")
    made = Box(folder, shell=program, text=lambda port: container.render(ROOT, request=REQUEST, port=port))
    made.start()
    until(lambda: made.ssh("true", key=ROOT.host_key_public).returncode == 0)
    yield made
    made.end()


@needs_namespaces
def test_it_is_reached_by_our_key_and_shows_ours(box: Box) -> None:
    first = ROOT.host_key_public
    asked = box.ssh("echo $PATH $CUDA_HOME; env; ls -a ~/.dstack-host; cat /run/dstack/incarnation", key=first)
    assert asked.stdout.startswith("/usr/bin:/bin:/own/bin /cuda\n")
    assert "hidden-99" not in asked.stdout
    assert {"deadman", "lease", "cleaned"} <= set(asked.stdout.split())
    assert str(uuid.UUID(asked.stdout.split()[-1])) == asked.stdout.split()[-1] == box.incarnation()
    other = host_key_of(KEY, "l-other").public
    assert "Host key verification failed" in box.ssh("true", key=other).stderr
    stranger = box.folder / "stranger"
    stranger.write_text(host_key_of(KEY, "l-other").private)
    stranger.chmod(0o600)
    (box.folder / "login").unlink()
    stranger.rename(box.folder / "login")
    assert "Permission denied" in box.ssh("true", key=first).stderr


@needs_namespaces
def test_its_first_contact_replaces_its_host_key_by_a_signal(box: Box) -> None:
    rotate = (HOST / "rotate.sh").read_text()
    first = ROOT.host_key_public
    line = " ".join(first.split()[:2])
    made = box.enter(rotate, "make", line).strip()
    vouched = endorsement(KEY, launch="l-abc", instance="l-abc-0", host_key=made)
    box.enter(rotate, "take", line, made, vouched)
    until(lambda: box.ssh("true", key=made).returncode == 0)
    assert "Host key verification failed" in box.ssh("true", key=first).stderr


@needs_namespaces
def test_its_time_counts_from_its_own_start_and_ends_it(box: Box) -> None:
    """Its machine has been up for 104 days."""
    deadman = DeadMan()
    assert deadman.first + deadman.grace - 30 <= box.left() <= deadman.first + deadman.grace
    box.enter("sh /var/lib/dstack/deadman.sh check /var/lib/dstack")
    assert not box.over()
    boot, up = box.incarnation(), int(float((box.folder / "uptime").read_text().split()[0]))
    lease = f"{boot} {up} idle 600 0 86400 -"
    (box.folder / "root/.dstack-host/lease").write_text(f"{lease:<255}\n")
    assert box.left() == 600 + deadman.grace
    box.pass_time(600 + deadman.grace + 1)
    assert box.left() < 0
    subprocess.run(
        ["nsenter", "--target", str(box.inside), "--mount", "--pid", "sh", "/var/lib/dstack/deadman.sh", "check",
         "/var/lib/dstack"], check=False, capture_output=True, timeout=60,
    )  # fmt: skip
    until(box.over)


@needs_namespaces
def test_a_second_start_renews_nothing(box: Box) -> None:
    """On the same disk, on a machine with another uptime: its age goes on, its incarnation is another."""
    was, left = box.incarnation(), box.left()
    box.pass_time(300)
    box.enter("sh /var/lib/dstack/deadman.sh check /var/lib/dstack")
    box.end()
    (box.folder / "uptime").write_text("50.00 1.00\n")
    box.start()
    until(lambda: box.ssh("true", key=ROOT.host_key_public).returncode == 0)
    assert box.incarnation() != was
    assert left - 330 <= box.left() <= left - 299


@needs_namespaces
def test_the_timer_and_sshd_are_begun_again(box: Box) -> None:
    timer = box.enter("cat /var/lib/dstack/loop").strip()
    assert f"PPid:\t{1}\n" in box.enter(f"cat /proc/{timer}/status")
    box.enter(f"kill -9 {timer} $(cat /run/dstack/sshd.pid)")
    until(lambda: box.enter("cat /var/lib/dstack/loop").strip() != timer)
    until(lambda: box.ssh("true", key=ROOT.host_key_public).returncode == 0)


@needs_namespaces
def test_whoever_ends_it_gives_its_jobs_time(box: Box) -> None:
    """As a cluster does: TERM to the first process, and after a while the end of all."""
    saves = "trap 'sleep 1; echo saved > ~/saved; exit 0' TERM; touch ~/ready; while :; do sleep 0.1; done"
    box.ssh(f"setsid sh -c {saves!r} > /dev/null 2>&1 < /dev/null &".replace('"', '"'), key=ROOT.host_key_public)
    until((box.folder / "root/ready").exists)
    os.kill(box.inside, signal.SIGTERM)
    until(box.over)
    assert (box.folder / "root/saved").read_text() == "saved\n"
    assert (box.folder / "root/.dstack-host/notice").exists()


@needs_namespaces
def test_a_changed_timer_is_made_anew(box: Box) -> None:
    box.enter("echo exit > /var/lib/dstack/deadman.sh; kill -9 $(cat /var/lib/dstack/loop)")
    box.enter(container.arming(DeadMan()))
    box.enter("sha256sum -c --status /var/lib/dstack/sums")
    assert box.left() > 0
    loop = box.enter("cat /var/lib/dstack/loop").strip()
    assert "/var/lib/dstack/timer" in box.enter(f"cat /proc/{loop}/cmdline")


def test_the_text_is_sh_small_and_has_one_secret(tmp_path: Path) -> None:
    text = container.render(ROOT, request=REQUEST)
    assert text == container.render(ROOT, request=REQUEST)
    assert len(text.encode()) < UNKNOWN.user_data_limit
    (tmp_path / "start").write_text(text)
    subprocess.run(["dash", "-n", str(tmp_path / "start")], check=True)
    order = [text.index(step) for step in ("\nbegin_timer\n", "PRIVATE KEY", "authorized_keys", "find_sshd")]
    assert order == sorted(order)
    assert text.count("PRIVATE KEY") == 2
    assert login_of(KEY).private.splitlines()[2] not in text
    assert not re.search(r"systemctl|sudo|docker", text)


def test_a_type_says_how_its_containers_end_and_how_much_it_takes() -> None:
    kind = BackendType(name="t", boot="container", power_off_program="curl -X DELETE http://vendor/self\n")
    assert kind.power_off_program in container.render(ROOT, request=REQUEST, kind=kind)
    assert "kill -TERM 1\n" in container.render(ROOT, request=REQUEST, kind=TYPES["fake-container"])
    size = len(container.render(ROOT, request=REQUEST).encode())
    with pytest.raises(ValueError, match=f"a start command of {size} bytes: {size - 1} are the most"):
        container.render(ROOT, request=REQUEST, kind=BackendType(name="t", user_data_limit=size - 1))
    with pytest.raises(ValueError, match="login is root"):
        container.render(BOOT, request=REQUEST)


@pytest.mark.parametrize("name", ["x\nrm -rf /", "$(reboot)", "`reboot`"])
def test_a_name_runs_nothing(name: str) -> None:
    request = type(REQUEST)(
        place="p", launch=name, token="", ids=(), names=(name,), pool=name, instance_type=name, project=name
    )
    assert name not in container.render(ROOT, request=request)


def test_both_programs_have_the_same_timer() -> None:
    both = (container.render(ROOT, request=REQUEST), cloud_init.render(BOOT, request=REQUEST))
    program = (Path(container.__file__).parent / "deadman.sh").read_text()
    assert all(program in text for text in both)
