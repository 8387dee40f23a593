"""The way to a bought machine: a real sshd that the real user data set up, with accounts and an /etc of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pytest
from msgspec.structs import replace

from backends.aws.access import access
from backends.boot.cloud_init import render
from backends.boot.spec import FOLDER
from reconciler.app.connections import transports
from reconciler.hosts.boot_keys import boot_of, endorsement, host_key_of
from reconciler.hosts.runner import Fenced, Unreachable, Untrusted
from reconciler.hosts.session.base import SessionRefused
from reconciler.hosts.session.open import open_door
from reconciler.hosts.shell_runner import HostRunner
from reconciler.hosts.ssh.cloud_hosts import Accessing
from reconciler.hosts.ssh.config import Here
from reconciler.hosts.ssh.connections import Lines
from reconciler.hosts.ssh.declared_hosts import SshReach
from reconciler.hosts.ssh.pinned import Patience
from reconciler.secrets.project_key import ProjectKey
from reconciler.state.pending_effects import keys_digest
from schemas.access import Way
from schemas.backend_types import UNKNOWN
from schemas.host import Jump
from schemas.instance import HostReport, Instance
from schemas.lease import Lease
from schemas.resources import Resources
from tests.backends.boot.test_boot import KEY, REQUEST
from tests.doubles.aws.cloud_hosts import CloudHost, cloud_host, why_not
from tests.doubles.hosts.real_host import until
from tests.doubles.hosts.ssh_hosts import Lab, a_lab

pytestmark = pytest.mark.skipif(bool(why_not()), reason=why_not() or "-")
LAUNCH = REQUEST.launch
DERIVED = host_key_of(KEY, LAUNCH).public


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    with a_lab(tmp_path_factory.mktemp("cloud") / "lab") as made:
        yield made


def born(lab: Lab, name: str) -> CloudHost:
    return cloud_host(lab, name, user_data=render(boot_of(KEY, LAUNCH), request=REQUEST))


@pytest.fixture(scope="module")
def host(lab: Lab) -> CloudHost:
    """One that was met; tests put back what they change."""
    made = born(lab, "met")
    Reconciler(lab).look(an_instance(made))
    return made


@pytest.fixture
def fresh(lab: Lab, request: pytest.FixtureRequest) -> Iterator[CloudHost]:
    made = born(lab, f"f{len(lab.hosts)}")
    yield made
    made.stop()


def an_instance(host: CloudHost, **changes: object) -> Instance:
    made = Instance(
        id=f"{LAUNCH}-0",
        name="cloud-0",
        pool="cloud",
        backend="aws",
        place="aws/eu-west-1",
        region="eu-west-1",
        resources=Resources(cpus=1, memory=1024),
        launch=LAUNCH,
        external_id="i-0abc",
        address=host.address,
        phase="ready",
    )
    return replace(made, **changes)


class Reconciler:
    """A process of its own: it knows what the state says and no more."""

    def __init__(self, lab: Lab, *, key: ProjectKey = KEY, access: Accessing = access) -> None:
        patience = Patience(dial=3, banner=3, login=5, tunnel=5)
        self.lines = Lines(Here(root=lab.root, home=lab.root), patience=patience)
        self.reach = SshReach(lambda: self.lines, who="ann@laptop", key=lambda: key, access=access)
        self.runner = HostRunner(transports({}, self.reach), shown=self.reach.shown, seal=self.reach.seal)

    def look(self, instance: Instance) -> HostReport:
        return self.runner.look(instance, now=1790000000)

    def run(self, instance: Instance, program: str) -> str:
        return transports({}, self.reach)(instance).run(program).out.decode()


# ---------------------------------------------------------------- its birth


def test_user_data_brings_it_up_with_the_timer_first(host: CloudHost) -> None:
    assert (host.root / "user-data.log").read_text() == ""
    asked = (host.root / "dstack/systemctl.log").read_text().splitlines()
    assert asked[:3] == ["daemon-reload", "enable dstack-deadman.timer", "--no-block start dstack-deadman.timer"]
    enabled = host.root / "etc/systemd/system/timers.target.wants/dstack-deadman.timer"
    assert os.readlink(enabled) == "../dstack-deadman.timer"
    assert (host.root / "etc/systemd/system/dstack-deadman.service").is_file()


def test_whatever_fails_after_it_the_timer_is_armed(lab: Lab) -> None:
    """No account, no home, no systemd that answers: nobody gets in, and it ends by itself."""
    text = render(boot_of(KEY, LAUNCH), request=REQUEST)
    for command in ("useradd --create-home", "getent passwd", "ask daemon-reload", "ask enable"):
        assert command in text
        text = text.replace(command, "false")
    made = cloud_host(lab, "broken", user_data=text)
    assert Reconciler(lab).look(an_instance(made)).error
    made.pass_time(1499 - made.up)
    assert not made.check()
    made.pass_time(1)
    assert made.check()
    made.stop()


def test_its_first_contact_replaces_its_host_key(fresh: CloudHost, lab: Lab) -> None:
    assert fresh.shown == DERIVED
    one = an_instance(fresh)
    report = Reconciler(lab).look(one)
    assert report.error == ""
    assert report.host_key not in ("", DERIVED)
    assert report.host_key == fresh.shown
    again = Reconciler(lab).look(replace(one, host_key=report.host_key))
    assert (again.error, again.host_key) == ("", report.host_key)


def test_a_reboot_keeps_the_new_key_and_makes_nothing_twice(fresh: CloudHost, lab: Lab) -> None:
    """cloud-init runs a boothook at every boot."""
    pin = Reconciler(lab).look(an_instance(fresh)).host_key
    keys, config = fresh.login_home / ".ssh/authorized_keys", fresh.root / "etc/ssh/sshd_config"
    before = (keys.read_text(), config.read_text(), (fresh.root / "dstack/conf").read_text())
    fresh.reboot()
    assert fresh.shown == pin
    assert (keys.read_text(), config.read_text(), (fresh.root / "dstack/conf").read_text()) == before
    assert Reconciler(lab).look(an_instance(fresh, host_key=pin)).error == ""


# ---------------------------------------------------------------- its timer, and who stops it


@dataclass
class Guarded:
    """A machine that is up for long, whose timer ran a moment ago. Jobs are the login, and that may become root."""

    host: CloudHost
    us: Reconciler
    one: Instance

    def look(self, *, lease: Lease | None = None) -> HostReport:
        report = self.us.runner.look(self.one, now=1790000000, lease=lease)
        assert report.error == ""
        return report

    def enter_folder(self, name: str) -> list[str]:
        return sorted(path.name for path in (self.host.login_home / FOLDER / name).iterdir())

    def as_job(self, program: str) -> None:
        self.us.run(self.one, program)


@pytest.fixture(scope="module")
def guarded(lab: Lab) -> Iterator[Guarded]:
    made, us = born(lab, "guarded"), Reconciler(lab)
    made.pass_time(1000)
    one = an_instance(made, host_key=us.look(an_instance(made)).host_key)
    known = Guarded(made, us, one)
    known.look(lease=Lease(rule="unattended", span=86400, hold=60))
    assert not made.check()
    yield known
    made.stop()


UNIT = "/etc/systemd/system/dstack-deadman"
STOPS = {
    "stop": ("systemctl stop dstack-deadman.timer", "was stopped"),
    "disable": ("systemctl disable dstack-deadman.timer", "is disabled"),
    "mask": (f"ln -sf /dev/null {UNIT}.timer", "was changed"),
    "remove its units": (f"rm {UNIT}.timer {UNIT}.service", "was changed"),
    "remove it": ("rm -r /var/lib/dstack/deadman.sh", "is not there any more"),
    "another program": ("echo exit 0 > /var/lib/dstack/deadman.sh", "was changed"),
    "another power-off": ("echo true > /var/lib/dstack/poweroff", "was changed"),
    "more grace": ("sed -i s/900/9000000/ /var/lib/dstack/conf", "was changed"),
    "once a year": (f"mkdir {UNIT}.timer.d; echo OnUnitActiveSec=1y > {UNIT}.timer.d/a.conf", "has not run for more"),
    "a memory of the future": ("sed -i '1s/[0-9]*$/9999999/' /var/lib/dstack/memory", "tells of a time"),
    "no memory": ("rm /var/lib/dstack/memory; mkfifo /var/lib/dstack/memory", "has not run for more"),
}


@pytest.mark.parametrize("deed", STOPS)
def test_a_timer_that_a_job_stopped_is_noticed_and_armed_again(deed: str, guarded: Guarded) -> None:
    does, words = STOPS[deed]
    guarded.as_job(f'sudo -n sh -c "{does}"')
    guarded.host.pass_time(700 if "has not run" in words else 30)
    report = guarded.look()
    assert report.disarmed.startswith(f"dead-man timer {words}")
    assert report.self_destruct_at is None
    guarded.us.runner.arm(guarded.one, generation=1, kind=UNKNOWN)
    report = guarded.look()
    assert report.disarmed == ""
    assert report.self_destruct_at is not None
    assert not guarded.host.check()
    assert not (guarded.host.root / "etc/systemd/system/dstack-deadman.timer.d").exists()


def test_a_busy_machine_and_one_that_just_booted_raise_no_alarm(guarded: Guarded) -> None:
    host = guarded.host
    host.check()
    host.pass_time(590)
    assert guarded.look().disarmed == ""
    host.enter("systemctl", "stop", "dstack-deadman.timer")
    host.new_boot()  # its uptime begins anew, what is remembered is of the boot before, and nothing of it runs yet
    host.pass_time(20 - host.up)
    assert guarded.look().disarmed == ""
    host.enter("systemctl", "restart", "dstack-deadman.timer")
    host.pass_time(500)
    assert guarded.look().disarmed == "", "the first check may be late"
    host.pass_time(500)
    assert guarded.look().disarmed.startswith("dead-man timer has not run")
    assert not host.check()
    assert guarded.look().disarmed == ""


@pytest.mark.parametrize(
    "deed", ["rm lease deadman", "rm lease; mkfifo lease", "rm lease; ln -s /etc/passwd lease", "rm lease; mkdir lease"]
)
def test_a_job_cannot_do_away_with_its_lease_alone(deed: str, guarded: Guarded) -> None:
    """The file is the login's own: without it the machine would neither tell nor hear of a lease."""
    guarded.as_job(deed)
    report = guarded.look(lease=Lease(rule="unattended", span=5 * 86400, hold=60))
    assert report.self_destruct_at == 1790000000 + 5 * 86400
    assert (guarded.host.login_home / FOLDER / "lease").read_text().split()[2] == "unattended"


# ---------------------------------------------------------------- its fence, and who writes another


def test_what_a_job_writes_of_a_generation_is_no_seal_of_ours(guarded: Guarded) -> None:
    runner, one = guarded.us.runner, guarded.one
    runner.admit(one, (), generation=7)
    assert (guarded.look().generation, guarded.look().claimed) == (7, 0)
    forged = "$(ls | sed -n 's/^7[.]/9./p') $(ls | sed -n 's/^7[.].*/9.&/p')"
    guarded.as_job(f"cd fence && touch 8 99999999999999 0 {forged}")
    report = guarded.look()
    assert (report.generation, report.claimed) == (7, 99_999_999_999_999)
    with pytest.raises(Fenced) as refused:
        runner.admit(one, (), generation=8)
    assert refused.value.claimed == 99_999_999_999_999
    report = guarded.look(lease=Lease(rule="unattended", span=86400, hold=60))  # an apply's look
    assert report.claimed == 99_999_999_999_999, "it is told once"
    assert (guarded.look().generation, guarded.look().claimed) == (7, 0)
    runner.admit(one, (), generation=8)
    assert guarded.look().generation == 8
    with pytest.raises(Fenced) as refused:
        runner.admit(one, (), generation=7)
    assert refused.value.claimed == 0, "this one is proven"
    assert len(guarded.enter_folder("fence")) <= 2


def test_a_seal_is_of_one_instance(guarded: Guarded) -> None:
    other = replace(guarded.one, id="l-abd-0")
    guarded.us.runner.admit(other, (), generation=20)
    assert (guarded.look().generation, guarded.look().claimed) == (0, 20)
    guarded.look(lease=Lease(rule="unattended", span=86400, hold=60))


# ---------------------------------------------------------------- died in between


def test_one_that_died_before_it_wrote_the_pin_down(fresh: CloudHost, lab: Lab) -> None:
    """The machine shows a key that nobody wrote down, and vouches for it with what only the project's key can make."""
    pin = Reconciler(lab).look(an_instance(fresh)).host_key
    report = Reconciler(lab).look(an_instance(fresh))
    assert (report.error, report.host_key) == ("", pin)


@pytest.mark.parametrize("stage", ["mv -f $key.endorsed.new", "mv -f $key.next $key ", "systemctl reload ssh.service"])
def test_one_that_died_before_the_new_key_was_in_force(stage: str, fresh: CloudHost, lab: Lab) -> None:
    """Made; vouched for; in its place, and its server was not told."""
    fresh.restart_with("-r")  # a server that reads its keys but once
    made = fresh.enter("sh", "-c", program("make", DERIVED)).strip()
    assert fresh.enter("sh", "-c", program("make", DERIVED)).strip() == made
    vouched = endorsement(KEY, launch=LAUNCH, instance=f"{LAUNCH}-0", host_key=made)
    cut = program("take", DERIVED, made, vouched)
    assert stage in cut
    with pytest.raises(subprocess.CalledProcessError):
        fresh.enter("sh", "-c", cut.replace(stage, "kill -9 $$; "))
    assert fresh.shown == DERIVED
    report = Reconciler(lab).look(an_instance(fresh))
    assert (report.error, report.host_key) == ("", made)
    assert fresh.shown == made


def program(*args: str) -> str:
    text = Path("reconciler/hosts/programs/rotate.sh")
    whole = (Path(__file__).parents[2] / text).read_text()
    return f"set -- {' '.join(repr(arg) for arg in args)}\n{whole}"


def test_two_that_meet_it_at_once_pin_the_same_key(fresh: CloudHost, lab: Lab) -> None:
    both = [Reconciler(lab) for _ in range(3)]
    with ThreadPoolExecutor(3) as pool:
        reports = list(pool.map(lambda one: one.look(an_instance(fresh)), both))
    reports += [Reconciler(lab).look(an_instance(fresh))]
    pins = {report.host_key for report in reports if not report.error}
    assert pins == {fresh.shown}


# ---------------------------------------------------------------- somebody else


@pytest.fixture
def turned(host: CloudHost) -> Iterator[CloudHost]:
    """It shows a key of somebody's; the login still works there."""
    folder, own = host.root / "etc/ssh", host.shown
    kept = {name: (folder / name).read_bytes() for name in ("dstack_host_key", "dstack_host_key.endorsed")}
    (folder / "other").unlink(missing_ok=True)
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(folder / "other")], check=True)
    (folder / "other").rename(folder / "dstack_host_key")
    host.enter("systemctl", "reload", "ssh.service")
    until(lambda: host.shown == key_of(folder / "other.pub"))
    yield host
    for name, data in kept.items():
        (folder / name).write_bytes(data)
    host.enter("systemctl", "reload", "ssh.service")
    until(lambda: host.shown == own)


def key_of(path: Path) -> str:
    return " ".join(path.read_text().split()[:2])


def test_a_machine_with_another_key_is_never_used(turned: CloudHost, lab: Lab) -> None:
    """Whether its own is written down or not, and whatever it says for itself."""
    shown = turned.shown
    pinned = an_instance(turned, host_key=DERIVED)
    endorsed = turned.root / "etc/ssh/dstack_host_key.endorsed"
    lies = [
        endorsed.read_text(),  # of the key that it had
        f"{shown} {endorsement(ProjectKey(b'x' * 32), launch=LAUNCH, instance=f'{LAUNCH}-0', host_key=shown)}\n",
        f"{shown} {endorsement(KEY, launch=LAUNCH, instance=f'{LAUNCH}-1', host_key=shown)}\n",  # of its sister
        "", "\0\n" * 2000,
    ]  # fmt: skip
    for lie in lies:
        endorsed.write_text(lie)
        for one in (an_instance(turned), pinned):
            report = Reconciler(lab).look(one)
            assert report.untrusted
            assert "host key of another machine" in report.error
            assert report.host_key == ""


def test_without_the_projects_own_key_it_is_not_visible(host: CloudHost, lab: Lab) -> None:
    """It counts against nobody: neither as one in between, nor as unreachable."""
    other = Reconciler(lab, key=ProjectKey(b"y" * 32))
    for one in (an_instance(host, host_key=host.shown), an_instance(host)):
        report = other.look(one)
        assert report.not_visible
        assert not report.untrusted
        assert "get `.dstack/keys/project.key`" in report.error


def test_one_that_no_launch_of_ours_made_is_not_met(host: CloudHost, lab: Lab) -> None:
    with pytest.raises(Untrusted, match="no launch of ours"):
        Reconciler(lab).reach.cloud.line(an_instance(host, launch=""))


# ---------------------------------------------------------------- ways


STAND_IN = """\
import os, socket, sys, threading
open({log!r}, "a").write(repr(sys.argv[1:]) + "\\n")
if "i-gone" in sys.argv:
    sys.exit("An error occurred (TargetNotConnected): i-gone is not connected.")
server = socket.create_connection(({address!r}, 22))
def out():
    while data := server.recv(65536):
        os.write(1, data)
    os._exit(0)
threading.Thread(target=out, daemon=True).start()
while data := os.read(0, 65536):
    server.sendall(data)
"""


@pytest.fixture
def vendor(host: CloudHost, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A program that leads to the machine, whatever instance it is asked for; it writes down what that was."""
    code = STAND_IN.format(log=str(tmp_path / "log"), address=host.address)
    (tmp_path / "aws.py").write_text(code)
    for name in ("aws", "session-manager-plugin"):
        (tmp_path / name).write_text(f'#!/bin/sh\nexec {sys.executable} {tmp_path}/aws.py "$@"\n')
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    return tmp_path / "log"


CONNECT = ["ec2-instance-connect", "open-tunnel", "--instance-id", "i-0abc", "--remote-port", "22"]
SESSION = [
    "ssm", "start-session", "--target", "i-0abc", "--document-name", "AWS-StartSSHSession",
    "--parameters", "portNumber=22",
]  # fmt: skip


@pytest.mark.parametrize(
    ("way", "asked"),
    [
        (Way(mode="program", name="instance-connect"), [*CONNECT, "--region", "eu-west-1"]),
        (Way(mode="program", name="ssm", profile="a b"), [*SESSION, "--region", "eu-west-1", "--profile", "a b"]),
    ],
)
def test_a_tunnel_of_its_cloud_leads_there(way: Way, asked: list[str], host: CloudHost, lab: Lab, vendor: Path) -> None:
    """Pinned as ever: the tunnel is only a way."""
    one = an_instance(host, host_key=host.shown, way=way, address="")
    us = Reconciler(lab)
    assert us.run(one, "id -un; pwd").split() == ["dstack", f"/home/dstack/{FOLDER}"]
    us.lines.close()
    assert vendor.read_text() == f"{asked!r}\n"
    report = Reconciler(lab).look(replace(one, host_key=DERIVED))
    assert report.untrusted


def test_what_the_tunnel_says_of_itself_is_told(host: CloudHost, lab: Lab, vendor: Path) -> None:
    report = Reconciler(lab).look(
        an_instance(host, host_key=host.shown, external_id="i-gone", way=Way(mode="program", name="ssm"), address="")
    )
    assert report.not_visible
    assert "i-gone is not connected" in report.error


@pytest.mark.parametrize(("mode", "said"), [("instance-connect", "AWS CLI, version 2"), ("ssm", "AWS CLI, version 2")])
def test_a_missing_program_is_ours_and_says_what_to_install(mode: str, said: str, host: CloudHost, lab: Lab) -> None:
    one = an_instance(host, host_key=host.shown, way=Way(mode="program", name=mode))
    elsewhere = tuple((f"/nowhere/{name}", how) for name, how in access(one.way, one).needs)
    report = Reconciler(lab, access=lambda way, one: replace(access(way, one), needs=elsewhere)).look(one)
    assert report.not_visible
    assert said in report.error


def test_over_a_jump_of_ours(host: CloudHost, lab: Lab) -> None:
    """Into which one logs in with one's own key, not the project's."""
    jump = lab.host("jump", networks=(lab.networks[0],))
    way = Way(mode="jump", jump=Jump(hostname=jump.address, user="ann", identity_file=str(lab.key), host_key=jump.key))
    one = an_instance(host, host_key=host.shown, way=way)
    assert Reconciler(lab).run(one, "id -un").strip() == "dstack"
    jump.cut()
    report = Reconciler(lab).look(one)
    assert report.not_visible
    assert "jump" in report.error
    jump.mend()
    jump.stop()


def test_programs_and_ports_through_its_door(host: CloudHost, lab: Lab) -> None:
    us = Reconciler(lab)
    door = open_door(an_instance(host, host_key=host.shown), reach=us.reach, environ={})
    session = door.run("pwd; cat", args=())
    session.write(b"hello\n")
    session.end_input()
    said = b"".join(iter(lambda: session.read(1000), b""))
    assert said.decode().split() == [f"/home/dstack/{FOLDER}", "hello"]
    stream = door.dial(22)
    assert stream.recv(4) == b"SSH-"
    stream.close()
    with pytest.raises(SessionRefused):
        door.dial(1)


def test_one_without_an_address_is_not_reached_yet(host: CloudHost, lab: Lab) -> None:
    with pytest.raises(Unreachable, match="no address yet"):
        Reconciler(lab).reach.host_of(an_instance(host, address="", external_id=""))


# ---------------------------------------------------------------- who may log in


def test_the_documents_keys_come_and_go_in_a_block_of_their_own(host: CloudHost, lab: Lab) -> None:
    us, one = Reconciler(lab), an_instance(host, host_key=host.shown)
    file = host.login_home / ".ssh/authorized_keys"
    file.write_text(file.read_text() + "ssh-ed25519 AAAAhand by hand\n")
    by_hand = file.read_text()
    ann = f"{key_of(lab.key.with_suffix('.pub'))} ann"
    assert us.look(one).authorized == ""
    us.runner.admit(one, (ann, "ssh-ed25519 AAAA bob's"), generation=1)
    assert us.look(one).authorized == keys_digest((ann, "ssh-ed25519 AAAA bob's"))
    assert logs_in(host, lab.key)
    us.runner.admit(one, ("ssh-ed25519 AAAA bob's",), generation=1)
    assert not logs_in(host, lab.key)
    us.runner.admit(one, (), generation=2)
    assert us.look(one).authorized == ""
    assert file.read_text() == f"{by_hand}# dstack: begin\n# dstack: end\n"
    with pytest.raises(Fenced):
        us.runner.admit(one, (ann,), generation=1)
    assert oct(file.stat().st_mode)[-3:] == "600"


def logs_in(host: CloudHost, key: Path) -> bool:
    done = subprocess.run(
        [
            "ssh",
            "-i",
            str(key),
            "-o",
            "BatchMode=yes",
            "-o",
            "StrictHostKeyChecking=no",
            "-o",
            "IdentitiesOnly=yes",
            "-o",
            "UserKnownHostsFile=/dev/null",
            "-F",
            "/dev/null",
            f"dstack@{host.address}",
            "true",
        ],
        capture_output=True,
        timeout=30,
        check=False,
    )
    return done.returncode == 0
