"""A real docker or podman for the tests, with its own store, and an image made of busybox here: no registry is asked.

One engine a test process, ended with it; where none can be had, `why_no_engine` says why and the tests are skipped.
"""

from __future__ import annotations

import functools
import io
import os
import shutil
import signal
import subprocess
import tarfile
import time
from dataclasses import dataclass
from pathlib import Path

IMAGE = "tiny:1"
# What runs where nothing else does: no systemd, no bridge, low limits. Its locks are its own, not those of all podmans.
CONTAINERS = """\
[containers]
netns = "host"
default_ulimits = ["nofile=1024:1024", "nproc=1024:1024"]
[engine]
runtime = "runc"
lock_type = "file"
tmp_dir = "%s"
cgroup_manager = "cgroupfs"
events_logger = "none"
image_parallel_copies = 1
"""
REGISTRIES = """\
unqualified-search-registries = []
[[registry]]
location = "127.0.0.1"
insecure = true
"""
APPLETS = """
sh ash cat echo sleep env id ls mkdir rm grep head tail wc tr dd true false kill ps touch chown chmod seq printf od test
sort date wget httpd nc stat pwd yes cut sed awk find df mount which timeout
""".split()  # noqa: SIM905


@dataclass(frozen=True)
class Engine:
    """`env` is what reaches it, for whoever starts a command."""

    name: str
    program: str
    env: dict[str, str]

    def run(self, *args: str, stdin: bytes = b"") -> str:
        done = subprocess.run(
            [self.program, *args],
            env={**os.environ, **self.env},
            input=stdin,
            capture_output=True,
            timeout=120,
            check=False,
        )
        assert done.returncode == 0, (args, done.stderr.decode(errors="replace"))
        return done.stdout.decode()

    def containers(self, *flags: str) -> list[str]:
        """Names of all of them, ended ones too."""
        return self.run("ps", "-a", *flags, "--format", "{{.Names}}").split()


def why_no_engine(name: str) -> str:
    """ "" where it works here."""
    if os.geteuid() != 0:
        return f"{name} is set up for the tests by root alone"
    if not shutil.which("busybox"):
        return "no busybox to make an image of"
    if name == "podman":
        return "" if shutil.which("podman") and shutil.which("runc") else "neither podman nor runc is installed"
    return "" if shutil.which("docker") and shutil.which("dockerd") else "docker or dockerd is not installed"


class Unusable(Exception):
    """It is installed, and does not work on this system."""


@functools.cache
def podman(folder: Path) -> Engine:
    """Its images, containers and settings lie in the folder."""
    (folder / "containers.conf").write_text(CONTAINERS % (folder / "tmp"))
    (folder / "registries.conf").write_text(REGISTRIES)
    storage = f'[storage]\ndriver = "vfs"\ngraphroot = "{folder}/store"\nrunroot = "{folder}/run"\n'
    (folder / "storage.conf").write_text(storage)
    # A docker that is installed beside it would be taken first.
    env = {
        "CONTAINERS_CONF": str(folder / "containers.conf"),
        "CONTAINERS_STORAGE_CONF": str(folder / "storage.conf"),
        "CONTAINERS_REGISTRIES_CONF": str(folder / "registries.conf"),
        "DOCKER_HOST": f"unix://{folder}/none.sock",
    }
    engine = Engine("podman", str(shutil.which("podman")), env)
    return _proven(engine)


@functools.cache
def docker(folder: Path) -> Engine:
    """A daemon of its own on a socket in the folder."""
    socket = folder / "docker.sock"
    command = [
        # Also where the tests are killed, it ends with them.
        "setpriv", "--pdeathsig", "TERM",
        str(shutil.which("dockerd")), "--storage-driver", "vfs", "--iptables=false", "--ip6tables=false",
        "--bridge=none", "--host", f"unix://{socket}", "--data-root", f"{folder}/data", "--exec-root", f"{folder}/exec",
        "--pidfile", f"{folder}/docker.pid", "--config-file", f"{folder}/none.json",
    ]  # fmt: skip
    (folder / "none.json").write_text("{}")
    log = (folder / "dockerd.log").open("wb")
    daemon = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True)
    _DAEMONS.append(daemon)
    deadline = time.monotonic() + 120
    while not socket.exists() and daemon.poll() is None and time.monotonic() < deadline:
        time.sleep(0.05)
    engine = Engine("docker", str(shutil.which("docker")), {"DOCKER_HOST": f"unix://{socket}"})
    if daemon.poll() is not None or not socket.exists():
        raise Unusable((folder / "dockerd.log").read_text()[-300:])
    return _proven(engine)


_DAEMONS: list[subprocess.Popen[bytes]] = []


def end_engines(folder: Path) -> None:
    """Nothing of them outlives the tests."""
    for daemon in _DAEMONS:
        daemon.send_signal(signal.SIGTERM)
        try:
            daemon.wait(30)
        except subprocess.TimeoutExpired:
            daemon.kill()
            daemon.wait()
    _DAEMONS.clear()
    for mounted in reversed([line.split()[1] for line in Path("/proc/self/mounts").read_text().splitlines()]):
        if mounted.startswith(f"{folder}/"):
            subprocess.run(["umount", "-l", mounted], check=False)
    deadline = time.monotonic() + 10
    while folder.exists() and time.monotonic() < deadline:  # podman tidies up after an ended container by itself
        shutil.rmtree(folder, ignore_errors=True)


def _proven(engine: Engine) -> Engine:
    """It has the image, and one container of it ran."""
    try:
        engine.run("import", "-", IMAGE, stdin=root_file_system())
        said = engine.run("run", "--rm", "--network", "host", "--log-driver", "none", IMAGE, "echo", "runs")
    except AssertionError as error:
        raise Unusable(str(error)[-300:]) from error
    if said != "runs\n":
        raise Unusable(said)
    return engine


@functools.cache
def root_file_system() -> bytes:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as tar:
        for folder in ("bin", "tmp", "etc", "home"):
            entry = tarfile.TarInfo(folder)
            entry.type, entry.mode = tarfile.DIRTYPE, 0o1777 if folder == "tmp" else 0o755
            tar.addfile(entry)
        tar.add(str(shutil.which("busybox")), "bin/busybox", filter=_executable)
        for applet in APPLETS:
            entry = tarfile.TarInfo(f"bin/{applet}")
            entry.type, entry.linkname = tarfile.SYMTYPE, "busybox"
            tar.addfile(entry)
        users = b"root:x:0:0:root:/:/bin/sh\napp:x:1000:1000:app:/home:/bin/sh\n"
        entry = tarfile.TarInfo("etc/passwd")
        entry.size, entry.mode = len(users), 0o644
        tar.addfile(entry, io.BytesIO(users))
    return packed.getvalue()


def _executable(entry: tarfile.TarInfo) -> tarfile.TarInfo:
    entry.mode, entry.uid, entry.gid, entry.uname, entry.gname = 0o755, 0, 0, "", ""
    return entry
