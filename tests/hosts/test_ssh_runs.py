"""Runs on real servers with the real `dstack` command: what survives cuts, reboots, jumps, other machines of ours."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.doubles.commands.command import DSTACK, Folder, Ran
from tests.doubles.hosts.real_host import until
from tests.doubles.hosts.ssh_hosts import Lab, SshHost, a_lab, document, give_gpus, silent_server, task, why_not

pytestmark = pytest.mark.skipif(bool(why_not()), reason=why_not() or "-")

RETRY = "retry: {on_events: [interruption], duration: 1h}"
AT_ONCE = "unreachable_grace: 1s"  # what counts as silence; each look at a host that was cut takes longer


@dataclass
class Shop:
    """A project on a lab's servers. `home` stands for the machine that the command runs on."""

    lab: Lab
    folder: Folder
    home: str = "home"

    def documents(self, *hosts: SshHost, **changes: Any) -> None:
        self.folder.write(".dstack/pools.yml", document(self.lab, *hosts, **changes))

    def run_file(self, name: str, *commands: str, more: str = "") -> None:
        self.folder.write(f".dstack/runs/{name}.yml", task(name, *commands, more=more))

    def dstack(self, *args: str, ok: bool = True) -> Ran:
        home = self.folder.root.parent / self.home
        home.mkdir(exist_ok=True)
        ran = self.folder.dstack(*args, env={"HOME": str(home)})
        assert not ok or ran.code == 0, ran.said
        return ran

    def apply(self, *args: str, ok: bool = True) -> Ran:
        return self.dstack("apply", "-y", "--detach", *args, ok=ok)

    def runs(self) -> dict[str, dict[str, Any]]:
        found: list[dict[str, Any]] = json.loads(self.dstack("ps", "-a", "--json").out)
        return {one["name"]: one for one in found}

    def hosts(self) -> dict[str, dict[str, Any]]:
        found: list[dict[str, Any]] = json.loads(self.dstack("pool", "ps", "--json").out)
        for one in found:
            flags = [flag for flag in ("quarantined", "degraded") if f"{flag}: " in one["reason"]]
            one["flags"] = [*flags, *(["unreachable"] if one["unreachable"] else [])]
        return {one["name"]: one for one in found}

    def unmet(self) -> dict[str, str]:
        """subject -> why, of a plan."""
        found = json.loads(self.dstack("plan", "--json").out)["unmet"]
        return {one["subject"]: one["why"] for one in found}

    def comes_to(self, run: str, status: str, *args: str) -> None:
        """By ticks."""

        def there() -> bool:
            self.apply(*args, ok=False)
            return run in self.runs() and self.runs()[run]["status"] == status

        until(there)

    def attaches(self, *names: str) -> None:
        def there() -> bool:
            self.apply(ok=False)
            return {name for name, one in self.hosts().items() if one["status"] == "idle"} >= set(names)

        until(there)

    def runs_on(self, run: str) -> SshHost:
        busy = [name for name, one in self.hosts().items() if run in one["runs"]]
        return next(host for host in self.lab.hosts if host.name == busy[0])


@pytest.fixture
def shop(tmp_path: Path) -> Iterator[Shop]:
    with a_lab(tmp_path / "lab") as lab:
        yield Shop(lab, Folder(tmp_path / "project"))


# ---------------------------------------------------------------- the ordinary


def test_run_logs_artifacts_and_stop_over_a_jump(shop: Shop) -> None:
    outer, inner = shop.lab.network(), shop.lab.network(routed=False)
    jump = shop.lab.host("jump", networks=(outer, inner))
    host = shop.lab.host("node", networks=(inner,))
    via = f"proxy_jump: {{hostname: {jump.address}, user: ann, host_key: {jump.key}}}"
    text = document(shop.lab, host).replace("    ssh:\n", f"    ssh:\n      {via}\n")
    shop.folder.write(".dstack/pools.yml", text)
    shop.folder.write("model.py", "weights = 7\n")
    shop.run_file("train", "cat model.py", "hostname", "echo $TOKEN | wc -c", "echo done > result.txt",
                  more="artifacts: [result.txt]\nenv:\n  TOKEN: ${{ env.TOKEN_HERE }}\nfiles: [model.py]")  # fmt: skip
    env = {"TOKEN_HERE": "s3cr3t-t0ken", "HOME": str(shop.folder.root.parent / "home")}
    (shop.folder.root.parent / "home").mkdir()
    said = shop.folder.dstack("apply", "-y", env=env)
    assert said.code == 0, said.said
    until(lambda: shop.folder.dstack("apply", "-y", "--detach", env=env).code == 0 and _ended(shop, "train"))
    assert shop.runs()["train"]["status"] == "done"
    assert shop.dstack("logs", "train").out == "weights = 7\nnode\n13\n"
    shop.dstack("artifacts", "train")
    assert (shop.folder.root / "train-artifacts/result.txt").read_text() == "done\n"
    shop.run_file("serve", "echo up; while :; do sleep 1; done")
    until(lambda: shop.folder.dstack("apply", "-y", "--detach", env=env).code == 0 and "serve" in shop.runs())
    until(lambda: shop.folder.dstack("apply", "-y", "--detach", env=env).code == 0 and _running(shop, "serve"))
    following = subprocess.Popen(
        [*DSTACK, "logs", "-f", "serve"], cwd=shop.folder.root, env={**shop.folder.env, **env}, stdout=subprocess.PIPE
    )
    assert following.stdout is not None
    assert following.stdout.readline() == b"up\n"
    shop.dstack("stop", "serve", "-y")
    assert following.wait(timeout=60) == 0
    assert shop.runs()["serve"]["status"] == "terminated"
    for path in (*host.home.rglob("*"), *(shop.folder.root / ".dstack").rglob("*")):
        assert not path.is_file() or b"s3cr3t-t0ken" not in path.read_bytes(), path


def _ended(shop: Shop, run: str) -> bool:
    return bool(shop.runs()[run]["status"] in ("done", "failed"))


def _running(shop: Shop, run: str) -> bool:
    return bool(shop.runs()[run]["status"] == "running")


def test_one_apply_attaches_a_host_and_starts_the_run_that_waits_for_it(shop: Shop) -> None:
    """Cron's next one may be ten minutes away."""
    shop.documents(shop.lab.host("one"))
    shop.run_file("train", "sleep 600")
    said = shop.apply().out
    assert "1 server attached" in said
    assert "Runs: 1 waiting" not in said
    (run,) = shop.runs().values()
    assert (run["instances"], run["status"]) == (["one"], "assigned") or run["status"] == "running"


def test_a_host_that_left_its_pool_is_let_go_when_asked_and_cleaned(shop: Shop) -> None:
    one, two = shop.lab.host("one"), shop.lab.host("two")
    (two.home / "mine").write_text("kept")
    shop.documents(one, two)
    shop.run_file("long", "sleep 600", more="instance_name: two")
    shop.apply()
    shop.comes_to("long", "running")
    shop.documents(one)
    said = " ".join(shop.apply().out.split())
    assert "host two was removed from the configuration, but this apply may not detach it" in said
    assert shop.hosts()["two"]["status"] == "busy"
    shop.apply("--allow-destroy", "lab")
    # A plan hears of the end too, and writes nothing down.
    until(lambda: bool(shop.dstack("plan") and shop.apply("--allow-destroy", "lab")) and "two" not in shop.hosts())
    assert [path.name for path in two.home.iterdir()] == ["mine"]
    assert not [line for line in two.processes() if "sleep 600" in line]
    assert shop.hosts()["one"]["status"] == "idle"


def test_a_host_without_what_was_asked_serves_runs_that_need_none_of_it(shop: Shop) -> None:
    plain = shop.lab.host("plain")
    shop.documents(plain)
    shop.run_file("hello", "echo hi")
    shop.folder.write(".dstack/runs/big.yml", task("big", "echo hi").replace("cpu: 1..", "gpu: 1"))
    shop.comes_to("hello", "done")
    assert shop.runs()["big"]["status"] == "submitted"
    assert "gpu 1 asked, it has none" in shop.dstack("plan").out.replace("\n      ", " ")


# ---------------------------------------------------------------- cuts, reboots, other machines of ours


def test_at_most_once_across_a_cut_and_from_another_machine(shop: Shop) -> None:
    network = shop.lab.network()
    host = shop.lab.host("far", networks=(network,))
    shop.documents(host, pool=AT_ONCE)
    shop.run_file("once", "echo begun >> ~/count", "sleep 4", "echo over >> ~/count")
    shop.apply()
    until(lambda: bool(shop.apply()) and (host.home / "count").exists())
    host.cut()
    shop.home = "laptop"
    for _ in range(2):
        assert "pool lab: none of its hosts can be used: 10.213." in shop.apply(ok=False).said
    assert shop.runs()["once"]["status"] == "running"
    assert "unreachable" in shop.hosts()["far"]["flags"]
    assert "--assume-lost once" in shop.dstack("plan").out.replace("\n", " ")
    why = shop.unmet()["run once"]
    assert why.startswith("far has not answered since ")
    assert why.endswith("`--assume-lost once` takes it as lost")
    host.mend()
    shop.home = "desktop"
    shop.comes_to("once", "done")
    assert (host.home / "count").read_text() == "begun\nover\n"


def test_a_gang_and_a_run_of_one_block_outlive_a_cut_within_the_grace(shop: Shop) -> None:
    network = shop.lab.network()
    hosts = [shop.lab.host(f"n{number}", networks=(network,)) for number in range(3)]
    shop.documents(*hosts, pool="unreachable_grace: 60s\n    blocks: 2")
    shop.run_file("pair", "echo rank >> ~/pair", "sleep 6", "echo rank $DSTACK_NODE_RANK of $DSTACK_NODES_NUM",
                  more="nodes: 2")  # fmt: skip
    shop.run_file("block", "echo block >> ~/block", "sleep 6", more="priority: 10")
    shop.apply()
    shop.comes_to("pair", "running")
    shop.comes_to("block", "running")
    victim = shop.runs_on("block")
    assert shop.runs_on("pair") is victim, "a block goes to the fullest box that has one"
    victim.cut()
    said = " ".join(shop.apply().said.split())
    assert "run block: " in said
    assert f"{victim.name} has not answered since" in said
    assert "(unreachable_grace 1m)" in said
    assert not {"run pair", "run block"} & shop.unmet().keys(), "a hiccup is no news"
    refused = shop.apply("--assume-lost", "block").said
    assert f"not taken as lost yet: {victim.name} is silent for less than" in " ".join(refused.split())
    victim.mend()
    shop.comes_to("pair", "done")
    shop.comes_to("block", "done")
    assert sum((host.home / "pair").exists() for host in hosts) == 2
    for host in hosts:
        for name in ("pair", "block"):
            assert not (host.home / name).exists() or len((host.home / name).read_text().splitlines()) == 1


def test_a_reboot_is_proof_and_the_run_goes_elsewhere(shop: Shop) -> None:
    network = shop.lab.network()
    hosts = [shop.lab.host(f"n{number}", networks=(network,)) for number in range(2)]
    shop.documents(*hosts)
    shop.run_file("train", "echo $DSTACK_ATTEMPT >> ~/tries", "[ $DSTACK_ATTEMPT = 2 ] || sleep 600", more=RETRY)
    shop.apply()
    shop.comes_to("train", "running")
    victim = shop.runs_on("train")
    other = next(host for host in hosts if host is not victim)
    victim.cut()
    for _ in range(3):
        shop.apply()
    assert shop.runs()["train"]["status"] == "running", "silence proves nothing"
    assert not (other.home / "tries").exists()
    victim.mend()
    victim.reboot()
    shop.comes_to("train", "done", "--retry-hosts")  # that its looks are put off is another test's matter
    assert {path.read_text() for host in hosts if (path := host.home / "tries").exists()} <= {"1\n", "2\n", "1\n2\n"}


def test_assumed_lost_it_goes_elsewhere_and_its_stray_job_is_ended_when_the_host_is_back(shop: Shop) -> None:
    network = shop.lab.network()
    hosts = [shop.lab.host(f"n{number}", networks=(network,)) for number in range(2)]
    shop.documents(*hosts, pool=AT_ONCE)
    shop.run_file("train", "[ $DSTACK_ATTEMPT = 2 ] || sleep 600", more=RETRY)
    shop.apply()
    shop.comes_to("train", "running")
    victim = shop.runs_on("train")
    until(lambda: any("sleep 600" in line for line in victim.processes()))
    victim.cut()
    for _ in range(3):
        shop.apply()
    assert shop.unmet()["run train"].startswith(f"{victim.name} has not answered since ")
    shop.apply("--assume-lost", "train")
    shop.comes_to("train", "done")
    assert any("sleep 600" in line for line in victim.processes())
    victim.mend()
    said: list[str] = []

    def ended() -> bool:
        said.append(shop.apply("--retry-hosts").said)
        return not any("sleep 600" in line for line in victim.processes())

    until(ended)
    told = rf"{victim.name} answers again: job \S+ of run train \(assumed lost by a person\) is ended there and removed"
    assert re.search(told, " ".join(" ".join(said).split())), said
    assert shop.runs()["train"]["status"] == "done"


def test_all_behind_one_jump_lost_at_once_is_our_side(shop: Shop) -> None:
    outer, inner = shop.lab.network(), shop.lab.network(routed=False)
    jump = shop.lab.host("jump", networks=(outer, inner))
    hosts = [shop.lab.host(f"n{number}", networks=(inner,)) for number in range(2)]
    via = f"proxy_jump: {{hostname: {jump.address}, user: ann, host_key: {jump.key}}}"
    shop.folder.write(".dstack/pools.yml", document(shop.lab, *hosts).replace("    ssh:\n", f"    ssh:\n      {via}\n"))
    shop.run_file("long", "sleep 600", more=RETRY)
    shop.apply()
    shop.comes_to("long", "running")
    jump.cut()
    for _ in range(4):
        assert shop.apply(ok=False).code == 1, "a pool without a host that can be used"
    assert shop.runs()["long"]["status"] == "running"
    assert {one["status"] for one in shop.hosts().values()} == {"busy", "idle"}
    assert "not visible from here" in shop.dstack("pool", "ps").out
    jump.mend()
    shop.apply("--retry-hosts")
    assert shop.runs()["long"]["status"] == "running"
    shop.dstack("stop", "long", "-x", "-y")


def test_a_laptop_without_the_route_ends_nothing(shop: Shop) -> None:
    network = shop.lab.network()
    hosts = [shop.lab.host(f"n{number}", networks=(network,)) for number in range(2)]
    shop.documents(*hosts)
    shop.run_file("long", "sleep 600", more=RETRY)
    shop.apply()
    shop.comes_to("long", "running")
    before = shop.hosts()
    for _ in range(4):
        done = subprocess.run(
            ["unshare", "--net", *DSTACK, "apply", "-y", "--detach"],
            cwd=shop.folder.root,
            env=shop.folder.env,
            capture_output=True,
            text=True,
            timeout=90,
            check=False,
        )
        assert "not visible from here" in done.stdout, done.stdout + done.stderr
    after = shop.hosts()
    assert {name: one["status"] for name, one in after.items()} == {name: one["status"] for name, one in before.items()}
    assert not any("unreachable" in one["flags"] for one in after.values())
    shop.dstack("apply", "-y", "--detach", "--retry-hosts")
    shop.dstack("stop", "long", "-x", "-y")


# ---------------------------------------------------------------- each in its named state, the others untouched


def test_every_trouble_has_its_own_name_and_touches_nobody_else(shop: Shop) -> None:
    lab, network = shop.lab, shop.lab.network()
    good = lab.host("good", networks=(network,))
    names = ("rekeyed", "swapped", "skewed")
    hosts = {name: lab.host(name, networks=(network,)) for name in names}
    hosts["noisy"] = lab.host("noisy", networks=(network,), login_shell="/bin/bash")
    (hosts["noisy"].home / ".bashrc").write_text("echo noise\n")
    with silent_server() as port:
        more = f"{{hostname: 127.0.0.1, port: {port}, name: silent, host_key: {good.key}}}, {network.prefix}.250"
        shop.documents(good, *hosts.values(), more=more)
        shop.attaches("good", *hosts)
        hosts["rekeyed"].new_key()
        hosts["swapped"].new_machine()
        faketime = next(Path("/usr/lib").glob("*/faketime/libfaketime.so.1"), None)
        assert faketime, "no faketime here: `.ci/system-packages` installs it"
        hosts["skewed"].environment = {"LD_PRELOAD": str(faketime), "FAKETIME": "+2h"}
        for name in names:
            hosts[name].restart()
        shop.run_file("hello", "echo hi", more="instance_name: noisy")
        shop.run_file("late", "sleep 3; echo late", more="instance_name: skewed\nmax_duration: 1h")
        shop.comes_to("hello", "done")
        shop.comes_to("late", "done")
        found = shop.hosts()
        assert "quarantined" in found["rekeyed"]["flags"]
        assert "host key changed" in found["rekeyed"]["reason"]
        last = shop.apply(ok=False)
        assert (last.code, "error: host rekeyed: quarantined: host key changed" in last.said) == (1, True)
        refused = shop.dstack("pool", "resume", "rekeyed", ok=False).said
        assert "quarantined for its host key, which no word of ours clears: `dstack pool add-ssh 10.213." in refused
        assert "unreachable" in found["swapped"]["flags"]
        assert "another machine answers" in found["swapped"]["reason"]
        assert "accepts and says nothing" in found["silent"]["reason"]
        assert f"host-{network.prefix.replace('.', '-')}-250" in found
        assert (found["good"]["status"], found["good"]["flags"], found["good"]["reason"]) == ("idle", [], "")
        assert (found["skewed"]["status"], found["skewed"]["flags"]) == ("idle", [])
        assert (found["noisy"]["status"], found["noisy"]["flags"]) == ("idle", [])
        run = shop.runs()["late"]
        assert run["exit_code"] == 0
        assert abs(_seconds(run["finished_at"]) - _seconds(run["submitted_at"])) < 120
        text = shop.dstack("plan").out.replace("\n      ", " ")
        for name in ("rekeyed", "swapped", "silent"):
            assert f"host {name}  " in text


def test_servers_in_another_time_lose_no_run(shop: Shop) -> None:
    """40 days behind, decades ahead, and a job that dates its own end in 1970."""
    lab = shop.lab
    hosts = {"behind": "-40d", "ahead": "+40y", "plain": ""}
    made = {name: lab.host(name) for name in hosts}
    shop.documents(*made.values())
    shop.attaches(*hosts)
    faketime = next(Path("/usr/lib").glob("*/faketime/libfaketime.so.1"), None)
    assert faketime, "no faketime here: `.ci/system-packages` installs it"
    for name, off in hosts.items():
        if off:
            made[name].environment = {"LD_PRELOAD": str(faketime), "FAKETIME": off}
            made[name].restart()
        own = "echo ended 0 exit 1 2 0 > ../end; " if name == "plain" else ""
        shop.run_file(f"on-{name}", f"echo from {name}; {own}sleep 1", more=f"instance_name: {name}")
    for name in hosts:
        shop.comes_to(f"on-{name}", "done")
        (shop.folder.root / f".dstack/runs/on-{name}.yml").unlink()  # nothing declares it: it may be forgotten
    for _ in range(2):
        shop.apply()
    for name in hosts:
        run = shop.runs()[f"on-{name}"]
        assert run["status"] == "done"
        assert 0 <= _seconds(run["finished_at"]) - _seconds(run["submitted_at"]) < 120
        assert f"from {name}" in shop.dstack("logs", f"on-{name}").out
    assert {one["reason"] for one in shop.hosts().values()} == {""}


def _seconds(stamp: str) -> float:
    from datetime import datetime

    return datetime.fromisoformat(stamp).timestamp()


def test_a_lost_state_is_found_again_on_the_servers(shop: Shop) -> None:
    one, two = shop.lab.host("one"), shop.lab.host("two")
    shop.documents(one, two)
    shop.run_file("long", "echo begun >> ~/count; sleep 3")
    shop.apply()
    shop.comes_to("long", "running")
    for path in (shop.folder.root / ".dstack/state").glob("*.yml"):
        path.unlink()
    refused = shop.apply(ok=False)
    assert refused.code == 1
    assert "the state is missing, not empty" in refused.said
    shop.dstack("state", "rebuild", "-y")
    assert set(shop.hosts()) == {"one", "two"}
    assert {found["status"] for found in shop.hosts().values()} <= {"idle", "busy", "holding"}
    shop.comes_to("long", "done")
    assert sum(len((host.home / "count").read_text().splitlines()) for host in (one, two)
               if (host.home / "count").exists()) == 1  # fmt: skip


def test_a_machine_that_took_an_old_address_is_a_new_one_once_the_old_is_given_up(shop: Shop) -> None:
    host = shop.lab.host("node")
    shop.documents(host)
    shop.attaches("node")
    host.new_machine()
    shutil.rmtree(host.home / ".dstack-hosts")
    host.restart()
    assert shop.apply(ok=False).code == 1
    assert "another machine answers" in shop.hosts()["node"]["reason"]
    shop.dstack("state", "forget", "node", "--confirm", "node")
    shop.attaches("node")


def test_a_person_who_pins_another_key_declares_another_machine(shop: Shop) -> None:
    host = shop.lab.host("node")
    shop.documents(host)
    shop.run_file("long", "[ $DSTACK_ATTEMPT = 2 ] || sleep 600", more=RETRY)
    shop.apply()
    shop.comes_to("long", "running")
    host.stop()  # before its folder goes: what runs there writes into it
    host.new_key()
    host.new_machine()
    host.new_boot()
    shutil.rmtree(host.home / ".dstack-hosts")
    host.start()
    assert shop.apply(ok=False).code == 1
    assert "quarantined" in shop.hosts()["node"]["flags"]
    shop.documents(host, pool=AT_ONCE)
    for _ in range(2):
        said = " ".join(shop.apply().said.split())
    assert "node: another key is pinned for 127.0.0.1:" in said
    assert "`dstack state forget node` gives the one before up" in said
    assert shop.runs()["long"]["status"] == "running", "what the old machine ran is not proven ended"
    shop.comes_to("long", "done", "--assume-lost", "long")
    # Nobody sits and waits for a machine that shows itself no more.
    assert shop.dstack("apply", "-y", "--allow-destroy", "lab").code == 0


def test_a_full_disk_loses_no_exit_code(shop: Shop) -> None:
    host = shop.lab.host("small", small="600k")
    shop.documents(host)
    shop.run_file("fill", "dd if=/dev/zero of=big bs=4k 2>/dev/null || echo full", "exit 7")
    shop.apply()
    shop.comes_to("fill", "failed")
    assert shop.runs()["fill"]["exit_code"] == 7


def test_a_host_that_another_project_has_is_refused_by_name_until_taken_over(shop: Shop) -> None:
    host = shop.lab.host("shared")
    theirs = Shop(shop.lab, Folder(shop.folder.root.parent / "theirs"), home="theirhome")
    theirs.folder.write(".dstack/pools.yml", document(shop.lab, host).replace("demo12345678", "theirs123456"))
    theirs.run_file("job", "sleep 600")
    theirs.apply()
    theirs.comes_to("job", "running")
    shop.documents(host)
    said = shop.apply(ok=False).said.replace("\n", " ")
    assert "project theirs123456 has it, attached as shared by" in said
    assert "last tick" in said
    refused = shop.dstack("pool", "add-ssh", "-y", "--host-key", host.key, "-p", str(host.port), host.address, ok=False)
    assert "--take-over takes it" in refused.said
    running = shop.dstack(
        "pool", "add-ssh", "-y", "--take-over", "--host-key", host.key, "-p", str(host.port), host.address, ok=False
    )
    assert "its 1 job would end: that is asked at a terminal" in running.said
    theirs.dstack("stop", "job", "-y")
    taken = shop.dstack("pool", "add-ssh", "-y", "--take-over", "--host-key", host.key, "-p", str(host.port),
                        host.address)  # fmt: skip
    assert "taken over from project theirs123456" in taken.said
    shop.attaches("shared")
    theirs.apply(ok=False)
    assert theirs.hosts()["shared"]["status"] != "busy"


def test_facts_are_read_again_at_every_apply(shop: Shop) -> None:
    host = shop.lab.host("gpus")
    give_gpus(host, count=4)
    host.program("uname", "#!/bin/sh\n[ $1 = -m ] && echo x86_64 || echo Linux 6.1.0-20\n")
    shop.documents(host)
    shop.attaches("gpus")
    assert "4xA100" in shop.hosts()["gpus"]["resources"]
    (host.root / "bin/APPS").write_text("GPU-00000003, 4312, 72704\n")
    host.program("uname", "#!/bin/sh\n[ $1 = -m ] && echo x86_64 || echo Linux 6.1.0-25\n")
    said = shop.apply().said.replace("\n      ", " ")
    assert "host gpus  given no work: gpu 3: pid 4312, 71 GB" in said
    assert "gpus: the kernel changed from Linux 6.1.0-20 to Linux 6.1.0-25" in said
    (host.root / "bin/APPS").write_text("")
    (host.root / "bin/GPUS").write_text("".join((host.root / "bin/GPUS").read_text().splitlines(keepends=True)[:3]))
    shop.apply()
    assert shop.hosts()["gpus"]["flags"] == ["degraded"]
    assert "missing GPU GPU-00000003" in shop.hosts()["gpus"]["reason"]
    (host.root / "bin/CUDA").write_text("11.0")
    assert "driver 550.54.14 has CUDA 11.0, 12.1 is the least" in shop.apply().said.replace("\n      ", " ")


def test_only_its_declaration_removes_a_host_and_one_that_fails_is_tried_later_and_later(shop: Shop) -> None:
    host, other = shop.lab.host("kept"), shop.lab.host("other")
    shop.documents(host, other)
    shop.attaches("kept", "other")
    refused = shop.dstack("pool", "remove", "kept", "-y", ok=False)
    assert refused.code == 1
    assert "kept is an SSH host of the configuration: take 127.0.0.1" in refused.said
    host.stop()
    until(lambda: bool(shop.apply()) and shop.hosts()["kept"]["next_look_at"])  # looks of one second are one
    found = shop.hosts()["kept"]
    assert (found["unreachable"], shop.hosts()["other"]["next_look_at"]) == (True, None)
    assert found["next_look_at"] > found["observed_at"]
    assert "3 looks failed, looked at again in " in found["reason"]
    host.start()
    shop.apply()
    assert shop.hosts()["kept"]["unreachable"], "cron lets it rest"
    shop.apply("--retry-hosts")
    assert (shop.hosts()["kept"]["status"], shop.hosts()["kept"]["unreachable"]) == ("idle", False)


def test_three_quick_failures_quarantine_a_host_until_a_person_trusts_it(shop: Shop) -> None:
    bad, good = shop.lab.host("bad"), shop.lab.host("good")
    shop.documents(bad, good)
    shop.attaches("bad", "good")
    for number in range(3):
        shop.run_file(f"job{number}", f"test {number} = 9", more="instance_name: bad")
        shop.comes_to(f"job{number}", "failed")
    found = shop.hosts()
    assert (found["bad"]["flags"], found["good"]["flags"]) == (["quarantined"], [])
    reason = found["bad"]["reason"]
    assert "3 jobs in a row failed within a minute each: " in reason
    assert all(f"job{number} (exit 1)" in reason for number in range(3))  # within one second, in no order
    shop.run_file("next", "hostname")
    shop.comes_to("next", "done")
    assert shop.dstack("logs", "next").out == "good\n"
    assert "bad is given work again" in shop.dstack("pool", "resume", "bad").out
    assert shop.hosts()["bad"]["flags"] == []
    shop.run_file("after", "hostname", more="instance_name: bad")
    shop.comes_to("after", "done")


def test_a_destroyed_project_lets_its_servers_go(shop: Shop) -> None:
    host = shop.lab.host("node")
    (host.home / "mine").write_text("kept")
    shop.documents(host)
    shop.run_file("long", "sleep 600")
    shop.apply()
    shop.comes_to("long", "running")
    shop.dstack("destroy", "--confirm", "demo")
    assert [path.name for path in host.home.iterdir()] == ["mine"]
    assert not [line for line in host.processes() if "sleep 600" in line]
