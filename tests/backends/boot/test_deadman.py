"""The dead-man's program itself, under sh, on a machine whose uptime, boots and processes are files."""

from __future__ import annotations

import configparser
import os
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

from backends.boot.cloud_init import render
from backends.boot.spec import BASE
from reconciler.hosts.boot_keys import boot_of
from tests.backends.boot.test_boot import KEY, REQUEST

PROGRAM = Path(__file__).parents[3] / "backends/boot/deadman.sh"
HOUR, DAY = 3600, 86400
FIRST, GRACE = 600, 900


@dataclass
class Machine:
    """`sh` asks the same program that machines have; what powers off touches a file instead."""

    root: Path
    sh: str = "sh"
    boot: str = "boot-1"
    up: int = 0
    pids: int = 100

    def make(self) -> None:
        for folder in ("base", "host/jobs", "proc/sys/kernel/random"):
            (self.root / folder).mkdir(parents=True)
        (self.root / "base/conf").write_text(f"first {FIRST}\ngrace {GRACE}\nhost {self.root}/host\n")
        (self.root / "base/memory").write_text(" " * 511 + "\n")
        (self.root / "base/poweroff").write_text(f"echo $1 >> {self.root}/off\n")
        for name in ("lease", "cleaned"):
            (self.root / "host" / name).write_text(" " * 255 + "\n")

    def _ask(self, verb: str, **settings: str) -> str:
        (self.root / "proc/uptime").write_text(f"{self.up}.37 99.00\n")
        (self.root / "proc/sys/kernel/random/boot_id").write_text(f"{self.boot}\n")
        done = subprocess.run(
            [self.sh, str(PROGRAM), verb, str(self.root / "base"), str(self.root / "proc")],
            capture_output=True,
            text=True,
            timeout=5,
            check=True,
            env={"PATH": "/usr/bin:/bin", **settings},
        )
        assert "deadman.sh" not in done.stderr, done.stderr
        return done.stdout.strip()

    def left(self) -> int | None:
        told = self._ask("tell")
        return None if told == "-" else int(told)

    def check(self, up: int | None = None) -> bool:
        """A minute's check; true where it powers off."""
        self.up = self.up if up is None else up
        (self.root / "off").unlink(missing_ok=True)
        self._ask("check")
        return (self.root / "off").exists()

    def reboot(self, up: int = 10) -> None:
        self.boot, self.up = f"boot-{int(self.boot[5:]) + 1}", up

    def tick(
        self, rule: str, span: int | str, *, idle_for: int = 0, hold: int = DAY, lifetime: int | str = "-"
    ) -> None:
        text = f"{self.boot} {self.up} {rule} {span} {idle_for} {hold} {lifetime}"
        (self.root / "host/lease").write_text(f"{text:<255}\n")

    def job(self, name: str = "j", *, max_duration: int = 0, hold_back: int = 0, begun: bool = True) -> Path:
        folder = self.root / "host/jobs" / name
        folder.mkdir()
        self.pids += 1
        born = self.up * 100
        (folder / "pid").write_text(f"{self.pids} {born} {self.boot}\n")
        (folder / "order").write_text(f"max_duration={max_duration}\nhold_back={hold_back}\n")
        (self.root / f"proc/{self.pids}").mkdir()
        between = " ".join(["0"] * 18)
        (self.root / f"proc/{self.pids}/stat").write_text(f"{self.pids} (sh x) S {between} {born} 0 0\n")
        if begun:
            self.begin(name)
        return folder

    def begin(self, name: str) -> None:
        (self.root / "host/jobs" / name / "started").write_text(f"1790000000 {self.up}\n")

    def end(self, name: str = "j") -> None:
        (self.root / "host/jobs" / name / "end").write_text("ended 0 exit 1790000000 1790000000 0\n")

    def clean(self, name: str = "j") -> None:
        for file in (self.root / "host/jobs" / name).iterdir():
            file.unlink()
        (self.root / "host/jobs" / name).rmdir()
        (self.root / "host/cleaned").write_text(f"{f'{self.boot} {self.up}':<255}\n")


@pytest.fixture(params=["dash", "bash"])
def machine(request: pytest.FixtureRequest, tmp_path: Path) -> Machine:
    made = Machine(tmp_path, sh=request.param)
    made.make()
    return made


def test_nobody_ever_comes(machine: Machine) -> None:
    assert not machine.check(60)
    assert machine.left() == FIRST + GRACE - 60
    assert not machine.check(FIRST + GRACE - 1)
    assert machine.check(FIRST + GRACE)


def test_reboots_renew_nothing(machine: Machine) -> None:
    machine.check(1400)
    machine.reboot()
    assert not machine.check(60)
    machine.reboot()
    assert machine.check(60)


class Timer:
    """Plays the timer of the user data: what its unit says of when, and the command of its service."""

    def __init__(self) -> None:
        self.units = {}
        text = render(boot_of(KEY, REQUEST.launch), request=REQUEST)
        for name in ("service", "timer"):
            unit = configparser.ConfigParser(strict=False, interpolation=None)
            unit.optionxform = str  # type: ignore[assignment, method-assign]
            path = f"/etc/systemd/system/dstack-deadman.{name}"
            unit.read_string(text.partition(f"put {path} << 'END-OF-DSTACK'\n")[2].partition("END-OF-DSTACK\n")[0])
            self.units[name] = unit
        self.command = self.units["service"]["Service"]["ExecStart"]
        self.program = text.partition(f"put {BASE}/deadman.sh << 'END-OF-DSTACK'\n")[2].partition("END-OF-DSTACK\n")[0]

    def fires(self, lasts: int) -> list[int]:
        """At which seconds of a boot that lasts so long, the latest that its accuracy allows."""
        said = self.units["timer"]["Timer"]
        first, every, late = (SPANS[said[key]] for key in ("OnActiveSec", "OnUnitActiveSec", "AccuracySec"))
        return list(range(first + late, lasts, every + late))


SPANS = {"5s": 5, "1min": 60}


def test_the_timer_runs_the_very_program_that_is_tested_here() -> None:
    timer = Timer()
    assert timer.program == PROGRAM.read_text()
    assert timer.command == f"/bin/sh {BASE}/deadman.sh check {BASE}"
    assert timer.units["service"]["Service"]["Type"] == "oneshot"  # one that runs for long is not begun twice
    assert timer.units["timer"]["Install"]["WantedBy"] == "timers.target"
    assert "ConditionPathExists" not in str(timer.units["timer"].items("Unit"))


@pytest.mark.parametrize("lasts", [12, 59, 200])
def test_a_machine_that_reboots_again_and_again_ends_one_day(machine: Machine, lasts: int) -> None:
    """The first check came after a minute: whoever restarted within that had a machine that lived for ever."""
    (machine.root / "base/conf").write_text(f"first 60\ngrace 90\nhost {machine.root}/host\n")
    timer, boots = Timer(), 0
    while not any(machine.check(up) for up in timer.fires(lasts)):
        machine.reboot(0)
        boots += 1
        assert boots * 10 <= 60 + 90, "a boot is forgotten"
    assert boots * lasts >= 60 + 90 - lasts


def test_idle_after_its_first_contact(machine: Machine) -> None:
    machine.up = 120
    machine.tick("idle", 300)
    assert machine.left() == 300 + GRACE
    assert not machine.check(120 + 300 + GRACE - 1)
    assert machine.check(120 + 300 + GRACE)


def test_a_tick_that_finds_it_idle_does_not_begin_its_idle_time_anew(machine: Machine) -> None:
    machine.up = 1000
    machine.tick("idle", DAY, idle_for=500)
    assert machine.left() == DAY - 500 + GRACE


def test_who_ticks_has_the_grace_at_least(machine: Machine) -> None:
    """It keeps the machine for a reason of its own: nobody is cut off between two ticks."""
    machine.up = 5000
    machine.tick("idle", 300, idle_for=4000)
    assert machine.left() == GRACE


def test_unattended_counts_from_the_last_tick(machine: Machine) -> None:
    machine.up = HOUR
    machine.tick("unattended", 3 * DAY)
    machine.check(2 * DAY)
    assert machine.left() == DAY + HOUR
    machine.tick("unattended", 3 * DAY)
    assert machine.left() == 3 * DAY
    assert machine.check(5 * DAY)


def test_unattended_off_is_never(machine: Machine) -> None:
    machine.tick("unattended", "-")
    assert machine.left() is None
    assert not machine.check(1000 * DAY)


def test_unattended_off_ends_with_its_lifetime(machine: Machine) -> None:
    machine.tick("unattended", "-", lifetime=10 * DAY)
    assert not machine.check(10 * DAY + GRACE - 1)
    assert machine.check(10 * DAY + GRACE)


def test_a_running_job_keeps_it_for_its_max_duration(machine: Machine) -> None:
    machine.up = 100
    machine.tick("idle", 300)
    machine.up = 400
    machine.job(max_duration=2 * HOUR)
    assert not machine.check(400 + 2 * HOUR + GRACE - 1)
    assert machine.check(400 + 2 * HOUR + GRACE)


def test_a_job_without_a_limit_keeps_it(machine: Machine) -> None:
    machine.tick("idle", 300)
    machine.job()
    assert machine.left() is None
    assert not machine.check(100 * DAY)


def test_a_job_without_a_limit_ends_with_its_machines_lifetime(machine: Machine) -> None:
    machine.tick("idle", 300, lifetime=2 * DAY)
    machine.job()
    assert not machine.check(2 * DAY)
    assert machine.check(2 * DAY + GRACE)


def test_pulling_an_image_is_not_counted_for_an_hour(machine: Machine) -> None:
    machine.tick("idle", 300)
    machine.job(max_duration=HOUR, begun=False)
    machine.check(3000)
    assert machine.left() == HOUR + GRACE
    machine.begin("j")
    assert not machine.check(3000 + HOUR + GRACE - 1)
    assert machine.check(3000 + HOUR + GRACE)


def test_one_that_pulls_for_ever_does_not_keep_it_for_ever(machine: Machine) -> None:
    machine.tick("idle", 300)
    machine.job(max_duration=HOUR, hold_back=600, begun=False)
    assert not machine.check(HOUR + 600 + HOUR + GRACE - 1)
    assert machine.check(HOUR + 600 + HOUR + GRACE)


def test_a_result_holds_it_until_it_is_collected(machine: Machine) -> None:
    machine.tick("idle", 300, hold=DAY)
    machine.job(max_duration=HOUR)
    machine.check(1800)
    machine.end()
    assert not machine.check(1800 + DAY - 1)
    assert machine.check(1800 + DAY)


def test_a_result_waits_for_as_long_as_its_own_run_says(machine: Machine) -> None:
    machine.tick("idle", 300, hold=DAY)
    folder = machine.job(max_duration=HOUR)
    (folder / "kept_for").write_text(f"{3 * DAY}\n")
    machine.end()
    assert not machine.check(60)
    assert machine.left() == 3 * DAY - 60
    (folder / "kept_for").write_text("garbage\n")
    assert machine.left() == DAY - 60


def test_a_result_that_was_collected_holds_no_more(machine: Machine) -> None:
    machine.tick("idle", 300, hold=DAY)
    machine.job(max_duration=HOUR)
    machine.check(1800)
    machine.end()
    machine.up = 2 * HOUR
    machine.clean()
    assert machine.left() == 300 + GRACE


def test_idle_counts_from_a_job_that_no_check_ever_saw(machine: Machine) -> None:
    machine.tick("idle", 3 * DAY)
    machine.check(2 * DAY)
    machine.job(max_duration=HOUR)
    machine.end()
    machine.up += 30
    machine.clean()
    assert machine.left() == 3 * DAY + GRACE


def test_the_longest_of_several_jobs_counts(machine: Machine) -> None:
    machine.tick("idle", 300)
    machine.job("a", max_duration=HOUR)
    machine.job("b", max_duration=5 * HOUR)
    assert machine.left() == 5 * HOUR + GRACE


def test_a_reboot_ends_its_jobs_and_holds_what_they_left(machine: Machine) -> None:
    machine.tick("idle", 300, hold=2 * HOUR)
    machine.job()
    machine.check(DAY)
    machine.reboot()
    assert machine.left() == 2 * HOUR - 10
    assert not machine.check(2 * HOUR - 70)
    assert machine.check(2 * HOUR)


def test_a_supervisor_that_was_killed_is_no_running_job(machine: Machine) -> None:
    machine.tick("idle", 300, hold=2 * HOUR)
    machine.job()
    machine.check(600)
    (machine.root / f"proc/{machine.pids}/stat").unlink()
    assert machine.left() == 2 * HOUR


def test_a_reused_pid_is_no_running_job(machine: Machine) -> None:
    machine.tick("idle", 300, hold=2 * HOUR)
    machine.job()
    stat = machine.root / f"proc/{machine.pids}/stat"
    stat.write_text(stat.read_text().replace(" 0 0\n", "7 0 0\n"))
    assert machine.left() == 2 * HOUR


def test_the_lease_of_an_earlier_boot_counts(machine: Machine) -> None:
    machine.up = HOUR
    machine.tick("unattended", 3 * DAY)
    machine.check(2 * HOUR)
    for _ in range(6):  # more boots than it remembers
        machine.reboot(100)
        machine.check()
    assert machine.left() == 3 * DAY - HOUR - 600


def test_another_clock_changes_nothing(machine: Machine, tmp_path: Path) -> None:
    """Nothing of it asks for the date; this would notice."""
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/date").write_text("#!/bin/sh\ntouch " + str(tmp_path / "asked"))
    (tmp_path / "bin/date").chmod(0o755)
    machine.tick("idle", 300)
    machine.job(max_duration=60)
    machine._ask("check", PATH=f"{tmp_path}/bin:/usr/bin:/bin")
    assert not (tmp_path / "asked").exists()


@pytest.mark.parametrize("text", ["", "garbage", "now x y\nboot - -\nbusy -1\ntries x", "\0" * 511])
def test_a_memory_that_cannot_be_read_is_one_that_begins(machine: Machine, text: str) -> None:
    machine.up = 1000
    (machine.root / "base/memory").write_text(text)
    assert machine.left() == FIRST + GRACE - 1000
    assert machine.check(FIRST + GRACE)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "x",
        "boot-1 5 idle",
        "boot-1 5 idle x y z w",
        "boot-1 y unattended 60 0 0 -",
        "boot-1 08 idle 08 09 08 08",
        "boot-1 5 unattended 99999999999999999999 0 0 -",
    ],
)
def test_whatever_the_lease_says_it_ends_one_day(machine: Machine, text: str) -> None:
    (machine.root / "host/lease").write_text(text + "\n")
    assert machine.left() is not None
    assert machine.check(10 * DAY)


def test_it_insists(machine: Machine) -> None:
    told = []
    for minute in range(4):
        assert machine.check(5000 + 60 * minute)
        told.append((machine.root / "off").read_text().strip())
    assert told == ["1", "2", "3", "4"]


def test_without_its_host_folder_it_is_as_if_nobody_came(machine: Machine) -> None:
    """The machine booted, and making the login failed."""
    (machine.root / "base/conf").write_text(f"first {FIRST}\ngrace {GRACE}\n")
    machine.tick("unattended", 3 * DAY)
    assert machine.check(FIRST + GRACE)


HOSTILE = {
    "fifo": lambda path: os.mkfifo(path),
    "endless": lambda path: path.symlink_to("/dev/zero"),
    "folder": lambda path: path.mkdir(),
    "dangling": lambda path: path.symlink_to("/nowhere/at/all"),
    "huge": lambda path: path.write_bytes(b"x" * 3_000_000),
}


@pytest.mark.parametrize("kind", [kind for kind in HOSTILE if kind != "huge"])
@pytest.mark.parametrize("name", ["memory", "conf"])
def test_whatever_root_puts_in_the_place_of_its_own_files_it_ends_one_day(
    machine: Machine, name: str, kind: str
) -> None:
    """Its age begins anew, and what it has is what it was born with."""
    machine.tick("idle", 300)
    path = machine.root / "base" / name
    path.unlink()
    HOSTILE[kind](path)
    assert machine.left() is not None
    machine.up = 3 * DAY
    assert machine.check()


@pytest.mark.parametrize("kind", HOSTILE)
@pytest.mark.parametrize("name", ["lease", "cleaned", "jobs/j/pid", "jobs/j/started", "jobs/j/order"])
def test_whatever_a_job_puts_in_the_way_it_ends_one_day(machine: Machine, name: str, kind: str) -> None:
    """A job is the same login: it may put anything there, and what cannot be read must not be waited for."""
    machine.tick("idle", 300)
    if name.startswith("jobs"):
        machine.job(max_duration=60)
    path = machine.root / "host" / name
    path.unlink(missing_ok=True)
    HOSTILE[kind](path)
    assert (machine.left() is None) == name.endswith("order")  # as long as that job runs, it has no limit
    if name.startswith("jobs"):
        machine.end()
    assert machine.check(10 * DAY)
