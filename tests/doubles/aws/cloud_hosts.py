"""Machines of a cloud for tests: their own address, accounts, /etc and boot, brought up by the real user data.

What is not real about them: systemd is a small stand-in that notes what it was asked, reloads the real sshd, and tells
of the timer what it was told; a test plays the timer, with the command of the unit that is there; uptime is a file that
a test moves; and the stand-in, asked to power the machine off, touches a file.
"""

from __future__ import annotations

import shutil
import subprocess
import uuid
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from tests.doubles.hosts.ssh_hosts import OWN_SCRATCH, Lab, SshHost
from tests.doubles.hosts.ssh_hosts import why_not as no_hosts

PATH = "/usr/local/sbin:/usr/sbin:/usr/bin:/sbin:/bin"

BOOT = r"""
set -eu
PATH=%s
mount --make-rprivate /
%s
mount -t tmpfs none /run && mkdir -p /run/sshd
mount --bind "$ROOT/etc" /etc
mount -t tmpfs none /var/lib && mkdir /var/lib/dstack
mount --bind "$ROOT/dstack" /var/lib/dstack
mount --bind "$ROOT/homes" /home
# Where `useradd` writes too.
for own in /var/mail /var/log; do [ ! -d $own ] || mount -t tmpfs none $own; done
mount --bind "$ROOT/bin" /usr/local/sbin
mount --bind "$ROOT/boot-id" /proc/sys/kernel/random/boot_id
mount --bind "$ROOT/uptime" /proc/uptime
mount --bind "$ROOT/bin" /usr/local/bin
[ ! -e /proc/sysrq-trigger ] || mount --bind /dev/null /proc/sysrq-trigger
hostname "$NAME"
ip link set lo up
for link in $LINKS; do
    device=${link%%=*}
    until ip link show "$device" > /dev/null 2>&1; do sleep 0.02; done
    ip addr add "${link#*=}/24" dev "$device"
    ip link set "$device" up
done
sh "$ROOT/user-data" > "$ROOT/user-data.log" 2>&1 || echo "user data: exit $?" >> "$ROOT/user-data.log"
exec /usr/sbin/sshd -D -e $OPTIONS -o UsePAM=no -o PidFile=/run/sshd.pid -o UseDNS=no 2> "$ROOT/sshd.log"
""".replace("%s", PATH, 1).replace("%s", OWN_SCRATCH, 1)

SYSTEMCTL = r"""#!/bin/sh
# A stand-in: there is no systemd in a namespace. Only what it is asked to reload is real.
echo "$*" >> /var/lib/dstack/systemctl.log
unit=/etc/systemd/system/dstack-deadman enabled=/etc/systemd/system/timers.target.wants/dstack-deadman.timer
case "$*" in
    "reload ssh.service") kill -HUP "$(cat /run/sshd.pid)" ;;
    poweroff*) touch /var/lib/dstack/off ;;
    *"start dstack-deadman.timer") [ -f $unit.timer ] && touch /run/ticking ;;
    "start dstack-deadman.service") sh -c "$(sed -n 's/^ExecStart=//p' $unit.service)" ;;
    "enable dstack-deadman.timer") ln -sf ../dstack-deadman.timer $enabled ;;
    "stop dstack-deadman.timer") rm -f /run/ticking ;;
    "disable dstack-deadman.timer") rm -f $enabled ;;
    "show "*dstack-deadman.timer)
        load=loaded active=inactive file=disabled
        [ -e $unit.timer ] || load=not-found file=
        [ "$(readlink $unit.timer)" != /dev/null ] || load=masked file=masked
        [ $load != loaded ] || [ ! -L $enabled ] || file=enabled
        [ ! -f /run/ticking ] || active=active
        printf 'LoadState=%s\nActiveState=%s\nUnitFileState=%s\n' $load $active $file
        ;;
esac
"""


DATE = r"""#!/bin/sh
# The date of a host whose time a test has moved.
exec /usr/bin/date --date="@$(($(/usr/bin/date +%s) + OFFSET))" "$@"
"""


@cache
def why_not() -> str:
    missing = [tool for tool in ("sudo", "useradd", "usermod", "getent", "ssh-keyscan") if not shutil.which(tool)]
    return no_hosts() or (f"not installed here: {', '.join(missing)}" if missing else "")


@dataclass(kw_only=True)
class CloudHost(SshHost):
    """`up` is its uptime in seconds, `user_data` what it boots with."""

    user_data: str = ""
    up: int = 100
    options: str = ""
    ahead: int = 0

    def make(self) -> None:
        for folder in ("homes", "bin", "dstack"):
            (self.root / folder).mkdir(parents=True)
        shutil.copytree("/etc", self.root / "etc", symlinks=True)
        for key in (self.root / "etc/ssh").glob("ssh_host_*key*"):
            key.unlink()
        self.program("systemctl", SYSTEMCTL)
        # Processes tell their begin by the real uptime: it is brought to before the one that the host is told.
        since = float(Path("/proc/uptime").read_text().split()[0])
        self.program("getconf", f"#!/bin/sh\necho {int(since * 100 / (self.up / 2)) + 1}\n")
        self.new_machine()
        self.new_boot()
        self.pass_time(0)

    def new_boot(self) -> None:
        (self.root / "boot-id").write_text(f"{uuid.uuid4()}\n")

    def start(self) -> None:
        (self.root / "user-data").write_text(self.user_data)
        self.boot_from(BOOT.replace("$OPTIONS", self.options))

    def restart_with(self, options: str) -> None:
        """Of its sshd."""
        self.options = options
        self.restart()

    def pass_time(self, seconds: int) -> None:
        """In place: it is mounted there."""
        self.up += seconds
        self.ahead += seconds
        self.program("date", DATE.replace("OFFSET", str(self.ahead)))
        with (self.root / "uptime").open("r+" if (self.root / "uptime").exists() else "w") as file:
            file.write(f"{self.up}.00 1.00\n")
            file.truncate()

    def check(self) -> bool:
        """What the timer does each minute, where it runs: the command of its unit; true where that powers off."""
        off = self.root / "dstack/off"
        off.unlink(missing_ok=True)
        self.enter("sh", "-c", "[ ! -f /run/ticking ] || systemctl start dstack-deadman.service")
        return off.exists()

    def enter(self, *argv: str) -> str:
        """As root, inside."""
        done = subprocess.run(
            ["nsenter", "--target", str(self._inside()), "--mount", "--pid", "--net", "--uts", *argv],
            capture_output=True,
            text=True,
            timeout=60,
            check=True,
            env={"PATH": PATH},
        )
        return done.stdout

    @property
    def shown(self) -> str:
        """The host key that its server shows; "" while it shows none."""
        said = subprocess.run(
            ["ssh-keyscan", self.address], capture_output=True, text=True, timeout=30, check=False
        ).stdout
        keys = {" ".join(line.split()[1:3]) for line in said.splitlines() if not line.startswith("#")}
        assert len(keys) <= 1, f"more than one key is offered: {keys}"
        return keys.pop() if keys else ""

    @property
    def login_home(self) -> Path:
        return self.root / "homes/dstack"


def cloud_host(lab: Lab, name: str, *, user_data: str, start: bool = True) -> CloudHost:
    """On a network of the lab's, port 22."""
    if not lab.networks:
        lab.network()
    networks = (lab.networks[0],)
    made = CloudHost(
        lab=lab,
        name=name,
        root=lab.root / name,
        networks=networks,
        addresses=(networks[0].address(),),
        port=22,
        address="",
        user_data=user_data,
    )
    made.address = made.addresses[0]
    lab.hosts.append(made)
    made.make()
    if start:
        made.start()
    return made
