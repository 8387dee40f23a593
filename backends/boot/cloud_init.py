"""Render user data for cloud-init, as POSIX sh: self-termination timer first, then host key and login.

A boothook: cloud-init runs it before anything else that could fail or hang, at every boot. A machine on which all the
rest of it failed is reached by nobody, and ends by its timer. Pure: the same in, the same text out.
"""

from __future__ import annotations

import hashlib
import shlex
from importlib.resources import files

from backends.boot.spec import BASE, FOLDER, Boot, DeadMan
from schemas.backend_type import BackendType
from schemas.backend_types import UNKNOWN
from schemas.launch import Request

TIMER_NAME = "dstack-deadman.timer"
_UNITS = "/etc/systemd/system"
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


def render(boot: Boot, *, request: Request, kind: BackendType = UNKNOWN) -> str:
    """Give the user data of `request`, for a machine of that type.

    Its only secret is the host key, good until the first contact has replaced it. Raises `ValueError` where the text is
    longer than the type takes.
    """
    text = _TEXT.format(
        what=f"project {plain_word(request.project)}, launch {plain_word(request.launch)}",
        arm=_arm(boot.deadman, user=boot.user, kind=kind),
        base=BASE,
        folder=FOLDER,
        private=boot.host_key_private.strip(),
        public=boot.host_key_public,
        keys="\n".join(boot.authorized_keys),
        present=(_WITH_ENGINE if request.engine else _AT_LAST).format(folder=FOLDER, base=BASE),
    )
    if len(text.encode()) > kind.user_data_limit:
        raise ValueError(f"user data of {len(text.encode())} bytes: {kind.user_data_limit} are the most")
    return text


def arming(deadman: DeadMan, *, user: str, kind: BackendType = UNKNOWN) -> str:
    """What root runs on a machine whose timer was stopped or changed: all of it anew, and a first check at once."""
    return _arm(deadman, user=user, kind=kind) + _AT_ONCE.format(base=BASE)


def _arm(deadman: DeadMan, *, user: str, kind: BackendType = UNKNOWN) -> str:
    made = {
        f"{BASE}/deadman.sh": files("backends.boot").joinpath("deadman.sh").read_text("utf-8"),
        f"{BASE}/poweroff": kind.power_off_program,
        f"{_UNITS}/dstack-deadman.service": SERVICE,
        f"{_UNITS}/{TIMER_NAME}": TIMER,
    }
    return _ARM.format(
        base=BASE,
        units=_UNITS,
        user=shlex.quote(user),
        folder=FOLDER,
        first=deadman.first,
        grace=deadman.grace,
        puts="".join(f"put {path} << 'END-OF-DSTACK'\n{text}END-OF-DSTACK\n" for path, text in made.items()),
        sums="\n".join(f"{hashlib.sha256(text.encode()).hexdigest()}  {path}" for path, text in made.items()),
    )


def plain_word(text: str) -> str:
    """Into a comment: nothing in it may end the line."""
    return "".join(char for char in text if char.isalnum() or char in "-_.")


_ARM = """\
umask 022
ask() {{ timeout 30 systemctl "$@"; }} # one that hangs must not be what it all hangs on
put() {{ cat > "$1.new" && mv -f "$1.new" "$1"; }} # whole or not at all
user={user}
configure() {{ # $1 the home of its login, "" before that is made; then what tells that nobody changed any of it
    {{ echo "first {first}" && echo "grace {grace}" && [ -z "$1" ] || echo "host $1/{folder}"; }} | put {base}/conf
    {{
        cat << 'END-OF-DSTACK'
{sums}
END-OF-DSTACK
        sha256sum {base}/conf
    }} | put {base}/sums
}}

# The timer, before anything can fail.
mkdir -p {base} {units}/timers.target.wants
{puts}configure "$(sed -n "s/^$user:\\([^:]*:\\)\\{{4\\}}\\([^:]*\\):.*/\\2/p" /etc/passwd)"
[ -f {base}/memory ] && [ -s {base}/memory ] || {{ rm -rf {base}/memory && printf '%-511s\\n' '' > {base}/memory; }}
rm -rf {units}/dstack-deadman.*.d {units}.control/dstack-deadman.* /run/systemd/*/dstack-deadman.*
# The link is what enabling makes; the calls tell a systemd that runs already, and wait for nothing: it waits for us.
ln -sf ../dstack-deadman.timer {units}/timers.target.wants/dstack-deadman.timer
ask daemon-reload
ask enable dstack-deadman.timer
ask --no-block start dstack-deadman.timer || {{ # no systemd: a loop does it, begun at every boot as we are
    (while sleep 60; do sh {base}/deadman.sh check {base}; done) < /dev/null > /dev/null 2>&1 &
}}
"""
_AT_ONCE = """\
ask restart dstack-deadman.timer
ask start dstack-deadman.service || sh {base}/deadman.sh check {base}
"""
_TEXT = """\
#cloud-boothook
#!/bin/sh
# dstack: {what}
{arm}
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
id "$user" > /dev/null 2>&1 || useradd --create-home --shell /bin/sh "$user"
usermod -p '*' "$user" # no password, and not locked
[ ! -d /etc/sudoers.d ] || echo "$user ALL=(ALL) NOPASSWD:ALL" | (umask 227 && put /etc/sudoers.d/90-dstack)
for group in docker podman; do
    ! getent group $group > /dev/null || usermod -aG $group "$user"
done
mkdir -p /var/lib/systemd/linger && true > "/var/lib/systemd/linger/$user" # its jobs outlive our visits
home=$(getent passwd "$user" | cut -d: -f6)
configure "$home"
mkdir -p "$home/.ssh" && chmod 700 "$home/.ssh" && true >> "$home/.ssh/authorized_keys"
while read -r key; do
    grep -qxF "$key" "$home/.ssh/authorized_keys" || echo "$key" >> "$home/.ssh/authorized_keys"
done << 'END-OF-DSTACK'
{keys}
END-OF-DSTACK
chmod 600 "$home/.ssh/authorized_keys" && chown -R "$user:" "$home/.ssh"
{present}"""
_AT_LAST = """\
[ -d "$home/{folder}" ] || {{
    rm -rf "$home/{folder}.new" && mkdir -m 700 "$home/{folder}.new"
    ln -sfn {base} "$home/{folder}.new/deadman"
    for file in lease cleaned; do printf '%-255s\\n' '' > "$home/{folder}.new/$file"; done
    chown -R "$user:" "$home/{folder}.new" && mv "$home/{folder}.new" "$home/{folder}"
}}
"""
# Containers are asked for. Installed by whoever outlives us, once cloud-init needs apt no more: to wait here would keep
# the machine from coming up. Until then, for at most five minutes, nobody is told that it is ready; whatever comes of
# it, it is used then, and its host tells what it has.
_WITH_ENGINE = (
    """\
engine() {{ command -v docker > /dev/null 2>&1 || command -v podman > /dev/null 2>&1; }}
present() {{
"""
    + "".join(f"    {line}\n" for line in _AT_LAST.splitlines())
    + """\
}}
if [ -d "$home/{folder}" ] || engine; then present
else
    (
        timeout 300 sh << 'END-OF-DSTACK'
command -v cloud-init && cloud-init status --wait
export DEBIAN_FRONTEND=noninteractive
if command -v apt-get; then
    apt-get -qq -o DPkg::Lock::Timeout=120 update
    apt-get -qq -o DPkg::Lock::Timeout=120 install -y --no-install-recommends docker.io || apt-get -qq install -y podman
elif command -v dnf; then dnf -q -y install docker || dnf -q -y install podman
fi
command -v docker && {{ systemctl enable --now docker || service docker start; }}
END-OF-DSTACK
        ! getent group docker > /dev/null || usermod -aG docker "$user"
        present
    ) < /dev/null > {base}/engine.log 2>&1 &
fi
"""
)
