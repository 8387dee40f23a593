"""From a launch to its end, and past it: EC2 is the strict double, its machines are real, with the user data it got.

Ticks, first contact, jobs, leases and the dead-man's program are all real. The test maps an instance of the double to a
machine in a namespace, moves the time of everybody at once, and tells the double of a power-off.
"""

from __future__ import annotations

import base64
import dataclasses
import tarfile
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from urllib.request import urlopen

import pytest
from msgspec.structs import replace

from backends.base import Backend
from reconciler.app.connections import transports
from reconciler.engine.ports import Ports
from reconciler.hosts.boot_keys import boot_of, host_key_of
from reconciler.hosts.shell_runner import HostRunner
from reconciler.hosts.ssh.config import Here
from reconciler.hosts.ssh.connections import Lines
from reconciler.hosts.ssh.declared_hosts import SshReach
from reconciler.state.observe.listings import POWERED_OFF
from reconciler.store.blobs.folder import FolderBlobs
from schemas.desired import BackendConfig, Desired
from schemas.instance import Instance, Seen
from schemas.pool import Pool
from schemas.profile import Retry
from schemas.run import Run
from tests.backends.aws.test_backend import account  # noqa: F401  # a fixture
from tests.backends.boot.test_boot import KEY
from tests.cli.test_attach import attached, ssh
from tests.doubles.aws.aws_double import Account
from tests.doubles.aws.aws_world import Around, AwsPlaces, sold
from tests.doubles.aws.cloud_hosts import CloudHost, cloud_host, why_not
from tests.doubles.commands.command import Folder
from tests.doubles.hosts.real_host import until
from tests.doubles.hosts.ssh_hosts import Lab, a_lab
from tests.worlds.world import PROJECT, Clock, Site, apply, cron, task

pytestmark = pytest.mark.skipif(bool(why_not()), reason=why_not() or "-")
REGION = "eu-west-1"
HOUR = 3600
AWS = BackendConfig(name="aws", type="aws", regions=(REGION,))


class Mapped:
    """The double's place; the addresses of its instances are those of machines that there are."""

    def __init__(self, inner: Backend, hosts: dict[str, CloudHost]) -> None:
        self._inner, self._hosts = inner, hosts

    def __getattr__(self, name: str) -> object:
        return getattr(self._inner, name)

    def instances(self, ids: Sequence[str] | None = None) -> Sequence[Seen]:
        return [self._there(one) for one in self._inner.instances(ids)]

    def _there(self, one: Seen) -> Seen:
        host = self._hosts.get(one.external_id)
        return replace(one, address=host.address) if host else replace(one, address="")


@dataclass
class Cloud:
    """One project in one region."""

    lab: Lab
    account: Account
    site: Site
    hosts: dict[str, CloudHost] = field(default_factory=dict)

    def __post_init__(self) -> None:
        clock = self.site.clock.clock
        around = Around(project=PROJECT, lineage="", now=clock, boot=lambda launch: boot_of(KEY, launch))
        self.places = AwsPlaces(account=self.account, around=around)
        self.site.connect = self.connect  # type: ignore[method-assign, assignment]
        self.site.bundle = self.bundle  # type: ignore[method-assign]
        fresh, blobs = self.site.ports, FolderBlobs(self.site.scratch / "blobs")

        def ports(**who: str) -> Ports:
            return dataclasses.replace(
                fresh(**who),
                runner=self.runner(),
                blobs=blobs,
                regions=lambda config: (REGION,),
                catalog=lambda desired: sold(REGION),
            )

        self.site.ports = ports  # type: ignore[method-assign]

    def connect(self, config: BackendConfig, region: str, lineage: str) -> Mapped:
        self.account.set(ahead=round(self.site.clock.at - time.time()))
        return Mapped(self.places.place(region, lineage=lineage), self.hosts)

    def runner(self) -> HostRunner:
        """Another process each time: nothing is remembered but the state."""
        lines = Lines(Here(root=self.lab.root, home=self.lab.root))
        reach = SshReach(lambda: lines, who="ann@laptop", key=lambda: KEY)
        return HostRunner(transports({}, reach), scratch=self.site.scratch, shown=reach.shown, seal=reach.seal)

    def bundle(self, root: Path, files: tuple[str, ...] | None, never: tuple[str, ...] = ()) -> Path:
        packed = Path(tempfile.mkdtemp(dir=self.site.scratch), "bundle")
        with tarfile.open(packed, "w:gz"):
            pass
        return packed

    # ------------------------------------------------------------ what happens

    def boot(self) -> CloudHost:
        """The one machine that EC2 was asked for, with the user data that it was given."""
        ec2 = self.account.client()
        (reservation,) = ec2.describe_instances()["Reservations"]
        (external_id,) = [one["InstanceId"] for one in reservation["Instances"]]
        told = ec2.describe_instance_attribute(InstanceId=external_id, Attribute="userData")["UserData"]["Value"]
        made = cloud_host(self.lab, f"c{len(self.lab.hosts)}", user_data=base64.b64decode(told).decode())
        self.hosts[external_id] = made
        return made

    def pass_time(self, seconds: int) -> None:
        self.site.clock.at += seconds
        for host in self.hosts.values():
            host.pass_time(seconds)

    def fires(self) -> bool:
        """A minute's check of the timer; what it powers off is off, as EC2 has it for machines of ours."""
        ((external_id, host),) = self.hosts.items()
        if not host.check():
            return False
        host.stop()
        self.account.power_off(external_id)
        return True

    @property
    def instance(self) -> Instance:
        (one,) = self.site.state.instances
        return one

    @property
    def run(self) -> Run:
        (one,) = self.site.state.runs
        return one


@pytest.fixture
def cloud(tmp_path: Path, account: Account) -> Iterator[Cloud]:  # noqa: F811
    with a_lab(tmp_path / "lab") as lab:
        yield Cloud(lab, account, Site(tmp_path, clock=Clock(at=time.time())))


def documents(*commands: str, **pool: object) -> Desired:
    commands = commands or ("echo $DSTACK_RUN_NAME > out.txt",)
    made = Pool(name="cloud", default=True, **{"idle_duration": 300, "hold": 2 * HOUR, **pool})
    retry = Retry(no_capacity=True, interruption=True, error=True, duration=HOUR)
    run = replace(task("train", pool="cloud", retry=retry), commands=commands,
                  artifacts=("out.txt",), max_duration=HOUR)  # fmt: skip
    return Desired(project=PROJECT, project_name="demo", backends=(AWS,), pools=(made,), runs=(run,))


def started(cloud: Cloud, *commands: str) -> CloudHost:
    """Launched, met, and its job handed over: two ticks."""
    apply(cloud.site, documents(*commands))
    host = cloud.boot()
    told = cron(cloud.site)
    assert cloud.run.status == "running", (told.outcomes, told.warnings, told.plan.unmet)
    return host


def ended(host: CloudHost) -> None:
    until(lambda: list((host.login_home / ".dstack-host/jobs").glob("*/end")))


def test_a_whole_life(cloud: Cloud) -> None:
    host = started(cloud)
    one = cloud.instance
    assert one.host_key == host.shown != host_key_of(KEY, one.launch).public
    assert one.self_destruct_at is not None
    assert cloud.run.status == "running"
    ended(host)
    cron(cloud.site)
    assert (cloud.run.status, cloud.run.exit_code) == ("done", 0)
    assert list((host.login_home / ".dstack-host/jobs").iterdir()) == []

    cloud.pass_time(200)
    left = host.enter("cat", "/home/dstack/.dstack-host/lease")
    cron(cloud.site)
    assert host.enter("cat", "/home/dstack/.dstack-host/lease") != left
    assert not host.check()

    cloud.pass_time(150)
    cron(cloud.site)
    cron(cloud.site)
    assert (cloud.instance.phase, cloud.instance.reason) == ("terminated", "idle for 5m (default)")
    states = [one["State"]["Name"] for one in instances(cloud)]
    assert states == ["terminated"]


def test_a_person_follows_and_enters_what_runs_there(cloud: Cloud, tmp_path: Path) -> None:
    """The real commands, of whoever has the project's key and the state."""
    host = started(cloud, "echo begun", "python3 -m http.server --bind 127.0.0.1 8000 > server.log 2>&1")
    folder = Folder(tmp_path / "project")
    folder.write(".dstack/project.yml", f"project: {{name: demo, id: {PROJECT}}}\n")
    folder.write(f".dstack/state/{PROJECT}.yml", cloud.site.store.data.decode()).chmod(0o600)
    folder.write(".dstack/keys/project.key", base64.b64encode(bytes(range(32))).decode()).chmod(0o600)
    for name in ("state", "keys"):
        (folder.root / ".dstack" / name).chmod(0o700)
    assert folder.dstack("logs", "train").out == "begun\n"
    with attached(folder, "train", "-p", "*:8000") as here:
        port = here.local_port(8000)
        until(lambda: ssh(tmp_path / "home", "train", "id -un; ls").stdout == b"dstack\nserver.log\n")
        until(lambda: b"Directory listing" in fetched(port))
        here.detach()
    copied = folder.dstack("cp", "train:server.log", "copied.log")
    assert b"GET /" in (folder.root / "copied.log").read_bytes(), copied.said
    (folder.root / ".dstack/keys/project.key").unlink()
    refused = folder.dstack("cp", "train:server.log", "again.log")
    assert refused.code == 1
    assert "not visible from here: " in refused.said
    assert "DSTACK_PROJECT_KEY" in refused.said
    host.stop()


def fetched(port: int) -> bytes:
    try:
        with urlopen(f"http://127.0.0.1:{port}/", timeout=5) as answer:
            return bytes(answer.read())
    except OSError:
        return b""


def instances(cloud: Cloud) -> list[dict[str, dict[str, str]]]:
    found = cloud.account.client().describe_instances()["Reservations"]
    return [one for reservation in found for one in reservation["Instances"]]


def test_nobody_comes_any_more_and_a_result_is_aboard(cloud: Cloud) -> None:
    host = started(cloud)
    ended(host)
    assert not cloud.fires()  # the minute in which it sees the end
    cloud.pass_time(2 * HOUR - 60)
    assert not cloud.fires()
    cloud.pass_time(120)
    assert cloud.fires()
    cron(cloud.site)
    cron(cloud.site)
    assert cloud.instance.phase == "terminated"
    assert cloud.instance.reason.startswith(POWERED_OFF)
    assert (cloud.run.status, cloud.run.reason) == ("failed", "result lost")
    assert len(instances(cloud)) == 1, "it was tried again in silence"


def test_nobody_comes_any_more_and_nothing_is_aboard(cloud: Cloud) -> None:
    host = started(cloud)
    ended(host)
    cron(cloud.site)
    assert cloud.run.status == "done"
    cloud.pass_time(300 + 900 - 30)
    assert not cloud.fires()
    cloud.pass_time(90)
    assert cloud.fires()
    cron(cloud.site)
    cron(cloud.site)
    assert cloud.instance.phase == "terminated"
    assert cloud.instance.reason.startswith(POWERED_OFF)
    assert cloud.run.status == "done"


def test_a_job_stops_the_timer_and_nobody_comes_any_more(cloud: Cloud) -> None:
    """Noticed by the next tick, which arms it again; from then on it fires as if nothing had been."""
    host = started(cloud, "sudo -n systemctl stop dstack-deadman.timer", "sudo -n rm /var/lib/dstack/deadman.sh")
    ended(host)
    cloud.pass_time(250)
    told = cron(cloud.site)
    assert any("cloud-0: its dead-man timer" in one and "armed again" in one for one in told.warnings)
    assert cloud.instance.disarmed == ""
    assert not cloud.fires(), "it ticks again, and it is not time yet"
    cloud.pass_time(300 + 900 + 60)
    assert cloud.fires()


def test_nobody_ever_comes(cloud: Cloud) -> None:
    """Killed between RunInstances and everything after; who only looks, as `plan --refresh` does, changes nothing."""
    apply(cloud.site, documents())
    host = cloud.boot()
    before = cloud.site.store.data
    cron(cloud.site, act=False)
    assert host.shown == host_key_of(KEY, cloud.instance.launch).public
    assert host.enter("cat", "/home/dstack/.dstack-host/lease").strip() == ""
    assert cloud.site.store.data == before
    cloud.pass_time(1300)
    assert not cloud.fires()
    cloud.pass_time(200)
    assert cloud.fires()
    assert [one["State"]["Name"] for one in instances(cloud)] == ["terminated"]
