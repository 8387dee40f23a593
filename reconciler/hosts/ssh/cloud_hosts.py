"""Connect to cloud instances by address or through their cloud's tunnel, with pinned host keys.

Its first contact is with the host key that its launch gave it, which whoever may read user data knows. That one is
replaced by one made on the machine, at once, and the new one is pinned. Killed at any point in between, or met by
another reconciler meanwhile, the machine shows one of two keys: the derived one, and all of it is done again; or one
that it carries an endorsement of, which only a holder of the project's key can have made.
"""

from __future__ import annotations

import hmac
import shlex
import threading
from collections.abc import Callable
from functools import cached_property
from importlib.resources import files
from typing import TYPE_CHECKING

from backends.boot.container import ROOT
from backends.boot.spec import LOGIN
from backends.errors import BackendError
from reconciler.hosts.runner import Unreachable, Untrusted
from reconciler.hosts.ssh.config import Hop
from schemas.access import Access, Way
from schemas.instance import Instance

if TYPE_CHECKING:
    from reconciler.hosts.boot_keys import KeyPair
    from reconciler.hosts.ssh.connections import Line, Lines
    from reconciler.secrets.project_key import ProjectKey

ENDORSED = "cat /etc/ssh/dstack_host_key.endorsed"
ROTATE = 60.0  # seconds: a small machine that has just booted makes its first key


Accessing = Callable[[Way, Instance], Access]


class CloudReach:
    """`key` is the project's; `access` names a backend's own program that leads to an instance. Thread-safe."""

    def __init__(
        self, lines: Callable[[], Lines], *, key: Callable[[], ProjectKey], access: Accessing | None = None
    ) -> None:
        self._make_lines, self._make_key, self._access = lines, key, access or _registered
        self._lock = threading.Lock()
        self._meeting: dict[str, threading.Lock] = {}
        self._met: dict[str, str] = {}

    def line(self, instance: Instance) -> Line:
        """Open, to its pinned key. Raises `Unreachable`, or `Untrusted` for a machine that is not, or no more, ours."""
        with self._lock:
            meeting = self._meeting.setdefault(instance.id, threading.Lock())
        with meeting:
            pin = instance.host_key or self._met.get(instance.id, "") or self._meet(instance)
            self._met[instance.id] = pin
        return self._to(instance, pin)

    def program(self, instance: Instance) -> Access | None:
        """The backend's program that leads there; `None` where its address is dialled."""
        if instance.way.mode != "program":
            return None
        try:
            return self._access(instance.way, instance)
        except BackendError as error:
            raise Unreachable(f"not visible from here: {error}", ours=True) from error

    def pin_of(self, instance: Instance) -> str:
        """What it has shown to this process, and is pinned to; "" before."""
        return self._met.get(instance.id, "")

    @cached_property
    def _key(self) -> ProjectKey:
        from reconciler.secrets.project_key import KeyRefused

        try:
            return self._make_key()
        except KeyRefused as error:
            raise Unreachable(f"not visible from here: {error}", ours=True) from error

    @cached_property
    def _login(self) -> KeyPair:
        from reconciler.hosts.boot_keys import login_of

        return login_of(self._key)

    def _to(self, instance: Instance, pin: str) -> Line:
        return self._make_lines().through(self._hops(instance, pin))

    def _hops(self, instance: Instance, pin: str) -> tuple[Hop, ...]:
        way = instance.way
        program = self.program(instance)
        hostname, port = host_and_port(instance.address or instance.external_id)
        last = Hop(
            name="",
            hostname=hostname,
            port=port,
            user=instance.user or (ROOT if instance.resources.runtime == "image" else LOGIN),
            identities=(),
            key=pin,
            login=self._login.private,
            tunnel=program.argv if program else (),
            needs=program.needs if program else (),
            environment=program.environment if program else (),
        )
        return (*self._make_lines().jump(way.jump), last) if way.jump else (last,)

    # ------------------------------------------------------------ the first contact

    def _meet(self, instance: Instance) -> str:
        """Its pin from now on."""
        from reconciler.hosts.boot_keys import host_key_of

        if not instance.launch:
            raise Untrusted("host key: no launch of ours made this machine, and none is pinned: it is not used")
        derived = host_key_of(self._key, instance.launch).public
        try:
            line = self._to(instance, derived)
        except Untrusted as error:
            if error.shown and self._endorsed(instance, error.shown):
                return error.shown
            raise
        new = _rotated(line, "make", derived)
        _rotated(line, "take", derived, new, self._endorsement(instance, new))
        line.transport.close()
        return new

    def _endorsed(self, instance: Instance, shown: str) -> bool:
        """Whether a holder of the project's key vouches for it. Until that is known nothing of ours goes there."""
        from reconciler.hosts.transport.ssh import SshTransport

        try:
            line = self._to(instance, shown)
            try:
                answer = SshTransport(lambda: line, folder="").run(ENDORSED, timeout=20.0, most=4096)
            finally:
                line.transport.close()
        except Unreachable as error:
            if error.ours:  # another project's key than this one may be all that is wrong
                raise
            return False
        expected = f"{shown} {self._endorsement(instance, shown)}"
        return hmac.compare_digest(answer.out.decode("utf-8", "replace").strip().encode(), expected.encode())

    def _endorsement(self, instance: Instance, host_key: str) -> str:
        from reconciler.hosts.boot_keys import endorsement

        return endorsement(self._key, launch=instance.launch, instance=instance.id, host_key=host_key)


def host_and_port(address: str) -> tuple[str, int]:
    """`HOST:PORT`, as of a container whose port 22 is another one outside; port 22 where none is said."""
    host, _, port = address.rpartition(":")
    if not host or not port.isdigit() or (":" in host and not host.startswith("[")):
        return address, 22
    return host.strip("[]"), int(port)


def _registered(way: Way, instance: Instance) -> Access:
    from backends.registry import access

    return access(way, instance)


def _rotated(line: Line, *args: str) -> str:
    from reconciler.hosts.transport.ssh import SshTransport

    program = shlex.quote(files("reconciler.hosts.programs").joinpath("rotate.sh").read_text("utf-8"))
    root = f'if [ "$(id -u)" = 0 ]; then exec sh -c {program} sh "$@"; else exec sudo -n sh -c {program} sh "$@"; fi'
    answer = SshTransport(lambda: line, folder="").run(root, args=args, timeout=ROTATE, most=4096)
    said = answer.out.decode("ascii", "replace").strip()
    if answer.code or (args[0] == "make" and not said.startswith("ssh-ed25519 ")):
        raise Unreachable(f"its host key could not be replaced: {answer.err[-200:] or said[:80] or answer.code}")
    return said
