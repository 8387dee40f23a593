"""Many real SSH servers on loopback: attaching and looking at all of them, beside a plain parallel `ssh` loop.

`python -m bench.ssh [--hosts N]` prints JSON; needs root, OpenSSH's server and the tests' folder, and measures
nothing where they are not there.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
DSTACK = [sys.executable, "-m", "reconciler.cli.main"]
HOSTS = 100


def why_not() -> str:
    """Why it cannot be measured here; "" where it can."""
    return str(_lab().why_not())


def rows(hosts: int = HOSTS) -> list[dict[str, float]]:
    """One: `hosts`, wall seconds of the `plain` loop (median of 3, taken in between), of the first `dstack apply`
    (`attach`) and of another one (`status`); CPU seconds a host of a status pass on open connections (`warm`).
    """
    tools = _lab()
    with tempfile.TemporaryDirectory(prefix="dstack-bench-") as scratch, tools.a_lab(Path(scratch, "lab")) as lab:
        servers = [lab.host(f"n{number}") for number in range(hosts)]
        project = Path(scratch, "project")
        (project / ".dstack").mkdir(parents=True)
        (project.parent / "home").mkdir()
        (project / ".dstack/pools.yml").write_text(tools.document(lab, *servers))
        plain = [_plain(lab, servers)]
        attach = _seconds(lambda: _apply(project))
        plain.append(_plain(lab, servers))
        status = _seconds(lambda: _apply(project))
        plain.append(_plain(lab, servers))
        warm = _warm(lab, [tools.declared(server) for server in servers])
    row = {"hosts": hosts, "plain": statistics.median(plain), "attach": attach, "status": status, "warm": warm}
    return [row]


def _lab() -> Any:
    """The servers of the tests."""
    sys.path.insert(0, str(ROOT))
    from tests.doubles.hosts import ssh_hosts

    return ssh_hosts


def _seconds(work: Callable[[], object]) -> float:
    began = time.monotonic()
    work()
    return time.monotonic() - began


def _apply(project: Path) -> None:
    env = {**os.environ, "PYTHONPATH": str(ROOT), "HOME": str(project.parent / "home")}
    done = subprocess.run(
        [*DSTACK, "apply", "-y"], cwd=project, env=env, capture_output=True, text=True, check=False, timeout=600
    )
    if done.returncode:
        raise SystemExit(f"dstack apply: exit {done.returncode}\n{done.stdout}{done.stderr}")


def _plain(lab: Any, servers: Sequence[Any]) -> float:
    """Wall seconds of one `ssh HOST true` each, all at once."""
    trust = ["-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null", "-o", "LogLevel=ERROR"]
    began = time.monotonic()
    children = [
        subprocess.Popen(
            ["ssh", "-F", "/dev/null", "-i", str(lab.key), *trust, "-p", str(one.port), f"ann@{one.address}", "true"],
            stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )
        for one in servers
    ]  # fmt: skip
    failed = sum(child.wait() != 0 for child in children)
    assert not failed, f"{failed} of {len(children)} plain logins failed"
    return time.monotonic() - began


def _warm(lab: Any, hosts: Sequence[Any]) -> float:
    """CPU seconds a host of a second look at each, as the runner looks."""
    from reconciler.hosts.shell_runner import HostRunner
    from reconciler.hosts.ssh.config import Here
    from reconciler.hosts.ssh.connections import Lines
    from reconciler.hosts.ssh.declared_hosts import SshReach
    from schemas.instance import Instance
    from schemas.resources import Resources

    reach = SshReach(lambda: Lines(Here(root=lab.root, home=lab.root)), who="bench")
    runner = HostRunner(lambda one: reach.transport(one.host, folder=f"{one.host.folder}/host") if one.host else None)
    instances = [
        Instance(id=host.name, name=host.name, pool="lab", backend="ssh", place=host.place, host=host,
                 resources=Resources(cpus=1, memory=1))
        for host in hosts
    ]  # fmt: skip

    def look(instance: Instance) -> None:
        report = runner.look(instance, now=0)
        assert not report.error, report.error

    with ThreadPoolExecutor(64) as pool:
        list(pool.map(look, instances))
        began = time.process_time()
        list(pool.map(look, instances))
        used = time.process_time() - began
    reach.lines.close()
    return used / len(hosts)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--hosts", type=int, default=HOSTS)
    hosts = parser.parse_args().hosts
    reason = why_not()
    if reason:
        print(f"SSH servers are not measured: {reason}", file=sys.stderr)
    print(json.dumps([] if reason else rows(hosts)))


if __name__ == "__main__":
    main()
