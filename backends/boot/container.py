"""Render the start command of a machine that is a container: self-termination timer, host key and login, sshd. Pure.

The text is POSIX sh, to be the container's first process (`sh -c TEXT`), as root. It needs no systemd. It stays, so
that the container lives as long as it does: the timer is its child, with the environment that the vendor gives the
first process alone. At TERM it tells the jobs of an interruption, sends TERM to all processes and waits for them.
"""

from __future__ import annotations

import hashlib
from importlib.resources import files

from backends.boot.cloud_init import plain_word
from backends.boot.spec import BASE, FOLDER, Boot, DeadMan
from schemas.backend_type import BackendType
from schemas.backend_types import UNKNOWN
from schemas.launch import Request

ROOT = "root"
"""Who logs in: many images of containers have no program that adds a user."""
RUN = "/run/dstack"
"""What is of this start alone: `incarnation`, `sshd.pid`, `sshd.port`."""
END_ITSELF = "kill -TERM 1\n"
"""Where the end of the first process is the end of the machine."""


def render(boot: Boot, *, request: Request, kind: BackendType = UNKNOWN, port: int = 22) -> str:
    """Give the start command of `request`'s containers, of that type; sshd listens on `port`.

    Its only secret is the host key, good until the first contact has replaced it. Raises `ValueError` where the text is
    longer than the type takes, or where another user than root is to log in.
    """
    if boot.user != ROOT:
        raise ValueError(f"a container's login is {ROOT}, not {boot.user}")
    text = _TEXT.format(
        what=f"project {plain_word(request.project)}, launch {plain_word(request.launch)}",
        arm=_arm(boot.deadman, kind=kind),
        base=BASE,
        run=RUN,
        folder=FOLDER,
        port=port,
        private=boot.host_key_private.strip(),
        public=boot.host_key_public,
        keys="\n".join(boot.authorized_keys),
    )
    if len(text.encode()) > kind.user_data_limit:
        raise ValueError(f"a start command of {len(text.encode())} bytes: {kind.user_data_limit} are the most")
    return text


def arming(deadman: DeadMan, *, kind: BackendType = UNKNOWN) -> str:
    """What root runs on such a machine whose timer was stopped or changed: all of it anew, and a first check at once.

    Where the timer's loop was killed, another one begins, that has the environment of a login: a program of the type
    that ends the machine with a key from the first process's environment then fails, which the next refresh shows.
    """
    return f"umask 022\nhome=$(echo ~{ROOT})\n{_arm(deadman, kind=kind)}check\nbegin_timer > /dev/null 2>&1\n"


def _arm(deadman: DeadMan, *, kind: BackendType) -> str:
    ends = kind.power_off_program if kind.power_off_program != UNKNOWN.power_off_program else END_ITSELF
    made = {
        f"{BASE}/deadman.sh": files("backends.boot").joinpath("deadman.sh").read_text("utf-8"),
        f"{BASE}/poweroff": ends,
        f"{BASE}/timer": _TIMER,
    }
    return _ARM.format(
        base=BASE,
        folder=FOLDER,
        first=deadman.first,
        grace=deadman.grace,
        puts="".join(f"put {path} << 'END-OF-DSTACK'\n{text}END-OF-DSTACK\n" for path, text in made.items()),
        sums="\n".join(f"{hashlib.sha256(text.encode()).hexdigest()}  {path}" for path, text in made.items()),
    )


_TIMER = f"while sleep 60; do sh {BASE}/deadman.sh check {BASE}; done\n"
_ARM = """\
put() {{ cat > "$1.new" && mv -f "$1.new" "$1"; }} # whole or not at all
check() {{ sh {base}/deadman.sh check {base}; }}
begin_timer() {{ # where none runs
    {{ read -r loop < {base}/loop; }} 2> /dev/null && grep -qs {base}/timer "/proc/$loop/cmdline" && return
    sh {base}/timer < /dev/null &
    echo $! > {base}/loop
}}
mkdir -p {base}
{puts}{{ echo "first {first}" && echo "grace {grace}" && echo "host $home/{folder}"; }} | put {base}/conf
{{
    cat << 'END-OF-DSTACK'
{sums}
END-OF-DSTACK
    sha256sum {base}/conf
}} | put {base}/sums
[ -f {base}/memory ] && [ -s {base}/memory ] || {{ rm -rf {base}/memory && printf '%-511s\\n' '' > {base}/memory; }}
"""
_TEXT = """\
# dstack: {what}
umask 022
home=$(echo ~root)
say() {{ echo "dstack: $1" >&2; }}

# Which start of this container it is: it shares the boot and the uptime of its kernel with its machine.
mkdir -p {run} {base}
read -r uptime _ < /proc/uptime
read -r incarnation < /proc/sys/kernel/random/uuid
echo "$incarnation ${{uptime%%.*}}" > {base}/incarnation
echo "$incarnation" > {run}/incarnation

# The timer, before anything can fail; as our child, it has what the vendor tells the first process alone.
rm -f {base}/loop
{arm}check
begin_timer

ends() {{ # told to end: so is everything here, and it has the time that we are given
    trap '' TERM
    true > "$home/{folder}/notice" # what ends now was interrupted
    kill -TERM -1
    while kill -0 -1 2> /dev/null; do sleep 0.2 2> /dev/null || sleep 1; done
    exit 0
}}
trap ends TERM INT

# The host key, once: the first contact puts another in its place.
mkdir -p /etc/ssh /run/sshd "$home/.ssh"
if [ ! -s /etc/ssh/dstack_host_key ]; then
    (umask 077 && put /etc/ssh/dstack_host_key) << 'END-OF-DSTACK'
{private}
END-OF-DSTACK
    echo '{public}' | put /etc/ssh/dstack_host_key.pub
fi

# Who logs in, and our folder there: its presence says that all of this was done.
chmod 700 "$home/.ssh" && true >> "$home/.ssh/authorized_keys"
while read -r key; do
    grep -qxF "$key" "$home/.ssh/authorized_keys" || echo "$key" >> "$home/.ssh/authorized_keys"
done << 'END-OF-DSTACK'
{keys}
END-OF-DSTACK
chmod 600 "$home/.ssh/authorized_keys"
# What the image sets for its programs; nothing else of the environment, which may hold the vendor's keys.
of_image='PATH|LD_LIBRARY_PATH|LIBRARY_PATH|LANG|LC_[A-Z]+|VIRTUAL_ENV|(CUDA|NVIDIA|NCCL|CONDA|PYTHON)[A-Z_]*'
env | grep -E "^($of_image)=" > "$home/.ssh/environment"
chmod 600 "$home/.ssh/environment"
rm -f "$home/{folder}/notice"
[ -d "$home/{folder}" ] || {{
    rm -rf "$home/{folder}.new" && mkdir -m 700 "$home/{folder}.new"
    ln -sfn {base} "$home/{folder}.new/deadman"
    for file in lease cleaned; do printf '%-255s\\n' '' > "$home/{folder}.new/$file"; done
    mv "$home/{folder}.new" "$home/{folder}"
}}

# No other key is offered, and no other file says what holds.
put /etc/ssh/dstack_sshd_config << 'END-OF-DSTACK'
Port {port}
HostKey /etc/ssh/dstack_host_key
HostKeyAlgorithms ssh-ed25519
PidFile {run}/sshd.pid
AuthorizedKeysFile .ssh/authorized_keys
PermitRootLogin prohibit-password
PasswordAuthentication no
KbdInteractiveAuthentication no
PermitUserEnvironment yes
X11Forwarding no
MaxSessions 100
MaxStartups 100:30:300
StrictModes no
Subsystem sftp internal-sftp
END-OF-DSTACK
echo {port} > {run}/sshd.port

find_sshd() {{
    sshd=$(PATH=$PATH:/usr/sbin:/usr/local/sbin && command -v sshd)
    [ -n "$sshd" ]
}}
install_sshd() {{ # by whatever the image has
    say 'this image has no sshd: installing it'
    export DEBIAN_FRONTEND=noninteractive
    if command -v apt-get; then
        apt-get update && apt-get install -y --no-install-recommends openssh-server
    elif command -v apk; then apk add --no-cache openssh-server
    elif command -v microdnf; then microdnf install -y openssh-server
    elif command -v dnf; then dnf install -y openssh-server
    else return 1; fi > /dev/null 2>&1
}}
find_sshd || {{ install_sshd && find_sshd; }} ||
    say 'there is no sshd, and none can be installed: this container cannot be reached, and its timer ends it'
grep -qs '^sshd:' /etc/passwd || [ ! -w /etc/passwd ] || echo 'sshd:x:22:22::/var/empty:/bin/false' >> /etc/passwd
! grep -qs '^root:!' /etc/shadow || sed -i 's/^root:[^:]*:/root:*:/' /etc/shadow # no password, and not locked

# Both are begun again whenever they end. We stay: our end is the end of the container.
server=''
while :; do
    begin_timer
    if [ -n "$sshd" ] && ! {{ [ -n "$server" ] && kill -0 "$server"; }} 2> /dev/null; then
        "$sshd" -D -e -f /etc/ssh/dstack_sshd_config < /dev/null &
        server=$!
    fi
    sleep 5 &
    wait $!
done
"""
