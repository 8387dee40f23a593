"""Real servers for tests: OpenSSH in namespaces, each with its own address, name, users, home, machine id and boot id.

A host is one process tree in a PID namespace of its own: its end ends everything that ran there, and nothing of the
system is configured but a bridge, which goes with the lab. Where this system cannot, `why_not` says why.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from schemas.host import Host
from tests.doubles.hosts.real_host import until
from tests.worlds import leftovers
from tests.worlds.own_ports import free_port

SSHD = "/usr/sbin/sshd"
USER, UID = "ann", 21000
TOOLS = ("ip", "unshare", "setpriv", "ssh-keygen", "mount")

# What programs name by user or process id (podman, faketime) lies in /tmp and /dev/shm: two hosts would share it.
OWN_SCRATCH = r"""
mount -t tmpfs -o mode=1777 none /dev/shm
mount -t tmpfs none /mnt && mkdir /mnt/tmp
mount --rbind /tmp /mnt/tmp
mount -t tmpfs -o mode=1777 none /tmp
below=${ROOT#/tmp/}
for kept in "${below%%/*}" $(cd /mnt/tmp && echo dstack-tests-*); do
    [ -z "$kept" ] || [ ! -d "/mnt/tmp/$kept" ] || [ -d "/tmp/$kept" ] || {
        mkdir "/tmp/$kept"
        # Another's may go meanwhile.
        mount --rbind "/mnt/tmp/$kept" "/tmp/$kept" || [ ! -d "/mnt/tmp/$kept" ]
    }
done
umount -l /mnt
"""

# Becomes the host. Everything is mounted in a namespace of its own: the system sees none of it.
BOOT = r"""
set -eu
mount --make-rprivate /
%s
mount -t tmpfs none /run && mkdir -p /run/sshd
for file in passwd shadow group machine-id; do mount --bind "$ROOT/etc/$file" "/etc/$file"; done
mount --bind "$ROOT/etc/boot-id" /proc/sys/kernel/random/boot_id
if [ -e "$ROOT/etc/uptime" ]; then mount --bind "$ROOT/etc/uptime" /proc/uptime; fi
mount -t tmpfs none /home && mkdir /home/ann
if [ -n "$SMALL" ]; then mount -t tmpfs -o "size=$SMALL,uid=21000,gid=21000" none /home/ann
else mount --bind "$ROOT/home" /home/ann; fi
mount -t tmpfs none /mnt && mkdir /mnt/bin /mnt/etc
mount --bind "$ROOT/bin" /mnt/bin
mount --bind "$ROOT/etc" /mnt/etc
hostname "$NAME"
if [ -n "$LINKS" ]; then
    ip link set lo up
    for link in $LINKS; do
        device=${link%%=*}
        until ip link show "$device" > /dev/null 2>&1; do sleep 0.02; done
        ip addr add "${link#*=}/24" dev "$device"
        ip link set "$device" up
    done
fi
exec /usr/sbin/sshd -D -e -f "$ROOT/etc/sshd_config" 2> "$ROOT/sshd.log"
""".replace("%s", OWN_SCRATCH, 1)

CONFIG = """\
Port {port}
ListenAddress {address}
HostKey {root}/etc/host_key
AuthorizedKeysFile /mnt/etc/authorized_keys
UsePAM no
StrictModes no
PidFile none
UseDNS no
PrintMotd no
PasswordAuthentication no
MaxStartups 300:30:600
MaxSessions 100
Subsystem sftp internal-sftp
SetEnv {environment}
"""


@cache
def why_not() -> str:
    """Why no host can be made on this system; "" where it can."""
    if os.geteuid():
        return "needs root: namespaces, accounts and addresses of its own"
    missing = [tool for tool in (SSHD, *TOOLS) if not shutil.which(tool)]
    if missing:
        return f"not installed here: {', '.join(missing)}"
    tried = subprocess.run(
        [
            "unshare",
            "--mount",
            "--uts",
            "--pid",
            "--net",
            "--fork",
            "--kill-child",
            "--mount-proc",
            "sh",
            "-c",
            "mount --make-rprivate / && mount -t tmpfs none /home && hostname x",
        ],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    return f"no namespaces here: {tried.stderr.strip()}" if tried.returncode else ""


@dataclass(kw_only=True)
class Network:
    """A bridge. Without a `gateway` address this machine cannot reach it: only a host with two links can."""

    bridge: str
    prefix: str
    routed: bool
    used: int = 1

    def address(self) -> str:
        self.used += 1
        return f"{self.prefix}.{self.used}"

    @property
    def cidr(self) -> str:
        return f"{self.prefix}.0/24"


@dataclass(kw_only=True)
class SshHost:
    """One server. `port` and `address` are what a client dials; `home` is its login's home as this machine sees it."""

    lab: Lab
    name: str
    root: Path
    address: str
    port: int
    networks: tuple[Network, ...] = ()
    small: str = ""
    shell: str = "/bin/sh"
    uid: int = UID
    environment: dict[str, str] = field(default_factory=dict)
    process: subprocess.Popen[bytes] | None = None
    addresses: tuple[str, ...] = ()

    @property
    def home(self) -> Path:
        """A small home is a mount of the host's own."""
        return Path(f"/proc/{self._inside()}/root/home/ann") if self.small else self.root / "home"

    def _inside(self) -> int:
        """The host's first process, as this machine counts."""
        assert self.process is not None
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()
        return int(children[0])

    @property
    def key(self) -> str:
        """`ssh-ed25519 AAAA…`"""
        return " ".join((self.root / "etc/host_key.pub").read_text().split()[:2])

    @property
    def known(self) -> str:
        """Its line of a known_hosts file."""
        return f"{self.address if self.port == 22 else f'[{self.address}]:{self.port}'} {self.key}\n"

    @property
    def fingerprint(self) -> str:
        done = subprocess.run(
            ["ssh-keygen", "-lf", str(self.root / "etc/host_key.pub")], capture_output=True, text=True, check=True
        )
        return done.stdout.split()[1]

    # ------------------------------------------------------------ life

    def make(self) -> None:
        for folder in ("etc", "home", "bin"):
            (self.root / folder).mkdir(parents=True)
        os.chown(self.root / "home", self.uid, self.uid)
        (self.root / "home").chmod(0o755)
        for name, line in (
            ("passwd", f"{USER}:x:{self.uid}:{self.uid}::/home/ann:{self.shell}\n"),
            ("shadow", f"{USER}:*:19000::::::\n"),
            ("group", f"{USER}:x:{UID}:\n"),
        ):
            known = [one for one in Path(f"/etc/{name}").read_text().splitlines() if not one.startswith(f"{USER}:")]
            (self.root / "etc" / name).write_text("\n".join((*known, line)))
        (self.root / "etc/authorized_keys").write_text(self.lab.key.with_suffix(".pub").read_text())
        (self.root / "etc").chmod(0o755)
        self.new_key()
        self.new_machine()
        self.new_boot()

    def new_key(self) -> None:
        """Another host key; a running server has it from its next start."""
        for name in ("host_key", "host_key.pub"):
            (self.root / "etc" / name).unlink(missing_ok=True)
        subprocess.run(
            ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "", "-f", str(self.root / "etc/host_key")], check=True
        )

    def new_machine(self) -> None:
        (self.root / "etc/machine-id").write_text(f"{uuid.uuid4().hex}\n")

    def new_boot(self) -> None:
        (self.root / "etc/boot-id").write_text(f"{uuid.uuid4()}\n")

    def pass_time(self, seconds: int) -> None:
        """Its uptime stands still but for this, from before its start. In place: it is mounted there."""
        path = self.root / "etc/uptime"
        was = (path if path.exists() else Path("/proc/uptime")).read_text().split()[0]
        with path.open("r+" if path.exists() else "w") as file:
            file.write(f"{float(was) + seconds:.2f} 1.00\n")
            file.truncate()

    def start(self) -> None:
        settings = {"PATH": "/mnt/bin:/usr/bin:/bin", **self.environment}
        listen = "0.0.0.0" if self.networks else self.address  # noqa: S104
        (self.root / "etc/sshd_config").write_text(
            CONFIG.format(
                port=self.port,
                address=listen,
                root=self.root,
                environment=" ".join(f"{name}={value}" for name, value in settings.items()),
            )
        )
        self.boot_from(BOOT)

    def boot_from(self, program: str) -> None:
        """It becomes the host."""
        (self.root / "boot.sh").write_text(program)
        links = " ".join(f"eth{number}={address}" for number, address in enumerate(self.addresses))
        self.process = subprocess.Popen(
            [
                "setpriv",
                "--pdeathsig",
                "KILL",
                "unshare",
                "--mount",
                "--uts",
                "--pid",
                *(["--net"] if links else []),
                "--fork",
                "--kill-child",
                "--mount-proc",
                "sh",
                str(self.root / "boot.sh"),
            ],
            env={
                "PATH": os.environ["PATH"],
                "ROOT": str(self.root),
                "NAME": self.name,
                "LINKS": links,
                "SMALL": self.small,
            },
            start_new_session=True,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
        )
        if links:
            self._plug_in()
        until(self._listens, patience=120)

    def _plug_in(self) -> None:
        assert self.process is not None
        ours, theirs = Path("/proc/self/ns/net"), Path(f"/proc/{self.process.pid}/ns/net")
        until(lambda: os.readlink(theirs) != os.readlink(ours))
        for number, network in enumerate(self.networks):
            link = self._link(number)
            # The same card after a reboot: whoever spoke to it need not ask for it anew.
            card = "02:" + ":".join(f"{int(part):02x}" for part in (*self.addresses[number].split("."), "1"))
            ip("link", "add", link, "type", "veth", "peer", "name", f"eth{number}", "address", card,
               "netns", str(self.process.pid))  # fmt: skip
            ip("link", "set", link, "master", network.bridge, "up")

    def _link(self, number: int) -> str:
        return f"{self.networks[number].bridge}h{self.addresses[number].rpartition('.')[2]}"

    def _listens(self) -> bool:
        assert self.process is not None
        assert self.process.poll() is None, f"{self.name} did not start: {(self.root / 'sshd.log').read_text()}"
        if self.networks and not self.networks[0].routed:
            return "listening" in (self.root / "sshd.log").read_text() if (self.root / "sshd.log").exists() else False
        try:
            with socket.create_connection((self.address, self.port), timeout=1) as dialled:
                return dialled.recv(4) == b"SSH-"
        except OSError:
            return False

    def stop(self) -> None:
        """Off, with everything that ran there."""
        if self.process is not None:
            self.process.kill()
            self.process.wait(timeout=120)
            self.process = None
            # A namespace lives as long as what was sent and not acknowledged: its links do not wait for that.
            for number in range(len(self.networks)):
                subprocess.run(["ip", "link", "del", self._link(number)], capture_output=True, check=False)
                until(lambda number=number: not Path(f"/sys/class/net/{self._link(number)}").exists())

    def reboot(self) -> None:
        self.stop()
        self.new_boot()
        self.start()

    def restart(self) -> None:
        """The same boot, another sshd with what was changed: everything that ran there is gone all the same."""
        self.stop()
        self.start()

    # ------------------------------------------------------------ faults

    def cut(self) -> None:
        for number in range(len(self.networks)):
            ip("link", "set", self._link(number), "down")

    def mend(self) -> None:
        for number in range(len(self.networks)):
            ip("link", "set", self._link(number), "up")

    def program(self, name: str, text: str) -> None:
        """A program of that name, first on the host's PATH."""
        path = self.root / "bin" / name
        path.write_text(text)
        path.chmod(0o755)

    def processes(self) -> list[str]:
        """Command lines of everything that runs there."""
        found = []
        for entry in Path(f"/proc/{self._inside()}/root/proc").glob("[0-9]*"):
            with suppress(OSError):
                found.append((entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip())
        return found

    def pids(self, name: str) -> set[int]:
        """Of its processes with that name, as it counts."""
        found = set()
        for entry in Path(f"/proc/{self._inside()}/root/proc").glob("[0-9]*"):
            with suppress(OSError):
                if (entry / "comm").read_text().strip() == name:
                    found.add(int(entry.name))
        return found


@dataclass(kw_only=True)
class Lab:
    """Hosts and networks of one test. `key` is the login's private key."""

    root: Path
    hosts: list[SshHost] = field(default_factory=list)
    networks: list[Network] = field(default_factory=list)

    @property
    def key(self) -> Path:
        return self.root / "login_key"

    def host(
        self,
        name: str,
        *,
        networks: tuple[Network, ...] = (),
        small: str = "",
        login_shell: str = "/bin/sh",
        start: bool = True,
        environment: dict[str, str] | None = None,
        uid: int = UID,
    ) -> SshHost:
        """On the loopback address with a port of its own, or with an address of its own in each of `networks`."""
        addresses = tuple(network.address() for network in networks)
        made = SshHost(
            lab=self,
            name=name,
            root=self.root / name,
            networks=networks,
            addresses=addresses,
            small=small,
            shell=login_shell,
            address=addresses[0] if addresses else "127.0.0.1",
            port=22 if addresses else free_port(),
            environment=environment or {},
            uid=uid,
        )
        self.hosts.append(made)
        made.make()
        if start:
            made.start()
        return made

    def network(self, *, routed: bool = True) -> Network:
        for number in range(1, 250):
            bridge = f"dsb{number}"
            if any(Path("/sys/class/net").glob(f"{bridge}h*")):  # of a lab that was killed, not gone yet
                continue
            done = subprocess.run(["ip", "link", "add", bridge, "type", "bridge"], capture_output=True, check=False)
            if done.returncode == 0:
                break
        else:
            raise AssertionError("no bridge is free")
        made = Network(bridge=bridge, prefix=f"10.213.{number}", routed=routed)
        self.networks.append(made)
        ip("link", "set", bridge, "alias", f"dstack-tests {leftovers.who(os.getpid())}")
        ip("link", "set", bridge, "up")
        if routed:
            ip("addr", "add", f"{made.prefix}.1/24", "dev", bridge)
        return made

    def close(self) -> None:
        for host in self.hosts:
            with suppress(AssertionError):
                host.stop()
        for network in self.networks:
            ip("link", "del", network.bridge)


@contextmanager
def a_lab(root: Path) -> Iterator[Lab]:
    """Nothing of it outlives the block."""
    _sweep()
    root.mkdir(parents=True, exist_ok=True)
    lab = Lab(root=root)
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "", "-f", str(lab.key)], check=True)
    try:
        yield lab
    finally:
        lab.close()


def _sweep() -> None:
    """Bridges of test sessions that were killed."""
    for alias in Path("/sys/class/net").glob("dsb*/ifalias"):
        with suppress(OSError, ValueError):
            word, *maker = alias.read_text().split()
            if word == "dstack-tests" and leftovers.dead(maker):
                subprocess.run(["ip", "link", "del", alias.parent.name], capture_output=True, check=False)


def ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True)


@contextmanager
def silent_server(address: str = "127.0.0.1") -> Iterator[int]:
    """The port of a server that accepts and never says a word."""
    with socket.socket() as server:
        server.bind((address, 0))
        server.listen(64)
        yield server.getsockname()[1]


NVIDIA_SMI = r"""#!/bin/sh
# Answers as nvidia-smi does, from files: GPUS has `uuid, name, memory, capability`, APPS `uuid, pid, memory`.
here=/mnt/bin
case "$*" in
    *query-gpu=uuid,name*) cat $here/GPUS ;;
    *query-gpu=uuid*) cut -d, -f1 $here/GPUS ;;
    *query-compute-apps*) cat $here/APPS 2>/dev/null ;;
    *) echo "| NVIDIA-SMI 550.54   Driver Version: 550.54.14    CUDA Version: $(cat $here/CUDA) |" ;;
esac
"""


def give_gpus(host: SshHost, *, count: int, cuda: str = "12.4", apps: str = "") -> None:
    host.program("nvidia-smi", NVIDIA_SMI)
    lines = [f"GPU-{number:08d}, NVIDIA A100-SXM4-80GB, 81920, 8.0" for number in range(count)]
    (host.root / "bin/GPUS").write_text("".join(f"{line}\n" for line in lines))
    (host.root / "bin/CUDA").write_text(cuda)
    (host.root / "bin/APPS").write_text(apps)


def declared(host: SshHost, **changes: Any) -> Host:
    """As its pool's document would say it."""
    given: dict[str, Any] = {
        "name": host.name, "hostname": host.address, "port": host.port, "user": USER,
        "identity_file": str(host.lab.key), "host_key": host.key, "disk_floor": 0, **changes,
    }  # fmt: skip
    return Host(**given)


def document(lab: Lab, *hosts: SshHost, more: str = "", pool: str = "") -> str:
    """A project whose pool has these hosts. `more` are further items of `hosts`, `pool` further keys of the pool."""
    items = [f"{{hostname: {one.address}, port: {one.port}, name: {one.name}, host_key: {one.key}}}" for one in hosts]
    items += [more] if more else []
    return f"""\
project: {{name: demo, id: demo12345678}}
pools:
  - name: lab
    default: true
    disk_floor: 0GB
    {pool}
    ssh:
      user: {USER}
      identity_file: {lab.key}
      hosts: [{", ".join(items)}]
"""


def task(name: str, *commands: str, more: str = "") -> str:
    """A run that any host fits."""
    lines = "".join(f"  - {json.dumps(one)}\n" for one in commands)
    return f"""\
type: task
name: {name}
resources: {{cpu: 1.., memory: 0.1GB.., disk: 0GB..}}
{more}
commands:
{lines}"""
