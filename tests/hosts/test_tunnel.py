"""A program as a connection: when the line is over, nothing of it goes on."""

from __future__ import annotations

import shlex

import pytest

from reconciler.hosts.ssh.proxy_command import Tunnel, open_tunnel, proxied
from tests.doubles.hosts.real_host import alive, until

BEGUN = "sleep 1000 >/dev/null 2>&1 & echo $!"  # as `aws` begins its plugin
GOES_ON = {"it waits for us": "exec cat", "it hears nothing": "exec sleep 1000", "it has ended by itself": "exit 3"}


def opened(kind: str, program: str) -> Tunnel:
    if kind == "vendor":
        return open_tunnel(["sh", "-c", program], needs=[("sh", "install it")])
    return proxied(f"sh -c {shlex.quote(program)}")


@pytest.mark.parametrize(
    ("kind", "what"),
    [("vendor", "it waits for us"), ("vendor", "it hears nothing"), ("user", "it has ended by itself")],
)
def test_what_it_began_ends_with_the_line(kind: str, what: str) -> None:
    goes_on = GOES_ON[what]
    tunnel = opened(kind, f"echo 'no way' >&2; {BEGUN}; {goes_on}")
    with tunnel.makefile() as lines:
        child = int(lines.readline())
        assert alive(child)
        if goes_on == "exit 3":
            assert lines.readline() == ""
    code, said = tunnel.came_to()
    until(lambda: not alive(child))
    assert said == "no way"
    assert code in {"exit 3": (3,), "exec cat": (0, None)}.get(goes_on, (None,))
