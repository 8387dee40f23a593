"""This machine as a place: the contract, its shares, its folders, and the end of everything in them."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import msgspec
import pytest

from backends.boot.spec import Boot
from backends.errors import BackendError, TryLater
from backends.local.backend import LocalBackend, connect, foreign, share
from backends.local.machine import LocalMachine, machine_id, measure
from backends.nvidia_smi import parse_gpus
from schemas.backend_types import TYPES
from schemas.desired import BackendConfig
from schemas.launch import Made, Unknown
from schemas.resources import Gpu, Where
from tests.contracts.backend_contract import BackendContract, BackendRig, an_offer, launch, living, no_boot, request
from tests.doubles.hosts.real_host import RealHost, alive, until


@dataclass(frozen=True)
class Surroundings:
    local_base: str
    state_address: str
    project: str = "project1"
    lineage: str = "lineage1"
    now: Callable[[], float] = lambda: 1790000000.0
    boot: Callable[[str], Boot] = no_boot


class LocalRig:
    kind = TYPES["local"]
    project, lineage, room = "project1", "lineage1", 3

    def __init__(self, folder: Path) -> None:
        self.setting = Surroundings(str(folder / "base"), str(folder / "state.yml"))

    def connect(self, *, lineage: str = "") -> LocalBackend:
        config = BackendConfig(name="local", type="local", options={"instances": self.room})
        return connect(config, "", replace(self.setting, lineage=lineage or self.lineage))

    def settle(self) -> None:
        pass


@pytest.fixture
def local(tmp_path: Path) -> LocalRig:
    return LocalRig(tmp_path)


class TestContract(BackendContract):
    kind = TYPES["local"]

    @pytest.fixture
    def rig(self, tmp_path: Path) -> BackendRig:
        return LocalRig(tmp_path)


def gpu(number: int, name: str = "a100") -> Gpu:
    return Gpu(name=name, memory=81920, compute_capability=80, uuids=(f"GPU-{number}",))


MACHINE = LocalMachine(cpus=10, memory=64000, disk=400000, cpu_arch="x86", gpus=tuple(gpu(n) for n in range(8)))


def test_a_share_is_one_nth_and_at_least_one_cpu() -> None:
    kind, resources = share(MACHINE, slot=1, of=4)
    assert (kind, resources.cpus, resources.memory, resources.disk) == ("local", 2, 16000, 100000)
    assert resources.gpu == Gpu(name="a100", memory=81920, count=2, compute_capability=80, uuids=("GPU-2", "GPU-3"))
    assert share(msgspec.structs.replace(MACHINE, cpus=2), slot=3, of=16)[1].cpus == 1


@pytest.mark.parametrize("of", [1, 2, 3, 5, 8, 9])
def test_every_gpu_is_dealt_once(of: int) -> None:
    dealt = [share(MACHINE, slot=slot, of=of)[1].gpu for slot in range(of)]
    assert [uuid for one in dealt if one for uuid in one.uuids] == [f"GPU-{n}" for n in range(8)]
    assert all(one is None or one.count == len(one.uuids) for one in dealt)


def test_shares_with_more_gpus_are_another_type() -> None:
    three = msgspec.structs.replace(MACHINE, gpus=MACHINE.gpus[:3])
    assert [share(three, slot=slot, of=2)[0] for slot in range(2)] == ["local-2gpu", "local"]


def test_only_the_commonest_model_is_dealt() -> None:
    mixed = msgspec.structs.replace(MACHINE, gpus=(gpu(0, "t4"), gpu(1), gpu(2)))
    assert [share(mixed, slot=slot, of=2)[1].gpu for slot in range(2)] == [
        msgspec.structs.replace(gpu(1), count=1),
        msgspec.structs.replace(gpu(2), count=1),
    ]


def test_offers_count_what_is_free_and_name_no_gpu(local: LocalRig) -> None:
    backend = LocalBackend(name="local", shares=3, setting=local.setting, measure=lambda _: MACHINE)
    found = {offer.instance_type: offer for offer in backend.offers((), Where())}
    assert {kind: offer.free for kind, offer in found.items()} == {"local": 1, "local-3gpu": 2}
    assert all(offer.resources.gpu and offer.resources.gpu.uuids == () for offer in found.values())
    assert not any(offer.cloud for offer in found.values())


def test_gpus_as_nvidia_smi_lists_them() -> None:
    listing = "GPU-1, NVIDIA H200, 143771, 9.0\nGPU-2, NVIDIA A100-SXM4-80GB, 81920, 8.0\n"
    listing += "GPU-3, NVIDIA GeForce RTX 4090, 24564, 8.9\nGPU-4, Tesla T4, 15360, 7.5\n"
    assert [(one.name, one.memory, one.compute_capability) for one in parse_gpus(listing)] == [
        ("h200", 143771, 90),
        ("a100", 81920, 80),
        ("rtx4090", 24564, 89),
        ("t4", 15360, 75),
    ]
    with pytest.raises(TryLater):
        parse_gpus("Unable to determine the device handle")


def test_the_cgroup_limits_what_is_there(tmp_path: Path) -> None:
    (tmp_path / "proc").mkdir()
    (tmp_path / "proc/meminfo").write_text("MemTotal: 8388608 kB\nMemFree: 1 kB\n")
    assert measure(tmp_path, root=tmp_path).memory == 8192
    (tmp_path / "sys/fs/cgroup").mkdir(parents=True)
    (tmp_path / "sys/fs/cgroup/cpu.max").write_text("100000 100000\n")
    (tmp_path / "sys/fs/cgroup/memory.max").write_text(f"{2**30}\n")
    limited = measure(tmp_path, root=tmp_path)
    assert (limited.cpus, limited.memory) == (1, 1024)
    (tmp_path / "sys/fs/cgroup/memory.max").write_text("max\n")
    assert measure(tmp_path, root=tmp_path).memory == 8192


def test_a_machine_without_an_id_mints_one_once(tmp_path: Path) -> None:
    first = machine_id(tmp_path / "base", root=tmp_path)
    assert first
    assert machine_id(tmp_path / "base", root=tmp_path) == first
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc/machine-id").write_text("abc\n")
    assert machine_id(tmp_path / "base", root=tmp_path) not in (first, "abc")


def test_a_folder_copied_is_another_lineage_and_touches_nothing(local: LocalRig) -> None:
    launch(local, "l1", count=1)
    copy = local.connect(lineage="lineage2")
    assert copy.identity() != local.connect().identity()
    assert living(copy) == []
    copy.terminate(["l1-0"])
    assert [seen.id for seen in living(local.connect())] == ["l1-0"]


def test_the_same_machine_under_another_home_is_another_place(local: LocalRig, tmp_path: Path) -> None:
    """From cron or with sudo, HOME may differ: nothing is there then, and nothing has ended."""
    here = local.connect().identity()
    local.setting = replace(local.setting, local_base=str(tmp_path / "other" / "base"))
    assert local.connect().identity() != here
    (tmp_path / "link").symlink_to(tmp_path)
    local.setting = replace(local.setting, local_base=str(tmp_path / "link" / "base"))
    assert local.connect().identity() == here


STATE = "lineage: lineage1\n"


@pytest.fixture
def original(local: LocalRig, tmp_path: Path) -> Path:
    """A project's folder with a state in it that has one instance."""
    root = tmp_path / "proj"
    (root / ".dstack" / "state").mkdir(parents=True)
    at(local, root).write_text(STATE)
    launch(local, "l1", count=1)
    local.connect().instances()
    return root


def at(local: LocalRig, root: Path) -> Path:
    """The rig as a command in `root` has it; the state's file."""
    state = root / ".dstack" / "state" / "project1.yml"
    local.setting = replace(local.setting, state_address=str(state))
    return state


def refused(local: LocalRig, original: Path) -> None:
    copy = local.connect()
    words = f"is a copy of the state at {original}/.dstack/state/project1.yml, which still exists"
    assert words in copy.why_copied()
    assert "`dstack state new-lineage`" in copy.why_copied()
    with pytest.raises(BackendError, match=re.escape(words)):
        copy.instances()
    with pytest.raises(BackendError, match=re.escape(words)):
        copy.terminate(["l1-0"])
    with pytest.raises(BackendError, match=re.escape(words)):
        copy.launch(request(local, "l2", count=1))
    at(local, original)
    assert [seen.id for seen in living(local.connect())] == ["l1-0"]


def accepted(local: LocalRig) -> None:
    assert local.connect().why_copied() == ""
    assert [seen.id for seen in living(local.connect())] == ["l1-0"]


def test_a_copy_of_a_folder_with_its_state_touches_nothing(local: LocalRig, original: Path, tmp_path: Path) -> None:
    shutil.copytree(original, tmp_path / "copy")
    at(local, tmp_path / "copy")
    refused(local, original)


def test_a_copy_is_known_by_what_its_instances_remember(local: LocalRig, original: Path, tmp_path: Path) -> None:
    """Of instances that an older version made."""
    (Path(local.setting.local_base) / "project1" / "lineage1" / "home.json").unlink()
    shutil.copytree(original, tmp_path / "copy")
    at(local, tmp_path / "copy")
    refused(local, original)


def test_a_moved_folder_keeps_its_instances(local: LocalRig, original: Path, tmp_path: Path) -> None:
    original.rename(tmp_path / "moved")
    at(local, tmp_path / "moved")
    accepted(local)
    original.mkdir()  # and another checkout takes its place: a state of its own, or none
    (original / ".dstack" / "state").mkdir(parents=True)
    (original / ".dstack" / "state" / "project1.yml").write_text("lineage: lineage9\n")
    accepted(local)


def test_a_moved_folder_whose_old_path_has_a_copy_again_is_known_by_its_inode(
    local: LocalRig, original: Path, tmp_path: Path
) -> None:
    moved = original.rename(tmp_path / "moved")
    shutil.copytree(moved, original)
    at(local, moved)
    accepted(local)
    at(local, original)
    refused(local, moved)


def test_a_link_to_the_folder_is_the_same_folder(local: LocalRig, original: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(original)
    at(local, tmp_path / "link")
    accepted(local)


def test_a_copy_of_a_folder_that_is_gone_goes_on(local: LocalRig, original: Path, tmp_path: Path) -> None:
    """A backup that was put back, also at the same path."""
    shutil.copytree(original, tmp_path / "backup")
    shutil.rmtree(original)
    at(local, tmp_path / "backup")
    accepted(local)
    shutil.copytree(tmp_path / "backup", original)
    shutil.rmtree(tmp_path / "backup")
    at(local, original)
    accepted(local)


def test_a_state_that_was_moved_to_another_store_is_no_original(local: LocalRig, original: Path) -> None:
    at(local, original).write_text('{"version":3,"lineage":"lineage1","moved_to":"s3://team/state"}\n')
    local.setting = replace(local.setting, state_address="s3://team/state/project1.yml")
    accepted(local)
    accepted(local)  # a second checkout with the same bucket


def test_a_missing_state_is_answered_by_the_lineage_that_was_there(local: LocalRig, tmp_path: Path) -> None:
    launch(local, "l1", count=2)
    lost = replace(local.setting, lineage="")
    assert [seen.id for seen in foreign(lost)] == ["l1-0", "l1-1"]
    assert [seen.id for seen in foreign(replace(lost, lineage="lineage2"))] == ["l1-0", "l1-1"]
    assert [seen.lineage for seen in local.connect().instances()] == ["lineage1", "lineage1"]


def test_a_state_that_lies_elsewhere_answers_only_when_it_is_gone(local: LocalRig, tmp_path: Path) -> None:
    launch(local, "l1", count=1)
    elsewhere = replace(local.setting, lineage="", state_address=str(tmp_path / "other.yml"))
    state = Path(local.setting.state_address)
    state.write_text("{}")
    assert foreign(elsewhere) == []
    state.unlink()
    assert [seen.id for seen in foreign(elsewhere)] == ["l1-0"]


def test_an_ended_instance_is_listed_as_ended_and_empty(local: LocalRig) -> None:
    launch(local, "l1", count=1)
    backend = local.connect()
    host = Path(living(backend)[0].address)
    assert host.is_dir()
    backend.terminate(["l1-0"])
    assert [(seen.id, seen.phase) for seen in backend.instances()] == [("l1-0", "ended")]
    assert not host.exists()
    backend.launch(request(local, "l1", count=1))
    assert living(backend) == []


def test_a_missing_folder_has_ended(local: LocalRig) -> None:
    assert [(seen.id, seen.phase) for seen in local.connect().instances(["l1-0"])] == [("l1-0", "ended")]


def test_an_old_end_is_forgotten_at_the_next_launch(local: LocalRig) -> None:
    launch(local, "l1", count=1)
    local.connect().terminate(["l1-0"])
    local.setting = replace(local.setting, now=lambda: 1790000000.0 + 2 * 86400)
    launch(local, "l2", count=1)
    assert [seen.id for seen in local.connect().instances()] == ["l2-0"]


def test_what_a_killed_launch_staged_is_removed_by_the_next(local: LocalRig, tmp_path: Path) -> None:
    lineage = tmp_path / "base/project1/lineage1"
    (lineage / ".l1-0.0123456789abcdef/host").mkdir(parents=True)
    launch(local, "l1", count=1)
    assert sorted(path.name for path in lineage.iterdir()) == [".lock", "home.json", "l1-0"]


def test_a_record_cut_by_a_crash_blocks_nothing(local: LocalRig) -> None:
    launch(local, "l1", count=1)
    record = Path(living(local.connect())[0].address).parent / "instance.json"
    record.write_bytes(record.read_bytes()[:20])
    assert [(seen.id, seen.phase) for seen in local.connect().instances()] == [("l1-0", "running")]
    local.connect().terminate(["l1-0"])
    assert living(local.connect()) == []


def test_a_partly_done_request_is_completed(local: LocalRig) -> None:
    backend = local.connect()
    whole = request(local, "l1", count=3)
    backend.launch(msgspec.structs.replace(whole, ids=whole.ids[:1], names=whole.names[:1]))
    assert backend.launch(whole) == {id: Made(external_id=id) for id in ("l1-0", "l1-1", "l1-2")}


def test_where_a_partly_done_request_finds_no_room_the_rest_is_not_refused(local: LocalRig) -> None:
    """The same request may still make it, once there is room."""
    backend = local.connect()
    whole = request(local, "l1", count=2)
    backend.launch(msgspec.structs.replace(whole, ids=whole.ids[:1], names=whole.names[:1]))
    launch(local, "l2", count=local.room - 1)
    answers = backend.launch(whole)
    assert answers["l1-0"] == Made(external_id="l1-0")
    assert isinstance(answers["l1-1"], Unknown)
    assert len(living(backend)) == local.room


def test_each_instance_has_a_slot_of_its_own(local: LocalRig) -> None:
    launch(local, "l1", count=2)
    local.connect().terminate(["l1-0"])
    launch(local, "l2", count=2)
    folders = [Path(seen.address).parent for seen in living(local.connect())]
    assert sorted(json.loads((folder / "instance.json").read_text())["slot"] for folder in folders) == [0, 1, 2]


@pytest.mark.parametrize("name", ["../up", "a/b", "", ".hidden", "a\nb", "UP"])
def test_no_id_leaves_its_folder(local: LocalRig, name: str) -> None:
    asked = msgspec.structs.replace(request(local, "l1", count=1), ids=(name,))
    with pytest.raises(BackendError):
        local.connect().launch(asked)
    local.connect().terminate([name])
    assert living(local.connect()) == []


def test_a_read_only_base_is_an_error_with_its_path(local: LocalRig, tmp_path: Path) -> None:
    (tmp_path / "base").write_text("a file where the folder should be")
    with pytest.raises(TryLater, match="base"):
        local.connect().launch(request(local, "l1", count=1))


def test_terminate_ends_every_process_of_its_jobs(local: LocalRig) -> None:
    launch(local, "l1", count=1)
    host = Path(living(local.connect())[0].address)
    job = host / "jobs" / "a-0-1-0"
    job.mkdir(parents=True)
    (job / "token").write_text("0123456789abcdef0123456789abcdef\n")
    claimed = subprocess.Popen(
        ["setsid", "sh", "-c", "trap '' TERM; sleep 300 & wait"],
        env={"PATH": os.environ["PATH"], "DSTACK_CLAIM": "0123456789abcdef0123456789abcdef"},
    )
    bystander = subprocess.Popen(["sleep", "300"])
    try:
        until(lambda: Path(f"/proc/{claimed.pid}/comm").read_text() == "sh\n")  # `setsid` has become it
        local.connect().terminate(["l1-0"])
        until(lambda: claimed.poll() is not None)
        assert alive(bystander.pid)
    finally:
        bystander.kill()
        bystander.wait()


def test_terminate_ends_a_running_job_and_its_supervisor(local: LocalRig) -> None:
    launch(local, "l1", count=1)
    host = RealHost(Path(living(local.connect())[0].address))
    job = host.start(
        "trap '' TERM", "(setsid sh -c 'sleep 600' &)", "echo up", "while :; do sleep 1; done", restart=True
    )
    host.says(job, b"up")
    supervisor, pids = host.supervisor(job), host.pids(job)
    local.connect().terminate(["l1-0"])
    assert [pid for pid in (supervisor, *pids) if alive(pid)] == []
    assert living(local.connect()) == []
    assert "no folder" in host.runner.look(host.instance, now=5).error


def test_offers_of_the_real_machine(local: LocalRig) -> None:
    offer = an_offer(local.connect())
    assert offer.free == 3
    assert offer.resources.disk > 0
