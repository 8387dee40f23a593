"""A cloud to try `dstack` in by hand: the double of AWS, with a real server for each instance that is launched.

    sudo .venv/bin/python tests/doubles/aws/cloud_by_hand.py FOLDER

FOLDER, new or empty, gets `env` (to be read by a shell: `. FOLDER/env`) and `project`, an empty folder to begin in; all
else that comes to be lies there too. While it runs, it takes words on its standard input; `help` lists them. `pass 2h`
moves the time of everybody: of EC2, of the machines, and of `dstack`. It ends with its input, and everything with it.
"""

from __future__ import annotations

import os
import re
import select
import shlex
import sys
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[3]))

from tests.doubles.aws.aws_double import KEY, Account, served
from tests.doubles.aws.cloud_hosts import why_not
from tests.doubles.aws.cloud_machines import Machines
from tests.doubles.hosts.ssh_hosts import a_lab

HELP = """\
pass 90s|5m|2h|3d        time passes for EC2, for every machine and for `dstack`
machines                 what lives, and where
interrupt [ID]           EC2 takes a spot instance away; without ID all of them
dead ID                  the machine is off, and EC2 does not say so
room TYPE N [CODE]       at most N of that type may live; CODE instead of InsufficientInstanceCapacity
fail ACTION CODE [N]     the next N calls of that action (default 1) are refused with that code of EC2's
spot TYPE PRICE          today's price of it: a lower bid is refused
calls                    how often each action was called since the last time
end                      so does a closed input
"""
DSTACK = """\
#!{python}
# The installed command, at the time that it is in this cloud.
import os, sys, time
ahead = int(open({clock!r}).read())
if not ahead:
    os.execv({dstack!r}, [{dstack!r}, *sys.argv[1:]])
here = time.time
time.time = lambda: here() + ahead
from reconciler.cli.main import main
main()
"""
LENGTHS = {"s": 1, "m": 60, "h": 3600, "d": 86400}


class Hand:
    """The words. The file `clock` says how many seconds `dstack` is ahead of this machine."""

    def __init__(self, machines: Machines, account: Account, clock: Path) -> None:
        self.machines, self.account, self.clock = machines, account, clock
        self.prices: dict[str, str] = {}

    def does(self, line: str) -> list[str]:
        """What is to be said of it."""
        word, *given = shlex.split(line) or [""]
        known: dict[str, Callable[..., list[str]]] = {
            "pass": self.passes, "machines": self.all, "interrupt": self.interrupts, "dead": self.dies,
            "room": self.room, "fail": self.fails, "spot": self.spot, "calls": self.calls,
        }  # fmt: skip
        if word not in known:
            return HELP.splitlines() if word else []
        try:
            return known[word](*given)
        except (TypeError, KeyError, ValueError) as error:
            return [f"{word}: {error}; `help`"]

    def passes(self, length: str) -> list[str]:
        found = re.fullmatch(r"(\d+)([smhd])", length)
        if not found:
            raise ValueError(f"{length} is no length of time")
        said = self.machines.pass_time(int(found[1]) * LENGTHS[found[2]])
        self.clock.write_text(str(self.machines.ahead))
        return said

    def all(self) -> list[str]:
        return [
            f"{one['id']}  {one['region']}  {one['type']}  {'spot' if one['spot'] else 'on-demand'}  "
            f"{one['tags'].get('Name', '-')}  {self.machines.hosts[one['id']].address}"
            for one in self.account.living("") if one["id"] in self.machines.hosts
        ]  # fmt: skip

    def interrupts(self, *ids: str) -> list[str]:
        spot = [one["id"] for one in self.account.living("") if one["spot"] and one["id"] in self.machines.hosts]
        return [self.machines.interrupt(id) for id in ids or spot]

    def dies(self, id: str) -> list[str]:
        self.machines.hosts[id].stop()
        return [f"{id}: off"]

    def room(self, kind: str, number: str, code: str = "") -> list[str]:
        self.account.room(kind, int(number), code=code)
        return []

    def fails(self, action: str, code: str, times: str = "1") -> list[str]:
        self.account.fault(action, code, times=int(times))
        return []

    def spot(self, kind: str, price: str) -> list[str]:
        self.prices[kind] = price
        self.account.set(spot=self.prices)
        return []

    def calls(self) -> list[str]:
        found = self.account.calls()
        self.account.clear()
        return [f"{number:5}  {region}  {action}" for (region, action), number in sorted(found.items())]


def environment(folder: Path, account: Account) -> dict[str, str]:
    """Without keys: to bring those is the first thing that a person does."""
    given = {name: value for name, value in account.environ.items() if "KEY" not in name and "REGION" not in name}
    return {
        **given, "HOME": str(folder / "home"), "AWS_SHARED_CREDENTIALS_FILE": str(folder / "home/.aws/credentials"),
        "AWS_CONFIG_FILE": str(folder / "home/.aws/config"), "DSTACK_CATALOG_URL": "off",
        "DSTACK_ADDRESS": "203.0.113.7", "PATH": f"{folder / 'bin'}:{os.environ['PATH']}",
    }  # fmt: skip


def prepared(folder: Path, account: Account) -> Path:
    """What a person needs; the clock's file."""
    for name in ("home/.aws", "project", "bin"):
        (folder / name).mkdir(parents=True)
    clock, command = folder / "clock", folder / "bin/dstack"
    clock.write_text("0")
    installed = str(Path(sys.executable).with_name("dstack"))
    command.write_text(DSTACK.format(python=sys.executable, clock=str(clock), dstack=installed))
    command.chmod(0o755)
    lines = [f"export {name}={shlex.quote(value)}" for name, value in environment(folder, account).items()]
    (folder / "env").write_text("\n".join((*lines, f"cd {shlex.quote(str(folder / 'project'))}", "")))
    return clock


def main() -> int:
    if len(sys.argv) != 2 or sys.argv[1].startswith("-"):
        print(__doc__.strip())
        return 0
    folder = Path(sys.argv[1]).resolve()
    if why := why_not() or ("" if not folder.exists() or not any(folder.iterdir()) else f"{folder} is not empty"):
        print(why, file=sys.stderr)
        return 1
    with ExitStack() as opened:
        account = opened.enter_context(served(folder / "double")).account()
        machines = Machines(opened.enter_context(a_lab(folder / "lab")), account)
        opened.callback(machines.close)
        clock = prepared(folder, account)
        print(f"in another shell: . {folder}/env")
        print(f"keys: {KEY}{account.number}, and whatever you like as its secret", flush=True)
        _attend(Hand(machines, account, clock))
    return 0


def _attend(hand: Hand) -> None:
    while True:
        ready, _, _ = select.select([sys.stdin], [], [], 0.3)
        said = hand.machines.attend()
        if ready:
            line = sys.stdin.readline()
            if not line or line.strip() == "end":
                return
            said += hand.does(line)
        for each in said:
            print(each, flush=True)


if __name__ == "__main__":
    sys.exit(main())
