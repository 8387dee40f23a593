"""A declared server as a place: its claim, its checks, who it is; on real OpenSSH servers."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backends.base import Backend
from backends.boot.spec import Boot
from backends.errors import BackendError, Behind, NoCapacity, TryLater
from backends.registry import connect
from backends.ssh.backend import Looked, look, owner_words, take_over
from backends.ssh.probe_facts import NotUnderstood, clock_check, network_check, read_probe
from reconciler.hosts.ssh.config import Here
from reconciler.hosts.ssh.connections import Lines
from reconciler.hosts.ssh.declared_hosts import SshReach
from reconciler.hosts.ssh.pinned import Patience
from reconciler.state.host_place import config_of
from schemas.backend_types import TYPES
from schemas.host import Host
from schemas.launch import Request
from schemas.resources import GpuNeed, Span, Where
from tests.contracts.backend_contract import FAR, BackendContract, BackendRig, living, no_boot
from tests.doubles.hosts.ssh_hosts import UID, Lab, SshHost, a_lab, declared, give_gpus, why_not

needs_hosts = pytest.mark.skipif(bool(why_not()), reason=why_not() or "-")


@dataclass(frozen=True)
class Setting:
    reach: SshReach
    project: str = "project1"
    lineage: str = "lineage1"
    state_address: str = "/state.yml"
    now: Callable[[], float] = time.time
    boot: Callable[[str], Boot] = no_boot


class SshRig:
    kind = TYPES["ssh"]
    project, lineage, room = "project1", "lineage1", 1

    def __init__(self, lab: Lab, host: Host) -> None:
        here = Here(root=lab.root, home=lab.root)
        self.host = host
        self.reach = SshReach(lambda: Lines(here, patience=Patience(dial=3, banner=3, login=5)), who="ann@laptop")

    def connect(self, *, lineage: str = "", project: str = "", host: Host | None = None) -> Backend:
        setting = Setting(self.reach, project=project or self.project, lineage=lineage or self.lineage)
        chosen = host or self.host
        return connect(config_of(chosen), chosen.region, setting)

    def settle(self) -> None:
        pass

    def checks(self, *, project: str = "project1") -> dict[str, tuple[bool | None, str]]:
        return {one.name: (one.ok, one.said) for one in self.look(project=project).checks}

    def look(self, *, project: str = "project1") -> Looked:
        return look(self.reach, self.host, project=project, now=time.time())


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    with a_lab(tmp_path_factory.mktemp("lab")) as made:
        yield made


@pytest.fixture
def server(lab: Lab, request: pytest.FixtureRequest) -> Iterator[SshHost]:
    made = lab.host(f"h{len(lab.hosts)}")
    yield made
    made.stop()


@pytest.fixture
def rig(lab: Lab, server: SshHost) -> SshRig:
    return SshRig(lab, declared(server))


def a_request(rig: SshRig, name: str, *, count: int = 1, project: str = "", lineage: str = "") -> Request:
    return Request(
        place=rig.host.place,
        launch=name,
        token=name,
        ids=tuple(f"{name}-{n}" for n in range(count)),
        names=tuple(f"lab-{n}" for n in range(count)),
        pool="pool",
        instance_type="ssh",
        lineage=lineage or rig.lineage,
        generation=1,
        project=project or rig.project,
        not_after=FAR,
    )


def attach(rig: SshRig, name: str, **changes: str) -> Backend:
    backend = rig.connect(**changes)
    backend.launch(a_request(rig, name, **changes))
    return backend


@needs_hosts
class TestContract(BackendContract):
    """One server is one instance: what the suite asks of several is asked of one."""

    kind = TYPES["ssh"]
    several = 1

    def test_offers_are_priced_and_of_this_place(self, rig: BackendRig) -> None:
        """There is none: whoever declared it has it."""
        assert rig.connect().offers((), Where()) == ()

    @pytest.fixture
    def rig(self, lab: Lab, server: SshHost) -> BackendRig:
        return SshRig(lab, declared(server))


# ---------------------------------------------------------------- the claim


@needs_hosts
def test_an_attached_server_is_listed_as_ours_with_what_it_has(rig: SshRig, server: SshHost) -> None:
    (seen,) = living(attach(rig, "l1"))
    assert (seen.id, seen.external_id, seen.pool, seen.network) == ("l1-0", "l1-0", "pool", "pool pool")
    assert seen.resources is not None
    assert seen.resources.cpus >= 1
    assert seen.machine_id == (server.root / "etc/machine-id").read_text().strip()
    assert seen.kernel.startswith("Linux ")


@needs_hosts
def test_what_we_make_there_is_one_private_folder(rig: SshRig, server: SshHost) -> None:
    attach(rig, "l1")
    (made,) = server.home.iterdir()
    assert made.name == ".dstack-hosts"
    for path in [made, *made.rglob("*")]:
        assert path.stat().st_mode & 0o077 == 0, path


@needs_hosts
def test_of_many_that_attach_at_once_one_has_it(rig: SshRig) -> None:
    def claim(number: int) -> str:
        try:
            attach(rig, f"l{number}", project=f"project{number % 3 + 1}")
        except BackendError as error:
            return type(error).__name__
        return "attached"

    with ThreadPoolExecutor(6) as pool:
        came = list(pool.map(claim, range(6)))
    assert came.count("attached") == 1


@needs_hosts
def test_another_projects_server_is_refused_by_name_with_its_last_tick(rig: SshRig) -> None:
    attach(rig, "theirs", project="project2")
    rig.connect(project="project2").instances()  # their tick
    with pytest.raises(BackendError, match=r"project project2 has it, attached as lab-0 by ann@laptop, last tick \d+s"):
        rig.connect().instances()
    with pytest.raises(BackendError, match="project project2 has it"):
        attach(rig, "l1")
    take_over(rig.reach, rig.host)
    assert [one.id for one in living(attach(rig, "l1"))] == ["l1-0"]


@needs_hosts
def test_another_copy_of_our_state_is_told_apart_and_left_alone(rig: SshRig) -> None:
    attach(rig, "l1", lineage="lineage2")
    (seen,) = rig.connect().instances()
    assert seen.lineage == "lineage2"
    with pytest.raises(BackendError, match="another copy of this project's state"):
        attach(rig, "l2")


@needs_hosts
def test_the_same_machine_under_another_name_is_attached_once(rig: SshRig) -> None:
    attach(rig, "l1")
    other = rig.connect(host=Host(**{**_fields(rig.host), "name": "alias"}))
    assert other.instances() == []
    with pytest.raises(NoCapacity, match="attached already, as lab-0"):
        other.launch(a_request(rig, "l2"))


def _fields(host: Host) -> dict[str, object]:
    return {name: getattr(host, name) for name in host.__struct_fields__}


@needs_hosts
def test_one_machine_with_two_host_keys_is_two_servers(lab: Lab, server: SshHost) -> None:
    """Homes and machine ids may be shared: containers on one machine, a home on NFS."""
    twin = lab.host(f"twin{len(lab.hosts)}", start=False)
    (twin.root / "etc/machine-id").write_text((server.root / "etc/machine-id").read_text())
    (twin.root / "home").rmdir()
    (twin.root / "home").symlink_to(server.root / "home")
    twin.start()
    first, second = SshRig(lab, declared(server)), SshRig(lab, declared(twin))
    attach(first, "l1")
    attach(second, "l2")
    assert [one.id for one in living(first.connect())] == ["l1-0"]
    assert [one.id for one in living(second.connect())] == ["l2-0"]
    assert first.connect().identity() != second.connect().identity()
    first.connect().terminate(["l1-0"])
    assert [one.id for one in living(second.connect())] == ["l2-0"]
    twin.stop()


@needs_hosts
def test_letting_go_leaves_nothing_and_is_told_until_it_was_heard(rig: SshRig, server: SshHost) -> None:
    """An answer may be lost on its way, and whoever plans writes nothing down."""
    attach(rig, "l1").terminate(["l1-0"])
    (server.home / "thesis.tex").write_text("mine")
    for _ in range(2):
        backend = rig.connect()
        assert [(one.id, one.phase) for one in backend.instances()] == [("l1-0", "ended")]
        backend.confirm_ended({"l1-0"})  # not written down as ended
    rig.connect(project="project2").instances()
    backend.confirm_ended(())
    assert rig.connect().instances() == []
    assert [path.name for path in server.home.iterdir()] == ["thesis.tex"]


@needs_hosts
def test_an_end_is_of_the_named_instance_and_project_alone(rig: SshRig) -> None:
    backend = attach(rig, "l1")
    backend.terminate(["l0-0"])
    rig.connect(project="project2").terminate(["l1-0"])
    assert [one.id for one in living(backend)] == ["l1-0"]


@needs_hosts
def test_the_word_of_an_end_is_of_its_project_alone(rig: SshRig) -> None:
    attach(rig, "l1").terminate(["l1-0"])
    other = attach(rig, "l2", project="project2")
    other.confirm_ended(())
    other.terminate(["l2-0"])
    assert [one.id for one in other.instances()] == ["l2-0"]
    other.confirm_ended(())
    assert [(one.id, one.phase) for one in rig.connect().instances()] == [("l1-0", "ended")]


@needs_hosts
def test_whoever_is_behind_lets_no_server_go(rig: SshRig, server: SshHost) -> None:
    backend = attach(rig, "l1")
    (fence,) = server.home.glob(".dstack-hosts/*/host")
    (fence / "fence").mkdir(exist_ok=True)
    (fence / "fence/7").touch()
    os.chown(fence / "fence", UID, UID)
    with pytest.raises(Behind, match="newer generation"):
        backend.terminate(["l1-0"], generation=6)
    with pytest.raises(Behind, match="newer generation"):
        backend.launch(a_request(rig, "l2"))
    assert [one.id for one in living(backend)] == ["l1-0"]
    backend.terminate(["l1-0"], generation=7)
    assert living(backend) == []


@needs_hosts
def test_a_claim_has_its_folder_even_where_the_one_before_was_removed_meanwhile(rig: SshRig, server: SshHost) -> None:
    """As where another lets go between the making of the folder and the claim."""
    server.program("ln", '#!/bin/sh\nrm -rf "${2%/claim}/host"\nexec /usr/bin/ln "$@"\n')
    attach(rig, "l1")
    (folder,) = server.home.glob(".dstack-hosts/*")
    assert (folder / "host").is_dir()
    (folder / "host").rmdir()
    attach(rig, "l1")
    assert (folder / "host").is_dir()


# ---------------------------------------------------------------- who it is


@needs_hosts
def test_identity_is_the_key_and_the_machine(rig: SshRig, server: SshHost) -> None:
    before = rig.connect().identity()
    assert before == f"{server.fingerprint} {(server.root / 'etc/machine-id').read_text().strip()}"
    server.new_machine()
    server.restart()
    assert rig.connect().identity() != before


@needs_hosts
def test_a_changed_key_is_quarantine(lab: Lab, rig: SshRig, server: SshHost) -> None:
    attach(rig, "l1")
    server.new_key()
    server.restart()
    with pytest.raises(BackendError, match=r"^quarantined: host key changed") as told:
        SshRig(lab, rig.host).connect().instances()
    assert not isinstance(told.value, TryLater)


def test_a_pinned_server_is_a_place_by_its_key() -> None:
    one = Host(name="a", hostname="a.lab", host_key="ssh-ed25519 AAAA")
    same = Host(name="a", hostname="10.0.0.1", port=2222, user="me", host_key="ssh-ed25519 AAAA")
    other = Host(name="a", hostname="a.lab", host_key="ssh-ed25519 AAAB")
    assert one.place == same.place != other.place
    assert Host(name="a", hostname="a.lab").place == "ssh/a"


# ---------------------------------------------------------------- checks


@needs_hosts
def test_a_plain_server_passes_every_check(rig: SshRig) -> None:
    found = rig.checks()
    assert {name for name, (ok, _) in found.items() if ok is False} == set()
    assert {"reachable", "host-key", "login", "shell", "container-runtime", "cpus", "memory", "disk", "clock",
            "network", "owner", "gpus", "home", "tools", "machine-id"} <= set(found)  # fmt: skip
    assert all(check.took >= 0 for check in rig.look().checks)


@needs_hosts
def test_all_that_is_wrong_is_said_at_once(lab: Lab, server: SshHost) -> None:
    give_gpus(server, count=2, cuda="11.8")
    need = GpuNeed(count=Span(min=4), names=("h100",))
    host = declared(server, disk_floor=2**40, gpu=need, network="192.168.77.0/24")
    rig = SshRig(lab, host)
    attached_elsewhere = SshRig(lab, declared(server))
    attach(attached_elsewhere, "theirs", project="project2")
    bad = {name: said for name, (ok, said) in rig.checks().items() if ok is False}
    assert set(bad) == {"disk", "nvidia-driver", "gpus", "network", "owner"}
    assert bad["gpus"] == "4..xH100 asked by its pool, it has 2xA100 (80GB)"
    assert "CUDA 11.8, 12.1 is the least" in bad["nvidia-driver"]
    assert "no address in 192.168.77.0/24" in bad["network"]
    with pytest.raises(BackendError, match=r"^checks failed: .*disk: .*nvidia-driver: .*gpus: .*network: .*owner: "):
        rig.connect().instances()


@needs_hosts
def test_gpus_are_told_with_memory_and_uuids_and_who_uses_them(rig: SshRig, server: SshHost) -> None:
    give_gpus(server, count=4, apps="GPU-00000003, 4312, 72704\nGPU-00000001, 17, [N/A]\n")
    probed = rig.look().probed
    assert probed.resources.gpu is not None
    assert (probed.resources.gpu.name, probed.resources.gpu.count, probed.resources.gpu.memory) == ("a100", 4, 81920)
    assert probed.resources.gpu.uuids == tuple(f"GPU-{n:08d}" for n in range(4))
    assert probed.foreign == "gpu 3: pid 4312, 71 GB; gpu 1: pid 17"


@needs_hosts
def test_gpus_that_are_asked_for_and_not_there(lab: Lab, server: SshHost) -> None:
    found = SshRig(lab, declared(server, gpu=GpuNeed())).checks()
    assert found["nvidia-driver"][0] is False
    assert found["gpus"][0] is False


@needs_hosts
def test_a_noisy_shell_is_said_and_corrupts_nothing(lab: Lab) -> None:
    host = lab.host("noisy", login_shell="/bin/bash")
    (host.home / ".bashrc").write_text("echo 'Welcome to lab-7'\n")
    rig = SshRig(lab, declared(host))
    ok, said = rig.checks()["shell"]
    assert ok is None
    assert "Welcome to lab-7" in said
    assert [one.id for one in living(attach(rig, "l1"))] == ["l1-0"]
    host.stop()


@needs_hosts
def test_a_network_gives_the_address_that_others_use(lab: Lab) -> None:
    network = lab.network()
    host = lab.host("inside", networks=(network,))
    rig = SshRig(lab, declared(host, network=network.cidr))
    (seen,) = living(attach(rig, "l1"))
    assert (seen.internal_ip, seen.network) == (host.address, network.cidr)
    host.stop()


@needs_hosts
def test_a_full_disk_is_a_failed_check_not_a_crash(lab: Lab) -> None:
    host = lab.host("full", small="64k")
    rig = SshRig(lab, declared(host))
    attach(rig, "l1")
    fill(host)
    (seen,) = living(SshRig(lab, declared(host, disk_floor=1)).connect())
    assert "disk: 0 MB free" in seen.unfit
    host.stop()


def fill(host: SshHost) -> None:
    """Its home, to the last byte."""
    with (host.home / "data").open("wb", buffering=0) as file, suppress(OSError):
        while True:
            file.write(b"x" * 4096)


def test_a_clock_that_is_off_is_told_and_no_fault() -> None:
    probed = read_probe(b"dstack-probe 1\nfact clock 1000\n.\n")
    assert clock_check(probed, now=1030).ok is True
    check = clock_check(probed, now=8200)
    assert (check.ok, check.said) == (None, "7200 s behind ours")


@pytest.mark.parametrize("line", ["generation " + "9" * 16, "generation -1", "generation \u0663", "at " + "1" * 13])
def test_a_claim_whose_numbers_no_counter_reaches_is_not_understood(line: str) -> None:
    with pytest.raises(NotUnderstood, match="its claim is not understood: "):
        read_probe(f"dstack-probe 1\nclaim project p\nclaim {line}\n.\n".encode())
    assert read_probe(b"dstack-probe 1\nclaim generation 999999999999999\n.\n").claim


@given(st.binary(max_size=300))
def test_any_bytes_are_an_answer_or_not_understood(noise: bytes) -> None:
    for text in (noise, b"dstack-probe 1\n" + noise + b"\n.\n"):
        try:
            read_probe(text)
        except (NotUnderstood, TryLater):
            continue


@needs_hosts
def test_an_answer_that_is_cut_is_no_answer(rig: SshRig) -> None:
    with pytest.raises(NotUnderstood):
        read_probe(b"dstack-probe 1\nfact machine abc\n")


def test_our_folder_is_per_host_key() -> None:
    one = Host(name="a", hostname="a.lab", host_key="ssh-ed25519 AAAA")
    assert one.folder == Host(name="b", hostname="b.lab", host_key="ssh-ed25519 AAAA").folder
    assert one.folder != Host(name="a", hostname="a.lab", host_key="ssh-ed25519 AAAB").folder


HEAD = b"dstack-probe 1\n"


def test_nothing_that_a_terminal_obeys_comes_from_a_server() -> None:
    evil = "\x1b]0;owned\x07\x1b[2J\r\u202e\x9b31m"
    lines = [f"claim {name} {name}{evil}" for name in ("project", "name", "by")]
    lines += [f"check home bad /home{evil}", f"fact kernel Linux{evil}", f"tick 5 ann@x{evil}"]
    probed = read_probe(HEAD + "\n".join(lines).encode() + b"\n.\n")
    told = (owner_words(probed), probed.bad, probed.kernel, *probed.claim.values())
    assert all(text.isprintable() for text in told), told
    assert probed.claim["project"].startswith("project?]0;owned")


def test_a_long_claim_is_cut_and_still_one() -> None:
    probed = read_probe(HEAD + b"claim project " + b"x" * 5000 + b"\n.\n")
    assert probed.claim == {"project": "x" * 200}


@pytest.mark.parametrize("odd", ["999.1.1.1", "10.0.0.1/24", "::g", "nonsense", "10.0.0.1 1.2"])
def test_an_address_that_is_none_is_not_understood(odd: str) -> None:
    with pytest.raises(NotUnderstood, match="address"):
        read_probe(HEAD + f"fact addresses 127.0.0.1 {odd}\n.\n".encode())


@pytest.mark.parametrize(
    ("network", "ok", "said"),
    [
        ("10.0.0.0/8", True, "10.1.2.3"),
        ("fd00:5::/64", True, "fd00:5::7"),
        ("192.168.0.0/16", False, "no address in 192.168.0.0/16; it has 10.1.2.3, fd00:5::7"),
    ],
)
def test_addresses_of_both_families(network: str, ok: bool, said: str) -> None:
    probed = read_probe(HEAD + b"fact addresses 127.0.0.1 ::1 10.1.2.3 fd00:5::7 \n.\n")
    check, _ = network_check(probed, network)
    assert (check.ok, check.said) == (ok, said)


@needs_hosts
def test_a_network_of_ipv6_gives_its_address(lab: Lab) -> None:
    host = lab.host("inside6", networks=(lab.network(),))
    inside = ["nsenter", "--net", f"--target={host._inside()}"]
    given = ["ip", "-6", "addr", "add", "fd00:213::7/64", "dev", "eth0", "nodad"]
    if subprocess.run([*inside, *given], capture_output=True, check=False).returncode:
        pytest.skip("no IPv6 here")
    (seen,) = living(attach(SshRig(lab, declared(host, network="fd00:213::/64")), "l1"))
    assert seen.internal_ip == "fd00:213::7"
    host.stop()


@needs_hosts
def test_whose_it_is_may_be_any_bytes(lab: Lab, server: SshHost) -> None:
    rig = SshRig(lab, declared(server))
    attach(rig, "l1", project="project2")
    (claim,) = server.home.glob(".dstack-hosts/*/claim")
    claim.write_bytes(b"id l1-0\nproject \xff\x1b[2J\nname x\n")
    with pytest.raises(BackendError) as told:
        attach(rig, "l2")
    assert str(told.value).isprintable()
