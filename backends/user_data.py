"""What cloud-init runs on a machine of ours, as POSIX sh: the dead-man timer first, then the host key and the login.

A boothook: cloud-init runs it before anything else that could fail or hang, at every boot. A machine on which all the
rest of it failed is reached by nobody, and ends by its timer. Pure: the same in, the same text out.
"""

from __future__ import annotations

import shlex
from importlib.resources import files

from backends.boot import BASE, FOLDER, Boot
from schemas.launch import Request

MOST = 16 * 1024
"""Bytes that EC2 takes, before they are encoded."""
SERVICE = f"""\
[Unit]
Description=dstack: power this machine off when nobody needs it any more
DefaultDependencies=no
After=local-fs.target
Conflicts=shutdown.target
Before=shutdown.target

[Service]
Type=oneshot
ExecStart=/bin/sh {BASE}/deadman.sh check {BASE}
TimeoutStartSec=60
"""
# The first time at once: a machine that restarts within the minute again and again must not live for ever.
TIMER = """\
[Unit]
Description=dstack: ask every minute whether anybody needs this machine
DefaultDependencies=no
Conflicts=shutdown.target
Before=shutdown.target

[Timer]
OnActiveSec=5s
OnUnitActiveSec=1min
AccuracySec=5s

[Install]
WantedBy=timers.target
"""
# $1 is how often it was tried before: who hangs while shutting down is cut off.
POWEROFF = """\
if [ "$1" -le 3 ]; then systemctl poweroff || poweroff || shutdown -h now
else systemctl poweroff --force --force || poweroff -f || echo o > /proc/sysrq-trigger; fi
"""


def render(boot: Boot, *, request: Request) -> str:
    """The user data of `request`: its only secret is the host key, good until the first contact has replaced it."""
    text = _TEXT.format(
        what=f"project {_word(request.project)}, launch {_word(request.launch)}",
        base=BASE,
        user=shlex.quote(boot.user),
        folder=FOLDER,
        conf=f"first {boot.deadman.first}\ngrace {boot.deadman.grace}",
        deadman=files("backends").joinpath("deadman.sh").read_text("utf-8"),
        poweroff=POWEROFF,
        service=SERVICE,
        timer=TIMER,
        private=boot.host_key_private.strip(),
        public=boot.host_key_public,
        keys="\n".join(boot.authorized_keys),
    )
    if len(text.encode()) > MOST:
        raise ValueError(f"user data of {len(text.encode())} bytes: {MOST} are the most")
    return text


def _word(text: str) -> str:
    """Into a comment: nothing in it may end the line."""
    return "".join(char for char in text if char.isalnum() or char in "-_.")


_TEXT = """\
#cloud-boothook
#!/bin/sh
# dstack: {what}
umask 022
ask() {{ timeout 30 systemctl "$@"; }} # one that hangs must not be what it all hangs on
put() {{ cat > "$1.new" && mv -f "$1.new" "$1"; }} # whole or not at all

# The timer, before anything can fail.
mkdir -p {base} /etc/systemd/system/timers.target.wants
put {base}/deadman.sh << 'END-OF-DSTACK'
{deadman}END-OF-DSTACK
put {base}/poweroff << 'END-OF-DSTACK'
{poweroff}END-OF-DSTACK
[ -f {base}/conf ] || put {base}/conf << 'END-OF-DSTACK'
{conf}
END-OF-DSTACK
[ -s {base}/memory ] || printf '%-511s\\n' '' > {base}/memory
put /etc/systemd/system/dstack-deadman.service << 'END-OF-DSTACK'
{service}END-OF-DSTACK
put /etc/systemd/system/dstack-deadman.timer << 'END-OF-DSTACK'
{timer}END-OF-DSTACK
# The link is what enabling makes; the calls tell a systemd that runs already, and wait for nothing: it waits for us.
ln -sf ../dstack-deadman.timer /etc/systemd/system/timers.target.wants/dstack-deadman.timer
ask daemon-reload
ask enable dstack-deadman.timer
ask --no-block start dstack-deadman.timer || {{ # no systemd: a loop does it, begun at every boot as we are
    (while sleep 60; do sh {base}/deadman.sh check {base}; done) < /dev/null > /dev/null 2>&1 &
}}

# The host key, once: the first contact puts another in its place.
if [ ! -s /etc/ssh/dstack_host_key ]; then
    mkdir -p /etc/ssh
    (umask 077 && put /etc/ssh/dstack_host_key) << 'END-OF-DSTACK'
{private}
END-OF-DSTACK
    echo '{public}' | put /etc/ssh/dstack_host_key.pub
fi
# What stands first in its configuration counts. No other key is offered.
if ! grep -qsx '# dstack' /etc/ssh/sshd_config; then
    {{
        printf '%s\\n' '# dstack' 'HostKey /etc/ssh/dstack_host_key' 'HostKeyAlgorithms ssh-ed25519' ''
        cat /etc/ssh/sshd_config
    }} | put /etc/ssh/sshd_config
    ask --no-block try-restart ssh.service sshd.service
fi

# Who logs in, and our folder there: its presence says that all of this was done.
user={user}
id "$user" > /dev/null 2>&1 || useradd --create-home --shell /bin/sh "$user"
usermod -p '*' "$user" # no password, and not locked
[ ! -d /etc/sudoers.d ] || echo "$user ALL=(ALL) NOPASSWD:ALL" | (umask 227 && put /etc/sudoers.d/90-dstack)
for group in docker podman; do
    ! getent group $group > /dev/null || usermod -aG $group "$user"
done
mkdir -p /var/lib/systemd/linger && true > "/var/lib/systemd/linger/$user" # its jobs outlive our visits
home=$(getent passwd "$user" | cut -d: -f6)
echo "host $home/{folder}" | cat {base}/conf - | sort -u | put {base}/conf
mkdir -p "$home/.ssh" && chmod 700 "$home/.ssh" && true >> "$home/.ssh/authorized_keys"
while read -r key; do
    grep -qxF "$key" "$home/.ssh/authorized_keys" || echo "$key" >> "$home/.ssh/authorized_keys"
done << 'END-OF-DSTACK'
{keys}
END-OF-DSTACK
chmod 600 "$home/.ssh/authorized_keys" && chown -R "$user:" "$home/.ssh"
[ -d "$home/{folder}" ] || {{
    rm -rf "$home/{folder}.new" && mkdir -m 700 "$home/{folder}.new"
    ln -sfn {base} "$home/{folder}.new/deadman"
    for file in lease cleaned; do printf '%-255s\\n' '' > "$home/{folder}.new/$file"; done
    chown -R "$user:" "$home/{folder}.new" && mv "$home/{folder}.new" "$home/{folder}"
}}
"""
