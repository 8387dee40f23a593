"""The machines of an account of the double: for each instance a real server, booted with the user data that it got.

`attend` does what EC2 does behind its interfaces: what was launched boots and answers at its address, what ended is
off. `pass_time` moves the time of EC2 and of every machine, whose timers fire as they would: what powers itself off is
ended.
"""

from __future__ import annotations

import base64
from dataclasses import dataclass, field

from tests.doubles.aws.aws_double import Account
from tests.doubles.aws.cloud_hosts import CloudHost, cloud_host
from tests.doubles.hosts.ssh_hosts import Lab

CHECKS = 8  # at most so many looks of a timer at one passing of time: a real one looks every minute


@dataclass
class Machines:
    """`hosts`: instance id -> its server. Set up before anything is launched."""

    lab: Lab
    account: Account
    hosts: dict[str, CloudHost] = field(default_factory=dict)
    made: int = 0
    ahead: int = 0

    def __post_init__(self) -> None:
        self.account.set(hosts=True)

    def attend(self) -> list[str]:
        """What happened, a line each."""
        living = {one["id"]: one["region"] for one in self.account.living("")}
        gone = [self._off(id, "ended by EC2") for id in [*self.hosts] if id not in living]
        return gone + [self._boot(id, region) for id, region in living.items() if id not in self.hosts]

    def pass_time(self, seconds: int) -> list[str]:
        """What their timers did meanwhile."""
        said: list[str] = []
        steps = max(1, min(CHECKS, seconds // 60))
        for number in range(steps):
            step = seconds // steps + (seconds % steps if number == 0 else 0)
            self.ahead += step
            self.account.set(ahead=self.ahead)
            for host in self.hosts.values():
                host.pass_time(step)
            said += self.fire()
        return said

    def fire(self) -> list[str]:
        """A minute's look of every timer: what it powers off is off, as EC2 has it for machines of ours."""
        due = [id for id, host in self.hosts.items() if host.check()]
        for id in due:
            self.account.power_off(id)
        return [self._off(id, "powered itself off") for id in due]

    def interrupt(self, id: str) -> str:
        """EC2 takes a spot instance away."""
        self.account.interrupt(id)
        return self._off(id, "taken away by EC2")

    def close(self) -> None:
        for id in [*self.hosts]:
            self._off(id, "")

    def _boot(self, id: str, region: str) -> str:
        asked = self.account.client(region=region).describe_instance_attribute(InstanceId=id, Attribute="userData")
        text = base64.b64decode(asked["UserData"]["Value"]).decode()
        self.made += 1
        host = self.hosts[id] = cloud_host(self.lab, f"c{self.made}", user_data=text)
        self.account.address(id, host.address)
        return f"{id}: booted, at {host.address}"

    def _off(self, id: str, why: str) -> str:
        self.hosts.pop(id).stop()
        return f"{id}: {why}"
